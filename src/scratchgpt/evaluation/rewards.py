"""What an answer is worth: rewards of the package, and functions of the user's.

A reward is a function `(prompt, answer, row) -> float`: the text of the question, the text of the answer, and the row
of the data set that the question is from, in which `answer` is the right one, where that is known. Of the package's

    exact_match     1 where the answer is the right one, white space aside, else 0
    number_match    1 where the last number in the answer is the last one in the right answer, else 0
    format          1 where the whole answer matches a regular expression, else 0

and the user's are named `module:function`. Those run in a process of their own (`reward_worker`), so that one which
hangs, exits or raises is named in one line. `name=weight` gives a reward a weight; the reward is the weighted sum.
"""

import contextlib
import json
import math
import queue
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..data.prompts import ANSWER, Prompt

Reward = Callable[[str, str, Mapping[str, Any]], float]

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
IMPORT_LIMIT = 120.0
"""Seconds that a user's module may take to be imported: it may import torch."""


class RewardError(ValueError):
    """A reward that gave no number."""


def exact_match(prompt: str, answer: str, row: Mapping[str, Any]) -> float:
    """1 where the answer is the right one, white space aside."""
    return float(answer.split() == row[ANSWER].split())


def number_match(prompt: str, answer: str, row: Mapping[str, Any]) -> float:
    """1 where the last number in the answer is the last one in the right answer."""
    found = last_number(answer)
    return float(found is not None and found == last_number(row[ANSWER]))


def last_number(text: str) -> Decimal | None:
    """Commas between its digits aside."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


OWN: dict[str, Reward] = {"exact_match": exact_match, "number_match": number_match}
FORMAT = "format"


class Worker:
    """A user's reward in a process of its own.

    Args:
        name: `module:function`; the module is looked for where Python looks, and in the working directory.
        limit: seconds that a call may take.

    Raises:
        RewardError: where the function cannot be imported.
    """

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
        program = Path(__file__).with_name("reward_worker.py").read_text(encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            encoding="utf-8",
        )  # fmt: skip
        self.close = weakref.finalize(self, _end, self.process)
        """Ends the process; so does the end of this object."""
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()
        self.source: str = self._next(IMPORT_LIMIT, "")["source"]
        """SHA-256 of the module."""

    def __call__(self, asked: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[float]:
        """
        Raises:
            RewardError: names the function, what it did, and the answer that it was given.
        """
        # By a thread: with both pipes full each end would wait for the other.
        text = json.dumps(asked, default=str) + "\n"
        threading.Thread(target=_write, args=(self.process, text), daemon=True).start()
        places = [f" for the answer {_short(answer)} to {_short(prompt)}" for prompt, answer, _ in asked]
        return [float(self._next(self.limit, where)["value"]) for where in places]

    def _next(self, limit: float, where: str) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise RewardError(f"the reward {self.name} took more than {limit:g} s{where}") from None
        if not line:
            code = self.process.wait()
            raise RewardError(f"the reward {self.name} ended its process with exit code {code}{where}")
        values = json.loads(line)
        if "error" in values:
            self.close()
            raise RewardError(f"the reward {self.name} {values['error']}{where}")
        return values


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Puts what a process says into a queue, and an empty line at its end."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _write(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has ended, and that is noticed where its answer is missing
        process.stdin.write(text)
        process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


class Rewards:
    """The weighted sum of one or more rewards.

    Args:
        names: each a reward of the package or `module:function`, with `=weight` if that is not 1.
        pattern: the regular expression of the reward `format`.
        limit: seconds that a call of a user's function may take.

    Raises:
        ValueError: for an unknown name, a weight that is no number, and a pattern that is missing or wrong.
        RewardError: where a user's function cannot be imported.
    """

    def __init__(self, names: Sequence[str], pattern: str | None = None, limit: float = 10.0) -> None:
        if not names:
            raise ValueError("reward is empty: give one or more")
        self.pattern, self.weights, self.workers = pattern, [_weight(name) for name in names], dict[str, Worker]()
        self.names = [name.partition("=")[0] for name in names]
        for name in self.names:
            module, colon, function = name.partition(":")
            if name not in (*OWN, FORMAT) and not (colon and module and function):
                raise ValueError(
                    f"reward={name} is unknown: give {', '.join((*OWN, FORMAT))}, or module:function for one of yours"
                )
        if (FORMAT in self.names) != (pattern is not None):
            raise ValueError("the reward format needs --answer_format, a regular expression, and no other needs it")
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"answer_format={pattern} is no regular expression: {error}") from error
        for name in self.names:
            if ":" in name:
                self.workers[name] = Worker(name, limit)

    def check(self, prompts: Sequence[Prompt], source: str) -> None:
        """
        Raises:
            ValueError: where a reward of the package compares with an answer that a prompt of `source` lacks.
        """
        needing = [name for name in self.names if name in OWN]
        lacking = [prompt for prompt in prompts if ANSWER not in prompt.row]
        if needing and lacking:
            raise ValueError(
                f"{source}: {len(lacking):,} questions have no answer that {needing[0]} could compare with, such as "
                f"{_short(lacking[0].question)}: give a column {ANSWER}"
            )
        if number_less := [
            prompt for prompt in prompts if "number_match" in self.names and last_number(prompt.row[ANSWER]) is None
        ]:
            raise ValueError(f"{source}: number_match finds no number in the answer {number_less[0].row[ANSWER]!r}")

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """float64 [N]: what each answer is worth.

        Raises:
            RewardError: where a user's function gives no finite number; names it, and the answer.
        """
        asked = [(prompt.question, answer, prompt.row) for prompt, answer in zip(prompts, answers, strict=True)]
        total = np.zeros(len(asked))
        for name, weight in zip(self.names, self.weights, strict=True):
            if name in self.workers:
                values = self.workers[name](asked)
            elif name == FORMAT:
                assert self.pattern is not None
                values = [float(re.fullmatch(self.pattern, answer) is not None) for _, answer, _ in asked]
            else:
                values = [OWN[name](*each) for each in asked]
            total += weight * np.array(values)
        return total

    def close(self) -> None:
        """Ends the processes."""
        for worker in self.workers.values():
            worker.close()

    def fingerprint(self) -> str:
        """A hash of names, weights, pattern, and the files of the user's functions."""
        parts = (self.names, self.weights, self.pattern, [worker.source for worker in self.workers.values()])
        return xxhash.xxh3_128_hexdigest(repr(parts).encode())


def _weight(name: str) -> float:
    _, has_weight, text = name.partition("=")
    try:
        weight = float(text) if has_weight else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(f"reward={name}: the weight after = must be a number")
    return weight


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
