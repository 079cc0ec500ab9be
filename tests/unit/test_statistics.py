"""evaluation/statistics.py: intervals against R and the tables."""

import pytest

from scratchgpt.evaluation.statistics import mean_interval, wilson_interval


def test_wilson_interval() -> None:
    # R: prop.test(15, 20, correct = FALSE)$conf.int
    assert wilson_interval(15, 20) == pytest.approx((0.5312991, 0.8881379), abs=1e-6)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)


def test_interval_of_a_mean() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    with pytest.raises(ValueError, match="two runs or more"):
        mean_interval([1.0])
