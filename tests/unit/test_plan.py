"""training/plan.py: from the amount of text, the measured speed and the time to a size and a number of steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.configuration_scratchgpt import ScratchGPTConfig
from scratchgpt.modeling_scratchgpt import ScratchGPTForCausalLM
from scratchgpt.training.metrics import flops_per_token as exact_flops_per_token
from scratchgpt.training.plan import (
    EVALUATIONS,
    FEWEST_STEPS,
    MAX_PASSES,
    SIZES,
    Measured,
    choose_schedule,
    choose_size,
    flops_per_token,
    in_words,
    make_size,
    shortened,
    vocabulary_size,
)
from scratchgpt.training.schedules import check_schedule

TOKENS = st.integers(2, 10**9)
SECONDS = st.floats(6, 1e5)


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, 512), (20_000, 512), (1_100_000, 2048), (25_000_000, 8192), (10**9, 16384), (10**12, 16384)],
)
def test_vocabulary(num_bytes: int, expected: int) -> None:
    assert vocabulary_size(num_bytes) == expected


@pytest.mark.parametrize(
    ("num_tokens", "vocab_size", "flops_per_second", "minutes", "width", "layers"),
    [
        (8_000, 512, 1e11, 10, 64, 2),  # a story: any more would learn it by heart
        (320_000, 2048, 5e10, 10, 128, 4),
        (320_000, 2048, 1e14, 10, 128, 4),  # more speed does not make more text
        (7_000_000, 8192, 2e10, 10, 96, 3),  # an old laptop
        (7_000_000, 8192, 1e11, 10, 128, 4),
        (7_000_000, 8192, 1e11, 60, 256, 4),
        (10**9, 16384, 1e14, 60, 768, 12),  # a GPU
    ],
)
def test_sizes(num_tokens, vocab_size, flops_per_second, minutes, width, layers) -> None:
    found = choose_size(num_tokens, vocab_size, flops_per_second, 60 * minutes)
    assert (found.hidden_size, found.num_hidden_layers) == (width, layers)


@given(TOKENS, st.floats(1e8, 1e15), SECONDS)
def test_more_time_never_makes_a_smaller_model_and_every_size_is_a_model(
    num_tokens: int, flops_per_second: float, seconds: float
) -> None:
    size = choose_size(num_tokens, 4096, flops_per_second, seconds)
    longer = choose_size(num_tokens, 4096, flops_per_second, 2 * seconds)
    sizes = [(each.hidden_size, each.num_hidden_layers) for each in (size, longer)]
    assert SIZES.index(sizes[0]) <= SIZES.index(sizes[1])
    assert size.hidden_size % (2 * size.num_attention_heads) == 0  # rotary positions turn pairs
    assert size.batch_size >= 1
    assert size.batch_size == 1 or size.tokens_per_step <= num_tokens


@given(TOKENS, st.integers(1, 10**7), st.floats(1e-4, 60), st.floats(1e-7, 1e-2), SECONDS)
def test_a_schedule_is_valid_and_fits(num_tokens, num_eval_tokens, step_seconds, eval_seconds, seconds) -> None:
    size = make_size(num_tokens, 128, 4, MAX_PASSES * num_tokens)
    measured = Measured(30.0, step_seconds, eval_seconds, 1.0, 500.0)
    found = choose_schedule(num_tokens, num_eval_tokens, size.tokens_per_step, measured, seconds)
    check_schedule(
        schedule="wsd", max_steps=found.max_steps, warmup_steps=found.warmup_steps, decay_steps=found.decay_steps,
        peak=1.0,
    )  # fmt: skip
    assert -(-found.max_steps // found.eval_steps) <= EVALUATIONS
    assert found.eval_tokens is None or 1 <= found.eval_tokens < num_eval_tokens
    assert (found.max_steps - 1) * size.tokens_per_step < MAX_PASSES * num_tokens
    if found.max_steps > FEWEST_STEPS and (found.eval_tokens or 0) > 2048:
        assert found.seconds <= seconds + 1


def test_a_schedule_uses_the_time_it_has() -> None:
    measured = Measured(20.0, 0.5, 1e-5, 0.5, 500.0)
    found = choose_schedule(10_000_000, 10**6, 4096, measured, 600)
    assert found.max_steps == pytest.approx(600 / 0.5, rel=0.1)
    assert found.seconds == pytest.approx(600, rel=0.02)
    assert choose_schedule(10_000, 1000, 512, measured, 600).seconds < 200  # the text is used up


@pytest.mark.parametrize("size", SIZES[:5])
def test_flops_are_those_of_the_model(size: tuple[int, int]) -> None:
    width, layers = size
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=4096, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=256,
    )  # fmt: skip
    num_parameters = sum(parameter.numel() for parameter in ScratchGPTForCausalLM(config).parameters())
    exact = exact_flops_per_token(config, num_parameters, 256)
    assert flops_per_token(width, layers, 4096, 256) == pytest.approx(exact, rel=0.1)


def test_steps_are_shortened_together_and_never_lengthened() -> None:
    assert shortened(400, 20, 250, 0.5, 1000) == [400, 20, 250]
    assert shortened(400, 20, 250, 2.0, 400) == [200, 10, 125]
    assert shortened(400, 0, 250, 1e6, 1) == [1, 0, 1]


@pytest.mark.parametrize(
    ("seconds", "words"), [(9.4, "9 seconds"), (95, "1.6 minutes"), (600, "10.0 minutes"), (7200, "2.0 hours")]
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
