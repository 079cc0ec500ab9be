"""Reviews in small: own splits and published ones, unlabelled texts, and the real files where they are at hand."""

import json
from pathlib import Path

import pytest
from datasets import load_from_disk

from data_builders import sentiment
from scratchgpt.data.labelled_texts import split_key


def word(i: int) -> str:
    return f"{chr(97 + i % 26)}{chr(97 + i // 26)}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rows = [(i % 2, f"a {word(i)} film<br /><br />truly {'good' if i % 2 else 'bad'}") for i in range(200)]
    lines = [json.dumps({"text": text, "label": label}) for label, text in rows]
    (tmp_path / "imdb.jsonl").write_text("\n".join(lines))
    plain = [{"text": f"film {word(i)}<br>seen"} for i in range(150)] + [{"text": rows[i][1]} for i in range(200)]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, plain)))
    (tmp_path / "sst.tsv").write_text(
        "label\tsentence\n" + "".join(f"{i % 2}\tphrase {word(i)} .\n" for i in range(99))
    )
    (tmp_path / "dev.tsv").write_text("label\tsentence\n1\tPhrase aa\n0\tother words\n")
    return tmp_path


def build(output: Path, **arguments: object) -> dict:
    sentiment.main([f"--{name}={value}" for name, value in {**arguments, "output_dir": output}.items()])
    return json.loads((output / "build.json").read_text())["classification"]


def keys(folder: Path) -> dict[str, set[str]]:
    data = load_from_disk(folder)
    return {split: set(map(split_key, data[split]["text"])) for split in data}


def test_own_splits_and_unlabelled_reviews(files: Path) -> None:
    record = build(files / "imdb", name="imdb", source=files / "imdb.jsonl", unlabelled=files / "more.jsonl")
    assert {name: sum(counts.values()) for name, counts in record["labels"].items()} == pytest.approx(
        {"train": 150, "validation": 10, "test": 40}, abs=2
    )
    data = load_from_disk(files / "imdb" / "classification")
    assert data["train"].features["label"].names == ["negative", "positive"]
    assert all("\ntruly" in text and "<br" not in text for text in data["train"]["text"])
    assert all(("good" in row["text"]) == (row["label"] == 1) for row in data["test"])
    labelled, text = keys(files / "imdb" / "classification"), keys(files / "imdb" / "text")
    read = text["train"] | text["validation"]
    assert not read & (labelled["test"] | labelled["validation"])  # although the unlabelled file has all of them
    assert labelled["train"] <= read
    assert len(read) == 150 + len(labelled["train"])


def test_a_published_test_split_stays_whole_and_apart(files: Path) -> None:
    record = build(files / "sst2", name="sst2", source=files / "sst.tsv", test=files / "dev.tsv")
    assert record["labels"]["test"] == {"negative": 1, "positive": 1}
    assert record["removed"]["in the test split"] == 1
    found = keys(files / "sst2" / "classification")
    assert not found["test"] & (found["train"] | found["validation"])


def test_balancing(files: Path) -> None:
    (files / "skewed.tsv").write_text(
        "label\ttext\n" + "".join(f"{int(i % 4 == 0)}\t{word(i)} x\n" for i in range(99))
    )
    record = build(files / "rt", name="rotten_tomatoes", source=files / "skewed.tsv", balance=True)
    assert record["labels"]["train"]["negative"] == record["labels"]["train"]["positive"]
    assert record["labels"]["test"]["negative"] > record["labels"]["test"]["positive"]


def test_unknown_labels_are_refused(files: Path) -> None:
    (files / "bad.tsv").write_text("label\ttext\n2\tx\n1\ty\n")
    with pytest.raises(ValueError, match=r"unknown labels \['2'\]; known are"):
        build(files / "rt", name="rotten_tomatoes", source=files / "bad.tsv")


@pytest.mark.slow
def test_the_real_sst2(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "classification"
    files = {"source": folder / "sst2_train.tsv.zst", "test": folder / "sst2_dev.tsv"}
    record = build(tmp_path, name="sst2", **files)
    assert sum(record["labels"]["test"].values()) == 872
    found = keys(tmp_path / "classification")
    assert not found["test"] & (found["train"] | found["validation"])
