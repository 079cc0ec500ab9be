"""What a model is trained for: the rows it reads, its loss, and how well it does.

The loop knows steps, processes and checkpoints; a task knows what a batch means. A new kind of training brings a class
of its own with the same six names.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ...data.packing import Batch, Rows


class Evaluation(Protocol):
    """What an evaluation found."""

    loss: float
    """Decides which checkpoint is the best: lower is better."""

    def as_dict(self) -> dict[str, Any]:
        """Every number with the counts it was computed on, for metrics.jsonl and results.json."""
        ...

    def summary(self) -> str:
        """The most important numbers, in one line."""
        ...


def beside_guessing(values: Mapping[str, Any], guessing: float) -> str:
    """What to say of an evaluation whose loss is no better than that of guessing; empty where it is better.

    Args:
        values: of an evaluation: its loss, and a classifier's accuracy with its interval.
        guessing: the loss of giving all choices the same chance.
    """
    if values["loss"] < guessing:
        return ""
    said = f"The validation loss of {values['loss']:.4f} is no better than guessing ({guessing:.4f})"
    if "accuracy" in values and values["accuracy_interval"][0] > math.exp(-guessing):
        return (
            f"{said}, though {values['accuracy']:.1%} are right: the model is too sure of what it gets wrong; train "
            "for fewer steps, or on more text"
        )
    return f"{said}: the model has learned nothing; try another learning rate, more steps, or look at the data"


class Task(Protocol):
    """What the loop asks of a task. `batch` is on the device of this process."""

    @property
    def train_rows(self) -> Rows: ...

    def prepare(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        """Called before the rows of a step are read, in every process, with generators seeded for the step.

        Returns:
            What is to be logged of it; empty for a task whose rows are there.
        """
        ...

    def num_targets(self, batch: Batch) -> torch.Tensor:
        """How many losses the batch has, as a tensor without dimensions."""
        ...

    def loss(self, model: nn.Module, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        """The sum of the batch's losses divided by `num_targets`, which counts those of the whole global batch.

        This, with the model's forward pass in it, is what torch.compile compiles.
        """
        ...

    def evaluate(self, model: nn.Module, accelerator: Accelerator) -> Evaluation:
        """Evaluates; every process calls it, each gets the result for all of the validation data."""
        ...

    def samples(self, model: Any) -> list[str]:
        """What the model writes now; empty for a task that writes nothing."""
        ...


def row_length(rows: Rows) -> int:
    """Tokens in a row, padding included."""
    return rows.batch(np.zeros(1, dtype=np.int64))["input_ids"].shape[1]
