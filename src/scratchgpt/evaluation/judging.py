"""The suite in which a judge scores answers, or compares two answers to the same question.

Judges prefer what stands first (Zheng et al. 2023, "Judging LLM-as-a-Judge"), so a pair is shown in both orders, and a
verdict that changes with the order is a tie; how many do is the position bias. Equal answers tie without being shown.
A judge that is not understood on more than a fifth of the items is unfit, and reported without scores: what could be
read would be a selection.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import read_rows
from ..hub.staging import replaced_file
from .agreement import Verdicts
from .answers import ANSWER, REFERENCES, RESAMPLES, SEED, text_of
from .journal import Journal
from .judge import NO_REFERENCE, PAIRWISE_PROMPT, SCORE_PROMPT, Judge, ask, parse_score, parse_verdict
from .results import Measurement, SuiteResult
from .statistics import percentile_interval, wilson_interval

MOST_UNREADABLE = 0.2
"""Share of the items; a judge with more is unfit."""

QUESTION = ("instruction", "input", "question", "prompt", "conversations")
"""Columns, in small letters, that together are the question."""

POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}
SWAPPED = {"A": "B", "B": "A", "tie": "tie"}


@dataclass(frozen=True)
class Item:
    """What a judge is asked about: one answer to a question, or two."""

    question: str
    reference: str
    """Empty where there is none."""
    answer: str
    other: str | None = None

    def prompts(self) -> list[str]:
        """One for a score; two for a pair, in both orders; none for a pair of equal answers.

        A reference that is one of two answers would decide: it is not shown.
        """
        hidden = self.reference in ("", self.other) or (self.other is not None and self.reference == self.answer)
        shown = {"question": self.question, "reference": NO_REFERENCE if hidden else self.reference}
        if self.other is None:
            return [SCORE_PROMPT.format(**shown, answer=self.answer)]
        if self.answer.strip() == self.other.strip():
            return []
        orders = ((self.answer, self.other), (self.other, self.answer))
        return [PAIRWISE_PROMPT.format(**shown, answer_a=a, answer_b=b) for a, b in orders]


def read_items(
    file: str | Path, column: str = ANSWER, other: str | Path | None = None, other_column: str = ANSWER
) -> list[Item]:
    """The answers in a file, and those of another (or of another column) to the same questions in the same order.

    A question is in `instruction` and `input`, `question`, `prompt` or `conversations`; the reference, if there is
    one, in `output`, `response` or `reference`. Capitals in the names of columns do not matter. Chat turns are read as
    their text.

    Raises:
        ValueError: for a missing column, something else than text, and files with other questions; names the row.
    """
    rows = _rows(file)
    reference = next(
        (name for name in REFERENCES if name != column.lower() and any(name in row for row in rows)), None
    )
    items = []
    for number, row in enumerate(rows, 1):
        question = _question(row)
        if not question:
            raise ValueError(
                f"{file}, row {number}: no question in a column {', '.join(QUESTION)}; it has {list(row)}"
            )
        known = "" if reference is None or row.get(reference) is None else text_of(file, number, row, reference)
        items.append(Item(question, known, _text(file, number, row, column)))
    if other is None:
        return items
    others = _rows(other)
    if [_question(row) for row in others] != [item.question for item in items]:
        raise ValueError(f"{file} and {other} must hold answers to the same questions, in the same order")
    texts = [_text(other, number, row, other_column) for number, row in enumerate(others, 1)]
    return [replace(item, other=text) for item, text in zip(items, texts, strict=True)]


def read_preferences(file: str | Path) -> tuple[list[Item], Verdicts]:
    """What people preferred, from the columns `chosen` and `rejected`: pairs of answers, and people's verdicts.

    What they chose is A in a random half of the pairs, so that kappa knows what chance is. Raises as `read_items`.
    """
    pairs = read_items(file, "chosen", file, "rejected")
    verdicts = ["A" if first else "B" for first in np.random.default_rng(SEED).random(len(pairs)) < 0.5]
    swapped = [replace(pair, answer=pair.other or "", other=pair.answer) for pair in pairs]
    return [a if verdict == "A" else b for a, b, verdict in zip(pairs, swapped, verdicts, strict=True)], verdicts


def _rows(file: str | Path) -> list[dict[str, Any]]:
    if not Path(file).is_file():
        raise ValueError(f"{file} is no file")
    rows = [{name.lower(): _plain(value) for name, value in row.items()} for row in read_rows(Path(file))]
    if not rows:
        raise ValueError(f"{file} holds no rows: there is nothing to judge")
    return rows


def _plain(value: Any) -> Any:
    """The text of a chat turn; of several with who said each."""
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        names = [turn.get("role", turn.get("from")) for turn in value]
        texts = [str(_plain(turn)) for turn in value]
        return texts[0] if len(texts) == 1 else "\n\n".join(map("{}: {}".format, names, texts))
    return value.get("content", value.get("value")) if isinstance(value, Mapping) else value


def _question(row: Mapping[str, Any]) -> str:
    return "\n\n".join(str(row[name]) for name in QUESTION if row.get(name))


def _text(file: str | Path, number: int, row: Mapping[str, Any], column: str) -> str:
    if row.get(column.lower()) is None:
        raise ValueError(
            f"{file}, row {number}: no text in the column {column!r}; name another with --answer_column: {list(row)}"
        )
    return text_of(file, number, row, column.lower())


@dataclass
class Judging:
    """
    Args:
        items: all with a second answer, then they are compared; or all without, then each is scored.
        directory: gets `judge.jsonl`, an item a line with verdict and replies, and `journal/`, which makes reruns
            free.
    """

    items: Sequence[Item]
    judge: Judge
    directory: Path
    name: str = "judge"

    def identity(self) -> dict[str, Any]:
        """The answers, the judge with its settings, and the prompts."""
        shown = hashlib.sha256(json.dumps([astuple(each) for each in self.items]).encode()).hexdigest()
        return {"items": shown, "judge": self.judge.identity(), "prompts": [SCORE_PROMPT, PAIRWISE_PROMPT]}

    def check(self, config: Any, tokenizer: Any) -> None:
        """Nothing can be wrong that reading the items has not found."""

    @property
    def pairwise(self) -> bool:
        return self.items[0].other is not None

    def asked(self) -> tuple[Verdicts, list[list[str | None]]]:
        """For each item its score, or A, B or tie, or None where a reply could not be read; and the replies: none for
        equal answers, None where the prompt was too long for the judge.

        Raises:
            ValueError: where the judge cannot be asked any more; the next run goes on from there.
        """
        prompts = [item.prompts() for item in self.items]
        journal = Journal(self.directory / "journal" / f"{self.name}.jsonl", self.judge.identity())
        said = iter(ask(self.judge, [prompt for each in prompts for prompt in each], journal))
        replies = [[next(said) for _ in each] for each in prompts]
        if self.pairwise:
            return [pair_verdict(each) for each in replies], replies
        return [parse_score(each[0] or "") for each in replies], replies

    def run(self, model: Any = None, tokenizer: Any = None) -> SuiteResult:
        """The mean score; or the win rate of the first answers, and the position bias. Raises as `asked`."""
        verdicts, replies = self.asked()
        kind = "verdict" if self.pairwise else "score"
        with replaced_file(self.directory / f"{self.name}.jsonl") as new, new.open("w", encoding="utf-8") as stream:
            for item, verdict, said in zip(self.items, verdicts, replies, strict=True):
                line = asdict(item) | {kind: verdict, "replies": said}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        asked, unreadable = sum(map(bool, replies)), verdicts.count(None)
        counts: dict[str, Any] = {"unreadable": unreadable, "too_long": sum(None in said for said in replies)}
        found: dict[str, Measurement] = {}
        if asked:
            found["readable"] = self._rate("readable", asked - unreadable, asked, counts)
        if unreadable > MOST_UNREADABLE * asked:
            words = f"unfit as a judge: {unreadable} of {asked} times there was no reply that is what was asked for"
            if counts["too_long"]:
                words += f", {counts['too_long']} times since the prompt is longer than the judge's context"
            return SuiteResult({"readable": replace(found["readable"], details=counts | {"verdict": words})})
        if self.pairwise:
            name, title = "win_rate", "win rate in both orders, ties are half"
            points = [POINTS[each] for each in verdicts if isinstance(each, str)]
            both = [(a, b) for a, b in map(_letters, filter(None, replies)) if a and b]
            if both:
                favoured = {"first_preferred": both.count(("A", "A")), "second_preferred": both.count(("B", "B"))}
                changed = sum(a != SWAPPED[b] for a, b in both)
                found["changed_with_order"] = self._rate("changed with the order", changed, len(both), favoured)
            counts |= {"wins": points.count(1.0), "ties": points.count(0.5), "losses": points.count(0.0)}
            counts["identical"] = len(replies) - asked
        else:
            name, title = "score", "score from 0 to 100"
            points = [float(each) for each in verdicts if each is not None]
        found[name] = Measurement(
            float(np.mean(points)), len(points), _interval(points), self._signature(title), counts
        )
        return SuiteResult(found, {name: points} if not unreadable else {})

    def _rate(self, title: str, number: int, of: int, details: Mapping[str, Any]) -> Measurement:
        return Measurement(number / of, of, wilson_interval(number, of), self._signature(title), details)

    def _signature(self, title: str) -> str:
        prompt = PAIRWISE_PROMPT if self.pairwise else SCORE_PROMPT
        settings = self.judge.identity() | {"prompt": hashlib.sha256(prompt.encode()).hexdigest()}
        return f"judge: {title}|{'|'.join(f'{key}:{str(value)[:40]}' for key, value in settings.items())}"


def _letters(replies: Sequence[str | None]) -> list[str | None]:
    return [parse_verdict(reply or "") for reply in replies]


def pair_verdict(replies: Sequence[str | None]) -> str | None:
    """Of the replies to both orders; a tie where they disagree, and where nobody was asked about equal answers."""
    if not replies:
        return "tie"
    one, other = _letters(replies)
    if one is None or other is None:
        return None
    return one if one == SWAPPED[other] else "tie"


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(SEED).multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    return percentile_interval(drawn @ np.array(values) / len(values))
