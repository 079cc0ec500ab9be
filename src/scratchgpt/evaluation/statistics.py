"""95 % confidence intervals: of a rate, of a mean over runs, and of what a bootstrap found."""

import math
from collections.abc import Sequence

import numpy as np


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """The interval of a rate (Wilson 1927); unlike the normal approximation it stays within 0 and 1."""
    from scipy.stats import binomtest

    low, high = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float] | None:
    """The interval of a ratio of two sums over the same units, such as bits per byte over documents.

    By the linearised variance (Cochran 1977, Sampling Techniques, section 2.11); None for a single unit.
    """
    count, total = len(numerators), float(denominators.sum())
    if count < 2:
        return None
    ratio = float(numerators.sum()) / total
    residuals = numerators - ratio * denominators
    half = 1.959964 * math.sqrt(count / (count - 1) * float((residuals**2).sum())) / total
    return ratio - half, ratio + half


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of a result over runs, and the bounds of its 95 % interval by Student's t.

    Raises:
        ValueError: for fewer than two runs.
    """
    from scipy.stats import t

    if len(values) < 2:
        raise ValueError("an interval of a mean needs two runs or more")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile of a bootstrap's results (Efron 1979)."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
