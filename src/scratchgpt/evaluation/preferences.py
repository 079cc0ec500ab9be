"""How well a model tells the preferred answer from the other one, and how far it has moved from its reference.

The reference is the model before tuning. What it says of the rows is computed once (`reference_of`) and kept with
them: the log-probability of each answer, and, at every token of the held-out chosen answers, one token drawn from its
distribution. Of those draws follows the divergence of a later model, without the reference being there:

    KL(reference ‖ model) = mean over draws x of  r − 1 − log r,   r = model(x) / reference(x)

which is unbiased, never negative, and varies less than the mean of −log r (Schulman 2020, "Approximating KL
Divergence").

Shapes: B pairs of a batch, T tokens of a row, N pairs in all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase
from xxhash import xxh3_128_hexdigest

from ..data.chat import stop_token_id
from ..data.packing import IGNORE_INDEX, Batch
from ..data.preference_rows import PreferenceRows
from ..inference.answer_settings import answer_settings
from .responses import generated_ids
from .statistics import ratio_interval, wilson_interval

FALLEN = 0.1
"""Nats per token: chosen answers that have become less likely by more than this ring the alarm."""


@dataclass(frozen=True)
class Draws:
    """A token that the reference drew at each token of the chosen answers, pair after pair."""

    ids: np.ndarray
    """int64 [tokens of all chosen answers]."""
    log_probabilities: np.ndarray
    """float32, as many: by the reference."""

    def fingerprint(self) -> str:
        return xxh3_128_hexdigest(self.ids.tobytes() + self.log_probabilities.tobytes())


@dataclass
class PreferenceResult:
    """What an evaluation on held-out pairs found; intervals are of 95 %."""

    loss: float
    """Mean per pair, as it is trained."""
    reference_loss: float
    """The same of the reference: a model that has learned nothing has this."""
    ranked_right: float
    """Share of pairs whose chosen answer the model finds more likely per token than the rejected one."""
    ranked_right_interval: tuple[float, float]
    reward_accuracy: float
    """Share of pairs whose chosen answer has gained more on the reference; means nothing before training."""
    reward_accuracy_interval: tuple[float, float]
    margin: float
    """Mean of the difference that the loss compares, in nats (per token where it compares per token)."""
    margin_interval: tuple[float, float] | None
    chosen_change: float
    """Log-probability of the chosen answers since the reference, in nats per token."""
    chosen_change_interval: tuple[float, float] | None
    rejected_change: float
    kl: float
    """KL(reference ‖ model) per token of the chosen answers, in nats."""
    kl_interval: tuple[float, float] | None
    answer_tokens: float | None
    """Mean length of the model's own answers to held-out prompts; None where it was not asked."""
    answer_stop_rate: float | None
    num_answers: int
    num_pairs: int

    @property
    def is_falling(self) -> bool:
        """The alarm: the chosen answers have become less likely by more than `FALLEN`, all of the interval below 0."""
        high = self.chosen_change_interval[1] if self.chosen_change_interval is not None else 0.0
        return self.chosen_change < -FALLEN and high < 0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "is_falling": self.is_falling}

    def summary(self) -> str:
        low, high = self.ranked_right_interval
        text = (
            f"validation loss {self.loss:.4f}, {self.ranked_right:.1%} of {self.num_pairs:,} pairs ranked right "
            f"(95 %: {low:.1%} to {high:.1%}), margin {self.margin:.3f}, KL {self.kl:.4f} per token, chosen answers "
            f"{self.chosen_change:+.3f} nats per token"
        )
        if self.answer_tokens is not None:
            text += f", {self.answer_tokens:.0f} tokens in an answer"
        if self.is_falling:
            text += (
                f"\nALARM: the chosen answers themselves are falling: {-self.chosen_change:.3f} nats per token less "
                "likely than before tuning. Raise --nll_weight or --beta, or lower --learning_rate"
            )
        return text


def token_log_probabilities(model: Any, batch: Batch, targets: torch.Tensor, fused: bool) -> torch.Tensor:
    """Log-probability of each target [rows, T], 0 where there is none.

    Args:
        fused: whether the model computes it without the logits, as ours does.
    """
    # Padding stands at the end, where no real token sees it: a mask would cost time and change nothing.
    if fused:
        return -model(input_ids=batch["input_ids"], shift_labels=targets, reduction="none", use_cache=False).loss
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits.float()
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
    return -nats.view(targets.shape)


def pair_log_probabilities(model: Any, batch: Batch, fused: bool) -> torch.Tensor:
    """Log-probability of each answer [B, 2]: chosen, rejected. One forward pass."""
    return token_log_probabilities(model, batch, batch["shift_labels"], fused).sum(-1).view(2, -1).t()


@torch.no_grad()
def reference_of(model: Any, rows: PreferenceRows, batch_size: int, fused: bool, device: torch.device) -> np.ndarray:
    """float32 [N, 2]: log-probability of each answer by the model as it is, in evaluation mode; in one process."""
    was_training = model.training
    model.eval()
    found = []
    for start in range(0, len(rows), batch_size):
        batch = rows.batch(np.arange(start, min(start + batch_size, len(rows))))
        found.append(pair_log_probabilities(model, _on(batch, device), fused).float().cpu())
    model.train(was_training)
    return torch.cat(found).numpy()


@torch.no_grad()
def draw_tokens(model: Any, rows: PreferenceRows, seed: int, device: torch.device) -> Draws:
    """Draws from the model as it is; one conversation at a time, because this needs its logits."""
    was_training, generator = model.training, torch.Generator().manual_seed(seed)
    model.eval()
    ids, found = [], []
    for (chosen, _), start in zip(rows.sequences, rows.starts, strict=True):
        inputs = torch.from_numpy(chosen[None, :-1].astype(np.int64)).to(device)
        log_nV = model(input_ids=inputs, use_cache=False).logits[0, start - 1 :].float().log_softmax(-1).cpu()
        drawn = log_nV.exp().multinomial(1, generator=generator)
        ids.append(drawn.squeeze(-1))
        found.append(log_nV.gather(-1, drawn).squeeze(-1))
    model.train(was_training)
    return Draws(torch.cat(ids).numpy(), torch.cat(found).numpy())


@torch.no_grad()
def measure_pairs(
    model: Any, rows: PreferenceRows, draws: Draws, count: int, batch_size: int, fused: bool, accelerator: Accelerator
) -> torch.Tensor:
    """float64 [count, 3] of the first `count` pairs: log-probability of the chosen answer, of the rejected one, and
    the divergence from the reference, summed over the chosen answer. Every process calls it, and gets all."""
    device, was_training = accelerator.device, model.training
    model.eval()
    ends = np.cumsum(rows.lengths[:, 0])
    found = torch.zeros(count, 3, dtype=torch.float64, device=device)
    for numbers, is_mine in _shares(count, batch_size, accelerator):
        batch = _on(rows.batch(numbers), device)
        pairs = pair_log_probabilities(model, batch, fused)
        half = {"input_ids": batch["input_ids"][: len(numbers)]}
        targets = batch["shift_labels"][: len(numbers)].clone()
        reference = torch.zeros(targets.shape, device=device)
        for row, number in enumerate(numbers):
            where, part = targets[row] != IGNORE_INDEX, slice(ends[number] - rows.lengths[number, 0], ends[number])
            targets[row, where] = torch.from_numpy(draws.ids[part]).to(device)
            reference[row, where] = torch.from_numpy(draws.log_probabilities[part]).to(device)
        log_ratios = token_log_probabilities(model, half, targets, fused) - reference  # 0 where there is no target
        divergence = (log_ratios.exp() - 1 - log_ratios).sum(-1, keepdim=True)
        if is_mine:
            found[numbers] = torch.cat((pairs, divergence), dim=-1).double()
    model.train(was_training)
    total = accelerator.reduce(found, "sum")
    assert isinstance(total, torch.Tensor)
    return total.cpu()


def _shares(count: int, batch_size: int, accelerator: Accelerator) -> Iterator[tuple[np.ndarray, bool]]:
    """Numbers of the pairs of this process, in batches, and whether they count: every process takes part in every
    forward pass (FSDP gathers weights in it), if need be with a pair that is another's."""
    mine = np.arange(count)[accelerator.process_index :: accelerator.num_processes]
    for i in range(math.ceil(math.ceil(count / accelerator.num_processes) / batch_size)):
        numbers = mine[i * batch_size : (i + 1) * batch_size]
        yield (numbers, True) if len(numbers) else (np.zeros(1, dtype=np.int64), False)


def _on(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def answer_lengths(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: PreferenceRows, count: int, max_new_tokens: int
) -> tuple[list[int], int]:
    """Tokens of greedy answers to the first `count` prompts that leave room for one, and how many ended properly."""
    context = model.config.max_position_embeddings
    room = context - min(max_new_tokens, context // 2)
    both = zip(rows.sequences, rows.starts, strict=True)
    prompts: list[Sequence[int]] = [chosen[:start].tolist() for (chosen, _), start in both if start <= room]
    settings, stop = answer_settings(tokenizer, model.config.vocab_size), stop_token_id(tokenizer)
    ends = set(settings["eos_token_id"])
    lengths, stopped = [], 0
    for batch in generated_ids(model, prompts[:count], max_new_tokens, 16, {**settings, "do_sample": False}):
        for ids in batch.values():
            end = next((place for place, token in enumerate(ids) if token in ends), None)
            lengths.append(len(ids) if end is None else end)
            stopped += end is not None and ids[end] == stop
    return lengths, stopped


def summarise_pairs(
    found: torch.Tensor,
    rows: PreferenceRows,
    losses: torch.Tensor,
    reference_losses: torch.Tensor,
    differences: torch.Tensor,
    answers: tuple[list[int], int],
) -> PreferenceResult:
    """
    Args:
        found: [N, 3], from `measure_pairs`.
        losses, reference_losses, differences: [N], of the loss: of the model, of the reference, and what it compares.
        answers: from `answer_lengths`.
    """
    assert rows.reference is not None
    count, (lengths, stopped) = len(found), answers
    log_probabilities, divergence = found[:, :2].numpy(), found[:, 2].numpy()
    tokens, ones = rows.lengths[:count].astype(np.float64), np.ones(count)
    change = log_probabilities - rows.reference[:count]
    per_token = log_probabilities / tokens
    ranked, gained = (int((each[:, 0] > each[:, 1]).sum()) for each in (per_token, change))
    margins = differences.double().numpy()
    return PreferenceResult(
        loss=float(losses.mean()),
        reference_loss=float(reference_losses.mean()),
        ranked_right=ranked / count,
        ranked_right_interval=wilson_interval(ranked, count),
        reward_accuracy=gained / count,
        reward_accuracy_interval=wilson_interval(gained, count),
        margin=float(margins.mean()),
        margin_interval=ratio_interval(margins, ones),
        chosen_change=float(change[:, 0].sum() / tokens[:, 0].sum()),
        chosen_change_interval=ratio_interval(change[:, 0], tokens[:, 0]),
        rejected_change=float(change[:, 1].sum() / tokens[:, 1].sum()),
        kl=float(divergence.sum() / tokens[:, 0].sum()),
        kl_interval=ratio_interval(divergence, tokens[:, 0]),
        answer_tokens=float(np.mean(lengths)) if lengths else None,
        answer_stop_rate=stopped / len(lengths) if lengths else None,
        num_answers=len(lengths),
        num_pairs=count,
    )
