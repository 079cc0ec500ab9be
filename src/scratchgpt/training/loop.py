"""THE training loop: every recipe calls `train`, on one process or many.

What a step does is a function of its number alone: which rows it reads, its learning rate, and its random numbers
(the generators are seeded from seed, step and rank). So a run that goes on from a checkpoint needs the weights, the
optimizer's state and the step number to do, bit for bit, what it would have done.

    for each step:
        for each micro-batch of this process: gradients += d(sum of its losses / targets in the global batch)
        loss or gradient not finite: stop (or leave the step out) before anything is changed
        clip, set the learning rate, step, move the average of the weights
        log, evaluate and save where it is time

Accelerate owns devices and processes (DDP, FSDP2). The loss is divided by the number of targets in the global batch,
so neither the number of processes nor that of micro-batches changes it. What the rows, the loss and an evaluation
are is the task's business (`tasks`); what a checkpoint holds stands in `resuming`.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin, PartialState
from accelerate.tracking import get_available_trackers
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..arguments import write_arguments
from ..configuration_scratchgpt import ScratchGPTConfig
from ..data.packing import Batch, rank_slice
from ..evaluation.plots import plot_metrics
from ..hub.model_directory import check_tokenizer, save_model
from ..hub.staging import check_writable
from ..performance import configure_process
from .arguments import TrainingArguments
from .checkpoints import PREFIX, OutputDirectoryLock, verify_checkpoint
from .guards import FiniteGuard, SignalGuard, SpikeGuard
from .metrics import Meter, flops_per_token, measure_roof, peak_memory_mb, read_metrics
from .optimizers import EMA, build_optimizers, gathered
from .resuming import RunState, find_checkpoint, model_writer
from .schedules import check_schedule, learning_rate
from .tasks.base import Evaluation, Task, row_length

if TYPE_CHECKING:
    from peft import PeftModel  # heavy to import, and only adapters need it


def build_accelerator(arguments: TrainingArguments) -> Accelerator:
    """Accelerate for this process, as `accelerate launch`, `torchrun` or plain `python` started it.

    Raises:
        ValueError: for a tracker that is not installed, processes that accelerate did not notice (each would train
            on its own), FSDP1, mixed precision by accelerate, and an output directory that cannot be written or
            holds checkpoints one did not ask to go on from.
    """
    available = [str(tracker) for tracker in get_available_trackers()]
    missing = [name for name in arguments.report_to if name not in available]
    if missing:  # which accelerate would leave out without a word
        raise ValueError(f"--report_to {missing[0]} needs a package: pip install {missing[0]}")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    trackers: list[Any] = list(arguments.report_to)
    accelerator = Accelerator(
        # On a machine without an accelerator several processes must be told so, or each believes it is alone.
        cpu=started > 1 and not torch.accelerator.is_available(),
        log_with=trackers or None,
        project_dir=arguments.output_dir,
    )
    if accelerator.num_processes != started:
        raise ValueError(f"{started} processes were started, but accelerate sees {accelerator.num_processes}")
    if started > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
        if accelerator.distributed_type == DistributedType.MULTI_CPU:
            # accelerate turns FSDP on for accelerators only, and takes it for DDP elsewhere, without saying so.
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
            accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        if not accelerator.is_fsdp2:
            raise ValueError("sharded training is FSDP2: launch with recipes/accelerate/fsdp2.yaml")
    if accelerator.mixed_precision != "no":
        raise ValueError("give --mixed_precision to the recipe, and leave that of accelerate at no")
    if accelerator.is_main_process:  # what cannot end well is not begun
        check_writable(arguments.output_dir)
        if arguments.resume_from_checkpoint is None:
            find_checkpoint(None, Path(arguments.output_dir), accelerator.print)
    return accelerator


def train(
    task: Task,
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    arguments: TrainingArguments,
    accelerator: Accelerator,
    data_fingerprint: str,
) -> bool:
    """Trains `model` for `task`; writes checkpoints, metrics.jsonl, plots, results.json and final/ to `output_dir`.

    Args:
        model: on the CPU, freshly made from `arguments.seed` or pretrained.
        accelerator: from `build_accelerator`.
        data_fingerprint: of the training rows; resuming on other data is possible but not exact.

    Returns:
        Whether the run is finished; False where a signal ended it (its state is saved).

    Raises:
        ValueError: for arguments that do not go together, a tokenizer of another model, an output directory that
            another run is using or that holds checkpoints one did not ask to go on from.
        NonFiniteError, LossSpikeError: see `guards`.
        CheckpointError: where a checkpoint cannot be written or the one asked for is broken.
    """
    check_tokenizer(model, tokenizer)
    transformers_logging.disable_progress_bar()  # a bar for every saved file, inside of ours
    run = _Run(task, model, tokenizer, arguments, accelerator, data_fingerprint)
    lock = OutputDirectoryLock(run.output_dir) if run.accelerator.is_main_process else contextlib.nullcontext()
    with SignalGuard() as signals, lock:
        run.resume()
        if accelerator.is_main_process:
            write_arguments(arguments, run.output_dir)
        return run.train(signals)


class _Run:
    """One run's parts, prepared for its devices, and the verbs of the loop."""

    def __init__(
        self,
        task: Task,
        model: "PreTrainedModel | PeftModel",
        tokenizer: PreTrainedTokenizerBase,
        arguments: TrainingArguments,
        accelerator: Accelerator,
        data_fingerprint: str,
    ) -> None:
        self.task, self.arguments, self.tokenizer = task, arguments, tokenizer
        self.output_dir = Path(arguments.output_dir).absolute()
        self.accelerator, self.device = accelerator, accelerator.device
        self.num_parameters = sum(p.numel() for p in model.parameters())
        self.flops_per_token = flops_per_token(
            cast(ScratchGPTConfig, model.config), self.num_parameters, row_length(task.train_rows)
        )

        settings = configure_process(self.device)
        wanted = arguments.mixed_precision
        self.autocast_dtype = (
            settings.autocast_dtype if wanted == "auto" else torch.bfloat16 if wanted == "bf16" else None
        )
        if arguments.compile:
            model.set_attn_implementation(settings.attention)
        if arguments.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self.optimizers = build_optimizers(
            model,
            optimizer=arguments.optimizer,
            learning_rate=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
            betas=(arguments.adam_beta1, arguments.adam_beta2),
            muon_learning_rate=arguments.muon_learning_rate,
        )
        self.schedule = {
            "schedule": arguments.lr_schedule,
            "max_steps": arguments.max_steps,
            "warmup_steps": arguments.warmup_steps,
            "decay_steps": arguments.decay_steps,
            "peak": 1.0,
            "final": arguments.min_lr_ratio,
        }
        check_schedule(**self.schedule)
        writer = model_writer(model, accelerator)
        # The optimizers are told of the sharded weights; what accelerate puts around them is for fp16.
        self.model, *_ = accelerator.prepare(model, *self.optimizers.optimizers)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.loss = torch.compile(self._loss, dynamic=False) if arguments.compile else self._loss
        identity = {
            "data": data_fingerprint,
            "model": hashlib.sha256(model.config.to_json_string().encode()).hexdigest(),
            "world_size": accelerator.num_processes,
            "sharded": any(isinstance(parameter, DTensor) for parameter in self.model.parameters()),
            "mixed_precision": str(self.autocast_dtype),
            "torch": str(torch.__version__),
            **{
                name: getattr(arguments, name)
                for name in (
                    "seed", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "optimizer",
                    "learning_rate", "muon_learning_rate", "weight_decay", "adam_beta1", "adam_beta2",
                    "max_grad_norm", "lr_schedule", "warmup_steps", "decay_steps", "min_lr_ratio", "ema_decay",
                    "compile", "gradient_checkpointing",
                )
            },
        }  # fmt: skip

        self.state = RunState(
            accelerator,
            self.model,
            writer,
            tokenizer,
            self.optimizers,
            EMA(self.model) if arguments.ema_decay else None,
            FiniteGuard(arguments.on_nonfinite),
            SpikeGuard(arguments.on_loss_spike),
            task.train_rows,
            identity,
        )

    def resume(self) -> None:
        """Goes on from the checkpoint that was asked for, if any."""
        say = self.accelerator.print
        checkpoint = find_checkpoint(self.arguments.resume_from_checkpoint, self.output_dir, say)
        if checkpoint is not None:
            different = self.state.restore(checkpoint)
            say(f"Resuming from {checkpoint.name} ({'not exact: ' + '; '.join(different) if different else 'exact'})")

    # One step

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def _loss(self, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            return self.task.loss(self.model, batch, num_targets)

    def step(self) -> tuple[float, float, int]:
        """One optimizer step; returns loss, gradient norm and number of tokens of the global batch."""
        arguments, accelerator = self.arguments, self.accelerator
        step, world = self.state.progress.step, accelerator.num_processes
        _seed(self.device, _mix(arguments.seed, step, accelerator.process_index))
        micro, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
        indices = self.task.train_rows.indices(step, micro * accumulation * world, arguments.seed)
        mine = rank_slice(indices, accelerator.process_index, world)
        batches = [
            {name: tensor.to(self.device) for name, tensor in self.task.train_rows.batch(part).items()}
            for part in np.split(mine, accumulation)
        ]
        counts = [torch.stack((self.task.num_targets(batch), _num_tokens(batch))) for batch in batches]
        totals = self._total(torch.stack(counts).sum(0))
        # DDP and FSDP average the gradients of the processes; divided by this, their sum comes out.
        share = totals[0] / world
        loss = torch.zeros((), device=self.device)
        for i, batch in enumerate(batches):
            last = i == accumulation - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                part = self.loss(batch, share)
                part.backward()
            loss += part.detach()
        largest = arguments.max_grad_norm or float("inf")  # 0: measured, and left as it is
        norm = gathered(torch.nn.utils.clip_grad_norm_(self.parameters, largest)).to(self.device)
        # The one moment in a step in which the processor waits for the device.
        loss, grad_norm = torch.stack((self._total(loss) / world, norm)).tolist()
        num_targets, num_tokens = totals.tolist()
        rows = f"rows {mine.tolist()} of process {accelerator.process_index}"
        if self.state.finite.allows(loss, grad_norm, step, rows) and self.state.spikes.allows(loss, step, rows):
            self.optimizers.set_learning_rate(learning_rate(step, **self.schedule))
            self.optimizers.step()
            if self.state.ema is not None:
                assert arguments.ema_decay is not None
                # Early on the average is young: it must not remember the random weights it began with.
                self.state.ema.update(self.model, min(arguments.ema_decay, (1 + step) / (10 + step)))
        self.optimizers.zero_grad()
        self.state.progress.step += 1
        self.state.progress.num_targets += num_targets
        return loss, grad_norm, num_tokens

    # Looking at the model

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the moving average as its weights, where the run keeps one."""
        return self.state.ema.swapped_into(self.model) if self.state.ema is not None else contextlib.nullcontext()

    def evaluate(self) -> Evaluation:
        with self._averaged(), self._autocast():
            return self.task.evaluate(self.model, self.accelerator)

    @torch.no_grad()
    def sample(self) -> list[str]:
        """The task's samples, the same in every process."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model.eval()
        with self._averaged():
            return self.task.samples(model)

    # The loop

    def train(self, signals: SignalGuard) -> bool:
        """Steps until `max_steps`, early stopping or a signal. Returns whether the run is finished."""
        arguments, accelerator, progress = self.arguments, self.accelerator, self.state.progress
        meter = Meter(self.output_dir, progress.step, arguments.max_steps, accelerator.is_main_process)
        roof = measure_roof(self.device, self.autocast_dtype or torch.float32) * accelerator.num_processes
        accelerator.init_trackers("scratchgpt")
        tokens, seconds, rate = 0, 0.0, None
        result: Evaluation | None = None
        stopped = False
        self.model.train()
        while progress.step < arguments.max_steps and not stopped:
            started = time.perf_counter()
            loss, grad_norm, num_tokens = self.step()
            seconds += time.perf_counter() - started
            tokens += num_tokens
            last = progress.step == arguments.max_steps
            values: dict[str, Any] = {}
            if progress.step % arguments.logging_steps == 0 or last:
                rate, tokens, seconds = tokens / seconds, 0, 0.0
                values = {
                    "loss": loss,
                    "grad_norm": grad_norm,
                    "learning_rate": arguments.learning_rate * learning_rate(progress.step - 1, **self.schedule),
                    "num_targets": progress.num_targets,
                    "tokens_per_second": round(rate, 1),
                    "mfu": round(rate * self.flops_per_token / roof, 4),
                    "peak_memory_mb": round(peak_memory_mb(self.device)),
                }
            if progress.step % arguments.eval_steps == 0 or last:
                result = self.evaluate()
                values |= {f"eval_{name}": value for name, value in result.as_dict().items()}
                samples = self.sample()
                self.model.train()
                if samples:
                    values["samples"] = samples
                meter.say(f"step {progress.step}: training loss {loss:.4f}, {result.summary()}")
                for text in samples:
                    meter.say(f"    {text!r}")
                if progress.best_loss is None or result.loss < progress.best_loss:
                    progress.best_loss, progress.best_step = result.loss, progress.step
                    progress.evaluations_since_best = 0
                else:
                    progress.evaluations_since_best += 1
                patience = arguments.early_stopping_patience
                stopped = patience is not None and progress.evaluations_since_best >= patience
            if values:
                meter.log(progress.step, **values)
                accelerator.log({k: v for k, v in values.items() if k != "samples"}, step=progress.step)
            meter.show(loss=loss, val=progress.best_loss, tok_s=rate)
            meter.advance()
            interrupted = self._anywhere(signals.received is not None)
            is_best = progress.best_step == progress.step
            if progress.step % arguments.save_steps == 0 or last or stopped or interrupted or is_best:
                self.state.save(self.output_dir, arguments.save_total_limit)
            if interrupted and not last:
                meter.close()
                accelerator.print(f"Interrupted after step {progress.step}; go on with --resume_from_checkpoint true")
                return False
        meter.close()
        if arguments.load_best_at_end and progress.best_step not in (None, progress.step):
            best = self.output_dir / f"{PREFIX}{progress.best_step}"
            verify_checkpoint(best)
            self.state.restore_weights(best)
            result = None
        # The last step was evaluated; no result is there after the line above, and for a run resumed when finished.
        self._finish(result or self.evaluate())
        accelerator.end_training()  # the last word: it takes the process group down
        return True

    def _anywhere(self, flag: bool) -> bool:
        """Whether `flag` is set in any process: they must agree before they act."""
        return flag if self.accelerator.num_processes == 1 else bool(self._total(torch.tensor(float(flag))).item())

    def _total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over the processes."""
        if self.accelerator.num_processes == 1:
            return tensor
        total = self.accelerator.reduce(tensor.to(self.device), "sum")
        assert isinstance(total, torch.Tensor)
        return total

    def _finish(self, result: Evaluation) -> None:
        """final/, results.json and the plots."""
        with self._averaged():
            weights = self.state.weights()
            if self.accelerator.is_main_process:
                save_model(self.state.writer, self.tokenizer, self.output_dir / "final", True, state_dict=weights)
        if self.accelerator.is_main_process:
            results = {
                "final": result.as_dict(),
                "best": {"loss": self.state.progress.best_loss, "step": self.state.progress.best_step},
                "steps": self.state.progress.step,
                "num_targets": self.state.progress.num_targets,
                "num_parameters": self.num_parameters,
                "skipped_steps": self.state.finite.skipped,
                "loss_spikes": self.state.spikes.spikes,
                "identity": self.state.identity,
            }
            (self.output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            plot_metrics(read_metrics(self.output_dir / "metrics.jsonl"), self.output_dir)
        self.accelerator.wait_for_everyone()


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
