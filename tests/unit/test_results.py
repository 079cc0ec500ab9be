"""evaluation/results.py: what belongs to a score, and which results are used again."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.metrics import mean_stderr

from scratchgpt.evaluation.results import (
    FILE,
    Measurement,
    Results,
    SuiteResult,
    check_directory,
    read_results,
    score_against_chance,
)
from scratchgpt.evaluation.statistics import wilson_interval


def test_a_rate() -> None:
    scores = [1.0] * 30 + [0.0] * 70
    found = score_against_chance(scores, 0.25, "x")
    assert found.value == 0.3
    assert found.interval == wilson_interval(30, 100)
    assert found.details["standard_error"] == pytest.approx(mean_stderr(scores))
    assert found.details["centred"] == pytest.approx((0.3 - 0.25) / 0.75)
    assert found.details["verdict"] == "not above chance"
    assert score_against_chance(scores, 0.2, "x").details["verdict"] == "above chance"
    assert score_against_chance(scores, 0.5, "x").details["verdict"] == "below chance"


def test_the_smallest_difference_is_found_in_four_of_five_cases() -> None:
    """Two models with different items of this number, that far apart, by a test of two proportions at 5 %."""
    count, rate = 400, 0.5
    scores = [1.0] * (count // 2) + [0.0] * (count // 2)
    smallest = score_against_chance(scores, 0.25, "x").details["smallest_difference"]
    rng = np.random.default_rng(0)
    low, high = rng.binomial(count, rate - smallest / 2, 4000), rng.binomial(count, rate + smallest / 2, 4000)
    pooled = (low + high) / (2 * count)
    z = (high - low) / count / np.sqrt(pooled * (1 - pooled) * 2 / count)
    assert np.mean(z > 1.96) == pytest.approx(0.8, abs=0.03)


def test_a_mean_of_groups() -> None:
    scores, groups = [1.0, 1.0, 0.5, 0.0, 1.0, 0.0], ["a", "a", "a", "a", "b", "b"]
    found = score_against_chance(scores, 0.5, "x", groups)
    assert found.value == pytest.approx((0.625 + 0.5) / 2)
    error = math.sqrt(np.var(scores[:4], ddof=1) / 4 + np.var(scores[4:], ddof=1) / 2) / 2
    assert found.details["standard_error"] == pytest.approx(error)
    assert found.interval == pytest.approx((0.5625 - 1.959964 * error, min(1, 0.5625 + 1.959964 * error)))


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_without_variance(score: float) -> None:
    """All right, or none: a hundred items still tell no small difference."""
    found = score_against_chance([score] * 100, 0.25, "x")
    assert 0.05 < found.details["smallest_difference"] < 0.1
    assert found.interval == wilson_interval(int(100 * score), 100)


@dataclass
class Fixed:
    value: float
    version: int = 1
    name: str = "fixed"

    def identity(self) -> dict[str, Any]:
        return {"version": self.version}

    def check(self, config: Any, tokenizer: Any) -> None: ...

    def texts(self, tokenizer: Any) -> Iterable[str]:
        return []

    def run(self, model: Any, tokenizer: Any) -> SuiteResult:
        part = Measurement(0.0, 1, None, "x")
        return SuiteResult({"score": Measurement(self.value, 1, (0, 1), "x"), "score/part": part}, {"score": [1.0]})


def test_what_is_used_again(tmp_path: Path) -> None:
    """Results of this suite as it is today, on this model."""
    results = Results(tmp_path, {"weights": "a"})
    assert not results.has(Fixed(0.5))
    results.record(Fixed(0.5), Fixed(0.5).run(None, None))
    assert json.loads((tmp_path / "items" / "fixed.json").read_text()) == {"score": [1.0]}
    assert Results(tmp_path, {"weights": "a"}).has(Fixed(0.5))
    assert not Results(tmp_path, {"weights": "a"}).has(Fixed(0.5, version=2))
    assert not Results(tmp_path, {"weights": "b"}).has(Fixed(0.5))
    table = results.table("fixed")
    assert "fixed score" in table
    assert "part" not in table


def test_results_without_their_items_are_computed_again(tmp_path: Path) -> None:
    results = Results(tmp_path, {"weights": "a"})
    results.record(Fixed(0.5), Fixed(0.5).run(None, None))
    (tmp_path / "items" / "fixed.json").unlink()
    assert not Results(tmp_path, {"weights": "a"}).has(Fixed(0.5))


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"model":',
        "[]",
        '{"model": {}, "identities": {"fixed": "x"}}',
        '{"model": {}, "identities": {"fixed": "x"}, "fixed": {"score": {"value": 1}}}',
        '{"model": {}, "identities": {"fixed": "x"}, "fixed": {"score": {"value": NaN, "count": 1, "interval": 1}}}',
    ],
)
def test_damaged_results_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=f"{FILE} is damaged.*delete it"):
        Results(tmp_path, {})


def test_nothing_that_is_no_number_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Results(tmp_path, {}).record(Fixed(0.5), Fixed(math.nan).run(None, None))
    assert read_results(tmp_path) is None


def test_results_of_something_else_are_not_destroyed(tmp_path: Path) -> None:
    """Of a training run, of another model, of answers; those of the same model, trained further, may be replaced."""
    check_directory(tmp_path, "base")
    (tmp_path / FILE).write_text('{"final": {"loss": 1.0}, "identity": {}}')  # as a training run writes it
    with pytest.raises(ValueError, match="no results of an evaluation: give another"):
        check_directory(tmp_path, "base")
    (tmp_path / FILE).unlink()
    results = Results(tmp_path, {"name": "base", "weights": "a"})
    results.record(Fixed(0.5), Fixed(0.5).run(None, None))
    check_directory(tmp_path, "base")
    for other in ("chat", None):
        with pytest.raises(ValueError, match="holds the results of base: give another"):
            check_directory(tmp_path, other)
