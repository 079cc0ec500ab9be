"""data_builders/alpaca.py and dolly.py: rows of either as conversations, nothing on two sides of a split."""

import json
from pathlib import Path

import pytest
from datasets import load_from_disk

from data_builders import alpaca, dolly

ALPACA = [
    *({"instruction": f"Add {n}", "input": str(i), "output": str(n + i)} for n in range(40) for i in range(2)),
    {"instruction": "add  0", "input": "0", "output": "0"},
    {"instruction": "Say nothing", "input": "", "output": ""},
]
DOLLY = [
    *(
        {"instruction": f"Q{i}?", "context": f"Passage {n}", "response": f"A{n}{i}", "category": "closed_qa"}
        for n in range(40)
        for i in range(2)
    ),
    {"instruction": "Q?", "context": "long " * 100, "response": "A", "category": "closed_qa"},
    {"instruction": "Why?", "context": "", "response": "Because.", "category": "open_qa"},
]


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def build(builder, source: Path, output: Path, *more: str):
    builder.main(["--source", str(source), "--output_dir", str(output), "--validation_fraction", "0.25", *more])
    return load_from_disk(output)


def test_alpaca(tmp_path: Path) -> None:
    data = build(alpaca, write(tmp_path / "a.jsonl", ALPACA), tmp_path / "out")
    assert set(data) == {"train", "validation"}
    rows = [row for split in data.values() for row in split]
    assert len(rows) == 80
    assert {"role": "user", "content": "Add 3\n\n1"} in [row["messages"][0] for row in rows]
    assert not set(data["train"]["source"]) & set(data["validation"]["source"])
    assert len({row["source"] for row in rows}) == 40  # an instruction with two inputs is one document
    record = json.loads((tmp_path / "out" / "build.json").read_text())
    assert record["left_out"] == {"a duplicate": 1, "an empty message": 1}
    assert "Left out: 1 rows (a duplicate)" in (tmp_path / "out" / "README.md").read_text()


def test_dolly(tmp_path: Path) -> None:
    data = build(dolly, write(tmp_path / "d.jsonl", DOLLY), tmp_path / "out", "--max_context_characters", "100")
    rows = [row for split in data.values() for row in split]
    assert len(rows) == 81
    assert {row["category"] for row in rows} == {"closed_qa", "open_qa"}
    by_passage = {row["messages"][0]["content"].partition("\n\n")[2]: row["source"] for row in rows}
    assert len(set(by_passage.values())) == len(by_passage) == 41
    assert not set(data["train"]["source"]) & set(data["validation"]["source"])
    assert json.loads((tmp_path / "out" / "build.json").read_text())["left_out"] == {"a long passage": 1}


def test_same_bytes_in_any_order(tmp_path: Path) -> None:
    one = build(alpaca, write(tmp_path / "a.jsonl", ALPACA[:80]), tmp_path / "one")
    again = build(alpaca, write(tmp_path / "a.jsonl", ALPACA[:80]), tmp_path / "again")
    turned = build(alpaca, write(tmp_path / "b.jsonl", ALPACA[:80][::-1]), tmp_path / "turned")
    for file in sorted((tmp_path / "one").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "one")).read_bytes()
    assert (
        set(one["validation"]["source"]) == set(again["validation"]["source"]) == set(turned["validation"]["source"])
    )
    other = build(alpaca, write(tmp_path / "a.jsonl", ALPACA[:80]), tmp_path / "other", "--seed", "1")
    assert set(other["validation"]["source"]) != set(one["validation"]["source"])


def test_system_and_history_are_turns_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Add {n}", "output": n, "system": "Be brief.", "history": [["Hi", "Hello"]], "id": f"{n}"}
        | dict.fromkeys("edcba", "unused")
        for n in range(3)
    ]
    rows.append({"instruction": "Add", "input": [1, 2], "output": "3"})
    data = build(alpaca, write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    chats = [row["messages"] for split in data.values() for row in split]
    assert sorted(len(chat) for chat in chats) == [5, 5, 5]
    assert {chat[0]["content"] for chat in chats} == {"Be brief."}
    record = json.loads((tmp_path / "out" / "build.json").read_text())
    assert record["left_out"] == {"content that is not text": 1}
    # In the order of the columns: that of a set is another in each process.
    assert list(record["unused_columns"].items()) == [(column, 3) for column in ("id", *"edcba")]
    assert "Columns that are not used: a (3 rows), b (3 rows)" in (tmp_path / "out" / "README.md").read_text()


def test_conversations_of_another_schema_are_documents_of_their_own(tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "!"}]} for n in range(4)]
    data = build(alpaca, write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert len({source for split in data.values() for source in split["source"]}) == 4


@pytest.mark.parametrize(
    ("rows", "more", "complaint"),
    [
        ([{"text": "a"}], [], "no conversation in the columns"),
        (ALPACA[:1], [], "1 conversations of 1 documents are too few for 2 splits"),
        (ALPACA, ["--validation_fraction", "1"], "validation_fraction=1.0: it must be at least 0 and below 1"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path: Path, rows: list[dict], more: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build(alpaca, write(tmp_path / "a.jsonl", rows), tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_without_network_the_hub_is_named(tmp_path: Path) -> None:
    for builder, name in ((alpaca, alpaca.HUB_NAME), (dolly, dolly.HUB_NAME)):
        with pytest.raises(ValueError, match=name):
            builder.main(["--output_dir", str(tmp_path / "out")])
