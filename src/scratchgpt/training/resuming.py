"""What a run keeps so that another process can go on exactly: written into a checkpoint, and put back from it.

Weights, optimizer state and averages may be split over the processes (FSDP2). A checkpoint has them whole, so that it
is a model like any other, and any number of processes can go on from it. Gathering them takes every process.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.packing import Rows, StatefulRows
from ..hub.fingerprints import BaseReference, verify_base
from ..hub.model_directory import check_finite_weights, is_adapted, load_model, load_weights, write_model
from .checkpoints import (
    list_checkpoints,
    load_training_state,
    newest_valid_checkpoint,
    save_checkpoint,
    save_training_state,
    verify_checkpoint,
)
from .guards import FiniteGuard, SpikeGuard
from .optimizers import EMA, Optimizers, gathered, sharded_like
from .run_identity import differences

if TYPE_CHECKING:
    from peft import PeftModel  # heavy to import, and only adapters need it


@dataclass
class Progress:
    """What changes from step to step besides weights and optimizer; saved with every checkpoint."""

    step: int = 0
    """Optimizer steps done."""
    num_targets: int = 0
    """Losses so far: in a language model, tokens that were predicted."""
    best_loss: float | None = None
    """Lowest validation loss so far, and its step."""
    best_step: int | None = None
    evaluations_since_best: int = 0


@dataclass
class RunState:
    """The parts of a run that a checkpoint holds.

    Args:
        model: as it is trained: prepared by accelerate, perhaps sharded.
        writer: writes the files of a model directory, with the weights it is given; see `model_writer`.
        rows: those of training. What they remember, such as their place in a stream, is kept.
        identity: whatever another run must have in common with this one to do the same, see `run_identity`.
        base: of an adapter, as it was when the run began.
    """

    accelerator: Accelerator
    model: nn.Module
    writer: "PreTrainedModel | PeftModel"
    tokenizer: PreTrainedTokenizerBase
    optimizers: Optimizers
    ema: EMA | None
    finite: FiniteGuard
    spikes: SpikeGuard
    rows: Rows
    identity: dict[str, Any]
    base: BaseReference | None = None
    progress: Progress = field(default_factory=Progress)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights, whole; every process must call this. Sharded ones are put together on the CPU."""
        values = _bare(self.accelerator, self.model).state_dict(keep_vars=True)
        whole = {id(value): gathered(value.detach()) for value in values.values()}  # tied ones stay tied
        return {name: whole[id(value)] for name, value in values.items()}

    def save(self, output_dir: Path, save_total_limit: int) -> None:
        """Writes checkpoint-<step>; every process must call this, the first one writes.

        Raises:
            NonFiniteWeightsError: where weights, their average or the optimizer's state are not finite; then nothing
                is written.
            CheckpointError: as `save_checkpoint`.
        """
        weights = self.weights()
        state = {
            "progress": asdict(self.progress),
            "optimizers": self.optimizers.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "finite": self.finite.state_dict(),
            "spikes": self.spikes.state_dict(),
            "identity": self.identity,
        }
        check_finite_weights(tensors_of({"weights": weights, **state}), f"step {self.progress.step}")
        if self.accelerator.is_main_process:
            state["rows"] = self.rows.state_dict() if isinstance(self.rows, StatefulRows) else None

            def write(directory: Path) -> None:
                write_model(self.writer, self.tokenizer, directory, weights, self.base)
                save_training_state(directory, state)

            save_checkpoint(
                output_dir,
                self.progress.step,
                write,
                save_total_limit=save_total_limit,
                best_step=self.progress.best_step,
            )
        self.accelerator.wait_for_everyone()

    def restore(self, checkpoint: Path) -> list[str]:
        """Puts back what `save` wrote; every process must call this.

        Returns:
            What is different now, in words: nothing, if the run goes on exactly.

        Raises:
            ValueError: for the state of another model or optimizer, and for an adapter of another base.
        """
        if self.base is not None:
            verify_base(checkpoint, self.base.base)
        state = self.restore_weights(checkpoint)
        self.optimizers.load_state_dict(state["optimizers"])
        self.finite.load_state_dict(state["finite"])
        self.spikes.load_state_dict(state["spikes"])
        if isinstance(self.rows, StatefulRows) and state["rows"] is not None:
            self.rows.load_state_dict(state["rows"])
        self.progress = Progress(**state["progress"])
        different = differences(state["identity"], self.identity)
        if self.accelerator.device.type != "cpu" and not self.identity["deterministic"]:
            different.append("a GPU computes other last bits every time (--deterministic true prevents it)")
        return different

    def restore_weights(self, checkpoint: Path) -> dict[str, Any]:
        """Puts back the weights and their average, and nothing else; every process must call this.

        Returns:
            The state that the checkpoint holds besides its weights.

        Raises:
            ValueError: for the state of another model.
        """
        self._load_weights(checkpoint)
        state = load_training_state(checkpoint)
        if self.ema is not None:
            if state["ema"] is None:  # the run had none: the average begins with the restored weights
                self.ema = EMA(self.model)
            else:
                self.ema.load_state_dict(state["ema"])
        return state

    @torch.no_grad()
    def _load_weights(self, checkpoint: Path) -> None:
        bare = _bare(self.accelerator, self.model)
        if not self.accelerator.is_fsdp2:
            load_weights(bare, checkpoint)
            return
        assert isinstance(self.writer, PreTrainedModel)
        saved = load_model(type(self.writer), checkpoint, dtype=torch.float32).state_dict()
        for name, value in bare.state_dict(keep_vars=True).items():
            value.copy_(sharded_like(value, saved[name]))


def model_writer(model: "PreTrainedModel | PeftModel", accelerator: Accelerator) -> "PreTrainedModel | PeftModel":
    """What writes the files of a model directory for `model`, which accelerate has not prepared yet.

    Sharding changes the class of a model in place, and saving would look at weights that are not all there: then it
    is a model of the same class without any weights.

    Raises:
        ValueError: for an adapter that would be sharded.
    """
    if not accelerator.is_fsdp2:
        return model
    if is_adapted(model):
        raise ValueError("adapters are trained on whole weights: launch with recipes/accelerate/ddp.yaml")
    assert isinstance(model, PreTrainedModel)
    with torch.device("meta"):
        writer = type(model)(model.config)
    if model.can_generate():  # a classifier has no such configuration
        writer.generation_config = model.generation_config
    return writer


def find_checkpoint(wanted: str | None, output_dir: Path, say: Callable[[str], object]) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` means, or None to start anew; tells what it skipped.

    Raises:
        ValueError: where `output_dir` holds checkpoints that nobody asked to go on from, or none that is whole.
        CheckpointError: where the one that was named is broken.
    """
    if wanted is None:
        if list_checkpoints(output_dir):
            raise ValueError(
                f"{output_dir} holds checkpoints of an earlier run: go on with --resume_from_checkpoint true, or give "
                "another output_dir"
            )
        return None
    if wanted.lower() != "true":
        verify_checkpoint(wanted)
        return Path(wanted)
    checkpoint, skipped = newest_valid_checkpoint(output_dir)
    for path, reason in skipped:
        say(f"Skipping the broken {path.name}: {reason}")
    if checkpoint is None and skipped:
        raise ValueError(
            f"every checkpoint in {output_dir} is broken: nothing is left to resume from; start anew in another "
            "output_dir"
        )
    if checkpoint is None:
        say(f"No checkpoint to resume from in {output_dir}: starting anew")
    return checkpoint


def tensors_of(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    """All tensors in nested dicts and lists, by their place."""
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return {
        name: t for key, value in items for name, t in tensors_of(value, f"{path}/{key}" if path else str(key)).items()
    }


def _bare(accelerator: Accelerator, model: nn.Module) -> Any:
    """The model without what DDP and torch.compile put around it; a sharded one is sharded in place."""
    return accelerator.unwrap_model(model, keep_torch_compile=False)
