"""evaluation/plots.py: every picture is written."""

from pathlib import Path

import numpy as np
import torch

from scratchgpt.evaluation.plots import plot_classification, plot_metrics

PNG = b"\x89PNG"


def test_a_classifier(tmp_path: Path) -> None:
    for num_labels in (2, 3):
        names = [f"label {i}" for i in range(num_labels)]
        plot_classification(torch.randn(30, num_labels), np.arange(30) % num_labels, names, tmp_path)
        for name in ("confusion.png", "roc.png", "calibration.png"):
            assert (tmp_path / name).read_bytes().startswith(PNG)


def test_a_run(tmp_path: Path) -> None:
    plot_metrics([{"step": 1, "loss": 2.0, "tokens_per_second": 9.0}, {"step": 2, "eval_loss": 1.5}], tmp_path)
    for name in ("loss.png", "throughput.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
