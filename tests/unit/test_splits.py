"""data/splits.py: where a document goes follows from its content and the seed alone."""

import hashlib

import numpy as np
import pytest

from scratchgpt.data.splits import check_fractions, draw


def test_by_hand() -> None:
    first_53_bits = int(hashlib.sha256(b"0\x00a text").hexdigest()[:16], 16) >> 11
    assert draw(0, "a text") == first_53_bits / 2**53
    assert draw("ab", "c") != draw("a", "bc")


def test_numbers_are_even_and_each_seed_has_its_own() -> None:
    numbers = np.array([[draw(seed, f"text {i}") for i in range(2000)] for seed in (0, 1)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.histogram(numbers, bins=10, range=(0, 1))[0] == pytest.approx([400] * 10, rel=0.2)
    assert abs(np.corrcoef(numbers)[0, 1]) < 0.1


@pytest.mark.parametrize(
    "fractions", [{"test": -0.1}, {"test": 1}, {"validation": 0.5, "test": 0.5}, {"a": float("nan")}]
)
def test_fractions_that_leave_nothing_are_named(fractions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fractions))}="):
        check_fractions(**fractions)
    check_fractions(validation=0.0, test=0.5)
