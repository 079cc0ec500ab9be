"""`scratchgpt compare`: the curves of several runs in one picture, their results and settings side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from scratchgpt.arguments import ARGUMENTS_FILE
from scratchgpt.training.metrics import read_metrics

PLACES = {"output_dir", "cache_dir"}
"""Arguments that are different in every run and say nothing about it."""


def compare_runs(runs: Sequence[Path], output: Path) -> str:
    """Draws losses and speed by step into `output`, and returns a table of results and of the settings that differ.

    Raises:
        ValueError: for a directory that is no run, before anything is written.
    """
    if output.suffix != ".png":
        raise ValueError(f"--output {output}: give a name that ends in .png")
    metrics = {str(run): metrics_of(run) for run in runs}
    settings = {str(run): settings_of(run) for run in runs}
    draw(metrics, output)
    first, *others = settings.values()
    common = set(first).intersection(*others) - PLACES
    rows = {
        "steps": [f"{lines[-1]['step']:,}" for lines in metrics.values()],
        "last training loss": [shown(last(lines, "loss")) for lines in metrics.values()],
        "lowest validation loss": [shown(lowest(lines)) for lines in metrics.values()],
        "tokens per second (median)": [shown(median(lines)) for lines in metrics.values()],
        **{
            name: [str(values[name]) for values in settings.values()]
            for name in first
            if name in common and any(other[name] != first[name] for other in others)
        },
    }
    lines = [["", *metrics], ["---", *["---:"] * len(metrics)], *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\nThe curves: {output}"


def metrics_of(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    lines = read_metrics(file) if file.is_file() else []
    if not lines:
        raise ValueError(f"{run} is no training run, or has logged nothing yet: {file} holds no metrics")
    return lines


def settings_of(run: Path) -> dict[str, Any]:
    file = run / ARGUMENTS_FILE
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def draw(metrics: dict[str, list[dict[str, Any]]], output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    panels = {"loss": "training loss", "eval_loss": "validation loss", "tokens_per_second": "tokens per second"}
    for axes, (key, label) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
        for name, lines in metrics.items():
            points = [(line["step"], line[key]) for line in lines if key in line]
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        axes.set(ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.axes[-1].set(xlabel="step")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)


def last(lines: list[dict[str, Any]], key: str) -> float | None:
    return next((line[key] for line in reversed(lines) if key in line), None)


def lowest(lines: list[dict[str, Any]]) -> float | None:
    return min((line["eval_loss"] for line in lines if "eval_loss" in line), default=None)


def median(lines: list[dict[str, Any]]) -> float | None:
    speeds = sorted(line["tokens_per_second"] for line in lines if "tokens_per_second" in line)
    return speeds[len(speeds) // 2] if speeds else None


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.4f}" if value < 100 else f"{value:,.0f}"
