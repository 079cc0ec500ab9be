"""Pairs of answers to one prompt of which one is preferred, in whichever schema they come.

    {"prompt": …, "chosen": …, "rejected": …}                      TRL's own: each messages, or text
    {"chosen": […], "rejected": […]}                               whole conversations: the prompt is what they share
    {"instruction": …, "input": …, "chosen": …, "rejected": …}     Alpaca's columns
    {"conversations": […], "chosen": …, "rejected": …}             ShareGPT's, as LLaMA-Factory has them

Which one it is follows from the columns. A text prompt is what a user says, a text answer what the assistant says; an
answer may be a single message too. Where `chosen` is a whole conversation although there is a prompt beside it
(UltraFeedback), the conversation counts. A column `system` comes first. A source is whatever `files.read_source`
reads.

What cannot teach anything (answers that are the same, an empty one, …) is left out, and the reason counted.
"""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat import Message
from .chat_sources import describe, describe_unused, read_row, sound_conversations
from .files import read_source
from .splits import hold_out

NEEDED = ("chosen", "rejected")
PROMPTS = ("prompt", "instruction", "input", "history", "conversations", "messages", "system", "system_prompt")


@dataclass(frozen=True)
class Pair:
    """Two answers to the same messages, which end with a question."""

    prompt: list[Message]
    chosen: str
    rejected: str

    def conversation(self, answer: str) -> list[Message]:
        return [*self.prompt, {"role": "assistant", "content": answer}]


def read_pair(row: Mapping[str, Any]) -> tuple[list[Message], list[Message]]:
    """The conversation that ends with the chosen answer, and the one that ends with the rejected answer.

    Raises:
        ValueError: for columns of no known schema.
    """
    if missing := [name for name in NEEDED if name not in row]:
        raise ValueError(f"no column {missing[0]!r} in {list(row)}: a pair has prompt, chosen and rejected")
    prompt = _prompt(row)
    chosen, rejected = (_turns(row[name]) for name in NEEDED)
    if all(map(_is_whole, (chosen, rejected))):
        prompt = []
    elif not prompt:
        raise ValueError(
            f"no prompt in the columns {list(row)}: give prompt, instruction or conversations, or whole conversations "
            "as chosen and rejected"
        )
    system = {name: row[name] for name in ("system", "system_prompt") if name in row}
    first, second = (read_row({**system, "messages": [*prompt, *answer]})[0] for answer in (chosen, rejected))
    return first, second


def _prompt(row: Mapping[str, Any]) -> list[Any]:
    """The turns before the answers; empty where there are none."""
    for name in ("prompt", "conversations", "messages"):
        if row.get(name):
            turns = row[name]
            return [{"role": "user", "content": turns}] if isinstance(turns, str) else list(turns)
    if row.get("instruction"):
        of_the_question = {name: row[name] for name in ("instruction", "input", "history") if name in row}
        return list(read_row({**of_the_question, "output": ""})[0][:-1])
    return []


def _turns(answer: Any) -> list[Any]:
    """An answer that is text, a message or several, as messages; null is an empty answer."""
    if isinstance(answer, list):
        return answer
    return [answer] if isinstance(answer, Mapping) else [{"role": "assistant", "content": answer or ""}]


def _is_whole(turns: list[Any]) -> bool:
    """Whether somebody asks in it."""
    return any(isinstance(turn, Mapping) and turn.get("role", turn.get("from")) in ("user", "human") for turn in turns)


def sound_pair(chosen: list[Message], rejected: list[Message]) -> Pair | str:
    """The pair, or why nothing can be learned from it."""
    if not chosen or not rejected or any(messages[-1]["role"] != "assistant" for messages in (chosen, rejected)):
        return "no answer at the end"
    if any(isinstance(text := messages[-1]["content"], str) and not text.strip() for messages in (chosen, rejected)):
        return "an empty answer"
    kept, left_out = sound_conversations([chosen, rejected])
    if left_out:
        return next(iter(left_out))
    (*prompt, first), (*other_prompt, second) = kept
    if prompt != other_prompt:
        return "conversations that differ before the last answer"
    if first["content"].strip() == second["content"].strip():
        return "chosen and rejected are the same"
    return Pair(prompt, first["content"], second["content"])


def read_pairs(source: str | Path, split: str = "train") -> tuple[list[Pair], Counter[str]]:
    """The pairs of `source` that can be learned from, and what was left out: reason → how many.

    Args:
        split: of a data set that has splits; files have none.

    Raises:
        ValueError: for a source that does not exist, cannot be read or has no such split, for columns of no known
            schema, and where no pair is left; names the file, and the row where it is one.
    """
    kept: list[Pair] = []
    left_out: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    for number, row in enumerate(read_source(source, split), start=1):
        try:
            pair = sound_pair(*read_pair(row))
        except ValueError as error:
            raise ValueError(f"{source}, row {number}: {error}") from error
        unused.update(name for name, value in row.items() if value and name not in (*NEEDED, *PROMPTS))
        if isinstance(pair, Pair):
            kept.append(pair)
        else:
            left_out[pair] += 1
    if not kept:
        raise ValueError(f"{source}, split {split!r}: no pair to learn from ({describe(left_out) or 'no rows'})")
    if unused:
        warnings.warn(f"{source}: these columns are not used: {describe_unused(unused)}", stacklevel=2)
    return kept, left_out


def split_pairs(pairs: list[Pair], validation_fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """For training, and for validation; by a hash of the prompt, so that no prompt is in both.

    Raises:
        ValueError: where one of them would be empty.
    """
    prompts = [repr(pair.prompt) for pair in pairs]
    training, validation = hold_out(pairs, prompts, validation_fraction, seed)
    if not training or not validation:
        raise ValueError(
            f"{len(set(prompts))} different prompts cannot be split for training and validation: give more pairs, "
            "validation_fraction above 0, or --eval_data"
        )
    return training, validation
