"""Every question has the answer that Python computes for it, and none of a test is in training."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from data_builders import arithmetic
from data_builders.arithmetic import CONSONANTS, LONGEST, TASKS, Question

seeds, levels = st.integers(0, 2**32), st.integers(1, LONGEST)


def asked(task: str, seed: int, level: int) -> tuple[Question, list[int], list[str]]:
    """A question, the numbers in it and its words."""
    question = TASKS[task](random.Random(seed), level)
    return question, [int(n) for n in re.findall(r"\d+", question.text)], re.findall(r"\b[a-z]+\b", question.text)


@given(seeds, levels)
def test_addition_and_subtraction(seed: int, level: int) -> None:
    for task, sign in (("addition", 1), ("subtraction", -1)):
        question, (a, b), _ = asked(task, seed, level)
        assert int(question.answer) == a + sign * b >= 0
        assert all(len(str(n)) == level for n in (a, b))
        assert str(int(question.answer)) == question.answer


@given(seeds, levels)
def test_comparison_and_sorting(seed: int, level: int) -> None:
    question, (a, b), _ = asked("comparison", seed, level)
    assert a != b
    assert int(question.answer) == max(a, b)
    question, numbers, _ = asked("sorting", seed, level)
    assert len(numbers) == level + 1
    assert [int(n) for n in question.answer.split(", ")] == sorted(numbers)


@given(seeds, levels)
def test_letters(seed: int, level: int) -> None:
    question, _, (word,) = asked("spelling", seed, level)
    assert question.answer.split("-") == list(word)
    assert len(word) == level + 1
    question, _, (word, _) = asked("reversing", seed, level)
    assert question.answer == word[::-1]
    question, _, (_, letter, _, _, text) = asked("counting", seed, level)
    assert len(text) == 2 * level
    assert letter in CONSONANTS
    assert int(question.answer) == sum(each == letter for each in text)


@given(st.sampled_from(sorted(TASKS)), seeds, seeds, st.integers(1, 2))
def test_questions_that_give_each_others_answer_away_are_one_document(
    task: str, seed: int, other: int, level: int
) -> None:
    one, numbers, words = asked(task, seed, level)
    two, other_numbers, other_words = asked(task, other, level)
    if task in ("addition", "comparison", "sorting") and sorted(numbers) == sorted(other_numbers):
        assert one.document == two.document
    if task == "reversing" and words[0] == other_words[0][::-1]:
        assert one.document == two.document
    if one.document == two.document and task != "reversing":
        assert one.answer == two.answer


def build(folder: Path, *more: str) -> Any:
    arithmetic.main(["--output_dir", str(folder), *more])
    return load_from_disk(folder / "chat")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build(folder := tmp_path_factory.mktemp("arithmetic") / "data", "--questions", "200")
    return folder


def test_splits_share_no_question_and_longer_ones_are_held_out(built: Path) -> None:
    data: Any = load_from_disk(built / "chat")
    text: Any = load_from_disk(built / "text")
    assert list(data) == ["train", "validation", "test", "longer"]
    trained = {row["messages"][0]["content"] for row in data["train"]}
    sums = {tuple(sorted(re.findall(r"\d+", asked))) for asked in trained if "+" in asked}
    for split in ("validation", "test"):
        for row in data[split]:
            asked = row["messages"][0]["content"]
            assert asked not in trained
            assert "+" not in asked or tuple(sorted(re.findall(r"\d+", asked))) not in sums
    assert {row["level"] for row in data["longer"]} == {4}
    assert {row["level"] for split in ("train", "validation", "test") for row in data[split]} == {1, 2, 3}
    for split in data.values():
        assert all(row["messages"][-1] == {"role": "assistant", "content": row["answer"]} for row in split)
    held_out = {row["source"] for row in data["test"]}
    assert not held_out & {row["source"] for row in data["train"]}
    assert not held_out & {row["source"] for split in text.values() for row in split}


def test_the_record_and_the_card_have_the_counts(built: Path) -> None:
    data: Any = load_from_disk(built / "chat")
    record = json.loads((built / "chat" / "build.json").read_text())
    for split, counts in record["counts"].items():
        assert sum(counts.values()) == len(data[split])
    assert record["counts"]["train"]["addition 1"] < 100  # all there are, without those held out
    number = record["counts"]["train"]["counting 3"]
    assert re.search(rf"^\| counting 3 \| {number} \|", (built / "chat" / "README.md").read_text(), re.MULTILINE)


def test_seed_and_arguments_decide_every_row(tmp_path: Path, built: Path) -> None:
    same = build(tmp_path / "same", "--questions", "200")
    assert (tmp_path / "same" / "chat" / "build.json").read_bytes() == (built / "chat" / "build.json").read_bytes()
    fewer = build(tmp_path / "fewer", "--questions", "200", "--tasks", "counting")
    rows = [row for row in same["test"] if row["task"] == "counting"]
    assert [row["messages"] for row in fewer["test"]] == [row["messages"] for row in rows]  # of its task alone
    other = build(tmp_path / "other", "--questions", "200", "--seed", "1")
    assert other["train"]["answer"] != same["train"]["answer"]


def test_mistakes(tmp_path: Path) -> None:
    for more, complaint in (
        (["--tasks", "division"], "tasks=division is unknown: choose from addition"),
        (["--min_level", "4"], "min_level=4 is above max_level=3"),
        (["--max_level", "13"], "max_level=13"),
        (["--questions", "1", "--tasks", "addition", "--max_level", "1"], "would be empty"),
        (["--test_fraction", "0.95"], "together less than 1"),
    ):
        with pytest.raises(ValueError, match=complaint):
            build(tmp_path / "refused", *more)
        assert not (tmp_path / "refused").exists()
    build(tmp_path / "no_test", "--test_fraction", "0", "--longer", "0", "--questions", "50")
    assert list(load_from_disk(tmp_path / "no_test" / "chat")) == ["train", "validation"]
