"""Spam filtering from scratch, over seeds, and ways of tuning side by side: `python benchmarks/classification.py`.

    python benchmarks/classification.py                      # both, about fifteen minutes on two cores
    python benchmarks/classification.py --parts seeds --seeds 5
    python benchmarks/classification.py --parts variants     # full, LoRA, last layer, frozen, random weights

The chain of a seed is what the first lines of recipes/configs/pretrain/sms_spam.yaml say: data, tokenizer, base,
classifier. The seed decides the split, the initial weights and the order of the rows, so every seed has another test
split; a mean over seeds comes with its 95 % interval by Student's t. The linear baselines are trained on the same
splits. The ways of tuning share the split and the base of the first seed, and each has the learning rate that suits
it; memory is the most the process held, libraries included.

Wants the SMS Spam Collection: `--source`, or `classification/sms_spam_dev.tsv` in the folder of real data
(`SCRATCHGPT_SHARED_DATA`, or `shared/data` beside the checkout).
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# The parent must stay small: a child's peak memory starts from its parent's. Only the figures at the end need more.

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "classification.jsonl"
TUNED = "scratchgpt, tuned from scratch"
FIRST_SEED = 20
"""The settings were found with seeds below: none of these splits was looked at before."""

VARIANTS = {
    "all weights": ["--tuning=full"],
    "LoRA, rank 4": ["--tuning=lora", "--learning_rate=0.005"],
    "last layer": ["--tuning=last_layers", "--last_layers=1", "--learning_rate=0.002"],
    "head alone": ["--tuning=frozen", "--learning_rate=0.01"],
    "all weights, no pretraining": ["--tuning=full", "--from_scratch=True"],
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


def line(benchmark: str, metric: str, candidate: str, case: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "case": case,
        "candidate": candidate,
        "metric": metric,
        "value": value,
        **more,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "scikit-learn": version("scikit-learn"),
    }


def seed_figures(found: list[dict[str, Any]], seconds: list[float]) -> list[dict[str, Any]]:
    """Means over the seeds, with their intervals."""
    from scratchgpt.evaluation.classification import mean_interval

    benchmark, metric = "SMS spam", f"test split, mean of {len(found)} seeds"
    candidates = {name: [each["baselines"][name] for each in found] for name in found[0]["baselines"]}
    candidates[TUNED] = [each["test"] for each in found]
    lines = []
    for candidate, results in candidates.items():
        for name, case, factor in (("accuracy", "accuracy, %", 100), ("f1", "F1 of spam", 1), ("mcc", "MCC", 1)):
            values = [factor * result[name] for result in results]
            mean, low, high = mean_interval(values)
            more = {"interval": [low, high], "values": values, "texts": [each["num_texts"] for each in results]}
            lines.append(line(benchmark, metric, candidate, case, mean, **more))
            lines.append(line(benchmark, metric, candidate, f"± {case}", high - mean))
    lines.append(line(benchmark, metric, TUNED, "chain, seconds a seed", sum(seconds) / len(seconds), values=seconds))
    return lines


def variant_figures(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for candidate, each in found.items():
        test = each["test"]
        share = each["num_trained_parameters"] / each["num_parameters"]
        for case, value in (
            ("accuracy, %", 100 * test["accuracy"]),
            ("F1 of spam", test["f1"]),
            ("trained parameters", each["num_trained_parameters"]),
            ("% of all", 100 * share),
            ("seconds", each["seconds"]),
            ("memory, MB", each["peak_memory_mb"]),
        ):
            more = {"interval": [100 * bound for bound in test["accuracy_interval"]]} if "accuracy" in case else {}
            texts = test["num_texts"]
            lines.append(line("Ways of tuning", "SMS spam, one seed", candidate, case, value, texts=texts, **more))
    return lines


def main() -> None:
    shared = Path(os.environ.get("SCRATCHGPT_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description="Spam filtering from scratch, and ways of tuning.")
    parser.add_argument("--source", type=Path, default=shared / "classification" / "sms_spam_dev.tsv")
    parser.add_argument("--parts", nargs="+", choices=["seeds", "variants"], default=["seeds", "variants"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work_dir", type=Path, default=ROOT / "runs" / "benchmark_classification")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        sys.exit(f"{arguments.source} is no file: give the SMS Spam Collection as --source")
    if arguments.seeds < 2:
        sys.exit("--seeds: two or more, or there is no interval")
    shutil.rmtree(arguments.work_dir, ignore_errors=True)
    lines: list[dict[str, Any]] = []
    found, seconds = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + (arguments.seeds if "seeds" in arguments.parts else 1)):
        started, folder = time.perf_counter(), arguments.work_dir / f"seed-{seed}"
        prepare(arguments.source, folder, seed)
        if "seeds" in arguments.parts:
            found.append(tune(folder, "classifier", seed))
            seconds.append(time.perf_counter() - started)
            test = found[-1]["test"]
            print(f"seed {seed}: {test['accuracy']:.2%}, F1 {test['f1']:.4f}, {seconds[-1]:.0f} s", flush=True)
    if "variants" in arguments.parts:
        variants, folder = {}, arguments.work_dir / f"seed-{FIRST_SEED}"
        for name, options in VARIANTS.items():
            variants[name] = tune(folder, name, FIRST_SEED, "--baselines=none", *options)
            print(f"{name}: {variants[name]['test']['accuracy']:.2%}, {variants[name]['seconds']} s", flush=True)
        lines += variant_figures(variants)
    if found:
        lines += seed_figures(found, seconds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)


if __name__ == "__main__":
    main()
