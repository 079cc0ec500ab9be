"""Answers scored against references: a model's to an instruction data set, or finished ones in a file of anybody's.

A file of answers is rows (.json, .jsonl, .csv, .parquet, …) with an answer and a reference in each: `Instruction,
Input, Response, model_response`, or `instruction, input, output, model_response`, in capitals or not, or columns that
are named. An empty answer is an answer, and scores 0; an empty reference is a mistake in the data.

Every score comes with a 95 % interval by bootstrap over answers (Efron 1979), from the statistics of single answers.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..data.chat import PLAIN_TEMPLATE, Message, render_chats, stop_token_id
from ..data.chat_sources import read_chats
from ..data.files import read_rows, source_name
from ..hub.staging import replaced_file
from .benchmark_data import spread
from .journal import Journal
from .log_likelihoods import context_length
from .responses import generate_responses, last_questions, texts_of_questions
from .results import Measurement, SuiteResult
from .statistics import percentile_interval, wilson_interval

if TYPE_CHECKING:
    from .metrics.base import AnswerMetric

ANSWER = "model_response"
REFERENCES = ("output", "response", "reference")
"""Columns, in small letters, that hold the reference where none is named."""

RESAMPLES = 1000
SEED = 0

NEEDED = ("evaluate", "sacrebleu", "rouge_score", "nltk")
"""What the metrics import, beside bert_score."""


@dataclass(frozen=True)
class Answers:
    """Answers and what they should have been, in the same order."""

    predictions: list[str]
    references: list[str]
    questions: list[str]
    """Instruction and input; empty texts where there are none."""
    stopped: list[bool] | None = None
    """Whether each ended with the stop token, where that is known."""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.predictions:
            raise ValueError(f"{self.name or 'the data'} holds no answers: there is nothing to score")
        if len({len(each) for each in (self.predictions, self.references, self.questions)}) > 1:
            raise ValueError(
                f"{len(self.predictions)} answers and {len(self.references)} references: give one for each"
            )
        for number, reference in enumerate(self.references, 1):
            if not reference.strip():
                raise ValueError(f"{self.name}, row {number}: the reference is empty; leave the row out")

    def fingerprint(self) -> str:
        everything = [self.predictions, self.references, self.questions, self.stopped]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def check_installed(*packages: str) -> None:
    """Raises ValueError where a package of the extra [eval] is missing."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ValueError(f"scoring answers needs the package {missing[0]}: pip install -e '.[eval]'")


def read_answers(file: str | Path, reference_column: str | None = None, answer_column: str | None = None) -> Answers:
    """The answers in a file.

    Args:
        reference_column, answer_column: where they are not `output` (or `Response`) and `model_response`.

    Raises:
        ValueError: for a missing column, a row without one of the two or with something else than text, an empty
            reference; names the row.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"--answers {file} is no file")
    rows = list(read_rows(path))
    if not rows:
        raise ValueError(f"{file} holds no answers: there is nothing to score")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    answer = _column(path, columns, (ANSWER,), answer_column, "answer")
    reference = _column(path, columns, REFERENCES, reference_column, "reference", but=answer)
    instruction, more = (_find(columns, name) for name in ("instruction", "input"))
    questions = ["\n\n".join(str(row[c]) for c in (instruction, more) if c and row.get(c)) for row in rows]
    stopped = [row.get("stopped") for row in rows]
    return Answers(
        [text_of(path, number, row, answer) for number, row in enumerate(rows, 1)],
        [text_of(path, number, row, reference) for number, row in enumerate(rows, 1)],
        questions,
        [each is True for each in stopped] if all(isinstance(each, bool) for each in stopped) else None,
        source_name(path),
    )


def _find(columns: Sequence[str], name: str) -> str | None:
    return name if name in columns else next((each for each in columns if each.lower() == name.lower()), None)


def _column(
    file: Path, columns: Sequence[str], usual: Sequence[str], named: str | None, kind: str, but: str | None = None
) -> str:
    wanted = usual if named is None else (named,)
    found = [each for name in wanted if (each := _find(columns, name)) and each != but]
    if not found and but in wanted:
        raise ValueError(f"{file}: {but!r} cannot be both answer and reference; name the other with --{kind}_column")
    if not found:
        raise ValueError(
            f"{file} has no column {' or '.join(map(repr, wanted))} for the {kind}: it has {list(columns)}; name it "
            f"with --{kind}_column"
        )
    if len(found) > 1:
        raise ValueError(f"{file} has {' and '.join(map(repr, found))}: say with --{kind}_column which is the {kind}")
    return found[0]


def text_of(file: str | Path, number: int, row: Mapping[str, Any], column: str) -> str:
    """What a row says in a column; a number as it is written.

    Raises:
        ValueError: for anything else, NaN among it, which other programs write for nothing; names the row.
    """
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{file}, row {number}: {column!r} is {json.dumps(value)[:40]}, not text")
    return value


@dataclass(frozen=True)
class Scoring:
    """Which metrics, beside those that always are computed. See `metrics.bertscore`."""

    bertscore_model: str | None = None
    bertscore_layer: int | None = None
    bertscore_baseline: str | None = None

    def metrics(self, cache_dir: str) -> "list[AnswerMetric]":
        """Raises ValueError as `BertScore`, and where a package is missing."""
        check_installed(*NEEDED, *(["bert_score"] if self.bertscore_model else []))
        from .metrics.bleu import Bleu
        from .metrics.chrf import ChrfPlusPlus
        from .metrics.meteor import Meteor
        from .metrics.rouge import Rouge
        from .metrics.surface import Surface
        from .metrics.token_f1 import TokenF1

        # evaluate makes a directory for each metric, in the home directory if it is told of no other.
        place: dict[str, Any] = {"cache_dir": cache_dir, "keep_in_memory": True}
        found: list[AnswerMetric] = [kind(**place) for kind in (Bleu, ChrfPlusPlus, Rouge, Meteor, TokenF1, Surface)]
        if self.bertscore_model:
            from .metrics.bertscore import BertScore

            settings: dict[str, Any] = {"model": self.bertscore_model, "layer": self.bertscore_layer}
            found.append(BertScore(**place, **settings, baseline=self.bertscore_baseline))
        return found

    def signatures(self) -> list[str]:
        with TemporaryDirectory() as cache_dir:
            return [metric.signature() for metric in self.metrics(cache_dir)]

    def score(self, answers: Answers) -> SuiteResult:
        """Every metric of the answers, and of those that are means the score of each answer."""
        from .metrics.surface import distinct

        count = len(answers.predictions)
        resampled = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        found: dict[str, Measurement] = {}
        items: dict[str, list[float]] = {}
        with TemporaryDirectory() as cache_dir:
            for metric in self.metrics(cache_dir):
                rows = metric.statistics(answers.predictions, answers.references)
                values = metric.scores(rows.sum(axis=0), count)
                draws = [metric.scores(total, count) for total in resampled @ rows]
                for name, value in values.items():
                    interval = None  # of a single answer every resample is itself
                    if name in metric.rates:
                        interval = wilson_interval(round(value * count), count)
                    elif count > 1:
                        interval = percentile_interval(np.array([draw[name] for draw in draws]))
                    found[name] = Measurement(value, count, interval, metric.signature())
                for name in metric.means:
                    items[name] = [metric.scores(row, 1)[name] for row in rows]
        for n in (1, 2):
            value, runs = distinct(answers.predictions, n)
            # no interval: a resample repeats answers, so it is less diverse whatever the model
            found[f"distinct_{n}"] = Measurement(
                value, runs, None, f"distinct-{n}|tok:white space|case:mixed|over all answers|version:scratchgpt 1"
            )
        if answers.stopped is not None:
            ended = sum(answers.stopped)
            found["exact_stop_rate"] = Measurement(
                ended / count, count, wilson_interval(ended, count), "exact-stop|interval:Wilson|version:scratchgpt 1"
            )
            items["exact_stop_rate"] = [float(each) for each in answers.stopped]
        empty = sum(not each.strip() for each in answers.predictions)
        found["empty_answers"] = Measurement(
            empty / count, count, wilson_interval(empty, count), "empty|interval:Wilson|version:scratchgpt 1"
        )
        return SuiteResult(found, items)


@dataclass
class FinishedAnswers:
    """The suite of answers that are there: it needs no model."""

    answers: Answers
    scoring: Scoring = field(default_factory=Scoring)
    name: str = "answers"

    def identity(self) -> dict[str, Any]:
        """The answers and the metrics."""
        return {"answers": self.answers.fingerprint(), "metrics": self.scoring.signatures(), "seed": SEED}

    def texts(self, tokenizer: Any) -> Iterable[str]:
        """Each question with its reference."""
        return map("\n\n".join, zip(self.answers.questions, self.answers.references, strict=True))

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError where a metric cannot be computed."""
        self.scoring.signatures()

    def run(self, model: Any, tokenizer: Any) -> SuiteResult:
        return self.scoring.score(self.answers)


@dataclass
class ModelAnswers:
    """The suite in which a model answers an instruction data set; its answers are scored like finished ones.

    Args:
        data: whatever `chat_sources.read_chats` reads; the last question of each conversation is asked.
        directory: the model's. It gets `answers.jsonl`, a file that `read_answers` reads, and `journal/`, from which a
            killed run goes on.
        owner: what identifies the model, as in `Results`.
        count: ask this many, spread over the data; default: all.
    """

    data: str
    split: str
    directory: Path
    owner: Mapping[str, Any]
    scoring: Scoring = field(default_factory=Scoring)
    count: int | None = None
    max_new_tokens: int = 128
    batch_size: int = 16
    name: str = "answers"

    def __post_init__(self) -> None:
        conversations, _ = read_chats(self.data, self.split)
        questions = last_questions(conversations)
        if not any(each.reference.strip() for each in questions):
            raise ValueError(f"{self.data}, {self.split}: no conversation ends with an answer to compare with")
        self.questions = spread([each for each in questions if each.reference.strip()], self.count)

    def identity(self) -> dict[str, Any]:
        """The questions, how they are answered, and the metrics."""
        asked = hashlib.sha256(json.dumps([asdict(each) for each in self.questions]).encode()).hexdigest()
        how = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        return {"questions": asked, "answering": how, "metrics": self.scoring.signatures(), "seed": SEED}

    def texts(self, tokenizer: Any) -> Iterable[str]:
        """Each question with its reference."""
        return texts_of_questions(self.questions, tokenizer)

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError for a model that cannot answer, and where a metric cannot be computed."""
        self.scoring.signatures()
        check_can_answer(self.questions, self.data, self.max_new_tokens, config, tokenizer)

    def run(self, model: Any, tokenizer: Any) -> SuiteResult:
        """Questions too long for the context are left out: `count` says how many were asked."""
        tokenizer = with_chat_template(tokenizer)
        questions = with_room(self.questions, self.max_new_tokens, context_length(model.config), tokenizer)
        journal = Journal(self.directory / "journal" / f"{self.name}.jsonl", self.owner)
        responses = generate_responses(
            model, tokenizer, [each.messages for each in questions], self.max_new_tokens, self.batch_size,
            journal=journal,
        )  # fmt: skip
        asked = [each.messages[-1]["content"] for each in questions]
        references = [each.reference for each in questions]
        write_rows(
            self.directory / f"{self.name}.jsonl",
            (
                {"instruction": question, "output": reference, "model_response": each.text, "stopped": each.stopped}
                for question, reference, each in zip(asked, references, responses, strict=True)
            ),
        )
        texts, stopped = [each.text for each in responses], [each.stopped for each in responses]
        return self.scoring.score(Answers(texts, references, asked, stopped, source_name(self.data)))


class Asked(Protocol):
    """What a model can be asked."""

    @property
    def messages(self) -> list[Message]: ...


AskedT = TypeVar("AskedT", bound=Asked)


def check_can_answer(questions: Sequence[Asked], data: str, max_new_tokens: int, config: Any, tokenizer: Any) -> None:
    """
    Args:
        data: where the questions come from, for the message.

    Raises:
        ValueError: for a model that cannot end an answer, and one whose context no question leaves room in.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token: the model could not end an answer")
    tokenizer = with_chat_template(tokenizer)
    stop_token_id(tokenizer)
    if not with_room(questions, max_new_tokens, context_length(config), tokenizer):
        raise ValueError(f"no question of {data} leaves room for an answer: the model's context is too short")


def with_room(questions: Sequence[AskedT], max_new_tokens: int, context: int, tokenizer: Any) -> list[AskedT]:
    """The questions that leave room for an answer in a context."""
    longest = context - min(max_new_tokens, context // 2)
    chats = render_chats([each.messages for each in questions], tokenizer, add_generation_prompt=True)
    return [each for each, chat in zip(questions, chats, strict=True) if len(chat.input_ids) <= longest]


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines, in place of what is there once they are whole."""
    with replaced_file(file) as new:
        new.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def with_chat_template(tokenizer: Any) -> Any:
    """The tokenizer, with Alpaca's headings where it has no chat template: the form that most bases have read most."""
    if tokenizer.chat_template is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer
