"""What the metrics of answers share: the score of a whole set follows from a sum over its answers.

Each answer is counted once, as a row of numbers (BLEU: lengths and n-grams; ROUGE: its F1). The score of any selection
of answers is a function of the sum of their rows, so a thousand resamples cost a matrix product instead of a thousand
evaluations (Koehn 2004).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from datasets import Features, Value
from evaluate import Metric, MetricInfo


class AnswerMetric(Metric, ABC):
    """One reference for each answer. An empty answer scores 0."""

    @abstractmethod
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """A row of numbers for each answer, [N, K]."""

    @abstractmethod
    def scores(self, total: np.ndarray, count: int) -> dict[str, float]:
        """The scores of `count` answers whose rows add up to `total`, [K]."""

    @abstractmethod
    def signature(self) -> str:
        """Name, settings, and the version of the library."""

    @property
    def means(self) -> tuple[str, ...]:
        """The scores that are the mean of each answer's own: these can be compared answer by answer."""
        return ()

    @property
    def rates(self) -> tuple[str, ...]:
        """The scores that are a share of the answers: Wilson's interval, which a rate of 0 or 1 has too."""
        return ()

    def _info(self) -> MetricInfo:
        text = Value("string")
        return MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description="predictions, references: texts, one of each for an answer",
            features=Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        return self.scores(self.statistics(predictions, references).sum(axis=0), len(predictions))


class MeanMetric(AnswerMetric):
    """A metric whose every score is the mean of the answers' own."""

    names: tuple[str, ...]
    """Of the scores, in the order of the columns of `statistics`."""

    def scores(self, total: np.ndarray, count: int) -> dict[str, float]:
        return {name: float(value / count) for name, value in zip(self.names, total, strict=True)}

    @property
    def means(self) -> tuple[str, ...]:
        return self.names


def versions(*libraries: str) -> str:
    """`version:sacrebleu 2.6.0+nltk 3.10`."""
    return "version:" + "+".join(f"{library} {version(library)}" for library in libraries)


def divided(part: float, whole: float) -> float:
    """0 of nothing is 0."""
    return float(part / whole) if whole else 0.0


def f1(precision: float, recall: float) -> float:
    return divided(2 * precision * recall, precision + recall)
