"""A model's own answers, graded: what becomes a pair, what becomes a best answer, and what is left out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from data_builders import own_answers
from scratchgpt.data.chat_sources import read_chats
from scratchgpt.data.preferences import read_pairs
from scratchgpt.data.prompts import Prompt
from scratchgpt.evaluation import journal, judges
from scratchgpt.evaluation.responses import Response
from tests.recipes.test_reinforce import workplace  # noqa: F401 - a fixture

QUESTION = Prompt([{"role": "user", "content": "One?"}], {"answer": "Two"})


@given(st.lists(st.tuples(st.sampled_from(["a", "b", " "]), st.booleans(), st.sampled_from([0, 1, 2, np.nan]))))
def test_the_best_and_the_worst_of_what_ends(drawn: list[tuple[str, bool, float]]) -> None:
    answers = [Response(text, [1], stopped) for text, stopped, _ in drawn]
    reasons = Counter[str]()
    pair, right = own_answers.choose(QUESTION, answers, np.array([each[2] for each in drawn]), 2, reasons)
    rewards = [reward for text, stopped, reward in drawn if stopped and text.strip() and not np.isnan(reward)]
    assert (pair is not None) == (len(set(rewards)) > 1)
    assert (right is not None) == (2 in rewards)
    if pair:
        assert (pair["chosen_reward"], pair["rejected_reward"]) == (max(rewards), min(rewards))
        assert (pair["chosen"][0]["content"], True, max(rewards)) in drawn
        assert (pair["rejected"][0]["content"], True, min(rewards)) in drawn
    if right:
        assert right["messages"][:-1] == QUESTION.messages
        assert (right["messages"][-1]["content"], True, 2) in drawn
    assert (sum(reasons.values()) == 0) == (pair is not None and right is not None)


def build(workplace: Path, output: str, **changed: object) -> Path:  # noqa: F811
    defaults: dict[str, object] = {
        "model": workplace / "chat" / "final", "data": workplace / "questions.json", "output_dir": workplace / output,
        "answers": 16, "max_new_tokens": 12, "validation_fraction": 0.3,
    }  # fmt: skip
    own_answers.main([f"--{name}={value}" for name, value in {**defaults, **changed}.items()])
    return workplace / output


@pytest.fixture(scope="module")
def built(workplace: Path) -> Path:  # noqa: F811
    return build(workplace, "own")


def test_rewards_are_those_of_the_checker_and_no_question_is_on_both_sides(built: Path) -> None:
    pairs: Any = load_from_disk(built / "pairs")
    best: Any = load_from_disk(built / "best")
    right = {row["question"]: row["answer"] for row in json.loads((built.parent / "questions.json").read_text())}
    asked = []
    for split in ("train", "validation"):
        for row in pairs[split]:
            [question] = row["prompt"]
            assert row["chosen"][0]["content"].strip() == right[question["content"]]
            assert row["rejected"][0]["content"].strip() != right[question["content"]]
            assert (row["chosen_reward"], row["rejected_reward"]) == (1, 0)
        for row in best[split]:
            assert row["messages"][1]["content"].strip() == right[row["messages"][0]["content"]]
        asked.append({row["prompt"][0]["content"] for row in pairs[split]})
    assert not asked[0] & asked[1]
    record = json.loads((built / "pairs" / "build.json").read_text())
    assert (record["model"], record["graded_by"]) == ("chat/final", "exact_match")
    assert str(built.parent) not in (built / "pairs" / "README.md").read_text()
    questions = sum(len(pairs[split]) for split in pairs) + sum(
        found.get("questions whose answers are all worth the same", 0) for found in record["left_out"].values()
    )
    assert questions == len(right)


def test_the_recipes_read_them(built: Path) -> None:
    with pytest.warns(UserWarning, match="chosen_reward"):
        pairs, left_out = read_pairs(built / "pairs", "train")
    assert pairs
    assert not left_out
    with pytest.warns(UserWarning, match="reward"):
        assert read_chats(str(built / "best"), "train")[0]


def test_a_second_build_samples_nothing_and_is_the_same(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {file.name: file.read_bytes() for file in built.rglob("*.*")}
    monkeypatch.setattr(journal.Journal, "add", lambda *_: pytest.fail("sampled again"))
    again = build(built.parent, "own", overwrite=True)
    assert {file.name: file.read_bytes() for file in again.rglob("*.*")} == first


class Strict:
    """A judge who likes short answers, and says nothing of some."""

    def __init__(self, readable: bool) -> None:
        self.readable, self.asked = readable, list[str]()

    def identity(self) -> dict[str, Any]:
        return {"name": "strict", "readable": self.readable}

    def replies(self, prompts: Any) -> Any:
        self.asked += prompts
        yield {i: str(100 - len(each) % 90) if self.readable else "Well…" for i, each in enumerate(prompts)}


def test_a_judge_in_place_of_a_checker(
    workplace: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = Strict(readable=True)
    monkeypatch.setattr(own_answers, "load_judge", lambda *_, **__: judge)
    found: Any = load_from_disk(build(workplace, "judged", judge="strict", right_at=0.3) / "pairs")
    assert all(0.1 <= row["rejected_reward"] < row["chosen_reward"] <= 1 for row in found["train"])
    assert "What comes after" in judge.asked[0]
    assert "It is" in judge.asked[0]  # the right answer is shown
    monkeypatch.setattr(own_answers, "load_judge", lambda *_, **__: Strict(readable=False))
    with pytest.raises(ValueError, match=r"strict is unfit: \d+ of \d+ replies are no score"):
        build(workplace, "unfit", judge="strict")
    assert not (workplace / "unfit").exists()


def test_a_judge_with_an_address_needs_a_model() -> None:
    judges.check_judge("http://localhost/v1", "mine")
    for wrong in (("http://localhost/v1", None), ("folder", "mine"), (None, "mine")):
        with pytest.raises(ValueError, match="judge_model"):
            judges.check_judge(*wrong)
