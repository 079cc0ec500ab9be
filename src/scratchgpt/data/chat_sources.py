"""Conversations of a chat data set, in whichever of four schemas it comes.

    {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}      the ecosystem's own
    {"instruction": …, "input": …, "output": …}                                      Alpaca
    {"instruction": …, "context": …, "response": …}                                  Dolly
    {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}        ShareGPT

Which one it is follows from the columns. A source is whatever `files.read_source` reads.

A conversation that cannot teach anything is left out, and the reason counted: one unsound row in a Hub data set is no
reason to stop, but nobody should have to guess what was trained on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .chat import Message
from .files import read_source

ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
"""Beside the names above, which some data sets of this schema use."""


def to_messages(row: Mapping[str, Any]) -> list[Message]:
    """The conversation in a row of any of the four schemas.

    An instruction with an input or a context becomes one user message: the two with an empty line between. Roles and
    contents are passed on as they are; `sound_conversations` looks at them.

    Raises:
        ValueError: for columns that are none of the four.
    """
    for column, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
        turns = row.get(column)
        if isinstance(turns, list):
            return [_message(turn.get(role), turn.get(content)) for turn in turns if isinstance(turn, dict)]
    for extra, answer in (("input", "output"), ("context", "response")):
        if "instruction" in row and answer in row:
            question, more = row["instruction"], row.get(extra)
            if isinstance(question, str) and isinstance(more, str) and more.strip():
                question = f"{question}\n\n{more}"
            return [_message("user", question), _message("assistant", row[answer])]
    raise ValueError(
        f"no conversation in the columns {list(row)}: they must hold messages, conversations, instruction and output, "
        "or instruction and response"
    )


def _message(role: Any, content: Any) -> Message:
    if isinstance(role, str):
        role = SHAREGPT_ROLES.get(role, role)
    return {"role": role, "content": content}


def sound_conversations(conversations: Iterable[Sequence[Message]]) -> tuple[list[list[Message]], Counter[str]]:
    """The conversations that can be learned from, and for each reason how many could not.

    An answer to nothing at the beginning is left out, and so is an empty system message; the rest of such a
    conversation stays.
    """
    kept: list[list[Message]] = []
    left_out: Counter[str] = Counter()
    for messages in conversations:
        reason = _fault(messages)
        if reason is not None:
            left_out[reason] += 1
            continue
        sound = [message for message in messages if message["role"] != "system" or message["content"].strip()]
        first_question = next((i for i, message in enumerate(sound) if message["role"] == "user"), len(sound))
        sound = [message for i, message in enumerate(sound) if i >= first_question or message["role"] != "assistant"]
        if any(message["role"] == "assistant" for message in sound):
            kept.append(sound)
        else:
            left_out["no answer to a question"] += 1
    return kept, left_out


def _fault(messages: Sequence[Message]) -> str | None:
    if not messages:
        return "no messages"
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return f"unknown role {role!r}"
        if not isinstance(content, str):
            return "content that is not text"
        if role != "system" and not content.strip():
            return "an empty message"
    return None


def read_chats(source: str | Path, split: str = "train") -> tuple[list[list[Message]], Counter[str]]:
    """The conversations of `source` that can be learned from, and what was left out: reason → how many.

    Args:
        split: of a data set that has splits; files have none.

    Raises:
        ValueError: for a source that does not exist, cannot be read or has no such split, for columns of no known
            schema, and where no conversation is left; names the file, and the row where it is one.
    """

    def conversations() -> Iterator[list[Message]]:
        for number, row in enumerate(read_source(source, split), start=1):
            try:
                yield to_messages(row)
            except ValueError as error:
                raise ValueError(f"{source}, row {number}: {error}") from error

    kept, left_out = sound_conversations(conversations())
    if not kept:
        raise ValueError(
            f"{source}, split {split!r}: no conversation to learn from ({describe(left_out) or 'no rows'})"
        )
    return kept, left_out


def describe(counts: Mapping[str, int]) -> str:
    """`3 unknown role 'tool', 1 no messages`"""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
