"""Tuning that is killed at ten random moments and resumed ends, bit for bit, as if it had been left alone."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recipes import finetune_preference, reinforce
from scratchgpt.training.checkpoints import newest_valid_checkpoint
from tests.recipes import test_finetune_preference as preferences
from tests.recipes import test_reinforce as rewards
from tests.reliability.test_checkpoint_campaigns import fork
from tests.runs import metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

preference_workplace = preferences.workplace
reward_workplace = rewards.workplace

STEPS = {"max_steps": 40, "save_steps": 1, "eval_steps": 20, "load_best_at_end": False}
RECIPES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "preference": (finetune_preference, preferences.options, {"max_steps": 240}),
    "grpo": (reinforce, rewards.options, {"steps_per_sampling": 3, "kl_weight": 0.01}),
    "rejection": (reinforce, rewards.options, {"steps_per_sampling": 2, "method": "rejection", "tuning": "full"}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_ten_kills_change_nothing(name: str, request: pytest.FixtureRequest) -> None:
    recipe, options, settings = RECIPES[name]
    workplace = request.getfixturevalue("preference_workplace" if name == "preference" else "reward_workplace")
    alone, killed = f"alone-{name}", f"killed-{name}"
    started = time.monotonic()
    recipe.main(options(workplace, alone, **STEPS | settings))
    seconds = time.monotonic() - started
    again = options(workplace, killed, **STEPS | settings, resume_from_checkpoint="true")
    generator, reached = random.Random(name), []
    while len(reached) < 10:
        child = fork(lambda: recipe.main(again))
        time.sleep(generator.random() * seconds / 5)  # so that ten beginnings and some steps each are no whole run
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            break  # it was faster than it should be
        assert code == -signal.SIGKILL
        checkpoint, skipped = newest_valid_checkpoint(workplace / killed)
        assert not skipped
        reached.append(int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0)
    recipe.main(again)
    print(f"\n{name}: killed {len(reached)} times, with steps {reached} saved")
    assert len(reached) == 10
    assert max(reached) > 0
    assert_same(workplace / alone, workplace / killed, (STEPS | settings)["max_steps"])


def assert_same(alone: Path, killed: Path, steps: int) -> None:
    files = list((alone / f"checkpoint-{steps}").rglob("*.safetensors"))
    assert files
    for file in files:
        one, other = load_file(file), load_file(killed / file.relative_to(alone))
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == [], file.name
    logs = [
        [(line["step"], line["loss"], line["grad_norm"]) for line in metrics(folder)] for folder in (alone, killed)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == steps
