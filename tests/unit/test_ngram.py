"""Kneser-Ney: against Chen & Goodman's formulas written down directly, and as probabilities."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchgpt.evaluation.ngram import NgramModel

VOCAB = 6
START = END = 0


class Direct:
    """The formulas of section 3 of the paper, with dictionaries, one probability at a time."""

    def __init__(
        self,
        documents: Sequence[Sequence[int]],
        order: int,
        vocab_size: int = VOCAB,
        start: int = START,
        end: int = END,
    ) -> None:
        self.vocab_size = vocab_size
        self.counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for document in documents:
            tokens = [*[start] * (order - 1), *document, end]
            for i in range(order - 1, len(tokens)):
                self.counts[order][tuple(tokens[i - order + 1 : i + 1])] += 1
        for k in range(order - 1, 0, -1):
            self.counts[k] = Counter(gram[1:] for gram in self.counts[k + 1])

    def discount(self, k: int, count: int) -> float:
        n = Counter(self.counts[k].values())
        if not all(n[i] for i in (1, 2, 3, 4)):
            return {0: 0.0, 1: 0.5, 2: 1.0}.get(count, 1.5)
        y = n[1] / (n[1] + 2 * n[2])
        i = min(count, 3)
        return max(0.0, i - (i + 1) * y * n[i + 1] / n[i]) if i else 0.0

    def probability(self, context: tuple[int, ...], token: int) -> float:
        k = len(context) + 1
        shorter = self.probability(context[1:], token) if k > 1 else 1 / self.vocab_size
        after = {gram: count for gram, count in self.counts[k].items() if gram[:-1] == context}
        if not after:
            return shorter
        total = sum(after.values())
        left = sum(self.discount(k, count) for count in after.values()) / total
        count = after.get((*context, token), 0)
        return (count - self.discount(k, count)) / total + left * shorter


documents = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=30), min_size=1, max_size=6)


@given(documents=documents, order=st.integers(2, 5), text=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12))
@settings(max_examples=60)
def test_as_the_paper_says(documents: list[list[int]], order: int, text: list[int]) -> None:
    direct, model = Direct(documents, order), NgramModel(documents, VOCAB, START, END, order)
    padded = [*[START] * (order - 1), *text]
    expected = [
        direct.probability(tuple(padded[i : i + order - 1]), token) for i, token in enumerate(padded[order - 1 :])
    ]
    assert np.exp(model.log_probabilities(text)) == pytest.approx(expected, rel=1e-12)
    for i, token in enumerate(text):
        distribution = model.distribution(text[:i])
        assert distribution.sum() == pytest.approx(1)
        assert distribution[token] == pytest.approx(expected[i], rel=1e-12)


def test_estimated_discounts_occur(shared_data: Path) -> None:
    """On real text all four counts of counts are there at every order, and everything sums to one."""
    text = (shared_data / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    letters = {letter: i for i, letter in enumerate(sorted(set(text)), start=1)}
    lines = [[letters[letter] for letter in line] for line in text.splitlines()]
    model = NgramModel(lines[:-10], len(letters) + 1, START, END)
    for line in lines[-10:]:
        for i in range(0, len(line), 7):
            assert model.distribution(line[:i]).sum() == pytest.approx(1)
    values = np.concatenate([model.log_probabilities(line) for line in lines[-10:]])
    flat = NgramModel(lines[:-10], len(letters) + 1, START, END, order=2)
    assert values.mean() > np.concatenate([flat.log_probabilities(line) for line in lines[-10:]]).mean()


def test_scores_sequences() -> None:
    model = NgramModel([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4]], VOCAB, START, END)
    greedy, other = model.score([([START, 1, 2, 3, 4], 4), ([START, 1, 2, 3, 5], 2)])
    assert greedy.is_greedy
    assert not other.is_greedy
    assert other.log_likelihood == pytest.approx(model.log_probabilities([START, 1, 2, 3, 5])[3:].sum())
    assert math.exp(greedy.log_likelihood) == pytest.approx(
        math.prod(float(model.distribution([START, 1, 2, 3, 4][:i])[i]) for i in range(1, 5))
    )


def test_nothing_to_count() -> None:
    with pytest.raises(ValueError, match="no documents"):
        NgramModel([], VOCAB, START, END)
