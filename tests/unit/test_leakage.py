"""evaluation/leakage.py: what of the samples stands in the training text, against a search by hand."""

import numpy as np
import pytest

from scratchgpt.evaluation import leakage
from scratchgpt.evaluation.leakage import ngram_hashes, ngram_overlap


def test_by_hand() -> None:
    corpus = np.array([9, 1, 2, 3, 9, 3, 4, 5], dtype=np.uint16)
    # 1 2 3 and 3 4 5 are there, 2 3 4 is not; 9 9 9 is not; two ids have no run of three.
    assert ngram_overlap([[1, 2, 3, 4, 5], [9, 9, 9], [1, 2]], corpus, n=3) == (2 / 4, 4)
    assert ngram_overlap([[3, 2, 1]], corpus, n=3) == (0.0, 1)  # the order counts
    assert ngram_overlap([[1, 2]], corpus, n=3) == ngram_overlap([], corpus) == (0.0, 0)
    assert ngram_overlap([[1, 2, 3]], corpus[:2], n=3) == (0.0, 1)  # a corpus shorter than a run


def test_runs_have_eight_tokens_unless_told_otherwise() -> None:
    assert ngram_overlap([list(range(10))], np.arange(100)) == (1.0, 3)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 22])
def test_as_a_plain_search(monkeypatch, chunk: int) -> None:
    """Few different ids, so that much repeats; chunks so small that runs lie across their borders."""
    monkeypatch.setattr(leakage, "CHUNK", chunk)
    generator = np.random.default_rng(0)
    corpus = generator.integers(0, 3, 60).astype(np.uint16)
    samples = [generator.integers(0, 3, length).tolist() for length in (12, 30, 4)]
    stands_there = {tuple(corpus[i : i + 4].tolist()) for i in range(len(corpus) - 3)}
    runs = [tuple(ids[i : i + 4]) for ids in samples for i in range(len(ids) - 3)]
    share, count = ngram_overlap(samples, corpus, n=4)
    assert count == len(runs) == 9 + 27 + 1
    assert share == pytest.approx(np.mean([run in stands_there for run in runs]))
    assert 0.2 < share < 0.9


def test_a_hash_is_of_the_ids_in_their_order() -> None:
    rows = np.array(np.meshgrid(*[np.arange(6)] * 4)).reshape(4, -1).T  # all 1,296 runs of four ids below 6
    assert len({int(ngram_hashes(row, 4)[0]) for row in rows}) == 6**4
