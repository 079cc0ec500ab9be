"""How sure a number is: 95 % confidence intervals."""

import math
from collections.abc import Sequence

import numpy as np


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Of a rate (Wilson 1927): unlike the normal interval it stays within 0 and 1, also near them."""
    from scipy.stats import binomtest

    low, high = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a result over runs, and its 95 % interval by Student's t.

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
    """The 2.5th and the 97.5th percentile of what a bootstrap found (Efron 1979)."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
