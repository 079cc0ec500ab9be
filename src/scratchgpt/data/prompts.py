"""Questions whose answers can be checked, in whichever schema they come.

    {"prompt": …, "answer": …}             TRL's: messages, or text
    {"question": …, "answer": …}           GSM8K's
    {"messages": […]} and the others       those of instruction tuning: the last answer is what a checker compares with

Whatever else is in a row goes to the checker with it. An answer is not needed where the checker needs none.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat import Message
from .chat_sources import describe, read_row, sound_conversations
from .files import read_source
from .splits import hold_out

ANSWER = "answer"
"""The column that checkers compare with."""


@dataclass(frozen=True)
class Prompt:
    """
    Args:
        messages: they end with a question.
        row: what it was read from, with the right answer as text in `ANSWER`, if it is known.
    """

    messages: list[Message]
    row: dict[str, Any]

    @property
    def question(self) -> str:
        """What the user says last."""
        return self.messages[-1]["content"]


def read_prompt(row: Mapping[str, Any]) -> Prompt | str:
    """The prompt in a row, or why nobody could answer it.

    Raises:
        ValueError: for columns of no known schema.
    """
    answer = row.get(ANSWER)
    if prompt := next((row[name] for name in ("prompt", "question") if row.get(name)), None):
        system = {name: row[name] for name in ("system", "system_prompt") if name in row}
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages, _ = read_row({**system, "messages": turns})
    else:
        try:
            messages, _ = read_row(row)
        except ValueError as error:
            raise ValueError(f"{error}; or prompt, or question") from error
        if messages and messages[-1]["role"] == "assistant":
            *messages, last = messages
            answer = last["content"] if answer is None else answer
    if not messages or messages[-1]["role"] != "user":
        return "no question at the end"
    # The last question stands for its answer here, so that a conversation is looked at as others are.
    _, left_out = sound_conversations([[*messages, {"role": "assistant", "content": "…"}]])
    if left_out:
        return next(iter(left_out))
    rest = {name: value for name, value in row.items() if name != ANSWER}
    return Prompt(messages, rest if answer is None else {**rest, ANSWER: str(answer)})


def read_prompts(source: str | Path, split: str = "train") -> tuple[list[Prompt], Counter[str]]:
    """The prompts of `source` that can be answered, and what was left out: reason → how many.

    Args:
        split: of a data set that has splits; files have none.

    Raises:
        ValueError: for a source that does not exist, cannot be read or has no such split, for columns of no known
            schema, and where no prompt is left; names the file, and the row where it is one.
    """
    kept: list[Prompt] = []
    left_out: Counter[str] = Counter()
    for number, row in enumerate(read_source(source, split), start=1):
        try:
            prompt = read_prompt(row)
        except ValueError as error:
            raise ValueError(f"{source}, row {number}: {error}") from error
        if isinstance(prompt, Prompt):
            kept.append(prompt)
        else:
            left_out[prompt] += 1
    if not kept:
        raise ValueError(f"{source}, split {split!r}: no question to answer ({describe(left_out) or 'no rows'})")
    return kept, left_out


def split_prompts(prompts: list[Prompt], validation_fraction: float, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """For training, and for validation; no question is in both.

    Raises:
        ValueError: where one of them would be empty.
    """
    training, validation = hold_out(prompts, [repr(each.messages) for each in prompts], validation_fraction, seed)
    if not training or not validation:
        raise ValueError(
            f"{len(prompts)} prompts cannot be split for training and validation: give more different ones, "
            "validation_fraction above 0, or --eval_data"
        )
    return training, validation
