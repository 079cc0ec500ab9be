"""What every training recipe can be told; a recipe adds its data and model to it by inheritance."""

from dataclasses import dataclass
from typing import Literal

from ..arguments import RecipeArguments, option
from ..hub.names import check_repo_id

TRACKERS = ("tensorboard", "wandb", "trackio")

MAX_LEARNING_RATE = 10.0
"""Far beyond any that trains: a larger one is a typing mistake, and overflows."""


@dataclass
class TrainingArguments(RecipeArguments):
    """How to train. Raises ValueError for numbers that no run can have."""

    HELP_GROUPS = {
        "output_dir": "Output",
        "seed": "Training",
        "optimizer": "Optimizer",
        "mixed_precision": "Speed and memory",
        "logging_steps": "Logging",
        "eval_steps": "Evaluation",
        "save_steps": "Output",
        "on_nonfinite": "Training",
        "report_to": "Logging",
        "push_to_hub": "Output",
    }

    output_dir: str = option("runs/run", "Where checkpoints, metrics, plots and the final model go.")
    resume_from_checkpoint: str | None = option(
        None,
        "true: continue from the newest valid checkpoint in output_dir, if there is one; or the path of a checkpoint.",
    )
    seed: int = option(
        0, "Decides the initial weights, the order of the rows and the dropout.", at_least=0, at_most=2**32 - 1
    )

    max_steps: int = option(1000, "Optimizer steps.", at_least=1)
    per_device_train_batch_size: int = option(8, "Rows per process and forward pass.", at_least=1)
    gradient_accumulation_steps: int = option(1, "Forward passes per optimizer step.", at_least=1)

    optimizer: Literal["adamw", "muon"] = option("adamw", "muon: the layers' matrices by Muon, the rest by AdamW.")
    learning_rate: float = option(6e-4, "Peak learning rate of AdamW.", above=0, at_most=MAX_LEARNING_RATE)
    muon_learning_rate: float = option(0.02, "Peak learning rate of Muon.", above=0, at_most=MAX_LEARNING_RATE)
    weight_decay: float = option(0.1, "Decoupled weight decay of the matrices.", at_least=0, at_most=10)
    adam_beta1: float = option(0.9, "AdamW's decay of the mean gradient.", at_least=0, below=1)
    adam_beta2: float = option(0.95, "AdamW's decay of the mean squared gradient.", at_least=0, below=1)
    max_grad_norm: float = option(
        1.0, "Gradients with a larger norm are scaled down to this; 0 turns that off.", at_least=0
    )
    lr_schedule: Literal["cosine", "linear", "wsd", "constant"] = option("cosine", "Shape of the learning rate.")
    warmup_steps: int = option(0, "Steps of linear warm-up.", at_least=0)
    decay_steps: int = option(0, "wsd: steps of decay at the end.", at_least=0)
    min_lr_ratio: float = option(0.1, "Last learning rate as a share of the peak.", at_least=0, at_most=1)
    ema_decay: float | None = option(
        None, "Keep a moving average of the weights (0.999 is usual), which becomes the final model.", above=0, below=1
    )

    mixed_precision: Literal["auto", "bf16", "no"] = option("auto", "auto: bf16 where the hardware multiplies it.")
    compile: bool = option(True, "Compile the training step with torch.compile.")
    deterministic: bool = option(
        False, "On a GPU: the same bits every time, so that a resumed run is exact, at half the speed. A CPU is exact."
    )
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass: less memory, slower.")

    logging_steps: int = option(10, "Steps between two lines of metrics.jsonl.", at_least=1)
    eval_steps: int = option(
        250, "Steps between two evaluations on the validation split; the last step is always evaluated.", at_least=1
    )
    eval_on_start: bool = option(False, "Evaluate before the first step too; the result goes to untuned.json.")
    early_stopping_patience: int | None = option(
        None, "Stop after this many evaluations without a better one.", at_least=1
    )
    load_best_at_end: bool = option(False, "final/ has the best checkpoint's weights instead of the last step's.")

    save_steps: int = option(500, "Steps between two checkpoints; the last step is always saved.", at_least=1)
    save_total_limit: int = option(2, "Checkpoints kept beside the best one.", at_least=1)
    on_nonfinite: Literal["stop", "skip"] = option("stop", "What to do when loss or gradient is not finite.")
    on_loss_spike: Literal["warn", "skip", "stop", "ignore"] = option("warn", "What to do when the loss jumps.")
    report_to: list[str] = option([], f"Trackers: {', '.join(TRACKERS)}.")

    push_to_hub: bool = option(False, "Push checkpoints to the Hub while training goes on, and final/ at the end.")
    hub_model_id: str | None = option(None, "Its name on the Hub, owner/name; default: the name of output_dir.")
    hub_private: bool = option(True, "Make a new repository private; one that is there stays as it is.")
    hub_base_id: str | None = option(None, "Of an adapter: its base's name on the Hub, if it is a directory here.")

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.report_to if name not in TRACKERS]
        if unknown:
            raise ValueError(f"report_to={unknown[0]} is no tracker: choose from {', '.join(TRACKERS)}")
        for name in ("hub_model_id", "hub_base_id"):
            if (value := vars(self)[name]) is not None:
                check_repo_id(value)
                if not self.push_to_hub:
                    raise ValueError(f"{name}={value} is for --push_to_hub: give both, or neither")


@dataclass
class LanguageModelArguments(TrainingArguments):
    """How to train and evaluate a language model."""

    HELP_GROUPS = {"eval_tokens": "Evaluation"}

    eval_tokens: int | None = option(None, "Evaluate on about this many tokens; default: the whole split.", at_least=1)
    sample_prompts: list[str] = option([], "Prompts that are completed at every evaluation.")
    sample_tokens: int = option(64, "New tokens per sample.", at_least=1)
