"""Labelled texts: every kind of file, what is refused, and splits that no text crosses."""

import gzip
import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.data.labelled_texts import (
    LabelledTexts,
    balance,
    check_classes,
    deduplicate,
    label_table,
    labelled_dataset,
    read_labelled,
    split_key,
    split_rows,
)

ROWS = [("spam", 'win, "now"'), ("ham", "see you"), ("spam", "call 0906")]


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'label,text\nspam,"win, ""now"""\nham,see you\nspam,call 0906\n'),
        ("a.json", json.dumps([{"label": label, "text": text} for label, text in ROWS])),
        ("a.tsv", 'label\ttext\nspam\twin, "now"\nham\tsee you\nspam\tcall 0906\n'),
        ("a.jsonl", "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in ROWS)),
        ("a.csv.gz", '\ufefflabel,text\r\nspam,"win, ""now"""\r\nham,see you\r\n\r\nspam,call 0906\r\n'),
    ],
)
def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path, name: str, content: str) -> None:
    data = read_labelled(write(tmp_path, name, content))
    assert data.names == ["ham", "spam"]
    assert [(data.names[label], text) for label, text in zip(data.labels, data.texts, strict=True)] == ROWS


def test_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    DatasetDict(train=data).save_to_disk(tmp_path / "saved")
    assert read_labelled(tmp_path / "saved") == LabelledTexts(["a", "b"], [1, 0], ["no", "yes"])
    data.to_parquet(tmp_path / "a.parquet")
    assert read_labelled(tmp_path / "a.parquet") == LabelledTexts(["a", "b"], [1, 0], ["0", "1"])
    with pytest.raises(ValueError, match=r"no split 'test'; it has \['train'\]"):
        read_labelled(tmp_path / "saved", "test")


def test_white_space_around_a_label_and_whole_numbers_with_a_point_mean_nothing(tmp_path: Path) -> None:
    assert read_labelled(write(tmp_path, "a.csv", "text,label\nx, spam\ny,spam \nz,ham\n")).names == ["ham", "spam"]
    rows = [{"text": "x", "label": 1.0}, {"text": "y", "label": 0}]
    assert read_labelled(write(tmp_path, "a.json", json.dumps(rows))).names == ["0", "1"]
    with pytest.raises(ValueError, match="row 1: no label in column 'label', but ' '"):
        read_labelled(write(tmp_path, "b.csv", "text,label\nx, \n"))


def test_numbers_as_labels_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "stars,review\n10,x\n2,y\n-1,z\n")
    data = read_labelled(file, text_column="review", label_column="stars")
    assert data.names == ["-1", "2", "10"]
    assert data.labels == [2, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"label,body\nx,y\n", "no column 'text'; it has .'label', 'body'.: name yours"),
        ("a.csv", b"text,kind\nx,y\n", "no column 'label'"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text,label\nx,y,z\n", "line 2: 3 columns, where the header"),
        ("a.csv", b"text,label\nx,y\n ,y\n", "row 2: no text in column 'text'"),
        ("a.csv", b"text,label\nx,\n", "row 1: no label in column 'label'"),
        ("a.csv", b"text,label\nx,\xff\xfe\n", "not text in UTF-8: convert it first .* at byte 13"),
        ("a.csv", b'text,label\nx,"y\n', "line 2: a quote that is opened here is never closed"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n[1]\n', "line 2: not an object with columns but list"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{"text"\n', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "x", "label": 1.5}\n', "row 1: no label in column 'label', but 1.5"),
        ("a.jsonl", b'{"text": null, "label": 1}\n', "row 1: no text in column 'text', but None"),
        ("a.xls", b"x", "not .csv, .tsv, .json, .jsonl or .parquet"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / name)


def test_unknown_labels_and_missing_classes(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "text,label\nx,ham\ny,eggs\n")
    with pytest.raises(ValueError, match=r"unknown labels \['eggs'\] \(the first in row 2\); known are"):
        read_labelled(file, names=["ham", "spam"])
    with pytest.raises(ValueError, match=r"one label only, \['ham'\]"):
        check_classes(LabelledTexts(["x"], [0], ["ham"]), "it")
    with pytest.raises(ValueError, match=r"no text labelled \['spam'\]"):
        check_classes(LabelledTexts(["x"], [0], ["ham", "spam"]), "it")


def test_duplicates_and_texts_under_two_labels_are_left_out() -> None:
    kept, removed = deduplicate(["A b", "a  B", "c", "C", "d"], [0, 0, 0, 1, 1])
    assert kept == [0, 4]
    assert removed == {"duplicate": 1, "under two labels": 2}


def test_a_label_of_which_nothing_is_left_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"every text labelled \['ham', 'spam'\] stands under another .*\(4 of 4 rows"
    ):
        deduplicate(["a", "A", "b", "b"], [0, 1, 0, 1], ["ham", "spam"])


def test_texts_that_differ_in_digits_only_cannot_be_split() -> None:
    texts = [f"call {i} now" for i in range(20)]
    with pytest.raises(ValueError, match="'validation' would be empty: the 20 texts have the same words as 1 of them"):
        split_rows(texts, [i % 2 for i in range(20)], {"validation": 0.1}, seed=0)


@given(st.integers(2, 12), st.floats(0.01, 0.45), st.integers(0, 9))
def test_few_texts_give_every_split_some_of_each_label(each: int, fraction: float, seed: int) -> None:
    texts = [f"{'spam' if i % 2 else 'ham'} {chr(97 + i // 2)}" for i in range(2 * each)]
    labels = [i % 2 for i in range(2 * each)]
    splits = split_rows(texts, labels, {"validation": fraction}, seed)
    assert {name: {labels[row] for row in rows} for name, rows in splits.items()} == {
        "train": {0, 1},
        "validation": {0, 1},
    }
    assert sorted(row for rows in splits.values() for row in rows) == list(range(2 * each))


def test_the_key_of_a_split_is_blind_to_case_punctuation_and_numbers() -> None:
    assert split_key("Call 0906-123 NOW!") == split_key("call 07 -- 4 now") == "call 0 0 now"
    assert split_key("Call me") != split_key("Call you")
    assert split_key(":-)") != split_key(":-(")


def test_no_text_crosses_a_split_and_the_balance_is_kept() -> None:
    texts = [f"{'spam' if i % 5 == 0 else 'ham'} word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(500)]
    texts += [text.upper() + "!" for text in texts[:100]]
    labels = [int(text.lower().startswith("spam")) for text in texts]
    splits = split_rows(texts, labels, {"validation": 0.1, "test": 0.2}, seed=1)
    assert sorted(row for rows in splits.values() for row in rows) == list(range(600))
    keys = {name: {split_key(texts[row]) for row in rows} for name, rows in splits.items()}
    assert sum(map(len, keys.values())) == len(set().union(*keys.values()))
    for name, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        for label in (0, 1):
            count = sum(labels[row] == label for row in splits[name])
            assert count == pytest.approx(share * labels.count(label), abs=2)
    assert splits == split_rows(texts, labels, {"validation": 0.1, "test": 0.2}, seed=1)
    assert splits != split_rows(texts, labels, {"validation": 0.1, "test": 0.2}, seed=2)
    assert "test" not in split_rows(texts, labels, {"validation": 0.1, "test": 0.0}, seed=1)


def test_balance_takes_as_many_of_each_label() -> None:
    labels, texts = [0] * 8 + [1] * 3, [f"text {i}" for i in range(11)]
    rows = balance(labels, texts, seed=0)
    assert [labels[row] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert rows == sorted(rows)
    assert rows != balance(labels, texts, seed=1)


def test_a_data_set_that_reads_back(tmp_path: Path) -> None:
    data = LabelledTexts(["x", "y"], [1, 0], ["ham", "spam"])
    made = labelled_dataset({"train": data, "test": data.select([0])}, {"train": ["f#0", "f#1"], "test": ["f#0"]})
    made.save_to_disk(tmp_path / "saved")
    assert read_labelled(tmp_path / "saved") == data
    assert "| spam | 1 | 1 |" in label_table({"train": data, "test": data.select([0])})
