"""Two models on the same items: which is better, or that one cannot tell.

The test is paired. If two models are equal, it does not matter which of them gave which score to an item, so the signs
of the differences are as good as random (Fisher 1935). On items that are right or wrong that is McNemar's exact test,
computed from the binomial distribution; on others the signs are drawn. The interval of the difference comes from a
bootstrap over items (Efron 1979), slightly widened for few items (Hesterberg 2015, "What teachers should know about
the bootstrap", section 5.3), since the plain percentile interval is too narrow for them.

Who makes many comparisons finds a difference somewhere, so p-values are corrected (Holm 1979): of all comparisons of a
report that are between equal models, none is called different in 95 % of all reports. Intervals are widened to fit.
A model is called better only where the corrected p-value is at most 0.05 and the corrected interval does not hold 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
POWER = 0.82
"""For the 80 % that are promised: that the test and the interval must agree costs a little."""

RESAMPLES, RESAMPLES_EACH, MOST_RESAMPLES = 10_000, 400, 50_000
"""At least, for each comparison, and at most: the ends of the widened intervals rest on some resamples, too."""

SEED = 0
AT_ONCE = 1 << 22
"""Random numbers that are held at the same time."""


@dataclass(frozen=True)
class Pair:
    """Scores of two models on the same items.

    Raises:
        ValueError: for different numbers of items, and for fewer than two.
    """

    first: np.ndarray
    """[runs, items]: several runs (seeds) of one recipe, or one."""
    second: np.ndarray
    weights: np.ndarray
    """[items]: what is compared is the weighted mean, such as bits per byte, whose weights are bytes."""

    def __post_init__(self) -> None:
        counts = {self.first.shape[1], self.second.shape[1], len(self.weights)}
        if len(counts) > 1 or min(counts) < 2:
            raise ValueError(
                f"{', '.join(map(str, sorted(counts)))} items: a comparison needs two or more, the same ones"
            )

    @property
    def differences(self) -> np.ndarray:
        """[items], first - second, each the mean over the runs."""
        return self.first.mean(axis=0) - self.second.mean(axis=0)

    @property
    def repeated(self) -> bool:
        """Whether there are several runs, so that the seed is known to move the score."""
        return len(self.first) + len(self.second) > 2


@dataclass(frozen=True)
class Comparison:
    """The difference of two models, first - second."""

    difference: float
    interval: tuple[float, float]
    """As wide as it must be so that all of a report hold together in 95 % of all cases."""
    p_value: float
    """Corrected."""
    smallest_difference: float | None
    """From which on a difference would be found in 80 % of all cases; None where identical scores do not tell."""
    count: int
    wins: tuple[float, float]
    """Shares of the items on which the first, and the second, has the higher score."""

    @property
    def different(self) -> bool:
        return self.p_value <= LEVEL and not self.interval[0] <= 0 <= self.interval[1]

    def in_words(self, first: str, second: str, lower_is_better: bool = False) -> str:
        """`a is better than b`, or `cannot tell a from b`."""
        if not self.different:
            return f"cannot tell {first} from {second}"
        better, worse = (second, first) if (self.difference > 0) == lower_is_better else (first, second)
        return f"{better} is better than {worse}"


def compare(pairs: Sequence[Pair], seed: int = SEED) -> list[Comparison]:
    """Compares the models of each pair; the correction is for all pairs together.

    A pair with several runs is compared by Student's t: the error of its difference is that of the items and that of
    the runs, whose variance is taken to be the same on both sides, so that one side may be a single run. The error of
    the items is not quite free of the runs', so these intervals are rather too wide than too narrow.
    """
    resamples = max(RESAMPLES, min(MOST_RESAMPLES, RESAMPLES_EACH * len(pairs)))
    differences = [pair.differences for pair in pairs]
    values = [float(np.average(each, weights=pair.weights)) for each, pair in zip(differences, pairs, strict=True)]
    draws = dict[int, np.ndarray]()
    errors, freedom = np.zeros(len(pairs)), np.zeros(len(pairs))
    p_values = np.ones(len(pairs))
    for numbers in _same_items(pairs):
        # With the same sign whichever model comes first, so that the same numbers give the same result.
        signs = [_sign([values[i], *differences[i]]) for i in numbers]
        columns = np.stack([differences[i] for i in numbers], axis=1) * signs
        drawn, flipped = _resample(columns, pairs[numbers[0]].weights, resamples, seed)
        for column, i in enumerate(numbers):
            draws[i] = drawn[:, column] * signs[column]
            wins, losses = int((differences[i] > 0).sum()), int((differences[i] < 0).sum())
            p_values[i] = mcnemar(wins, losses) if _right_or_wrong(pairs[i]) else flipped[column]
    for i, pair in enumerate(pairs):
        if pair.repeated:
            errors[i], freedom[i] = _error_with_runs(pair)
            if errors[i]:
                p_values[i] = 2 * stats.t.sf(abs(values[i]) / errors[i], freedom[i])
    corrected, factors = holm(p_values)
    found = []
    for i, pair in enumerate(pairs):
        level, count = LEVEL / factors[i], len(pair.weights)
        if pair.repeated:
            half = float(stats.t.ppf(1 - level / 2, freedom[i])) * errors[i]
            interval = (values[i] - half, values[i] + half)
            reach = half + float(stats.t.ppf(POWER, freedom[i])) * errors[i]
            # Few runs show too little of their spread on average.
            smallest = reach * (1 + 1 / (4 * freedom[i])) or None
        else:
            interval = _interval(draws[i], count, level)
            smallest = _smallest(pair, level)
        higher, lower = ((sign * differences[i] > 0).mean() for sign in (1, -1))
        wins = (float(higher), float(lower))
        found.append(Comparison(values[i], interval, float(corrected[i]), smallest, count, wins))
    return found


def mcnemar(wins: int, losses: int) -> float:
    """The exact p-value of so many items that only the first, and only the second, has right (McNemar 1947)."""
    if wins + losses == 0:
        return 1.0
    return min(1.0, 2 * float(stats.binom.cdf(min(wins, losses), wins + losses, 0.5)))


def holm(p_values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corrected p-values (Holm 1979), and by what the level of each comparison's interval is divided to fit them."""
    p_values = np.asarray(p_values, dtype=float)
    order, count = np.argsort(p_values, kind="stable"), len(p_values)
    corrected, factors = np.ones(count), np.ones(count)
    highest, stopped = 0.0, 0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * float(p_values[i])))
        if highest > LEVEL and not stopped:
            stopped = count - rank  # from the first that is not significant on, none is
        corrected[i], factors[i] = highest, stopped or count - rank
    return corrected, factors


def _same_items(pairs: Sequence[Pair]) -> list[list[int]]:
    """Numbers of the pairs of single runs, those together that can share their resamples."""
    groups: dict[bytes, list[int]] = {}
    for i, pair in enumerate(pairs):
        if not pair.repeated:
            groups.setdefault(pair.weights.tobytes(), []).append(i)
    return list(groups.values())


def _sign(numbers: Sequence[float]) -> float:
    """Of the first that is not 0."""
    return next((math.copysign(1, number) for number in numbers if number), 1.0)


def _resample(
    differences: np.ndarray, weights: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap and random signs.

    Args:
        differences: [items, pairs].

    Returns:
        Weighted means of the resampled differences, [resamples, pairs], and the p-values of the signs, [pairs].
    """
    generator = np.random.default_rng(seed)
    # Items with the same differences are interchangeable: of right and wrong answers there are few kinds.
    rows, counts = np.unique(np.column_stack([weights, differences]), axis=0, return_counts=True)
    weights, weighted = rows[:, 0], rows[:, :1] * rows[:, 1:]
    total = int(counts.sum())
    observed = np.abs(counts @ weighted)
    tolerance = 1e-9 * np.abs(counts @ np.abs(weighted))
    drawn = np.empty((resamples, differences.shape[1]))
    extreme = np.zeros(differences.shape[1])
    step = max(1, AT_ONCE // len(rows))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if total == len(rows):  # the same, ten times as fast
            places = generator.integers(total, size=(size, total)) + total * np.arange(size)[:, None]
            taken = np.bincount(places.ravel(), minlength=size * total).reshape(size, total).astype(float)
            signs = 2.0 * generator.integers(2, size=(size, total), dtype=np.int8) - 1
        else:
            taken = generator.multinomial(total, counts / total, size=size).astype(float)
            signs = 2.0 * generator.binomial(counts, 0.5, size=(size, len(rows))) - counts
        drawn[start : start + size] = (taken @ weighted) / (taken @ weights)[:, None]
        extreme += (np.abs(signs @ weighted) >= observed - tolerance).sum(axis=0)
    return drawn, (1 + extreme) / (1 + resamples)


def _interval(draws: np.ndarray, count: int, level: float) -> tuple[float, float]:
    """Of a bootstrap's results the percentiles that hold `1 - level`, widened for few items."""
    tail = stats.norm.cdf(math.sqrt(count / (count - 1)) * stats.t.ppf(level / 2, count - 1))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _right_or_wrong(pair: Pair) -> bool:
    scores = np.concatenate([pair.first, pair.second])
    return bool(np.isin(scores, (0, 1)).all() and (pair.weights == pair.weights[0]).all())


def _smallest(pair: Pair, level: float) -> float | None:
    """The smallest difference that is found in 80 % of all cases where models differ on as many items as these do."""
    count = len(pair.weights)
    shares = pair.weights / pair.weights.sum()
    discrete = bool(np.isin(np.concatenate([pair.first, pair.second]), (0, 0.5, 1)).all())
    # How much right and wrong answers vary does not depend on which model is better; what other scores do, may.
    centre = 0.0 if discrete else float(shares @ pair.differences)
    # Items of different weights count like fewer of the same weight (Kish 1965).
    freedom = max(1.0, 1 / float(shares @ shares) - 1)
    error = math.sqrt(float((shares**2) @ (pair.differences - centre) ** 2) * (freedom + 1) / freedom)
    smallest = float(stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(POWER, freedom)) * error
    if discrete:
        # An exact test steps from one count to the next, and below a few differing items it finds nothing.
        needed = math.ceil(1 - math.log2(level))
        return max(smallest + 1 / count, float(stats.gamma.ppf(POWER, needed)) / count)
    return smallest or None


def _error_with_runs(pair: Pair) -> tuple[float, float]:
    """The standard error of the difference of several runs, and its degrees of freedom (Satterthwaite 1946)."""
    shares = pair.weights / pair.weights.sum()
    count, runs = len(shares), (len(pair.first), len(pair.second))
    differences = pair.differences
    of_items = float((shares**2) @ (differences - shares @ differences) ** 2) * count / (count - 1)
    squares = sum(
        float(((scores - scores.mean()) ** 2).sum()) for scores in (pair.first @ shares, pair.second @ shares)
    )
    of_runs = squares / (sum(runs) - 2) * (1 / runs[0] + 1 / runs[1])
    variance = of_items + of_runs
    if not variance:
        return 0.0, 1.0
    parts = of_items**2 / (count - 1) + of_runs**2 / (sum(runs) - 2)
    return math.sqrt(variance), variance**2 / parts
