"""A run that was stopped and resumed is, bit for bit, the run that was not."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scratchgpt.training import resuming
from scratchgpt.training.checkpoints import OutputDirectoryLock, newest_valid_checkpoint
from scratchgpt.training.guards import EXIT_INTERRUPTED
from tests.runs import command, make_workplace, metrics, run, run_here

pytestmark = pytest.mark.gpu

# All that has a state or a schedule; batches of 6 rows, which cross the borders of epochs.
OPTIONS = {
    "deterministic": True,  # which only a GPU needs to be told
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "ema_decay": 0.9,
    "warmup_steps": 5,
    "learning_rate": 0.003,
    "eval_steps": 10,
    "save_steps": 40,
    "max_steps": 40,
    "seed": 3,
}
EVERY_STEP = {"save_steps": 1, "save_total_limit": 50}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("resume"), documents=37)


def assert_same_run(first: Path, second: Path, last_step: int = 40) -> None:
    """Every weight, optimizer tensor, average and number of the state, and every logged loss."""
    checkpoints = [folder / f"checkpoint-{last_step}" for folder in (first, second)]
    for name in ("model.safetensors", "training_state/state.safetensors"):
        a, b = (load_file(checkpoint / name) for checkpoint in checkpoints)
        assert sorted(a) == sorted(b)
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    a, b = ((checkpoint / "training_state" / "state.json").read_text() for checkpoint in checkpoints)
    assert a == b
    logs = [
        [(line["step"], line["loss"], line["grad_norm"], line.get("eval_loss")) for line in metrics(folder)]
        for folder in (first, second)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == last_step


def as_it_was(workplace: Path, whole: str, output: str, *steps: int) -> Path:
    """A copy of the run `whole` as it was when it had saved the last of `steps`."""
    folder = workplace / output
    folder.mkdir()
    for step in steps:
        shutil.copytree(workplace / whole / f"checkpoint-{step}", folder / f"checkpoint-{step}")
    shutil.copy(workplace / whole / "metrics.jsonl", folder)
    return folder


def resume_from(workplace: Path, whole: str, step: int, launcher: str = "", **changed: object) -> Path:
    """A copy of the run `whole` as it was at `step`, gone on with by a new process."""
    output = as_it_was(workplace, whole, f"{whole}-from-{step}", step)
    changed = {**OPTIONS, **changed, "resume_from_checkpoint": "true"}
    assert f"Resuming from checkpoint-{step} (exact)" in run(command(workplace, output.name, launcher, **changed))
    return output


@pytest.fixture(scope="module", params=["muon", pytest.param("adamw", marks=pytest.mark.slow)])
def whole(workplace: Path, request) -> str:
    """A run of 40 steps that kept a checkpoint of every step; its name is its optimizer's."""
    run_here(workplace, request.param, **OPTIONS | EVERY_STEP, optimizer=request.param)
    return request.param


def test_resumed_in_the_middle(workplace: Path, whole: str) -> None:
    assert_same_run(workplace / whole, resume_from(workplace, whole, 7, optimizer=whole))


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 20, 39])
def test_resumed_anywhere(workplace: Path, whole: str, step: int) -> None:
    assert_same_run(workplace / whole, resume_from(workplace, whole, step, optimizer=whole))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("launcher", ["", "ddp"])
def test_resumed_when_compiled(workplace: Path, launcher: str) -> None:
    name, options = f"compiled{launcher}", {"optimizer": "muon", "compile": True}
    run(command(workplace, name, launcher, **OPTIONS | EVERY_STEP | options))
    assert_same_run(workplace / name, resume_from(workplace, name, 7, launcher, **options))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["", "ddp"])
@pytest.mark.parametrize("step", [7, 20])
def test_streams_resumed(workplace: Path, launcher: str, step: int) -> None:
    """In the first reading of the text and in a later one."""
    name, options = f"stream{launcher}{step}", {"streaming": True}
    run(command(workplace, name, launcher, **OPTIONS | EVERY_STEP | options))
    assert_same_run(workplace / name, resume_from(workplace, name, step, launcher, **options))


def test_a_stream_goes_on_where_it_was(workplace: Path, capsys) -> None:
    whole = run_here(workplace, "stream", **OPTIONS | EVERY_STEP, streaming=True)
    output = as_it_was(workplace, "stream", "stream-resumed", 26)
    run_here(workplace, output.name, **OPTIONS, streaming=True, resume_from_checkpoint="true")
    assert "Resuming from checkpoint-26 (exact)" in capsys.readouterr().out
    assert_same_run(whole, output)


SIGNALLED = """
import os, runpy, signal, sys

sent = []

def terminate(event, arguments):
    if event == "open" and str(arguments[0]).endswith("metrics.jsonl") and not sent:
        sent.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(terminate)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A program that runs another one, which gets a SIGTERM when it writes its first line of metrics, and not later."""


@pytest.mark.parametrize("launcher", ["", pytest.param("ddp", marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_run_goes_on(workplace: Path, whole: str, launcher: str) -> None:
    output = workplace / f"{whole}-{launcher}-signal"
    options = {**OPTIONS, "optimizer": whole, "gradient_accumulation_steps": 1 if launcher else 2}
    arguments = command(workplace, output.name, launcher, **options)
    if not launcher:
        arguments[1:1] = ["-c", SIGNALLED]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if launcher:  # which gets the signal, and has to hand it on
        deadline = time.monotonic() + 120
        while not (output / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    step = len(metrics(output))
    assert step < 40
    assert newest_valid_checkpoint(output) == (output / f"checkpoint-{step}", [])
    if launcher:  # whose exit code is its own, see training/guards.py
        assert process.returncode == 1
        assert "saving after this step" in errors.decode()
        return
    assert process.returncode == EXIT_INTERRUPTED, errors.decode()[-2000:]
    run(command(workplace, output.name, resume_from_checkpoint="true", **options))
    assert_same_run(workplace / whole, output)


def test_resuming_another_way_is_said_to_be_inexact(workplace: Path, whole: str, capsys) -> None:
    output = as_it_was(workplace, whole, f"{whole}-inexact", 39)
    changed = {"per_device_train_batch_size": 2, "resume_from_checkpoint": "true", "optimizer": whole}
    run_here(workplace, output.name, **OPTIONS | changed)
    assert "not exact: per_device_train_batch_size was 3, is now 2)" in capsys.readouterr().out


def test_a_broken_checkpoint_is_named_and_skipped(workplace: Path, whole: str, capsys) -> None:
    output = as_it_was(workplace, whole, f"{whole}-broken", 38, 39)
    weights = output / "checkpoint-39" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run_here(workplace, output.name, **OPTIONS, optimizer=whole, resume_from_checkpoint="true")
    printed = capsys.readouterr().out
    assert "Skipping the broken checkpoint-39" in printed
    assert "Resuming from checkpoint-38 (exact)" in printed
    assert_same_run(workplace / whole, output)


def test_checkpoints_of_an_earlier_run_are_not_written_over(workplace: Path, whole: str) -> None:
    before = sorted(path.name for path in (workplace / whole).iterdir())
    with pytest.raises(ValueError, match="--resume_from_checkpoint true"):
        run_here(workplace, whole, **OPTIONS)
    assert sorted(path.name for path in (workplace / whole).iterdir()) == before


def test_a_second_run_on_the_same_directory_is_refused(workplace: Path) -> None:
    with OutputDirectoryLock(workplace / "shared"):
        with pytest.raises(ValueError, match=rf"Another run is writing to .*shared \(process {os.getpid()}\)"):
            run_here(workplace, "shared")
        assert [path.name for path in (workplace / "shared").iterdir()] == ["run.lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_disk_that_fills_up_leaves_the_older_checkpoint(workplace: Path, monkeypatch) -> None:
    """The third save runs into the largest size that the kernel lets a file have, as it would into a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    write, saves = resuming.write_model, 0

    def write_or_fail(*arguments: object) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        write(*arguments)

    monkeypatch.setattr(resuming, "write_model", write_or_fail)
    options = {**OPTIONS, "max_steps": 4, "save_steps": 1, "eval_steps": 4, "warmup_steps": 0}
    try:
        with pytest.raises(ValueError, match=r"checkpoint-3 could not be written.*Older checkpoints are untouched"):
            run_here(workplace, "full", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    output = workplace / "full"
    assert newest_valid_checkpoint(output) == (output / "checkpoint-2", [])
    assert not list(output.glob(".checkpoint*"))
    run_here(workplace, "full", **options, resume_from_checkpoint="true")
    assert len(metrics(output)) == 4
