"""evaluation/statistics.py: intervals against R, the tables, and the formulas written out."""

import math

import numpy as np
import pytest

from scratchgpt.evaluation.statistics import mean_interval, percentile_interval, wilson_interval


def test_wilson_interval() -> None:
    # R: prop.test(15, 20, correct = FALSE)$conf.int
    assert wilson_interval(15, 20) == pytest.approx((0.5312991, 0.8881379), abs=1e-6)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)


def test_wilson_interval_by_its_formula() -> None:
    rate, total, z = 97 / 200, 200, 1.959964
    middle = (rate + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    assert wilson_interval(97, total) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_interval_of_a_mean() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    # Five runs: t(0.975, 4) = 2.776445; their variance is 10 / 4.
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])[2] == pytest.approx(3 + 2.776445 * math.sqrt(2.5 / 5))
    with pytest.raises(ValueError, match="two runs or more"):
        mean_interval([1.0])


def test_percentiles() -> None:
    assert percentile_interval(np.arange(1001)[::-1]) == (25, 975)
