"""Spam filtering from scratch, ways of tuning side by side, over seeds: `python benchmarks/classification.py`.

Half an hour on two cores. The chain of a seed is what the first lines of recipes/configs/pretrain/sms_spam.yaml say:
data, tokenizer, base, classifier. The seed decides the split, the initial weights and the order of the rows, so every
seed has another test split; a mean over seeds comes with its 95 % interval by Student's t. All ways of tuning share
the seed's split and base, and each has the learning rate that suits it; the linear baselines are trained on the same
split. Memory is the most the process held, libraries included.

Wants the SMS Spam Collection: `--source`, or `classification/sms_spam_dev.tsv` in the folder of real data
(`SCRATCHGPT_SHARED_DATA`, or `shared/data` beside the checkout).
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from records import RESULTS, SHARED_DATA, append, machine

# The parent must stay small: a child's peak memory starts from its parent's. Only the summary at the end needs more.

ROOT = Path(__file__).resolve().parents[1]
RATES = (("accuracy", "accuracy, %", 100, 2), ("f1", "F1 of spam", 1, 3), ("roc_auc", "ROC AUC", 1, 4))
"""Of a result: its name, the column's, the factor between them, decimals."""

COSTS = (
    ("num_trained_parameters", "trained parameters"),
    ("seconds", "tuning, seconds"),
    ("peak_memory_mb", "memory, MB"),
)

FIRST_SEED = 20
"""The settings were found with seeds below: none of these splits was looked at before."""

VARIANTS = {
    "scratchgpt, all weights": ["--tuning=full"],  # the recipe's defaults; the linear baselines are made here
    "scratchgpt, LoRA, rank 4": ["--tuning=lora", "--learning_rate=0.005", "--baselines=none"],
    "scratchgpt, last layer": ["--tuning=last_layers", "--last_layers=1", "--learning_rate=0.002", "--baselines=none"],
    "scratchgpt, head alone": ["--tuning=frozen", "--learning_rate=0.01", "--baselines=none"],
    "scratchgpt, all weights, no pretraining": ["--tuning=full", "--from_scratch=True", "--baselines=none"],
}


def run(script: str, *arguments: object) -> None:
    """
    Raises:
        SystemExit: where the script fails, after its last lines.
    """
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def prepare(source: Path, folder: Path, seed: int) -> None:
    """Data, tokenizer and base of a seed, as the comments of the configuration have it."""
    config = "recipes/configs/pretrain/sms_spam.yaml"
    run("data_builders/sms_spam.py", f"--source={source}", f"--output_dir={folder / 'data'}", f"--seed={seed}")
    run(
        "recipes/train_tokenizer.py",
        f"--data={folder / 'data' / 'text'}",
        "--vocab_size=1024",
        f"--output_dir={folder / 'tokenizer'}",
    )
    run(
        "recipes/pretrain.py",
        config,
        f"--data={folder / 'data' / 'text'}",
        f"--tokenizer={folder / 'tokenizer'}",
        f"--cache_dir={folder / 'cache'}",
        f"--output_dir={folder / 'base'}",
        f"--seed={seed}",
    )


def tune(folder: Path, name: str, seed: int, *more: str) -> dict[str, Any]:
    """Tunes the base in `folder` and returns results.json."""
    output = folder / name.replace(" ", "_").replace(",", "")
    shutil.rmtree(output, ignore_errors=True)
    run(
        "recipes/finetune_classifier.py",
        "recipes/configs/finetune_classifier/sms_spam.yaml",
        f"--data={folder / 'data' / 'classification'}",
        f"--model_name_or_path={folder / 'base' / 'final'}",
        f"--output_dir={output}",
        f"--seed={seed}",
        *more,
    )
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


def measurements(
    models: dict[str, list[dict[str, Any]]], baselines: dict[str, list[dict[str, Any]]], seconds: list[float]
) -> list[dict[str, Any]]:
    """Means over the seeds with their intervals, of the models (from results.json) and of the baselines in it."""
    from scratchgpt.evaluation.statistics import mean_interval

    found: list[dict[str, Any]] = []
    tested = baselines | {name: [each["test"] for each in results] for name, results in models.items()}
    for candidate, results in tested.items():
        for name, case, factor, decimals in RATES:
            values = [factor * result[name] for result in results]
            mean, low, high = mean_interval(values)
            interval = [
                max(low, 0.0),
                min(high, float(factor)),
            ]  # an interval by Student's t may leave the range that a rate can have
            rate = {"candidate": candidate, "case": case, "value": mean, "interval": interval, "decimals": decimals}
            found.append({**rate, "values": values, "texts": [each["num_texts"] for each in results]})
    costs = [
        (candidate, case, [each[name] for each in results])
        for candidate, results in models.items()
        for name, case in COSTS
    ]
    for candidate, case, values in [*costs, (next(iter(models)), "whole chain, seconds", seconds)]:
        found.append({"candidate": candidate, "case": case, "value": sum(values) / len(values), "values": values})
    shared = {
        "benchmark": "SMS spam",
        "metric": f"held-out messages, mean of {len(seconds)} seeds and its 95 % interval",
        **machine("torch", "transformers", "scikit-learn"),
    }
    return [{**measurement, **shared} for measurement in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Spam filtering from scratch: ways of tuning, over seeds.")
    parser.add_argument("--source", type=Path, default=SHARED_DATA / "classification" / "sms_spam_dev.tsv")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work_dir", type=Path, default=ROOT / "runs" / "benchmark_classification")
    parser.add_argument("--output", type=Path, default=RESULTS / "classification.jsonl")
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        sys.exit(f"{arguments.source} does not exist: give the SMS Spam Collection as --source")
    if arguments.seeds < 2:
        sys.exit("--seeds must be 2 or more: a single run has no interval")
    shutil.rmtree(arguments.work_dir, ignore_errors=True)
    models: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    first, seconds = next(iter(models)), []
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        started, folder = time.perf_counter(), arguments.work_dir / f"seed-{seed}"
        prepare(arguments.source, folder, seed)
        for name, options in VARIANTS.items():
            found = tune(folder, name, seed, *options)
            models[name].append(found)
            if name == first:
                seconds.append(time.perf_counter() - started)
            test = found["test"]
            print(
                f"seed {seed}, {name}: {test['accuracy']:.2%}, F1 {test['f1']:.4f}, {found['seconds']} s", flush=True
            )
    baselines = {name: [each["baselines"][name] for each in models[first]] for name in models[first][0]["baselines"]}
    append(measurements(models, baselines, seconds), arguments.output)


if __name__ == "__main__":
    main()
