"""Learning from preferences: of two answers to a prompt the chosen one is to be the likelier, beside a reference.

With Δ, how much more the chosen answer has gained on the reference than the rejected one,

    Δ = log π(chosen)/π_ref(chosen) − log π(rejected)/π_ref(rejected)

    sigmoid   −log σ(β Δ)                                   DPO, Rafailov et al. 2023
    ipo       (Δ̄ − 1 / 2β)²                                 IPO, Azar et al. 2023; Δ̄ is Δ of means over tokens
    simpo     −log σ(β (mean log π(chosen) − mean log π(rejected)) − γ)      SimPO, Meng et al. 2024; no reference

All three are content with a chosen answer that falls, as long as the rejected one falls more, and small models fall
apart by it. So the mean negative log-likelihood of the chosen answer's tokens is added (Pang et al. 2024, "Iterative
Reasoning Preference Optimization"), `nll_weight` times; 0 gives the plain losses.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.numpy import load_file, save_file
from torch import nn

from ...arguments import option
from ...data.packing import Batch
from ...data.preference_rows import PreferenceRows
from ...evaluation.preferences import (
    Draws,
    PreferenceResult,
    answer_lengths,
    draw_tokens,
    measure_pairs,
    pair_log_probabilities,
    reference_of,
    summarise_pairs,
)
from ...hub.fingerprints import hash_weights
from ...hub.intermediates import made_once
from ..arguments import LanguageModelArguments
from ..step import autocast_dtype
from .instruction import InstructionTuning

BETA = {"sigmoid": 0.1, "ipo": 1.0, "simpo": 2.0}
NLL_WEIGHT = {"sigmoid": 0.2, "ipo": 0.2, "simpo": 1.0}
"""SimPO pulls harder, and no reference holds it: measured in docs/experiments.md."""


@dataclass
class PreferenceArguments(LanguageModelArguments):
    """Which loss. Recipes inherit this."""

    HELP_GROUPS = {"loss": "Training", "eval_answers": "Evaluation"}

    loss: Literal["sigmoid", "ipo", "simpo"] = option("sigmoid", "sigmoid: DPO; ipo: IPO; simpo: SimPO, no reference.")
    beta: float | None = option(
        None, "How close to stay to the reference; default: sigmoid 0.1, ipo 1, simpo 2.", above=0, at_most=1000
    )
    simpo_margin: float = option(1.0, "simpo: γ, by which the chosen answer is to be ahead.", at_least=0, at_most=1000)
    label_smoothing: float = option(0.0, "Share of pairs taken to be the wrong way round.", at_least=0, below=0.5)
    length_normalization: bool | None = option(
        None, "Compare means over tokens instead of sums; default: ipo and simpo true, sigmoid false."
    )
    nll_weight: float | None = option(
        None,
        "Weight of the chosen answer's mean negative log-likelihood, 0: the plain loss; default: 0.2, simpo 1.",
        at_least=0, at_most=1000,
    )  # fmt: skip
    eval_answers: int = option(8, "Held-out prompts answered at every evaluation, for their lengths.", at_least=0)
    response_tokens: int = option(128, "Tokens in an answer, at most.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing and self.loss == "ipo":
            raise ValueError("label_smoothing is for --loss sigmoid or simpo: leave it out")
        if self.beta is None:
            self.beta = BETA[self.loss]
        if self.nll_weight is None:
            self.nll_weight = NLL_WEIGHT[self.loss]
        if self.length_normalization is None:
            self.length_normalization = self.loss != "sigmoid"


def compared(
    log_probabilities: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, arguments: PreferenceArguments
) -> torch.Tensor:
    """What a loss compares, [B], in nats: by how much the chosen answer is ahead.

    Args:
        log_probabilities, reference: [B, 2], of chosen and rejected answers by the model and by the reference.
        lengths: [B, 2], tokens of the answers.
    """
    values = log_probabilities if arguments.loss == "simpo" else log_probabilities - reference
    if arguments.length_normalization:
        values = values / lengths
    return values[:, 0] - values[:, 1]


def preference_losses(
    log_probabilities: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, arguments: PreferenceArguments
) -> torch.Tensor:
    """The loss of each pair, [B]. Arguments as of `compared`."""
    ahead = compared(log_probabilities, reference, lengths, arguments)
    beta, nll_weight = arguments.beta, arguments.nll_weight
    assert beta is not None
    assert nll_weight is not None
    if arguments.loss == "ipo":
        losses = (ahead - 1 / (2 * beta)) ** 2
    else:
        logits = beta * ahead - (arguments.simpo_margin if arguments.loss == "simpo" else 0)
        smoothing = arguments.label_smoothing
        losses = -(1 - smoothing) * F.logsigmoid(logits) - smoothing * F.logsigmoid(-logits)
    return losses - nll_weight * log_probabilities[:, 0] / lengths[:, 0]


@dataclass
class PreferenceTuning(InstructionTuning):
    """Learning from pairs; the samples are answers.

    Args:
        train_rows, eval_rows: with their reference, see `add_reference`.
        draws: of the reference at the tokens of the chosen answers of `eval_rows`.
        fused_loss: whether the model computes log-probabilities without the logits, as ours does.
    """

    eval_rows: PreferenceRows
    arguments: PreferenceArguments
    draws: Draws | None = None

    def num_targets(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(len(batch["reference"]), device=batch["reference"].device)

    def loss(self, model: nn.Module, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        found = pair_log_probabilities(model, batch, self.fused_loss)
        lengths = (batch["shift_labels"] >= 0).sum(-1).view(2, -1).t()
        return preference_losses(found, batch["reference"], lengths, self.arguments).sum() / num_targets

    def evaluate(self, model: nn.Module, accelerator: Accelerator) -> PreferenceResult:
        arguments, rows = self.arguments, self.eval_rows
        assert self.draws is not None
        assert rows.reference is not None
        count = len(rows)
        if arguments.eval_tokens is not None:
            read = np.cumsum([len(chosen) + len(rejected) for chosen, rejected in rows.sequences])
            count = min(count, int(np.searchsorted(read, arguments.eval_tokens)) + 1)
        size = arguments.per_device_train_batch_size
        found = measure_pairs(model, rows, self.draws, count, size, self.fused_loss, accelerator)
        pairs, reference = found[:, :2], torch.from_numpy(rows.reference[:count]).double()
        lengths = torch.from_numpy(rows.lengths[:count])
        losses, before = (preference_losses(each, reference, lengths, arguments) for each in (pairs, reference))
        answers: tuple[list[int], int] = ([], 0)
        if arguments.eval_answers:
            bare, tokens = accelerator.unwrap_model(model), arguments.response_tokens
            answers = answer_lengths(bare, self.tokenizer, rows, arguments.eval_answers, tokens)
        return summarise_pairs(found, rows, losses, before, compared(pairs, reference, lengths, arguments), answers)


def add_reference(
    model: Any,
    train_rows: PreferenceRows,
    eval_rows: PreferenceRows,
    arguments: PreferenceArguments,
    fused_loss: bool,
    accelerator: Accelerator,
) -> Draws:
    """Gives the rows what `model`, as it is now, says of them: computed once, and kept in `output_dir/reference`.

    What is there already is used again if the same model made it of the same rows.

    Returns:
        Draws at the tokens of the chosen answers of `eval_rows`.

    Raises:
        ValueError: where something else is in the way.
    """
    directory, device = Path(arguments.output_dir) / "reference", accelerator.device
    precision, size = autocast_dtype(arguments, device), arguments.per_device_train_batch_size

    def make(folder: Path) -> dict[str, Any]:
        accelerator.print("Log-probabilities by the model as it is, which is the reference …")
        with torch.autocast(device.type, precision, enabled=precision is not None):
            values = {
                name: reference_of(model.to(device), rows, size, fused_loss, device)
                for name, rows in (("training", train_rows), ("validation", eval_rows))
            }
            draws = draw_tokens(model, eval_rows, arguments.seed, device)
        values |= {"draws": draws.ids, "draws_log_probabilities": draws.log_probabilities}
        save_file(values, folder / "reference.safetensors")
        return {}

    inputs = {
        "model": hash_weights(model), "training": train_rows.fingerprint(), "validation": eval_rows.fingerprint(),
        "precision": str(precision), "batch_size": size, "seed": arguments.seed,
    }  # fmt: skip
    with accelerator.main_process_first():
        made_once(directory, inputs, make)
    found = load_file(directory / "reference.safetensors")
    train_rows.reference, eval_rows.reference = found["training"], found["validation"]
    return Draws(found["draws"], found["draws_log_probabilities"])
