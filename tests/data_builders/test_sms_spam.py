"""The SMS Spam Collection in small, and the real one where it is at hand."""

import json
from pathlib import Path

import pytest
from datasets import load_from_disk

from data_builders import sms_spam
from scratchgpt.data.labelled_texts import split_key


def messages(count: int = 200) -> list[str]:
    spam = [f"spam\tWIN prize{chr(97 + i % 26)} now! Call 0{i}" for i in range(count // 5)]
    ham = [f'ham\tsee you at "{chr(97 + i % 26)}{chr(97 + i // 26)}" o\'clock' for i in range(count - count // 5)]
    return [line for pair in zip(spam * 4, ham, strict=True) for line in pair]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "SMSSpamCollection"
    file.write_text("\n".join(messages()) + "\n", encoding="utf-8")
    return file


def build(source: Path, output: Path, *more: str) -> dict:
    sms_spam.main(["--source", str(source), "--output_dir", str(output), *more])
    return json.loads((output / "build.json").read_text())


def check_disjoint(folder: Path) -> None:
    data = load_from_disk(folder / "classification")
    assert list(data) == ["train", "validation", "test"]
    keys = [set(map(split_key, data[split]["text"])) for split in data]
    assert sum(map(len, keys)) == len(set.union(*keys))
    held_out = keys[2]
    for split in (text := load_from_disk(folder / "text")):
        assert not held_out & set(map(split_key, text[split]["text"]))


def test_both_data_sets(source: Path, tmp_path: Path) -> None:
    record = build(source, tmp_path / "built")["classification"]
    assert record["removed"]["duplicate"] == 120  # spam that came four times
    assert sum(record["labels"]["train"].values()) == record["splits"]["train"]["rows"]
    check_disjoint(tmp_path / "built")
    data = load_from_disk(tmp_path / "built" / "classification")
    assert data["train"].features["label"].names == ["ham", "spam"]
    assert all(("WIN" in row["text"]) == (row["label"] == 1) for row in data["train"])
    card = (tmp_path / "built" / "classification" / "README.md").read_text()
    assert "natural" in card
    assert "cc-by-4.0" in card


def test_the_same_seed_gives_the_same_rows(source: Path, tmp_path: Path) -> None:
    digests = [build(source, tmp_path / name, "--seed", seed)["classification"]["sha256"] for name, seed in
               (("a", "0"), ("b", "0"), ("c", "1"))]  # fmt: skip
    assert digests[0] == digests[1] != digests[2]


def test_balancing_is_stated_and_leaves_the_other_splits(source: Path, tmp_path: Path) -> None:
    plain = build(source, tmp_path / "plain")["classification"]
    balanced = build(source, tmp_path / "balanced", "--balance", "True")["classification"]
    assert balanced["balance"] is True
    counts = balanced["labels"]["train"]
    assert counts["ham"] == counts["spam"] == plain["labels"]["train"]["spam"]
    assert balanced["labels"]["test"] == plain["labels"]["test"]
    assert "**Balanced**" in (tmp_path / "balanced" / "classification" / "README.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ham\tfine\nno label\n", "line 2: not `ham` or `spam`, a tab and a text: 'no label"),
        (b"ham\tfine\neggs\tx\n", "line 2"),
        (b"ham\tfine\nspam\t \n", "line 2"),
        (b"ham\tfine\nspam\t\xa3100\n", "not text in UTF-8: convert it first"),
        (b"ham\tone\nham\ttwo\nham\tthree\n", "has no text labelled ..spam"),
        (b"ham \tone\nspam\tOne\n", "every text labelled ..ham', 'spam'. stands under another label too"),
    ],
)
def test_broken_files_are_refused_before_anything_is_written(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "file", tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_the_real_collection(shared_data: Path, tmp_path: Path) -> None:
    record = build(shared_data / "classification" / "sms_spam_dev.tsv", tmp_path / "built")["classification"]
    check_disjoint(tmp_path / "built")
    shares = [counts["spam"] / (counts["ham"] + counts["spam"]) for counts in record["labels"].values()]
    assert max(shares) - min(shares) < 0.01
    assert record["removed"]["under two labels"] == 0
