"""evaluation/comparison.py: no more errors than allowed, and differences as large as stated are found."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from scratchgpt.evaluation import comparison
from scratchgpt.evaluation.comparison import Comparison, Pair, compare, holm, mcnemar

Maker = Callable[[np.random.Generator, float], Pair]


def pair(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> Pair:
    return Pair(first[None], second[None], np.ones(len(first)) if weights is None else weights)


def right_or_wrong(count: int, differing: float) -> Maker:
    """Models that differ on a share of the items, the first right more often by `ahead`."""

    def make(generator: np.random.Generator, ahead: float) -> Pair:
        draw, both = generator.random(count), generator.random(count) < 0.6
        wins, losses = (differing + ahead) / 2, (differing - ahead) / 2
        first = np.where(draw < wins, 1.0, np.where(draw < wins + losses, 0.0, both))
        second = np.where(draw < wins, 0.0, np.where(draw < wins + losses, 1.0, both))
        return pair(first, second)

    return make


def bits_per_byte(count: int) -> Maker:
    """Documents of very different length."""

    def make(generator: np.random.Generator, ahead: float) -> Pair:
        size, document = generator.integers(100, 5000, count).astype(float), generator.normal(1.2, 0.2, count)
        first, second = (document + generator.normal(0, 0.05, count) for _ in range(2))
        return pair(first + ahead, second, size)

    return make


def seeds(runs: tuple[int, int], spread: float) -> Maker:
    """Recipes whose runs differ by their seeds, too."""

    def make(generator: np.random.Generator, ahead: float) -> Pair:
        items = generator.normal(0, 0.3, 100)
        first, second = (
            np.stack([items + generator.normal(0, spread) + generator.normal(0, 0.1, 100) for _ in range(n)])
            for n in runs
        )
        return Pair(first + ahead, second, np.ones(100))

    return make


MAKERS = {
    "60 items": right_or_wrong(60, 0.3), "200 items": right_or_wrong(200, 0.1),
    "2,000 items": right_or_wrong(2000, 0.2), "few differ": right_or_wrong(1000, 0.01),
    "20 documents": bits_per_byte(20), "100 documents": bits_per_byte(100),
    "3 seeds": seeds((3, 3), 0.05), "3 seeds and a run": seeds((3, 1), 0.05),
}  # fmt: skip


def simulate(make: Maker, ahead: float, times: int) -> list[Comparison]:
    generator = np.random.default_rng(2026)
    return [compare([make(generator, ahead)])[0] for _ in range(times)]


def allowed(rate: float, times: int) -> float:
    """What a rate of at most this comes to in so many simulations, but for one case in a thousand."""
    return float(stats.binom.ppf(0.999, times, rate)) / times


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 1000)


def check_equal_models(make: Maker, times: int) -> None:
    found = simulate(make, 0, times)
    assert np.mean([each.different for each in found]) <= allowed(0.05, times)


def check_planted_difference(make: Maker, times: int) -> None:
    stated = float(np.mean([each.smallest_difference for each in simulate(make, 0, 50)]))
    found = simulate(make, stated, times)
    right = np.mean([each.different and each.difference > 0 for each in found])
    assert right >= 1 - allowed(0.2, times)
    # It is the smallest: half of it is mostly missed.
    assert np.mean([each.different for each in simulate(make, stated / 2, times)]) < 0.5
    covered = np.mean([each.interval[0] <= stated <= each.interval[1] for each in found])
    assert covered >= 0.93 - (allowed(0.07, times) - 0.07)


@pytest.mark.parametrize("name", ["200 items", "20 documents", "3 seeds"])
def test_equal_models_are_not_called_different(name: str, few_resamples: None) -> None:
    check_equal_models(MAKERS[name], 300)


@pytest.mark.parametrize("name", ["200 items", "20 documents", "3 seeds"])
def test_the_stated_difference_is_found(name: str, few_resamples: None) -> None:
    check_planted_difference(MAKERS[name], 150)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_error_and_power_in_a_thousand_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 4000)
    check_equal_models(MAKERS[name], 1000)
    check_planted_difference(MAKERS[name], 1000)


def test_many_comparisons_are_corrected(few_resamples: None) -> None:
    # Ten equal models on the same items, all against the first: without a correction, about a third of the reports
    # would call some pair different.
    generator, wrong, plain = np.random.default_rng(1), [], []
    for _ in range(150):
        models = [generator.normal(0, 1, 80) for _ in range(10)]
        found = compare([pair(models[0], other) for other in models[1:]])
        wrong.append(any(each.different for each in found))
        plain.append(any(stats.ttest_rel(models[0], other).pvalue < 0.05 for other in models[1:]))
    assert np.mean(wrong) <= allowed(0.05, 150)
    assert np.mean(plain) > 0.15


def test_mcnemar_by_the_binomial_distribution() -> None:
    # Agresti, Categorical Data Analysis, approval of the prime minister: 150 and 86 changed their minds.
    assert mcnemar(150, 86) == pytest.approx(stats.binomtest(150, 236, 0.5).pvalue)
    assert mcnemar(6, 0) == pytest.approx(2 * 0.5**6)
    assert mcnemar(3, 1) == pytest.approx(2 * (1 + 4) / 16)
    assert mcnemar(2, 2) == mcnemar(0, 0) == 1.0


def test_mcnemar_is_what_pairs_of_right_and_wrong_get() -> None:
    first, second = np.repeat([1.0, 0.0, 1.0, 0.0], [9, 2, 20, 30]), np.repeat([0.0, 1.0, 1.0, 0.0], [9, 2, 20, 30])
    found = compare([pair(first, second)])[0]
    assert found.p_value == pytest.approx(stats.binomtest(9, 11, 0.5).pvalue)
    assert found.difference == pytest.approx(7 / 61)
    assert found.wins == pytest.approx((9 / 61, 2 / 61))


def test_random_signs_agree_with_scipy() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(0.2, 1, 12), generator.normal(0, 1, 12)
    exact = stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=np.inf,
    )  # fmt: skip
    assert compare([pair(first, second)])[0].p_value == pytest.approx(exact.pvalue, abs=0.02)


def test_a_bootstrap_of_ratios() -> None:
    # Bits per byte: the sums are divided, and the interval is near the one by linearisation (Cochran 1977, 2.11).
    generator = np.random.default_rng(4)
    size = generator.integers(10, 3000, 400).astype(float)
    first, second = (generator.normal(1.3, 0.3, 400) for _ in range(2))
    found = compare([pair(first, second, size)])[0]
    ratio = (size * first).sum() / size.sum() - (size * second).sum() / size.sum()
    assert found.difference == pytest.approx(ratio)
    error = math.sqrt((size**2 * (first - second - ratio) ** 2).sum()) / size.sum()
    assert found.interval == pytest.approx((ratio - 1.966 * error, ratio + 1.966 * error), abs=0.12 * error)


def test_holm_by_hand() -> None:
    corrected, factors = holm([0.01, 0.04, 0.03, 0.005])
    # Ordered 0.005 × 4, 0.01 × 3, 0.03 × 2, 0.04 × 1; none below the one before.
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(factors) == [3, 2, 2, 4]


def test_seeds_by_hand() -> None:
    # Without noise between items all error is that of the runs: Student's t for two samples of equal variance.
    first, second = np.array([0.70, 0.72, 0.74]), np.array([0.60, 0.61, 0.66])
    found = compare([Pair(first[:, None] + np.zeros(50), second[:, None] + np.zeros(50), np.ones(50))])[0]
    theirs = stats.ttest_ind(first, second)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-6)


SCORES = st.integers(2, 30).flatmap(
    lambda count: st.tuples(*(arrays(float, count, elements=st.floats(0, 1, width=16)) for _ in range(2)))
)


@given(SCORES)
def test_swapped_models_have_the_opposite_difference(scores: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = scores
    one, other = compare([pair(first, second)])[0], compare([pair(second, first)])[0]
    assert one.difference == pytest.approx(-other.difference)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert one.p_value == pytest.approx(other.p_value)
    assert one.wins == other.wins[::-1]
    assert one.in_words("a", "b") == other.in_words("b", "a") or not one.different
    assert one.in_words("a", "b", lower_is_better=True) == other.in_words("b", "a", True) or not one.different


@given(SCORES)
def test_identical_scores_tell_nothing(scores: tuple[np.ndarray, np.ndarray]) -> None:
    found = compare([pair(scores[0], scores[0])])[0]
    assert (found.difference, found.p_value, found.interval) == (0, 1, (0, 0))
    assert found.in_words("a", "b") == "cannot tell a from b"


@given(SCORES)
def test_better_is_said_only_where_the_interval_excludes_0(scores: tuple[np.ndarray, np.ndarray]) -> None:
    found = compare([pair(*scores)])[0]
    holds_0 = found.interval[0] <= 0 <= found.interval[1]
    assert ("better" in found.in_words("a", "b")) == (found.p_value <= 0.05 and not holds_0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="2, 3 items"):
        pair(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="1 items: a comparison needs two or more"):
        pair(np.ones(1), np.ones(1))
