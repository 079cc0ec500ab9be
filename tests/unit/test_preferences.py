"""Pairs of answers: the schemas people have, what is left out and counted, and splits by prompt."""

import json
from pathlib import Path

import pytest

from scratchgpt.data.preferences import Pair, read_pair, read_pairs, sound_pair, split_pairs

USER, YES, NO = {"role": "user", "content": "Gold?"}, "Yes.", "No!"


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SAME = {
    "TRL, messages": {"prompt": [USER], "chosen": [said(YES)], "rejected": [said(NO)]},
    "TRL, text": {"prompt": "Gold?", "chosen": YES, "rejected": NO},
    "TRL, implicit": {"chosen": [USER, said(YES)], "rejected": [USER, said(NO)]},
    "UltraFeedback": {"prompt": "Gold?", "chosen": [USER, said(YES)], "rejected": [USER, said(NO)]},
    "Alpaca": {"instruction": "Gold?", "input": "", "output": "Other.", "chosen": YES, "rejected": NO},
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "Gold?"}],
        "chosen": {"from": "gpt", "value": YES},
        "rejected": {"from": "gpt", "value": NO},
    },
    "messages": {"messages": [USER], "chosen": YES, "rejected": NO},
}


@pytest.mark.parametrize("schema", SAME)
def test_every_schema_is_the_same_pair(schema: str) -> None:
    assert sound_pair(*read_pair(SAME[schema])) == Pair([USER], YES, NO)


def test_a_system_message_an_input_and_earlier_turns_stand_in_the_prompt() -> None:
    row = {"system": "Be brief.", "instruction": "Sort.", "input": "b a", "history": [["Hi.", "Ho."]]}
    pair = sound_pair(*read_pair({**row, "chosen": YES, "rejected": NO}))
    assert isinstance(pair, Pair)
    assert pair.prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        said("Ho."),
        {"role": "user", "content": "Sort.\n\nb a"},
    ]
    implicit = {"chosen": [*pair.prompt, said(YES)], "rejected": [*pair.prompt, said(NO)]}
    assert sound_pair(*read_pair(implicit)) == pair


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Gold?", "chosen": YES, "rejected": f" {YES}\n"}, "chosen and rejected are the same"),
        ({"prompt": "Gold?", "chosen": YES, "rejected": "  "}, "an empty answer"),
        ({"prompt": "Gold?", "chosen": None, "rejected": NO}, "an empty answer"),
        ({"prompt": "Gold?", "chosen": [], "rejected": NO}, "no answer at the end"),
        ({"prompt": " ", "chosen": YES, "rejected": NO}, "an empty message"),
        ({"prompt": "Gold?", "chosen": {"role": "tool", "content": YES}, "rejected": NO}, "no answer at the end"),
        (
            {"chosen": [USER, said(YES)], "rejected": [{"role": "user", "content": "Silver?"}, said(NO)]},
            "conversations that differ before the last answer",
        ),
        ({"prompt": "Gold?", "chosen": [said(YES), USER], "rejected": [said(NO), USER]}, "no answer at the end"),
    ],
)
def test_what_teaches_nothing_has_a_reason(row: dict, reason: str) -> None:
    assert sound_pair(*read_pair(row)) == reason


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Gold?", "chosen": YES}, "no column 'rejected' in"),
        ({"chosen": YES, "rejected": NO}, "no prompt in the columns"),
        ({"chosen": [said(YES)], "rejected": [said(NO)]}, "no prompt in the columns"),
    ],
)
def test_unknown_columns_are_refused_by_name(row: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_pair(row)


def test_a_file_is_read_and_what_was_left_out_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [SAME["TRL, text"], {**SAME["Alpaca"], "rejected": YES}, {**SAME["TRL, text"], "chosen": ""}]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match=r"not used: output \(1 rows\)"):
        pairs, left_out = read_pairs(file)
    assert pairs == [Pair([USER], YES, NO)]
    assert left_out == {"chosen and rejected are the same": 1, "an empty answer": 1}
    file.write_text("\n".join(map(json.dumps, [rows[0], {"text": "Gold."}])))
    with pytest.raises(ValueError, match=r"row 2: no column 'chosen'"):
        read_pairs(file)
    file.write_text(json.dumps(rows[2]))
    with pytest.raises(ValueError, match=r"no pair to learn from \(1 an empty answer\)"):
        read_pairs(file)


def test_no_prompt_is_on_both_sides_of_the_split() -> None:
    pairs = [Pair([{"role": "user", "content": str(i % 20)}], YES, f"{NO}{i}") for i in range(60)]
    training, validation = split_pairs(pairs, 0.2, seed=1)
    assert len(training) + len(validation) == 60
    assert len(validation) % 3 == 0
    assert {str(pair.prompt) for pair in training} & {str(pair.prompt) for pair in validation} == set()
    assert split_pairs(pairs, 0.2, seed=2)[1] != validation
    with pytest.raises(ValueError, match="1 different prompts cannot be split"):
        split_pairs(pairs[:1], 0.2, seed=1)
    with pytest.raises(ValueError, match="validation_fraction above 0"):
        split_pairs(pairs, 0.0, seed=1)
