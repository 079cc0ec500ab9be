"""data/splits.py: by a hash, the same in any order, and none empty that need not be."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.data.splits import assign, check_fractions, draw, split_at

FRACTIONS = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45)).map(lambda f: {"validation": f[0], "test": f[1]})


@given(st.lists(st.text(), min_size=1, max_size=12, unique=True), FRACTIONS, st.integers(0, 9))
def test_no_split_is_empty_while_another_has_two(keys: list[str], fractions: dict[str, float], seed: int) -> None:
    places = [draw(seed, key) for key in keys]
    names = assign(places, fractions)
    wanted = ["train", *(name for name in fractions if fractions[name])]
    assert set(names) <= set(wanted)
    assert len(set(names)) == min(len(wanted), len(keys))
    assert "train" in names
    assert assign(places[::-1], fractions) == names[::-1]
    by_hash = [split_at(place, fractions) for place in places]
    if set(by_hash) == set(wanted):
        assert names == by_hash


def test_four_documents_validate_whatever_the_seed() -> None:
    for seed in range(50):
        names = assign([draw(seed, f"document {i}") for i in range(4)], {"validation": 0.3})
        assert set(names) == {"train", "validation"}


def test_documents_that_are_added_move_none() -> None:
    places = [draw(0, f"document {i}") for i in range(500)]
    fractions = {"validation": 0.1, "test": 0.1}
    assert assign(places, fractions)[:200] == assign(places[:200], fractions)


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
