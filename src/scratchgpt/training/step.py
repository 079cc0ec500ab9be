"""One optimizer step, on this process's part of the global batch."""

import contextlib
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..data.packing import Batch, rank_slice
from ..performance import configure_process
from .arguments import TrainingArguments
from .optimizers import gathered
from .processes import total
from .resuming import RunState
from .schedules import check_schedule, learning_rate
from .tasks.base import Task


@dataclass
class StepResult:
    """Of the global batch."""

    loss: float
    grad_norm: float
    num_tokens: int
    measures: dict[str, float]
    """Of the task, see `Task.prepare`."""


class TrainingStep:
    """Calling it takes one optimizer step.

    Args:
        model: prepared by accelerate.
    """

    def __init__(self, task: Task, model: nn.Module, arguments: TrainingArguments, accelerator: Accelerator) -> None:
        self.task, self.model, self.arguments, self.accelerator = task, model, arguments, accelerator
        self.device = accelerator.device
        self.autocast_dtype = autocast_dtype(arguments, self.device)
        self.schedule = schedule(arguments)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.compiled_loss = torch.compile(self.loss, dynamic=False) if arguments.compile else self.loss

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def loss(self, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            return self.task.loss(self.model, batch, num_targets)

    def learning_rate(self, step: int) -> float:
        """As a share of the peak."""
        return learning_rate(step, **self.schedule)

    def __call__(self, state: RunState) -> StepResult:
        """
        Raises:
            NonFiniteError, LossSpikeError, RewardError: see `guards` and `evaluation.rewards`; the weights are
                unchanged.
        """
        arguments, accelerator = self.arguments, self.accelerator
        step, world = state.progress.step, accelerator.num_processes
        _seed(self.device, _mix(arguments.seed, step, accelerator.process_index))
        with self.autocast():
            measures = self.task.prepare(self.model, step, accelerator)
        mine = self._rows(step)
        batches = [
            {name: tensor.to(self.device) for name, tensor in self.task.train_rows.batch(part).items()}
            for part in np.split(mine, arguments.gradient_accumulation_steps)
        ]
        counts = [torch.stack((self.task.num_targets(batch), _num_tokens(batch))) for batch in batches]
        totals = total(accelerator, torch.stack(counts).sum(0))
        # DDP and FSDP average the gradients of the processes; divided by this, their sum comes out.
        loss = self._accumulate(batches, totals[0] / world)
        largest = arguments.max_grad_norm or float("inf")  # 0: measured, and left as it is
        norm = gathered(torch.nn.utils.clip_grad_norm_(self.parameters, largest)).to(self.device)
        # The one moment in a step in which the processor waits for the device.
        loss, grad_norm = torch.stack((total(accelerator, loss) / world, norm)).tolist()
        num_targets, num_tokens = totals.tolist()
        rows = f"rows {mine.tolist()} of process {accelerator.process_index}"
        if state.finite.allows(loss, grad_norm, step, rows) and state.spikes.allows(loss, step, rows):
            self._update(state)
        state.optimizers.zero_grad()
        state.progress.step += 1
        state.progress.num_targets += num_targets
        return StepResult(loss, grad_norm, num_tokens, measures)

    def _rows(self, step: int) -> np.ndarray:
        """Numbers of the rows that this process reads."""
        arguments, world = self.arguments, self.accelerator.num_processes
        size = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * world
        indices = self.task.train_rows.indices(step, size, arguments.seed)
        return rank_slice(indices, self.accelerator.process_index, world)

    def _accumulate(self, batches: list[Batch], num_targets: torch.Tensor) -> torch.Tensor:
        """Adds up the gradients of all batches; returns the sum of their losses."""
        loss = torch.zeros((), device=self.device)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                part = self.compiled_loss(batch, num_targets)
                part.backward()
            loss += part.detach()
        return loss

    def _update(self, state: RunState) -> None:
        step = state.progress.step
        state.optimizers.set_learning_rate(self.learning_rate(step))
        state.optimizers.step()
        if state.ema is not None:
            assert self.arguments.ema_decay is not None
            # Early on the average is young: it must not remember the random weights it began with.
            state.ema.update(self.model, min(self.arguments.ema_decay, (1 + step) / (10 + step)))


def schedule(arguments: TrainingArguments) -> dict[str, Any]:
    """What `learning_rate` of `schedules` takes.

    Raises:
        ValueError: for numbers that are no schedule.
    """
    found: dict[str, Any] = {
        "schedule": arguments.lr_schedule,
        "max_steps": arguments.max_steps,
        "warmup_steps": arguments.warmup_steps,
        "decay_steps": arguments.decay_steps,
        "peak": 1.0,
        "final": arguments.min_lr_ratio,
    }
    check_schedule(**found)
    return found


def autocast_dtype(arguments: TrainingArguments, device: torch.device) -> torch.dtype | None:
    """Of mixed precision; None: all in fp32."""
    settings = configure_process(device)
    if arguments.mixed_precision == "auto":
        return settings.autocast_dtype
    return torch.bfloat16 if arguments.mixed_precision == "bf16" else None


def _mix(*numbers: int) -> int:
    """A seed from several numbers, equal only where all of them are."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "little") >> 1


def _seed(device: torch.device, seed: int) -> None:
    """Seeds what a step draws from. `torch.manual_seed` would remember every call until there is a GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _num_tokens(batch: Batch) -> torch.Tensor:
    """Tokens that the model reads in `batch`, padding left out where a mask tells it."""
    mask = batch.get("attention_mask")
    return torch.tensor(batch["input_ids"].numel(), device=batch["input_ids"].device) if mask is None else mask.sum()
