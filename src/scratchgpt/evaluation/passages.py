"""How well a model answers from a passage: the right one, the one that is found, a wrong one, and none.

A data set of questions with their passages (data_builders/python_docs.py writes one) has the columns `messages`, whose
first is the passage and the question, `passage`, `kind`, and `source`, the document that the passage comes from, empty
where there is none; and perhaps `wording`, the kind of wording. Answers are greedy. An exact answer is equal to the
reference but for white space at both ends; what an answer shares with the reference is token-F1.

Questions about one document are not independent: 95 % intervals are by bootstrap over documents (Efron 1979).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..data.chat import Message, render_chats
from ..data.files import read_source, saved_splits
from ..data.passages import NOT_SAID, Passage, Passages, with_passage
from .answers import check_can_answer, with_chat_template, with_room, write_rows
from .benchmark_data import spread
from .journal import Journal
from .log_likelihoods import context_length
from .responses import generate_responses
from .results import Measurement, SuiteResult
from .statistics import percentile_interval
from .token_overlap import token_f1

RESAMPLES = 1000
SEED = 0

CONTROLS = 200
"""Questions that are asked with a wrong passage, and with none, at most."""

COLUMNS = ("messages", "passage", "kind", "source")
SIGNATURE = "greedy|interval:bootstrap over documents|version:scratchgpt 1"


@dataclass(frozen=True)
class Asked:
    """A question, and what the data set has about it."""

    question: str
    passage: str
    reference: str
    kind: str
    source: str
    wording: str = ""

    @property
    def messages(self) -> list[Message]:
        """With the passage."""
        return asking(with_passage(self.passage, self.question))

    @property
    def is_answered(self) -> bool:
        """Whether the passage holds the answer."""
        return self.reference != NOT_SAID

    @property
    def parts(self) -> list[str]:
        """What it is counted under."""
        return [self.kind, *([f"{self.wording} wording"] if self.wording else [])]


def asking(text: str) -> list[Message]:
    """A conversation that is this one message."""
    return [{"role": "user", "content": text}]


def read_asked(data: str | Path, split: str) -> list[Asked]:
    """
    Raises:
        ValueError: for data without the columns, or of another form; and as `read_source`.
    """
    found = []
    for number, row in enumerate(read_source(data, split), 1):
        if missing := [column for column in COLUMNS if column not in row]:
            raise ValueError(f"{data} has no column {missing[0]!r}: the suite passages needs {', '.join(COLUMNS)}")
        messages, beginning = row["messages"], with_passage(row["passage"], "")
        if len(messages) < 2 or not messages[0]["content"].startswith(beginning):
            raise ValueError(f"{data}, {split}, row {number}: the first message does not begin with the passage")
        question = messages[0]["content"][len(beginning) :]
        about = (row["kind"], row["source"], row.get("wording", ""))
        found.append(Asked(question, row["passage"], messages[1]["content"], *about))
    if not found:
        raise ValueError(f"{data}, {split}: there are no questions")
    return found


def first_sentence(passage: str) -> str:
    """Of what follows the first line: the answer of who always copies it."""
    text = passage.partition("\n")[2]
    end = min((place + 1 for mark in (". ", ".\n") if (place := text.find(mark)) >= 0), default=len(text))
    return text[:end].strip()


@dataclass
class PassageSuite:
    """The suite in which a model answers questions with their passages.

    With the right passage all questions are asked. With the passage that `Passages` finds among those of the whole
    data set those that the right one answers, and with a wrong one and with none `CONTROLS` of these.

    Args:
        data: see above.
        directory: the model's. It gets `passages.jsonl`, every question and answer, and `journal/`, from which a
            killed run goes on.
        owner: what identifies the model, as in `Results`.
        count: ask this many questions, spread over the data; default: all.
    """

    data: str
    split: str
    directory: Path
    owner: Mapping[str, Any]
    count: int | None = None
    max_new_tokens: int = 64
    batch_size: int = 16
    name: str = "passages"

    def __post_init__(self) -> None:
        self.asked = spread(read_asked(self.data, self.split), self.count)

    @cached_property
    def passages(self) -> Passages:
        """Those of all splits, but for what does not exist."""
        rows = (
            row for split in saved_splits(Path(self.data)) or [self.split] for row in read_source(self.data, split)
        )
        texts = {(row["passage"], row["source"]) for row in rows if row["source"]}
        return Passages([Passage(*each) for each in sorted(texts)])

    def identity(self) -> dict[str, Any]:
        """The questions, the passages to find, and how they are answered."""
        everything = [[asdict(each) for each in self.asked], [asdict(each) for each in self.passages.passages]]
        asked = hashlib.sha256(json.dumps(everything).encode()).hexdigest()
        return {"questions": asked, "max_new_tokens": self.max_new_tokens, "signature": SIGNATURE, "seed": SEED}

    def texts(self, tokenizer: Any) -> Iterable[str]:
        """Each question with its answer, not the passage: it may be text that a base was meant to read."""
        return [f"{each.question}\n\n{each.reference}" for each in self.asked]

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError for a model that cannot answer: without an end-of-text token, or with a short context."""
        check_can_answer(self.asked, self.data, self.max_new_tokens, config, tokenizer)

    def run(self, model: Any, tokenizer: Any) -> SuiteResult:
        """Questions too long for the context are left out: `count` says how many were asked."""
        tokenizer = with_chat_template(tokenizer)
        asked = with_room(self.asked, self.max_new_tokens, context_length(model.config), tokenizer)
        answered = [each for each in asked if each.is_answered]
        found = [self.passages.find(each.question) for each in answered]
        others = np.random.default_rng(SEED).permutation(len(asked))
        controls = spread(answered, CONTROLS)
        prompts = {
            "right": [with_passage(each.passage, each.question) for each in asked],
            "found": [
                with_passage(passage.text, each.question) if passage else ""
                for passage, each in zip(found, answered, strict=True)
            ],
            "wrong": [with_passage(_other(each, asked, others), each.question) for each in controls],
            "without": [each.question for each in controls],
        }
        answers = self._answers(model, tokenizer, {text for each in prompts.values() for text in each if text})
        given = {name: [answers.get(text, "") for text in each] for name, each in prompts.items()}
        write_rows(
            self.directory / f"{self.name}.jsonl",
            (
                {"kind": each.kind, "instruction": prompt, "output": each.reference, "model_response": answer}
                for each, prompt, answer in zip(asked, prompts["right"], given["right"], strict=True)
            ),
        )

        right = [_exact(*each) for each in zip(given["right"], asked, strict=True)]
        f1 = [token_f1(text, each.reference) for text, each in zip(given["right"], asked, strict=True)]
        measured = {
            "exact_match": _mean(right, asked),
            "token_f1": _mean(f1, asked),
            "exact_match_first_sentence": _mean([_exact(first_sentence(each.passage), each) for each in asked], asked),
        }
        for part in sorted({part for each in asked for part in each.parts}):
            which = [number for number, each in enumerate(asked) if part in each.parts]
            of = [asked[number] for number in which]
            measured[f"exact_match/{part}"] = _mean([right[number] for number in which], of)
            measured[f"token_f1/{part}"] = _mean([f1[number] for number in which], of)
        if answered:
            hits = [
                float(passage is not None and passage.text == each.passage)
                for passage, each in zip(found, answered, strict=True)
            ]
            with_found = [_exact(*each) for each in zip(given["found"], answered, strict=True)]
            without = [_exact(*each) for each in zip(given["without"], controls, strict=True)]
            not_said = [float(text.strip() == NOT_SAID) for text in given["wrong"]]
            measured["found"] = _mean(hits, answered)
            measured["exact_match_found"] = _mean(with_found, answered)
            measured["exact_match_without"] = _mean(without, controls)
            measured["not_said_wrong"] = _mean(not_said, controls)
        return SuiteResult(measured, {"exact_match": right, "token_f1": f1})

    def _answers(self, model: Any, tokenizer: Any, prompts: set[str]) -> dict[str, str]:
        """What the model says to each prompt; nothing to one that fills its context."""
        ordered = sorted(prompts)
        chats = [asking(each) for each in ordered]
        lengths = [len(chat.input_ids) for chat in render_chats(chats, tokenizer, add_generation_prompt=True)]
        fits = [number for number, length in enumerate(lengths) if length < context_length(model.config)]
        journal = Journal(self.directory / "journal" / f"{self.name}.jsonl", self.owner)
        responses = generate_responses(
            model, tokenizer, [chats[number] for number in fits], self.max_new_tokens, self.batch_size,
            journal=journal,
        )  # fmt: skip
        return {ordered[number]: response.text for number, response in zip(fits, responses, strict=True)}


def _other(wanted: Asked, asked: Sequence[Asked], order: np.ndarray) -> str:
    """A passage of another document, without the answer; where in the order to look first, a hash decides."""
    start = int(hashlib.sha256(wanted.question.encode()).hexdigest()[:8], 16)
    for step in range(len(order)):
        other = asked[order[(start + step) % len(order)]]
        if other.source != wanted.source and wanted.reference not in other.passage:
            return other.passage
    return ""


def _exact(text: str, asked: Asked) -> float:
    return float(text.strip() == asked.reference.strip())


def _mean(scores: Sequence[float], asked: Sequence[Asked]) -> Measurement:
    """Of the questions' scores, with an interval; without one where all are about one document."""
    numbers = {source: number for number, source in enumerate(dict.fromkeys(each.source for each in asked))}
    places, count = [numbers[each.source] for each in asked], len(numbers)
    sums, counts = np.bincount(places, scores, count), np.bincount(places, minlength=count)
    interval = None
    if count > 1:
        draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        interval = percentile_interval(draws @ sums / (draws @ counts))
    return Measurement(float(np.mean(scores)), len(scores), interval, SIGNATURE)
