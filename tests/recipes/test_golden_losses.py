"""Thirty steps of every recipe that trains give the numbers that they gave before: see tests/goldens/losses.py."""

import json

import pytest

from tests.goldens import losses

STORED = json.loads(losses.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", losses.RUNS)
def test_the_numbers_are_those_that_are_stored(name: str) -> None:
    found = losses.measure(name)
    assert found.keys() == STORED[name].keys()
    for key, value in STORED[name].items():
        off = losses.deviation(found[key], value)
        assert off <= losses.tolerance(name, key), (
            f"{key} is {found[key]}, {off:.1e} off: if that is meant, run python tests/goldens/losses.py and say why"
        )


def test_a_difference_is_noticed() -> None:
    assert losses.deviation([1.0, 2.0], [1.0, 2.002]) == pytest.approx(1e-3, rel=0.01)
    for found, stored in (([1.0], [1.0, 2.0]), (3, 4), (3.0, None), ({"a": 1}, {"b": 1}), ("a b", "a c")):
        assert losses.deviation(found, stored) == float("inf")
