"""Plots of a training run and of a classifier's results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .classification import calibration_bins


def plot_metrics(metrics: Sequence[dict[str, Any]], output_dir: Path) -> None:
    """Draws loss.png and throughput.png of a run; of one that learned from rewards reward.png instead of loss.png.

    Args:
        metrics: the lines of its metrics.jsonl.
    """
    from matplotlib.figure import Figure

    units = {"eval_num_texts": "text", "eval_num_pairs": "pair"}
    unit = next((unit for name, unit in units.items() if any(name in line for line in metrics)), "token")
    curves = {  # of answers that are sampled anew in every step the loss says nothing
        "reward.png": ("reward", [("sampled_reward", "sampled"), ("eval_reward", "validation, greedy")]),
        "loss.png": (f"loss (nats per {unit})", [("loss", "training"), ("eval_loss", "validation")]),
        "throughput.png": ("tokens per second", [("tokens_per_second", "")]),
    }
    del curves["loss.png" if any("eval_reward" in line for line in metrics) else "reward.png"]
    for name, (label, keys) in curves.items():
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for key, legend in keys:
            points = [(line["step"], line[key]) for line in metrics if key in line]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, label=legend, marker="o" if len(points) < 30 else None)
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        if name != "throughput.png":
            axes.legend()
        else:
            axes.set_ylim(bottom=0)
        figure.savefig(output_dir / name, dpi=150)


def plot_classification(logits: torch.Tensor, labels: np.ndarray, names: Sequence[str], output_dir: Path) -> None:
    """Draws confusion.png, roc.png and calibration.png of a classifier, from its logits [N, labels]."""
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix, roc_curve

    probabilities = logits.double().softmax(-1).numpy()
    confusion = confusion_matrix(labels, probabilities.argmax(-1), labels=range(len(names)))

    figure = Figure(figsize=(1.5 + 0.9 * len(names), 1.5 + 0.8 * len(names)), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(-1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    figure.savefig(output_dir / "confusion.png", dpi=150)

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    for number in range(1, 2) if len(names) == 2 else range(len(names)):
        truth = labels == number
        if truth.any() and not truth.all():
            false_rate, true_rate, _ = roc_curve(truth, probabilities[:, number])
            axes.plot(false_rate, true_rate, label=names[number])
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(loc="lower right")
    figure.savefig(output_dir / "roc.png", dpi=150)

    bins = calibration_bins(probabilities, labels)
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.plot(bins[:, 0], bins[:, 1], marker="o")
    for confidence, accuracy, count in bins:
        axes.annotate(
            f"{int(count):,}", (confidence, accuracy), textcoords="offset points", xytext=(-3, -12), ha="right", size=8
        )
    axes.set(xlabel="confidence", ylabel="accuracy (and number of texts)", xlim=(0, 1), ylim=(0, 1.02))
    figure.savefig(output_dir / "calibration.png", dpi=150)
