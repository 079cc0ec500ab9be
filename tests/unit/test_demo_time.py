"""How long the demo takes here, and what is left out where that is too long."""

from pathlib import Path

import pytest
import yaml

from scratchgpt.training import demo_time
from scratchgpt.training.demo_time import COMPILING, LIMIT, OTHERS, TOO_LONG, demo_steps

CONFIG = Path(__file__).parents[2] / "recipes" / "configs" / "pretrain" / "demo.yaml"
OPTIONS = yaml.safe_load(CONFIG.read_text())
NUMBERS = [OPTIONS[name] for name in ("max_steps", "warmup_steps", "decay_steps")]


def test_a_fast_machine_gets_the_whole_demo() -> None:
    steps, seconds = demo_steps(OPTIONS, 0.5)
    assert steps == NUMBERS
    assert seconds == 400 * 0.5 * (1 + OTHERS) + COMPILING


@pytest.mark.parametrize("step", [1.3, 1.6, 2.0])
def test_a_slow_machine_gets_fewer_steps_and_about_ten_minutes(step: float) -> None:
    (max_steps, warmup_steps, decay_steps), seconds = demo_steps(OPTIONS, step)
    assert max_steps < NUMBERS[0]
    assert warmup_steps / max_steps == pytest.approx(NUMBERS[1] / NUMBERS[0], abs=0.02)
    assert decay_steps / max_steps == pytest.approx(NUMBERS[2] / NUMBERS[0], abs=0.02)
    assert seconds == pytest.approx(LIMIT, rel=0.02) or max_steps == NUMBERS[0] // 4
    assert seconds < TOO_LONG or max_steps == NUMBERS[0] // 4


def test_never_fewer_than_a_quarter() -> None:
    assert demo_steps(OPTIONS, 60.0)[0][0] == NUMBERS[0] // 4


@pytest.mark.parametrize(("step", "said"), [(0.1, ""), (2.0, "--max_steps=")])
def test_what_it_says_and_writes(tmp_path: Path, monkeypatch, capsys, step: float, said: str) -> None:
    monkeypatch.setattr(demo_time, "step_seconds", lambda *_: step * 1.6)
    monkeypatch.setattr(demo_time, "COMPILED_GAIN", dict.fromkeys(demo_time.COMPILED_GAIN, 1.6))
    demo_time.main(str(CONFIG), str(tmp_path / "demo" / "base_options"))
    text = capsys.readouterr().out
    assert text.startswith("make demo will take about ")
    assert ("instead of 400" in text) == bool(said)
    assert (tmp_path / "demo" / "base_options").read_text().startswith(said)


def test_a_step_is_measured() -> None:
    tiny = {**OPTIONS, "hidden_size": 32, "num_hidden_layers": 1, "context_length": 16}
    assert 0 < demo_time.step_seconds(tiny) < 10
