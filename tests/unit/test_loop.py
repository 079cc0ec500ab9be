"""What the loop does once for a run; its steps are tested by recipes (`tests/recipes`, `tests/reliability`)."""

import math
import os
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from accelerate.state import AcceleratorState

from scratchgpt.training import loop, step
from scratchgpt.training.arguments import TrainingArguments
from scratchgpt.training.tasks.base import beside_guessing


@pytest.fixture
def _fresh_accelerate() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    with mock.patch.dict(os.environ):  # accelerate writes to it, too
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_fresh_accelerate")
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "give --mixed_precision to the recipe"),
        ({"WORLD_SIZE": "2"}, "2 processes were started, but accelerate sees 1|MASTER_ADDR"),  # before 1.13
    ],
)
def test_what_accelerate_would_do_otherwise_is_refused(monkeypatch, environment, message: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # As on a machine with a GPU, where the recipe does not say that it wants the CPU.
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(ValueError, match=message):
        loop.build_accelerator(TrainingArguments())


def test_a_loss_above_that_of_guessing_is_not_always_a_model_that_knows_nothing() -> None:
    guessing = math.log(10)
    assert beside_guessing({"loss": 2.2}, guessing) == ""
    assert "learned nothing" in beside_guessing({"loss": 2.6}, guessing)
    known = {"loss": 2.6, "accuracy": 0.327, "accuracy_interval": (0.27, 0.39)}
    assert "though 32.7% are right: the model is too sure" in beside_guessing(known, guessing)
    assert "learned nothing" in beside_guessing({**known, "accuracy_interval": (0.09, 0.39)}, guessing)


def test_seeding_is_that_of_torch_and_leaves_nothing_behind() -> None:
    torch.manual_seed(12345)
    expected = torch.rand(5)
    queued = len(torch.cuda._queued_calls)
    step._seed(torch.device("cpu"), 12345)
    assert torch.equal(torch.rand(5), expected)
    assert len(torch.cuda._queued_calls) == queued


def test_every_step_and_process_has_a_seed_of_its_own() -> None:
    seeds = {step._mix(seed, number, rank) for seed in range(3) for number in range(20) for rank in range(3)}
    assert len(seeds) == 3 * 20 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)
