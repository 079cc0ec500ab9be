"""A run that was stopped and resumed is, bit for bit, the run that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scratchgpt.tokenizers import CharTokenizer, to_transformers
from scratchgpt.training.guards import EXIT_INTERRUPTED

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pretrain.py"
TEXT = "The quick brown fox jumps over the lazy dog. " * 60


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a corpus and a tokenizer; 13 rows of 32 tokens, so that batches of 6 cross epoch borders."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "text.txt").write_text(TEXT[:417])
    to_transformers(CharTokenizer.train([TEXT], min_frequency=1, unk=True)).save_pretrained(folder / "tokenizer")
    return folder


def command(workplace: Path, output: str, **options: object) -> list[str]:
    defaults = {
        "data": workplace / "text.txt",
        "eval_data": workplace / "text.txt",
        "eval_split": "train",
        "tokenizer": workplace / "tokenizer",
        "cache_dir": workplace / "cache",
        "output_dir": workplace / output,
        "context_length": 32,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.9,
        "warmup_steps": 5,
        "learning_rate": 0.003,
        "logging_steps": 1,
        "eval_steps": 10,
        "max_steps": 40,
        "compile": False,
        "seed": 3,
    }
    options = {**defaults, **options}
    return [sys.executable, str(RECIPE), *(f"--{name}={value}" for name, value in options.items())]


def run(arguments: list[str], expect: int = 0) -> str:
    result = subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == expect, result.stderr[-3000:]
    return result.stdout + result.stderr


def assert_same_run(first: Path, second: Path, last_step: int = 40) -> None:
    """Every weight, optimizer tensor, average and number of the state, and every logged loss."""
    checkpoints = [folder / f"checkpoint-{last_step}" for folder in (first, second)]
    for name in ("model.safetensors", "training_state/state.safetensors"):
        a, b = (load_file(checkpoint / name) for checkpoint in checkpoints)
        assert sorted(a) == sorted(b)
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    a, b = ((checkpoint / "training_state" / "state.json").read_text() for checkpoint in checkpoints)
    assert a == b
    logs = []
    for folder in (first, second):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        logs.append([(line["step"], line["loss"], line["grad_norm"], line.get("eval_loss")) for line in lines])
    assert logs[0] == logs[1]
    assert len(logs[0]) == last_step


def resume_from(workplace: Path, whole: str, step: int, **options: object) -> Path:
    """A copy of the run `whole` as it was when it had saved `step`, gone on with by a new process."""
    output = workplace / f"{whole}-from-{step}"
    output.mkdir()
    shutil.copytree(workplace / whole / f"checkpoint-{step}", output / f"checkpoint-{step}")
    shutil.copy(workplace / whole / "metrics.jsonl", output)
    text = run(command(workplace, output.name, resume_from_checkpoint="true", save_steps=40, **options))
    assert f"Resuming from checkpoint-{step} (exact)" in text
    return output


@pytest.fixture(scope="module", params=["adamw", "muon"])
def whole(workplace: Path, request) -> tuple[str, dict[str, str]]:
    """A run of 40 steps that kept a checkpoint of every step."""
    options = {"optimizer": request.param}
    run(command(workplace, request.param, save_steps=1, save_total_limit=50, **options))
    return request.param, options


def test_resumed_in_the_middle(workplace: Path, whole) -> None:
    name, options = whole
    assert_same_run(workplace / name, resume_from(workplace, name, 7, **options))


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 20, 39])
def test_resumed_anywhere(workplace: Path, whole, step: int) -> None:
    name, options = whole
    assert_same_run(workplace / name, resume_from(workplace, name, step, **options))


@pytest.mark.slow
def test_resumed_when_compiled(workplace: Path) -> None:
    options = {"optimizer": "muon", "compile": True}
    run(command(workplace, "compiled", save_steps=1, save_total_limit=50, **options))
    assert_same_run(workplace / "compiled", resume_from(workplace, "compiled", 7, **options))


def test_a_signal_saves_and_the_run_goes_on(workplace: Path, whole) -> None:
    name, options = whole
    output = workplace / f"{name}-signal"
    process = subprocess.Popen(command(workplace, output.name, save_steps=40, **options), stderr=subprocess.PIPE)
    metrics = output / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == EXIT_INTERRUPTED, errors.decode()[-2000:]
    run(command(workplace, output.name, resume_from_checkpoint="true", save_steps=40, **options))
    assert_same_run(workplace / name, output)


def test_resuming_another_way_is_said_to_be_inexact(workplace: Path, whole) -> None:
    name, options = whole
    output = workplace / f"{name}-inexact"
    output.mkdir()
    shutil.copytree(workplace / name / "checkpoint-39", output / "checkpoint-39")
    changed = {"per_device_train_batch_size": 2, "resume_from_checkpoint": "true", **options}
    text = run(command(workplace, output.name, **changed))
    assert "not exact: per_device_train_batch_size was 3, is 2" in text


def test_a_broken_checkpoint_is_named_and_skipped(workplace: Path, whole) -> None:
    name, options = whole
    output = workplace / f"{name}-broken"
    output.mkdir()
    for step in (38, 39):
        shutil.copytree(workplace / name / f"checkpoint-{step}", output / f"checkpoint-{step}")
    weights = output / "checkpoint-39" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    text = run(command(workplace, output.name, resume_from_checkpoint="true", **options))
    assert "checkpoint-39" in text
    assert "Resuming from checkpoint-38 (exact)" in text


def test_checkpoints_of_an_earlier_run_are_not_written_over(workplace: Path, whole) -> None:
    name, options = whole
    before = sorted(path.name for path in (workplace / name).iterdir())
    text = run(command(workplace, name, **options), expect=1)
    assert "--resume_from_checkpoint true" in text
    assert sorted(path.name for path in (workplace / name).iterdir()) == before
