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
so neither the number of processes nor that of micro-batches changes it. The step is in `step`, what the rows, the
loss and an evaluation are is up to the task (`tasks`), what a checkpoint holds is in `resuming`, and what makes two
runs the same in `run_identity`.
"""

import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..arguments import write_arguments
from ..configuration_scratchgpt import ScratchGPTConfig
from ..evaluation.plots import plot_metrics
from ..evaluation.rewards import RewardError
from ..hub.background_push import BackgroundPush
from ..hub.cards import write_card
from ..hub.fingerprints import base_reference
from ..hub.model_directory import (
    check_trainable,
    count_parameters,
    is_adapted,
    save_model,
)
from ..hub.staging import replaced_file
from ..hub.training_texts import Sketch, SketchBuilder, TrainingTexts
from ..performance import configure_process
from .arguments import TrainingArguments
from .checkpoints import PREFIX, CheckpointError, OutputDirectoryLock, verify_checkpoint
from .guards import REMEDIES, FiniteGuard, NonFiniteError, SignalGuard, SpikeGuard
from .metrics import (
    MetricsLogger,
    Throughput,
    flops_per_token,
    measure_peak_flops,
    peak_memory_mb,
    read_metrics,
    scalars,
)
from .optimizers import EMA, build_optimizers
from .plan import Measured
from .processes import anywhere, build_accelerator, environment_of
from .resuming import RunState, find_checkpoint, model_writer
from .run_identity import run_identity
from .step import StepResult, TrainingStep, autocast_dtype, schedule
from .tasks.base import Evaluation, Task, beside_guessing, row_length

if TYPE_CHECKING:
    from peft import PeftModel  # heavy to import, and only adapters need it

__all__ = ["build_accelerator", "measure", "train"]


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
        ValueError: for arguments that do not go together, a tokenizer of another model, weights that are not finite,
            an output directory that another run is using or that holds checkpoints one did not ask to go on from, and
            an adapter's checkpoint on another base.
        NonFiniteError, LossSpikeError: see `guards`; weights that are not finite are never written.
        RewardError: where a reward of the user's gives no number; the state before that step is saved.
        CheckpointError: where a checkpoint cannot be written or the one asked for is broken.
    """
    check_trainable(model, tokenizer)
    transformers_logging.disable_progress_bar()  # a bar for every saved file, inside of ours
    run = _Run(task, model, tokenizer, arguments, accelerator, data_fingerprint)
    lock = OutputDirectoryLock(run.output_dir) if accelerator.is_main_process else contextlib.nullcontext()
    with SignalGuard() as signals, lock:
        run.resume()
        if accelerator.is_main_process:
            write_arguments(arguments, run.output_dir)
        try:
            return run.train(signals)
        except RewardError as error:  # the state is whole: what was learned so far is kept
            step = run.state.progress.step
            if step and not anywhere(accelerator, (run.output_dir / f"{PREFIX}{step}").exists()):
                run.state.save(run.output_dir, arguments.save_total_limit)
            raise RewardError(f"{error}. Mend it, and go on with --resume_from_checkpoint true") from error


def measure(
    task: Task,
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    arguments: TrainingArguments,
    accelerator: Accelerator,
    seconds: float = 4.0,
) -> Measured:
    """Times real steps, an evaluation and a checkpoint of a run; nothing of it stays but the times.

    Args:
        task: how much it evaluates should be little.
        seconds: of steps after the first, about; three steps are the fewest.
    """
    with tempfile.TemporaryDirectory() as folder:
        here = replace(arguments, output_dir=folder, report_to=[])
        run = _Run(task, model, tokenizer, here, accelerator, "measured")
        run.state.model.train()
        times: list[float] = []

        def timed(function: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            result = function()
            times.append(time.perf_counter() - started)
            return result

        timed(lambda: run.step(run.state))
        while len(times) < 4 or (sum(times[1:]) < seconds and len(times) < 100):
            timed(lambda: run.step(run.state))
        # The first after the compiled one still warms up.
        first, step = times[0], statistics.median(times[2:])
        tokens = timed(run.evaluate).as_dict()["num_tokens"]
        timed(lambda: run.state.save(run.output_dir, 1))
        evaluation, save = times[-2:]
    accelerator.free_memory()
    return Measured(first, step, evaluation / tokens, save, peak_memory_mb(accelerator.device))


class _Run:
    """A run on its devices: `state` is what a checkpoint holds, `step` takes a step, the rest is in between."""

    def __init__(
        self,
        task: Task,
        model: "PreTrainedModel | PeftModel",
        tokenizer: PreTrainedTokenizerBase,
        arguments: TrainingArguments,
        accelerator: Accelerator,
        data_fingerprint: str,
    ) -> None:
        self.task, self.tokenizer, self.arguments, self.accelerator = task, tokenizer, arguments, accelerator
        self.output_dir = Path(arguments.output_dir).absolute()
        schedule(arguments)  # what is wrong with it is said before the work
        self.num_parameters = count_parameters(model)
        config = cast(ScratchGPTConfig, model.config)
        self.flops_per_token = flops_per_token(config, self.num_parameters, row_length(task.train_rows))
        precision = str(autocast_dtype(arguments, accelerator.device))
        environment = {"mixed_precision": precision, **environment_of(accelerator)}
        identity = run_identity(arguments, task, model, tokenizer, data_fingerprint, environment)
        self.base_texts = TrainingTexts.of(model)
        self.state = self._prepare(model, identity)
        self.step = TrainingStep(task, self.state.model, arguments, accelerator)
        name, base = arguments.hub_model_id or self.output_dir.name, self.state.base and self.state.base.base
        hub = (name, arguments.hub_private, base, arguments.hub_base_id)
        self.push = BackgroundPush(*hub, accelerator.print) if arguments.push_to_hub else None

    def _prepare(self, model: "PreTrainedModel | PeftModel", identity: dict[str, Any]) -> RunState:
        """Model, optimizers and guards, ready to train on the devices."""
        arguments, accelerator = self.arguments, self.accelerator
        if arguments.compile and model.config.model_type == ScratchGPTConfig.model_type:
            model.set_attn_implementation(configure_process(accelerator.device).attention)
        if arguments.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        optimizers = build_optimizers(
            model,
            optimizer=arguments.optimizer,
            learning_rate=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
            betas=(arguments.adam_beta1, arguments.adam_beta2),
            muon_learning_rate=arguments.muon_learning_rate,
        )
        writer = model_writer(model, accelerator)
        base = base_reference(model, self.tokenizer) if is_adapted(model) else None
        # The optimizers are told of the sharded weights; what accelerate puts around them is for fp16.
        prepared, *_ = accelerator.prepare(model, *optimizers.optimizers)
        identity["sharded"] = any(isinstance(parameter, DTensor) for parameter in prepared.parameters())
        return RunState(
            accelerator,
            prepared,
            writer,
            self.tokenizer,
            optimizers,
            EMA(prepared) if arguments.ema_decay else None,
            FiniteGuard(arguments.on_nonfinite),
            SpikeGuard(arguments.on_loss_spike),
            self.task.train_rows,
            identity,
            base,
        )

    def resume(self) -> None:
        """Goes on from the checkpoint that was asked for, if any."""
        say = self.accelerator.print
        checkpoint = find_checkpoint(self.arguments.resume_from_checkpoint, self.output_dir, say)
        if checkpoint is not None:
            different = self.state.restore(checkpoint)
            self._check_best()
            say(f"Resuming from {checkpoint.name} ({'not exact: ' + '; '.join(different) if different else 'exact'})")

    def _check_best(self) -> None:
        """That the best checkpoint so far is there is found out before the work that needs it at its end."""
        progress = self.state.progress
        if self.arguments.load_best_at_end and progress.best_step not in (None, progress.step):
            try:
                verify_checkpoint(self.output_dir / f"{PREFIX}{progress.best_step}")
            except CheckpointError as error:
                raise CheckpointError(
                    f"the best checkpoint so far is broken ({error}), and --load_best_at_end wants it: go on with "
                    "--load_best_at_end false"
                ) from error

    # The loop

    def train(self, signals: SignalGuard) -> bool:
        """Steps until `max_steps`, early stopping or a signal. Returns whether the run is finished."""
        arguments, accelerator, progress = self.arguments, self.accelerator, self.state.progress
        metrics = MetricsLogger(self.output_dir, progress.step, arguments.max_steps, accelerator.is_main_process)
        self._start_trackers()
        throughput, rate, result = Throughput(), None, None
        peak_flops = self._peak_flops()
        if arguments.eval_on_start and progress.step == 0:
            before = self.evaluate()
            metrics.say(f"before: {before.summary()}")
            if accelerator.is_main_process:
                text = json.dumps(before.as_dict(), indent=2) + "\n"
                (self.output_dir / "untuned.json").write_text(text, encoding="utf-8")
        self.state.model.train()
        first = progress.step
        if arguments.compile and not self._is_done():
            metrics.say(
                f"compiling the step: about {self._compile_seconds():.0f} s, a few where it was compiled before "
                "(--compile false does without, and is slower) …"
            )
        while not self._is_done():
            started = time.perf_counter()
            step = self.step(self.state)
            throughput.add(step.num_tokens, time.perf_counter() - started)
            values: dict[str, Any] = {}
            if self._is_time(arguments.logging_steps):
                rate = throughput.take()
                values |= self._training_values(step, rate, peak_flops)
            if self._is_time(arguments.eval_steps):
                result = self.evaluate()
                values |= self._evaluation_values(step, result, metrics)
            if values:
                metrics.log(progress.step, **values)
                accelerator.log(scalars(values), step=progress.step)
            metrics.show(loss=step.loss, val=progress.best_loss, tok_s=rate)
            (metrics.first_step_done if progress.step == first + 1 else metrics.advance)()
            interrupted = anywhere(accelerator, signals.received is not None)
            is_best = progress.best_step == progress.step
            if self._is_time(arguments.save_steps) or self._is_done() or interrupted or is_best:
                self.state.save(self.output_dir, arguments.save_total_limit)
                if self.push is not None and accelerator.is_main_process:
                    self.push.checkpoint(self.output_dir / f"{PREFIX}{progress.step}")
            if interrupted and not self._is_done():
                metrics.close()
                if self.push is not None and accelerator.is_main_process:
                    self.push.finish(None, patience=10)
                accelerator.print(f"Interrupted after step {progress.step}; go on with --resume_from_checkpoint true")
                return False
        metrics.close()
        self._finish(result)
        accelerator.end_training()  # the last word: it takes the process group down
        return True

    def _is_done(self) -> bool:
        """After the last step, or after so many evaluations without a better one."""
        progress, patience = self.state.progress, self.arguments.early_stopping_patience
        return progress.step >= self.arguments.max_steps or (
            patience is not None and progress.evaluations_since_best >= patience
        )

    def _is_time(self, every: int) -> bool:
        step = self.state.progress.step
        return step % every == 0 or step == self.arguments.max_steps

    def _start_trackers(self) -> None:
        values = asdict(self.arguments).items()  # not all trackers know lists and None
        config = {name: value if isinstance(value, int | float | str) else str(value) for name, value in values}
        self.accelerator.init_trackers("scratchgpt", config)

    def _peak_flops(self) -> float:
        dtype = self.step.autocast_dtype or torch.float32
        return measure_peak_flops(self.accelerator.device, dtype) * self.accelerator.num_processes

    def _training_values(self, step: StepResult, rate: float, peak_flops: float) -> dict[str, Any]:
        progress = self.state.progress
        return {
            "loss": step.loss,
            "grad_norm": step.grad_norm,
            "learning_rate": self.arguments.learning_rate * self.step.learning_rate(progress.step - 1),
            "num_targets": progress.num_targets,
            "tokens_per_second": round(rate, 1),
            "mfu": round(rate * self.flops_per_token / peak_flops, 4),
            "peak_memory_mb": round(peak_memory_mb(self.accelerator.device)),
            **step.measures,
        }

    def _evaluation_values(self, step: StepResult, result: Evaluation, metrics: MetricsLogger) -> dict[str, Any]:
        """Tells the result and what the model writes now, and notes whether it is the best so far."""
        progress, samples = self.state.progress, self.sample()
        self.state.model.train()
        metrics.say(f"step {progress.step}: training loss {step.loss:.4f}, {result.summary()}")
        for text in samples:
            metrics.say(f"    {text!r}")
        if progress.best_loss is None or result.loss < progress.best_loss:
            progress.best_loss, progress.best_step = result.loss, progress.step
            progress.evaluations_since_best = 0
        else:
            progress.evaluations_since_best += 1
        values = {f"eval_{name}": value for name, value in result.as_dict().items()}
        return {**values, "samples": samples} if samples else values

    def _compile_seconds(self) -> float:
        """Roughly: on two cores measured 12 s and 3 s a layer."""
        config = self.accelerator.unwrap_model(self.state.model, keep_torch_compile=False).config
        return 12 + 3 * config.num_hidden_layers

    # Looking at the model

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the moving average as its weights, where the run keeps one."""
        state = self.state
        return state.ema.swapped_into(state.model) if state.ema is not None else contextlib.nullcontext()

    def evaluate(self) -> Evaluation:
        """
        Raises:
            NonFiniteError: where the validation loss is not finite. A model like that is not saved.
        """
        with self._averaged(), self.step.autocast():
            result = self.task.evaluate(self.state.model, self.accelerator)
        if not math.isfinite(result.loss):
            raise NonFiniteError(
                f"The validation loss is {result.loss} after step {self.state.progress.step}: training has destroyed "
                f"the model. Earlier checkpoints are untouched. {REMEDIES}"
            )
        return result

    @torch.no_grad()
    def sample(self) -> list[str]:
        """The task's samples, the same in every process."""
        model = self.accelerator.unwrap_model(self.state.model, keep_torch_compile=False)
        model.eval()
        with self._averaged():
            return self.task.samples(model)

    # The end

    def _finish(self, result: Evaluation | None) -> None:
        """final/, results.json, the plots and the card.

        Args:
            result: of the last step; None where the run had nothing left to do.
        """
        progress = self.state.progress
        if progress.step and self.state.finite.skipped == progress.step:
            raise NonFiniteError(f"All {progress.step} steps were skipped: nothing was learned. {REMEDIES}")
        if self.arguments.load_best_at_end and progress.best_step not in (None, progress.step):
            best = self.output_dir / f"{PREFIX}{progress.best_step}"
            verify_checkpoint(best)
            self.state.restore_weights(best)
            result = None
        result = result or self.evaluate()
        with self._averaged():
            weights = self.state.weights()
            if self.accelerator.is_main_process:
                state, final = self.state, self.output_dir / "final"
                save_model(
                    state.writer, self.tokenizer, final, True, state_dict=weights, base=state.base,
                    training_texts=self.base_texts.after(self._sketch()),
                )  # fmt: skip
        if self.accelerator.is_main_process:
            self._write_results(result)
            plot_metrics(read_metrics(self.output_dir / "metrics.jsonl"), self.output_dir)
            write_card(self.output_dir / "final", self.push.repo_id if self.push is not None else None)
            self._judge(result)
            if self.push is not None:
                self.push.finish(self.output_dir / "final")
        self.accelerator.wait_for_everyone()

    def _sketch(self) -> Sketch:
        builder = SketchBuilder()
        builder.add(self.task.train_rows.texts(self.tokenizer))
        return builder.sketch()

    def _judge(self, result: Evaluation) -> None:
        """Says so where the validation loss ended above its best, or where guessing would do as well."""
        progress, values, say = self.state.progress, result.as_dict(), self.accelerator.print
        if progress.best_loss is not None and result.loss > progress.best_loss + 0.01 * abs(progress.best_loss):
            say(
                f"The validation loss ended at {result.loss:.4f}, above its best of {progress.best_loss:.4f} after "
                f"step {progress.best_step}: train for fewer steps or on more text, or give --load_best_at_end true"
            )
        config = self.accelerator.unwrap_model(self.state.model, keep_torch_compile=False).config
        guessing = math.log(config.num_labels if "num_texts" in values else config.vocab_size)
        guessing = values.get("reference_loss", guessing)
        if complaint := beside_guessing(values, guessing):
            say(complaint)

    def _write_results(self, result: Evaluation) -> None:
        progress = self.state.progress
        results = {
            "final": result.as_dict(),
            "best": {"loss": progress.best_loss, "step": progress.best_step},
            "steps": progress.step,
            "num_targets": progress.num_targets,
            "num_parameters": self.num_parameters,
            "skipped_steps": self.state.finite.skipped,
            "loss_spikes": self.state.spikes.spikes,
            "identity": self.state.identity,
        }
        with replaced_file(self.output_dir / "results.json") as file:
            file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
