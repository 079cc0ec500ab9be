"""data/labelled_splits.py: from a data set, from one file, from several."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from scratchgpt.data.labelled_splits import LabelledDataArguments, load_splits
from scratchgpt.data.labelled_texts import LabelledTexts

WORDS = "abcdefghijklmnopqrstuvwxyz"


def write(file: Path, rows: list[tuple[str, str]]) -> str:
    file.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]))
    return str(file)


def many(count: int) -> list[tuple[str, str]]:
    return [(f"word {WORDS[i % 26]} {WORDS[i // 26]}", "no" if i % 2 else "yes") for i in range(count)]


def load(data: Path | str, **options: Any) -> dict[str, LabelledTexts]:
    return load_splits(LabelledDataArguments(data=str(data), **options), seed=0)


def test_one_file_is_split_and_its_duplicates_are_left_out(tmp_path: Path, capsys) -> None:
    file = write(tmp_path / "data.csv", [*many(100), many(1)[0], ("both", "yes"), ("both", "no")])
    splits = load(file, validation_fraction=0.2)
    assert {name: len(data) for name, data in splits.items()} == {"train": 70, "validation": 20, "test": 10}
    assert not set(splits["train"].texts) & {*splits["validation"].texts, *splits["test"].texts}
    assert "duplicate: 1, under two labels: 2" in capsys.readouterr().out
    assert load(file, test_fraction=0).keys() == {"train", "validation"}
    with pytest.raises(ValueError, match="nothing to validate on"):
        load(file, validation_fraction=0)
    with pytest.raises(ValueError, match="together less than 1"):
        load(file, validation_fraction=0.5, test_fraction=0.5)


def test_several_files_and_a_data_set_share_their_labels(tmp_path: Path) -> None:
    train, more = write(tmp_path / "train.csv", many(10)), write(tmp_path / "more.csv", [("only", "no")])
    splits = load(train, eval_data=more)
    assert [(name, data.names) for name, data in splits.items()] == [
        ("train", ["no", "yes"]),
        ("validation", ["no", "yes"]),
    ]
    assert splits["validation"].labels == [0]
    rows = Dataset.from_list([{"text": text, "label": label} for text, label in many(10)])
    DatasetDict(train=rows, dev=rows.select([1]), held_out=rows.select([0, 2])).save_to_disk(tmp_path / "set")
    splits = load(tmp_path / "set", eval_split="dev", test_split="held_out")
    assert [splits[name].labels for name in ("validation", "test")] == [[0], [1, 1]]
