"""What every training recipe can be told; a recipe adds its data and model to it by inheritance."""

from dataclasses import dataclass
from typing import Literal

from ..arguments import option

TRACKERS = ("tensorboard", "wandb", "trackio")


@dataclass
class TrainingArguments:
    """How to train. Raises ValueError for numbers that no run can have."""

    output_dir: str = option("runs/run", "Where checkpoints, metrics, plots and the final model go.")
    resume_from_checkpoint: str | None = option(
        None, "true: go on from the newest valid checkpoint in output_dir, if there is one; or a checkpoint's path."
    )
    seed: int = option(0, "Decides the initial weights, the order of the rows and the dropout.")
    dry_run: bool = option(False, "Print the arguments as they were understood, and stop.")

    max_steps: int = option(1000, "Optimizer steps.")
    per_device_train_batch_size: int = option(8, "Rows per process and forward pass.")
    gradient_accumulation_steps: int = option(1, "Forward passes per optimizer step.")

    optimizer: Literal["adamw", "muon"] = option("adamw", "muon: the layers' matrices by Muon, the rest by AdamW.")
    learning_rate: float = option(6e-4, "Peak learning rate of AdamW.")
    muon_learning_rate: float = option(0.02, "Peak learning rate of Muon.")
    weight_decay: float = option(0.1, "Decoupled weight decay of the matrices.")
    adam_beta1: float = option(0.9, "AdamW's decay of the mean gradient.")
    adam_beta2: float = option(0.95, "AdamW's decay of the mean squared gradient.")
    max_grad_norm: float = option(1.0, "Gradients are scaled down to this norm.")
    lr_schedule: Literal["cosine", "linear", "wsd", "constant"] = option("cosine", "Shape of the learning rate.")
    warmup_steps: int = option(0, "Steps of linear warm-up.")
    decay_steps: int = option(0, "wsd: steps of decay at the end.")
    min_lr_ratio: float = option(0.1, "Last learning rate as a share of the peak.")
    ema_decay: float | None = option(None, "Keep a moving average of the weights, and take it as the final model.")

    mixed_precision: Literal["auto", "bf16", "no"] = option("auto", "auto: bf16 where the hardware multiplies it.")
    compile: bool = option(True, "Compile the training step with torch.compile.")
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass: less memory, slower.")

    logging_steps: int = option(10, "Steps between two lines of metrics.jsonl.")
    eval_steps: int = option(
        250, "Steps between two evaluations on the validation split; the last step always is one."
    )
    eval_tokens: int | None = option(None, "Evaluate on about so many tokens; default: the whole split.")
    early_stopping_patience: int | None = option(None, "Stop after so many evaluations without a better one.")
    load_best_at_end: bool = option(False, "final/ has the best checkpoint's weights instead of the last step's.")
    sample_prompts: list[str] = option([], "Prompts that are completed at every evaluation.")
    sample_tokens: int = option(64, "New tokens per sample.")

    save_steps: int = option(500, "Steps between two checkpoints; the last step always is one.")
    save_total_limit: int = option(2, "Checkpoints kept beside the best one.")
    on_nonfinite: Literal["stop", "skip"] = option("stop", "What to do when loss or gradient is not finite.")
    on_loss_spike: Literal["warn", "skip", "stop", "ignore"] = option("warn", "What to do when the loss jumps far up.")
    report_to: list[str] = option([], f"Trackers: {', '.join(TRACKERS)}.")

    def __post_init__(self) -> None:
        for name in ("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps",
                     "eval_steps", "save_steps", "save_total_limit"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        unknown = [name for name in self.report_to if name not in TRACKERS]
        if unknown:
            raise ValueError(f"report_to={unknown[0]} is no tracker: choose from {', '.join(TRACKERS)}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must lie between 0 and 1, e.g. 0.999")
