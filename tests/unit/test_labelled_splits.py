"""data/labelled_splits.py: from a data set, from one file, from several."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from scratchgpt.data.labelled_splits import load_splits

COLUMNS = {"text_column": "text", "label_column": "label"}
NAMES = {"train": "train", "validation": "dev", "test": "held_out"}
WORDS = "abcdefghijklmnopqrstuvwxyz"


def write(file: Path, rows: list[tuple[str, str]]) -> str:
    file.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]))
    return str(file)


def many(count: int) -> list[tuple[str, str]]:
    return [(f"word {WORDS[i % 26]} {WORDS[i // 26]}", "no" if i % 2 else "yes") for i in range(count)]


def test_one_file_is_split_and_its_duplicates_are_left_out(tmp_path: Path, capsys) -> None:
    file = write(tmp_path / "data.csv", [*many(100), many(1)[0], ("both", "yes"), ("both", "no")])
    none = {"validation": None, "test": None}
    splits = load_splits(file, NAMES, none, COLUMNS, {"validation": 0.2, "test": 0.1}, seed=0)
    assert {name: len(data) for name, data in splits.items()} == {"train": 70, "validation": 20, "test": 10}
    assert not set(splits["train"].texts) & {*splits["validation"].texts, *splits["test"].texts}
    assert "duplicate: 1, under two labels: 2" in capsys.readouterr().out
    without = load_splits(file, NAMES, none, COLUMNS, {"validation": 0.2, "test": 0}, seed=0)
    assert without.keys() == {"train", "validation"}
    with pytest.raises(ValueError, match="nothing to validate on"):
        load_splits(file, NAMES, none, COLUMNS, {"validation": 0, "test": 0.1}, seed=0)


def test_several_files_and_a_data_set_share_their_labels(tmp_path: Path) -> None:
    train, more = write(tmp_path / "train.csv", many(10)), write(tmp_path / "more.csv", [("only", "no")])
    splits = load_splits(train, NAMES, {"validation": more, "test": None}, COLUMNS, {}, seed=0)
    assert {name: data.names for name, data in splits.items()} == {
        "train": ["no", "yes"],
        "validation": ["no", "yes"],
    }
    assert splits["validation"].labels == [0]
    rows = Dataset.from_list([{"text": text, "label": label} for text, label in many(10)])
    DatasetDict(train=rows, dev=rows.select([1]), held_out=rows.select([0, 2])).save_to_disk(tmp_path / "set")
    splits = load_splits(str(tmp_path / "set"), NAMES, {}, COLUMNS, {}, seed=0)
    assert [splits[name].labels for name in ("validation", "test")] == [[0], [1, 1]]
