"""What can be said of answers by looking at them: equal to the reference, as long, repeating themselves."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scratchgpt.evaluation.metrics.base import AnswerMetric, divided

REPEATED = 4
"""Tokens in a run that counts as repeated when it stands in the same answer again."""


class Surface(AnswerMetric):
    """Exact match (without white space at both ends), length ratio (tokens of the answers to those of the references),
    and repetition: the share of runs of four tokens that stood in the same answer before. Tokens are what stands
    between white space."""

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            tokens = prediction.split()
            runs = list(_runs(tokens, REPEATED))
            equal = prediction.strip() == reference.strip()
            rows.append([equal, len(tokens), len(reference.split()), len(runs) - len(set(runs)), len(runs)])
        return np.array(rows, dtype=float)

    def scores(self, total: np.ndarray, count: int) -> dict[str, float]:
        equal, said, wanted, repeated, runs = total
        return {
            "exact_match": float(equal / count),
            "length_ratio": divided(said, wanted),
            "repetition": divided(repeated, runs),
        }

    @property
    def means(self) -> tuple[str, ...]:
        return ("exact_match",)

    rates = means

    def signature(self) -> str:
        return f"surface|tok:white space|case:mixed|repeated runs:{REPEATED} tokens|version:scratchgpt 1"


def distinct(predictions: Sequence[str], n: int) -> tuple[float, int]:
    """The share of different ones among all runs of n tokens in all answers (Li et al. 2016), and how many runs."""
    counts = Counter(run for prediction in predictions for run in _runs(prediction.split(), n))
    return divided(len(counts), counts.total()), counts.total()


def _runs(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
