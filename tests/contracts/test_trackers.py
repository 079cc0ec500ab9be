"""Trackers: what a run logs through accelerate is what they show."""

from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator

from scratchgpt.training import processes
from tests.runs import make_workplace, metrics, run_here


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = run_here(make_workplace(tmp_path), "run", max_steps=4, eval_steps=2, report_to="tensorboard")
    # The arguments have a folder below that of the curves.
    folder = min((file.parent for file in output.rglob("events.out.tfevents.*")), key=lambda path: len(path.parts))
    events = EventAccumulator(str(folder)).Reload()
    for name in ("loss", "eval_loss", "eval_bits_per_byte", "grad_norm", "learning_rate"):
        expected = [(line["step"], line[name]) for line in metrics(output) if name in line]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_trackers_get_the_arguments(tmp_path: Path, monkeypatch) -> None:
    """As they are when training begins, with what the recipe worked out."""
    started = []
    monkeypatch.setattr(Accelerator, "init_trackers", lambda self, name, config, **kwargs: started.append(config))
    output = run_here(make_workplace(tmp_path), "run", max_steps=4, eval_steps=2, report_to="tensorboard")
    (config,) = started
    written = yaml.safe_load((output / "arguments.yaml").read_text())
    assert {name: config[name] for name in ("max_steps", "learning_rate", "seed", "hidden_size")} == {
        name: written[name] for name in ("max_steps", "learning_rate", "seed", "hidden_size")
    }
    assert set(written) <= set(config)


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ValueError, match="--report_to wandb needs a package: pip install wandb"):
        run_here(make_workplace(tmp_path), "run", report_to="wandb")
    assert not (tmp_path / "run").exists()
