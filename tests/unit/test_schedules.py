import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.training.schedules import learning_rate

PLAN = {"max_steps": 100, "warmup_steps": 10, "peak": 1e-3, "final": 1e-4}


@st.composite
def plans(draw) -> dict:
    schedule = draw(st.sampled_from(["cosine", "linear", "wsd", "constant"]))
    max_steps = draw(st.integers(1, 300))
    warmup_steps = draw(st.integers(0, max_steps - 1))
    peak = draw(st.floats(1e-8, 10))
    return {
        "schedule": schedule,
        "max_steps": max_steps,
        "warmup_steps": warmup_steps,
        "peak": peak,
        "final": peak * draw(st.floats(0, 1)),
        "decay_steps": draw(st.integers(1, max_steps - warmup_steps)) if schedule == "wsd" else 0,
    }


@given(plans())
def test_bounds_and_monotone_parts(plan):
    rates = [learning_rate(step, **plan) for step in range(plan["max_steps"] + 3)]
    warmup, peak, final = plan["warmup_steps"], plan["peak"], plan["final"]
    assert all(0 < rate <= peak for rate in rates[: warmup + 1])
    assert all(a < b for a, b in pairwise(rates[: warmup + 1]))
    assert rates[warmup] == peak
    assert all(a >= b >= final * (1 - 1e-12) for a, b in pairwise(rates[warmup:]))
    end = peak if plan["schedule"] == "constant" else final
    assert rates[plan["max_steps"] :] == [end] * 3
    if plan["schedule"] == "wsd":
        stable = rates[warmup : plan["max_steps"] - plan["decay_steps"] + 1]
        assert stable == [peak] * len(stable)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_half_way_is_the_mean_of_peak_and_final(schedule):
    assert math.isclose(learning_rate(55, schedule=schedule, **PLAN), 5.5e-4)


def test_known_values():
    assert math.isclose(learning_rate(0, schedule="cosine", **PLAN), 1e-3 / 11)
    # nanoGPT's get_lr with warmup_iters=10, lr_decay_iters=100
    expected = 1e-4 + 0.5 * (1 + math.cos(math.pi * (40 - 10) / (100 - 10))) * (1e-3 - 1e-4)
    assert math.isclose(learning_rate(40, schedule="cosine", **PLAN), expected)
    assert math.isclose(learning_rate(95, schedule="wsd", decay_steps=20, **PLAN), 1e-4 + 9e-4 * 0.25)


def test_as_a_factor_it_gives_the_same_rates():
    for step in range(101):
        factor = learning_rate(step, schedule="cosine", max_steps=100, warmup_steps=10, peak=1.0, final=0.1)
        assert math.isclose(factor * 1e-3, learning_rate(step, schedule="cosine", **PLAN))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cosin"}, "cosine, linear, wsd, constant"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"warmup_steps": 100}, "warmup_steps=100"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"peak": 0.0}, "positive"),
        ({"peak": math.nan}, "positive"),
        ({"final": 2e-3}, "final learning rate"),
        ({"schedule": "wsd"}, "decay_steps=0"),
        ({"schedule": "wsd", "decay_steps": 91}, "between 1 and .* 90"),
        ({"decay_steps": 5}, "belongs to schedule=wsd"),
    ],
)
def test_impossible_combinations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        learning_rate(0, **({"schedule": "cosine"} | PLAN | change))


def test_negative_step_is_refused():
    with pytest.raises(ValueError, match="step=-1"):
        learning_rate(-1, schedule="cosine", **PLAN)
