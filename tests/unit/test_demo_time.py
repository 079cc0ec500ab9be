"""How long the demo takes here, and what is left out where that is too long."""

from pathlib import Path

import pytest
import yaml

from scratchgpt.training import demo_time
from scratchgpt.training.demo_time import COMPILING, LEAST, LIMIT, OTHERS, demo_steps

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
FILES = [CONFIGS / recipe / "demo.yaml" for recipe in ("pretrain", "finetune_instruct")]
STAGES = [yaml.safe_load(file.read_text()) for file in FILES]
NUMBERS = [[stage[name] for name in ("max_steps", "warmup_steps", "decay_steps")] for stage in STAGES]
LEAST_STEPS = [int(share * stage[0]) for share, stage in zip(LEAST, NUMBERS, strict=True)]
OPTIONS = STAGES[0]


def test_a_fast_machine_gets_the_whole_demo() -> None:
    steps, seconds = demo_steps(STAGES, 0.3)
    assert steps == NUMBERS
    assert seconds == pytest.approx((NUMBERS[0][0] * (1 + OTHERS) + NUMBERS[1][0]) * 0.3 + 2 * COMPILING)


@pytest.mark.parametrize("step", [0.5, 0.6, 0.8, 1.5])
def test_a_slow_machine_gets_fewer_steps_and_about_twenty_minutes(step: float) -> None:
    stages, seconds = demo_steps(STAGES, step)
    least = [stage[0] for stage in stages] == LEAST_STEPS
    for stage, whole in zip(stages, NUMBERS, strict=True):
        assert stage[0] < whole[0]
        for part in (1, 2):
            assert stage[part] / stage[0] == pytest.approx(whole[part] / whole[0], abs=0.02)
    assert seconds == pytest.approx(LIMIT, rel=0.02) or stages[1][0] == LEAST_STEPS[1]
    assert least == (step == 1.5)


def test_never_fewer_than_the_chat_model_needs_to_learn_to_copy() -> None:
    assert [stage[0] for stage in demo_steps(STAGES, 60.0)[0]] == LEAST_STEPS


@pytest.mark.parametrize(("step", "said"), [(0.1, ""), (2.0, "--max_steps=")])
def test_what_it_says_and_writes(tmp_path: Path, monkeypatch, capsys, step: float, said: str) -> None:
    monkeypatch.setattr(demo_time, "step_seconds", lambda *_: step)
    demo_time.main(str(tmp_path / "demo" / "options"), *map(str, FILES))
    text = capsys.readouterr().out
    assert text.startswith("make demo will take about ")
    assert (f"steps instead of {OPTIONS['max_steps']}" in text) == bool(said)
    for recipe in ("pretrain", "finetune_instruct"):
        assert (tmp_path / "demo" / "options" / recipe).read_text().startswith(said)


def test_a_step_is_measured() -> None:
    tiny = {**OPTIONS, "hidden_size": 32, "num_hidden_layers": 1, "context_length": 16}
    assert 0 < demo_time.step_seconds(tiny) < 10
