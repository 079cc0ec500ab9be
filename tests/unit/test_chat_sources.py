"""data/chat_sources.py: four schemas are one, and what cannot be learned from is counted."""

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from scratchgpt.data.chat_sources import describe, read_chats, read_row, sound_conversations, to_messages

CHAT = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT, "source": "x"},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}], "id": 1},
        {"conversations": [{"from": "user", "value": "2 + 2?"}, {"from": "assistant", "value": "4"}]},
        {"instruction": "2 + 2?", "input": "", "output": "4", "text": "Below is an instruction …"},
        {"instruction": "2 + 2?", "context": " \n", "response": "4", "category": "open_qa"},
        {"instruction": "2 + 2?", "output": "4"},
    ],
)
def test_four_schemas(row: dict) -> None:
    assert to_messages(row) == CHAT


def test_input_and_context_follow_the_instruction() -> None:
    assert to_messages({"instruction": "Add", "input": "2, 2", "output": "4"})[0]["content"] == "Add\n\n2, 2"
    assert to_messages({"instruction": "Add", "context": "2, 2", "response": "4"})[0]["content"] == "Add\n\n2, 2"


SYSTEM = {"role": "system", "content": "Be brief."}
BEFORE = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"instruction": "2 + 2?", "output": "4", "system": "Be brief."}, [SYSTEM, *CHAT]),
        ({"instruction": "2 + 2?", "output": "4", "history": [["1 + 1?", "2"]]}, [*BEFORE, *CHAT]),
        (
            {"instruction": "2 + 2?", "output": "4", "system": "Be brief.", "history": [["1 + 1?", 2]]},
            [SYSTEM, *BEFORE, *CHAT],
        ),
        ({"instruction": "2 + 2?", "output": "4", "system": "", "history": None}, CHAT),
        ({"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": 4}]}, CHAT),
        (
            {
                "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}],
                "system": "Be brief.",
            },
            [SYSTEM, *CHAT],
        ),
        ({"messages": CHAT, "system_prompt": "Be brief."}, [SYSTEM, *CHAT]),
        (
            {"instruction": "Add", "input": 4, "output": 4.5},
            [{"role": "user", "content": "Add\n\n4"}, {"role": "assistant", "content": "4.5"}],
        ),
    ],
)
def test_system_history_and_numbers_are_turns(row: dict, messages: list) -> None:
    assert read_row(row) == (messages, [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [*CHAT, None]}, "a turn that is null, or of another form"),
        ({"conversations": [CHAT[0], "4"]}, "a turn that is null, or of another form"),
        ({"instruction": "Add", "output": "4", "history": ["1 + 1?"]}, "a turn that is null, or of another form"),
        ({"instruction": "Add", "input": [2, 2], "output": "4"}, "content that is not text"),
        ({"instruction": "Add", "input": {"a": 2}, "output": "4"}, "content that is not text"),
        ({"instruction": "Add", "input": "2", "output": True}, "content that is not text"),
        ({"messages": None}, "no messages"),
    ],
)
def test_what_is_no_turn_is_counted(row: dict, reason: str) -> None:
    assert sound_conversations([to_messages(row)]) == ([], {reason: 1})


def test_columns_that_are_not_used_are_counted(tmp_path: Path) -> None:
    rows = [
        {"messages": CHAT, "tools": "[]", "id": 1},
        {"messages": [CHAT[0], {**CHAT[1], "tool_calls": [1]}], "id": 2},
        {"messages": [SYSTEM, *CHAT], "system": "Be long.", "id": None},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    wanted = (
        r"a.jsonl: these columns are not used: id \(2 rows\), messages.tool_calls \(1 rows\), system \(1 rows\), tools"
    )
    with pytest.warns(UserWarning, match=wanted):
        assert len(read_chats(tmp_path / "a.jsonl")[0]) == 3


def test_several_turns_and_a_system_prompt() -> None:
    turns = [{"from": "system", "value": "Be brief."}, *({"from": who, "value": who} for who in ("human", "gpt") * 2)]
    assert [m["role"] for m in to_messages({"conversations": turns})] == ["system", *("user", "assistant") * 2]


@pytest.mark.parametrize("row", [{}, {"text": "a"}, {"instruction": "a"}, {"messages": "user: a"}, {"output": "a"}])
def test_other_columns_are_refused(row: dict) -> None:
    with pytest.raises(ValueError, match="no conversation in the columns"):
        to_messages(row)


def test_what_is_left_out_is_counted() -> None:
    def chat(*pairs: tuple) -> list[dict]:
        return [{"role": role, "content": content} for role, content in pairs]

    conversations = [
        CHAT,
        [],
        chat(("user", "a")),
        chat(("assistant", "Welcome!")),
        chat(("tool", "4"), ("assistant", "4")),
        chat(("tool", "5"), ("assistant", "4")),
        chat((None, "5")),
        chat(("user", None), ("assistant", "4")),
        chat(("user", "  "), ("assistant", "4")),
        chat(("user", "a"), ("assistant", "")),
        chat(("system", " "), ("assistant", "Welcome!"), ("user", "a"), ("assistant", "b")),
        chat(("system", "s"), ("assistant", "Welcome!"), ("user", "a"), ("assistant", "b"), ("user", "c")),
    ]
    kept, left_out = sound_conversations(conversations)
    assert kept == [
        CHAT,
        chat(("user", "a"), ("assistant", "b")),
        chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")),
    ]
    assert left_out == {
        "no messages": 1,
        "no answer to a question": 2,
        "unknown role 'tool'": 2,
        "unknown role None": 1,
        "content that is not text": 1,
        "an empty message": 2,
    }
    assert len(kept) + left_out.total() == len(conversations)
    assert describe(left_out).startswith("2 ")


def test_files_and_saved_data_sets(tmp_path: Path) -> None:
    rows = [{"instruction": "2 + 2?", "input": "", "output": "4"}, {"instruction": "?", "input": "", "output": " "}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with gzip.open(tmp_path / "b.json.gz", "wt") as file:
        json.dump(rows, file)
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    DatasetDict(validation=Dataset.from_list(rows)).save_to_disk(tmp_path / "saved")
    for name in ("a.json", "a.jsonl", "b.json.gz", "a.parquet", "saved"):
        assert read_chats(tmp_path / name, "validation") == ([CHAT], {"an empty message": 1})


def test_bad_sources(tmp_path: Path) -> None:
    (tmp_path / "object.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("[1,")
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[]" * 100)[:-9])
    (tmp_path / "other.jsonl").write_text('{"text": "a"}')
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "silent.jsonl").write_text(json.dumps({"messages": []}))
    DatasetDict(train=Dataset.from_list([{"messages": CHAT}])).save_to_disk(tmp_path / "saved")
    for name, complaint in {
        "object.json": "must hold a list",
        "broken.json": "not JSON",
        "latin.json": "UTF-8",
        "cut.json.gz": "unpacked",
        "other.jsonl": r"row 1: no conversation in the columns \['text'\]",
        "empty.json": "no rows",
        "silent.jsonl": "1 no messages",
        "saved": r"no split 'test'; it has \['train'\]",
        "missing": "neither a file",
        ".": "not a saved data set",
    }.items():
        with pytest.raises(ValueError, match=complaint):
            read_chats(tmp_path / name, "test")


def test_shared_sets(shared_data: Path) -> None:
    folder = shared_data / "instruct"
    assert len(read_chats(folder / "rasbt" / "instruction-data.json")[0]) == 1100
    kept, left_out = read_chats(folder / "dolly_dev.jsonl.zst")
    assert len(kept) + left_out.total() == 12012
    kept, left_out = read_chats(folder / "llamafactory_alpaca_en_demo.json.zst")
    assert len(kept) + left_out.total() == 999
