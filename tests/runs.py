"""Tiny runs of recipes/pretrain.py, for the tests that need one: in this process, in one of its own, or in several."""

import json
import os
import subprocess
import sys
from pathlib import Path

from recipes import pretrain
from scratchgpt.tokenizers import BPETokenizer, to_transformers

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "pretrain.py"
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "To be, or not to be, that is the question.", "Gold!"]


def make_workplace(folder: Path, documents: int = 60) -> Path:
    """A corpus and a tokenizer in `folder`."""
    lines = [json.dumps({"text": SENTENCES[i % 3] * (i % 5 + 1)}) for i in range(documents)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    to_transformers(BPETokenizer.train(SENTENCES * 9, vocab_size=300)).save_pretrained(folder / "tokenizer")
    return folder


def options(workplace: Path, output: str, **changed: object) -> list[str]:
    """The command line of a run of 12 steps that writes to `workplace / output`."""
    defaults = {
        "data": workplace / "text.jsonl",
        "eval_data": workplace / "text.jsonl",
        "eval_split": "train",
        "tokenizer": workplace / "tokenizer",
        "cache_dir": workplace / "cache",
        "output_dir": workplace / output,
        "context_length": 32,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "eval_steps": 6,
        "save_steps": 12,
        "max_steps": 12,
        "compile": False,
        "mixed_precision": "no",
    }
    return [f"--{name}={value}" for name, value in {**defaults, **changed}.items()]


def run_here(workplace: Path, output: str, **changed: object) -> Path:
    """Runs in this process; returns the output directory."""
    pretrain.main(options(workplace, output, **changed))
    return workplace / output


def command(workplace: Path, output: str, launcher: str = "", **changed: object) -> list[str]:
    """The same as a command of its own; `launcher` is the name of a file in recipes/accelerate, or plain Python."""
    start = [sys.executable]
    if launcher:
        config = ROOT / "recipes" / "accelerate" / f"{launcher}.yaml"
        start += ["-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*start, str(RECIPE), *options(workplace, output, **changed)]


def run(arguments: list[str], expect: int = 0, **environment: str) -> str:
    """Runs a command to its end and returns what it printed. A hanging collective ends too."""
    result = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=500,
    )
    assert result.returncode == expect, result.stderr[-3000:]
    return result.stdout + result.stderr


def metrics(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in metrics(output)]


def results(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())
