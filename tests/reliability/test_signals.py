"""A campaign of signals at random moments against the recipe. Run with -s to see the numbers."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes import pretrain
from scratchgpt.training.checkpoints import newest_valid_checkpoint
from scratchgpt.training.guards import EXIT_INTERRUPTED
from tests.runs import command, make_workplace, metrics, options, run, run_here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# A schedule that does not depend on the last step: the reference ends where the campaign did.
OPTIONS = {
    "optimizer": "muon",
    "ema_decay": 0.9,
    "hidden_dropout": 0.1,
    "lr_schedule": "constant",
    "learning_rate": 0.003,
    "logging_steps": 1,
    "eval_steps": 5,
    "save_steps": 7,
}


def start(workplace: Path) -> int:
    """A run in a process of its own, once it trains: from then on signals are its business."""
    child = os.fork()
    if child == 0:
        try:
            pretrain.main(options(workplace, "run", **OPTIONS, max_steps=1_000_000, resume_from_checkpoint="true"))
        except SystemExit as exit:
            os._exit(exit.code if isinstance(exit.code, int) else 1)
        finally:
            os._exit(1)
    lock, deadline = workplace / "run" / "run.lock", time.monotonic() + 120
    while not lock.exists() or lock.read_text() != f"{child}\n":
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return child


def test_60_signals_at_any_moment_of_a_whole_run(tmp_path) -> None:
    """While it imports, tokenises, trains, evaluates, writes the final model: nothing is lost or doubtful."""
    workplace = make_workplace(tmp_path, documents=37)
    settings = {**OPTIONS, "max_steps": 40, "eval_steps": 10, "compile": False, "resume_from_checkpoint": "true"}
    started = time.monotonic()
    run(command(workplace, "reference", **settings))
    reference = tmp_path / "reference"
    whole = time.monotonic() - started
    generator, ended = random.Random(3), Counter[int]()
    for trial in range(60):
        process = subprocess.Popen(
            command(workplace, "signalled", **settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(whole * generator.random())
        process.send_signal(generator.choice((signal.SIGTERM, signal.SIGINT)))
        error = process.communicate(timeout=120)[1]
        # Python's own word while it imports, in one library's or another's words; from then on it is one line.
        assert "Traceback" not in error or "KeyboardInterrupt" in error, (trial, error)
        assert process.returncode != 1 or "KeyboardInterrupt" in error, (trial, error)
        ended[process.returncode] += 1
        output = tmp_path / "signalled"
        assert not newest_valid_checkpoint(output)[1], trial
        if process.returncode == 0:
            assert_same_models(reference / "final", output / "final")
            shutil.rmtree(output)
    assert set(ended) <= {0, 1, EXIT_INTERRUPTED, -signal.SIGTERM, 130, -signal.SIGINT}, ended
    run(command(workplace, "signalled", **settings))
    assert_same_models(reference / "final", tmp_path / "signalled" / "final")
    print(f"\n60 of 60 signals in runs of {whole:.0f} s; exit codes {dict(ended)}; each finished run is the same")


def assert_same_models(one: Path, other: Path) -> None:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(a[key], b[key]) for key in a | b)


def test_100_signals_at_random_moments(tmp_path) -> None:
    """Each leaves a valid checkpoint of the last step that was done, and all of them together change nothing."""
    workplace, output = make_workplace(tmp_path, documents=37), tmp_path / "run"
    generator, steps = random.Random(0), [0]
    for trial in range(100):
        child = start(workplace)
        time.sleep(2 * generator.random())
        os.kill(child, generator.choice((signal.SIGTERM, signal.SIGINT)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == EXIT_INTERRUPTED, trial
        path, skipped = newest_valid_checkpoint(output)
        assert not skipped, trial
        assert path is not None, trial
        steps.append(int(path.name.removeprefix("checkpoint-")))
        assert steps[-1] > steps[-2], trial
        assert metrics(output)[-1]["step"] == steps[-1], trial
    last = steps[-1]
    reference = run_here(workplace, "reference", **OPTIONS, max_steps=last)
    for name in ("model.safetensors", "training_state/state.safetensors"):
        a, b = (load_file(folder / f"checkpoint-{last}" / name) for folder in (output, reference))
        assert all(torch.equal(a[key], b[key]) for key in a | b), name
    seen = [[line["loss"] for line in metrics(folder)] for folder in (output, reference)]
    assert seen[0] == seen[1]
    print(f"\n100 of 100 signals left a valid checkpoint; after {last} steps the weights are bit for bit the same")
