"""Questions in each schema, what nobody could answer, and the split by question."""

import json
from pathlib import Path
from typing import Any

import pytest

from scratchgpt.data.prompts import Prompt, read_prompt, read_prompts, split_prompts

ASKED = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is 2 + 3?", "answer": 5},
        {"prompt": ASKED, "answer": "5"},
        {"question": "What is 2 + 3?", "answer": "5"},
        {"messages": [*ASKED, {"role": "assistant", "content": "5"}]},
        {"messages": [*ASKED, {"role": "assistant", "content": "It is 5."}], "answer": "5"},
        {"instruction": "What is 2 + 3?", "output": "5"},
        {"conversations": [{"from": "human", "value": "What is 2 + 3?"}, {"from": "gpt", "value": "5"}]},
    ],
)
def test_schemas(row: dict[str, Any]) -> None:
    found = read_prompt({**row, "level": 1})
    assert isinstance(found, Prompt)
    assert found.messages == ASKED
    assert found.question == "What is 2 + 3?"
    assert found.row["answer"] == "5"
    assert found.row["level"] == 1


def test_system_and_earlier_turns_stay() -> None:
    turns = [*ASKED, {"role": "assistant", "content": "5"}, {"role": "user", "content": "And 2 + 4?"}]
    found = read_prompt({"system": "Be brief.", "prompt": turns})
    assert isinstance(found, Prompt)
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant", "user"]
    assert "answer" not in found.row


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no question at the end"),
        ({"prompt": [{"role": "assistant", "content": "5"}]}, "no question at the end"),
        ({"question": " "}, "an empty message"),
        ({"messages": [{"role": "tool", "content": "a"}, *ASKED]}, "unknown role 'tool'"),
    ],
)
def test_what_nobody_could_answer(row: dict[str, Any], reason: str) -> None:
    assert read_prompt(row) == reason


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps([{"question": "a?", "answer": 1}, {"question": " ", "answer": 2}]))
    kept, left_out = read_prompts(file)
    assert [prompt.row["answer"] for prompt in kept] == ["1"]
    assert left_out == {"an empty message": 1}
    file.write_text(json.dumps([{"text": "a"}]))
    with pytest.raises(ValueError, match=r"questions.json, row 1: no conversation in the columns .*; or prompt"):
        read_prompts(file)


def test_no_question_is_on_both_sides() -> None:
    prompts = [Prompt([{"role": "user", "content": f"{i % 40}?"}], {"n": i}) for i in range(120)]
    training, validation = split_prompts(prompts, 0.25, seed=0)
    sides = [{prompt.question for prompt in part} for part in (training, validation)]
    assert not sides[0] & sides[1]
    assert len(training) + len(validation) == 120
    assert 3 <= len(sides[1]) <= 20
    with pytest.raises(ValueError, match="cannot be split"):
        split_prompts(prompts[:1], 0.25, seed=0)
