"""Conversations of a chat data set, in whichever of four schemas it comes.

    {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}      the ecosystem's own
    {"instruction": …, "input": …, "output": …}                                      Alpaca
    {"instruction": …, "context": …, "response": …}                                  Dolly
    {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}        ShareGPT

Which one it is follows from the columns. A column `system` (or `system_prompt`) comes before any of them, and
`history`, pairs of a question and its answer, before Alpaca's instruction. A source is whatever `files.read_source`
reads.

A conversation that cannot teach anything is left out, and the reason counted: one unsound row in a Hub data set is no
reason to stop, but nobody should have to guess what was trained on. What stands in other columns is not used, and
that is counted too.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from .chat import Message
from .files import read_source

ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
"""Beside the names above, which some data sets of this schema use."""

NO_TURN = "a turn that is null, or of another form"
"""Stands for the role of what is no turn."""


def to_messages(row: Mapping[str, Any]) -> list[Message]:
    """The conversation in a row of any of the four schemas; see `read_row`."""
    return read_row(row)[0]


def read_row(row: Mapping[str, Any]) -> tuple[list[Message], list[str]]:
    """The conversation in a row of any of the four schemas, and the columns whose values are not part of it.

    An instruction with an input or a context becomes one user message: the two with an empty line between. Numbers
    are text. Roles and contents of any other kind are passed on as they are; `sound_conversations` looks at them.

    Raises:
        ValueError: for columns that are none of the four.
    """
    rest = {column: value for column, value in row.items() if value not in (None, "", [], {})}
    messages: list[Message] | None = None
    for column in ("messages", "conversations"):
        if column in row and isinstance(row[column], list | NoneType):
            messages = [_turn(turn) for turn in rest.pop(column, [])]
            extra = {f"{column}.{key}" for turn in row[column] or [] if isinstance(turn, Mapping) for key in turn}
            extra -= {f"{column}.{key}" for key in TURN_KEYS}
            rest |= dict.fromkeys(sorted(extra))
            break
    else:
        for extra, answer in (("input", "output"), ("context", "response")):
            if "instruction" in row and answer in row:
                question, more = _text(rest.pop("instruction", "")), _text(rest.pop(extra, ""))
                if not isinstance(more, str):
                    question = more  # is not text, and says so
                elif isinstance(question, str) and more.strip():
                    question = f"{question}\n\n{more}"
                messages = [*_history(rest), _message("user", question), _message("assistant", rest.pop(answer, ""))]
                break
    if messages is None:
        raise ValueError(
            f"no conversation in the columns {list(row)}: they must hold messages, conversations, instruction and "
            "output, or instruction and response"
        )
    for column in ("system", "system_prompt"):
        if column in rest and not any(message["role"] == "system" for message in messages):
            messages.insert(0, _message("system", rest.pop(column)))
    return messages, list(rest)


TURN_KEYS = ("role", "content", "from", "value")


def _turn(turn: Any) -> Message:
    """A turn of `messages` or of ShareGPT's `conversations`; without a role where it is null or no object."""
    if not isinstance(turn, Mapping):
        return {"role": NO_TURN, "content": ""}
    return _message(turn.get("role", turn.get("from")), turn.get("content", turn.get("value")))


def _history(rest: dict[str, Any]) -> list[Message]:
    """The turns before an instruction; taken out of `rest`."""
    messages: list[Message] = []
    for pair in rest.pop("history", []):
        if isinstance(pair, list) and len(pair) == 2:
            messages += [_message("user", pair[0]), _message("assistant", pair[1])]
        else:
            messages.append({"role": NO_TURN, "content": ""})
    return messages


def _message(role: Any, content: Any) -> Message:
    if isinstance(role, str):
        role = SHAREGPT_ROLES.get(role, role)
    return {"role": role, "content": _text(content)}


def _text(value: Any) -> Any:
    """Numbers as text, anything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


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
        if role == NO_TURN:
            return NO_TURN
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

    unused: Counter[str] = Counter()

    def conversations() -> Iterator[list[Message]]:
        for number, row in enumerate(read_source(source, split), start=1):
            try:
                messages, columns = read_row(row)
            except ValueError as error:
                raise ValueError(f"{source}, row {number}: {error}") from error
            unused.update(columns)
            yield messages

    kept, left_out = sound_conversations(conversations())
    if not kept:
        raise ValueError(
            f"{source}, split {split!r}: no conversation to learn from ({describe(left_out) or 'no rows'})"
        )
    if unused:
        warnings.warn(f"{source}: these columns are not used: {describe_unused(unused)}", stacklevel=2)
    return kept, left_out


def describe_unused(counts: Mapping[str, int]) -> str:
    """`category (3 rows), id (4 rows)`"""
    return ", ".join(f"{column} ({count:,} rows)" for column, count in sorted(counts.items()))


def describe(counts: Mapping[str, int]) -> str:
    """`3 unknown role 'tool', 1 no messages`"""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
