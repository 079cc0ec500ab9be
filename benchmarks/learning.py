"""What a fixed budget of text teaches: `python benchmarks/learning.py [--seeds 0 1 2] [--jobs 2]`.

TinyShakespeare by characters with the budget of nanoGPT's CPU recipe: 2,000 steps of 12 rows of 64 characters, about
0.8M parameters, no dropout. Every run is the plain recipe command,

    python recipes/pretrain.py recipes/configs/pretrain/shakespeare_char.yaml --seed 0

and its result is the cross-entropy after the last step on the whole last 10 % of the text, cut into rows of 64 that do
not overlap: a character sees at most the 63 before it in its row, as in nanoGPT. The seed decides the initial weights
and the order of the rows. Nothing here is a timing, so runs may share the machine; each takes one or two minutes of
one core.

The text is `--source`, or the shared folder's (`SCRATCHGPT_SHARED_DATA`, or `shared/data` beside the checkout), or
else the Hub's. What follows `--` goes to every run: `-- --max_steps 20 --compile False` tries the benchmark out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from records import RESULTS, SHARED_DATA, append, machine

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "recipes" / "configs" / "pretrain"
# Configuration, and what is changed in it.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "modern preset": ("shakespeare_char",),
    "gpt2 preset, nanoGPT's settings": ("shakespeare_char_gpt2",),
    "gpt2 preset, better learning rate": ("shakespeare_char_gpt2", "--learning_rate", "0.004"),
}


def call(log: Path, script: str, *options: str) -> None:
    """Runs a script of the repository with one thread; what it says goes to `log`.

    Raises:
        RuntimeError: where it fails, with the end of what it said.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            [sys.executable, ROOT / script, *options], stdout=file, stderr=subprocess.STDOUT, env=environment
        ).returncode
    if code:
        said = log.read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{script} {' '.join(options)} ended with {code}:\n{said}")


def prepare(work: Path, source: Path | None) -> list[str]:
    """Data and tokenizer, as the configuration describes them; returns the options that name them."""
    data, tokenizer = os.fspath(work / "data"), os.fspath(work / "tokenizer")
    given = [] if source is None else ["--source", os.fspath(source)]
    call(work / "data.log", "data_builders/shakespeare.py", "--output_dir", data, *given)
    characters = ("--kind", "char", "--unk", "True", "--min_frequency", "1")
    call(work / "tokenizer.log", "recipes/train_tokenizer.py", *characters, "--data", data, "--output_dir", tokenizer)
    return ["--data", data, "--tokenizer", tokenizer, "--cache_dir", os.fspath(work / "cache")]


def train(work: Path, candidate: str, seed: int, options: Sequence[str]) -> dict[str, Any]:
    """One run of the recipe; returns its results.json."""
    config, *changes = CANDIDATES[candidate]
    output = work / f"{list(CANDIDATES).index(candidate)}-{seed}"
    here = ("--seed", str(seed), "--output_dir", os.fspath(output))
    given = (*changes, *options, *here)
    call(work / f"{output.name}.log", "recipes/pretrain.py", os.fspath(CONFIGS / f"{config}.yaml"), *given)
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    print(f"{candidate}, seed {seed}: {results['final']['loss']:.4f}", flush=True)
    return results


def summarise(candidate: str, seeds: Sequence[int], runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Result lines of one candidate: a table's row, whose columns are the cases.

    Raises:
        ValueError: where the runs were not evaluated on the same number of characters.
    """
    losses = [run["final"]["loss"] for run in runs]
    counts = {run["final"]["num_tokens"] for run in runs}
    if len(counts) != 1:
        raise ValueError(f"{candidate}: the runs were evaluated on different numbers of characters, {sorted(counts)}")
    columns = {
        f"mean of {len(runs)} seeds": statistics.mean(losses),
        "standard deviation": statistics.stdev(losses) if len(losses) > 1 else 0.0,
        "validation characters": counts.pop(),
        "parameters": runs[0]["num_parameters"],
    }
    facts = {
        "benchmark": "Learning per token",
        "candidate": candidate,
        "metric": "nats per character of the last 10 % of TinyShakespeare",
        "losses": losses,
        "seeds": list(seeds),
        "steps": runs[0]["steps"],
        "trained_on": runs[0]["num_targets"],
        "precision": runs[0]["identity"]["mixed_precision"],
        **machine("torch", "transformers"),
    }
    return [{"case": case, "value": value} | facts for case, value in columns.items()]


def main(argv: list[str] | None = None) -> None:
    text = SHARED_DATA / "text" / "tinyshakespeare.txt"
    parser = argparse.ArgumentParser(description="Train the presets on TinyShakespeare, several seeds of each.")
    parser.add_argument("--source", type=Path, default=text if text.is_file() else None, help="the text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time, one thread each")
    parser.add_argument("--output", type=Path, default=RESULTS / "learning.jsonl")
    parser.add_argument("options", nargs="*", help="after --: further options of every run")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        work = Path(scratch)
        options = [*prepare(work, arguments.source), *arguments.options]
        runs = {
            candidate: [pool.submit(train, work, candidate, seed, options) for seed in arguments.seeds]
            for candidate in CANDIDATES
        }
        for candidate, futures in runs.items():
            measurements = summarise(candidate, arguments.seeds, [future.result() for future in futures])
            append(measurements, arguments.output)
            for measurement in measurements:
                print(f"{candidate}, {measurement['case']}: {measurement['value']:.6g}", flush=True)


if __name__ == "__main__":
    main()
