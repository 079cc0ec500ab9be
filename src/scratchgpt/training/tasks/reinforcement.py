"""Learning from a checker: the model answers, the answers are graded, and what did well is made likelier.

Of each question G answers are sampled. With r their rewards and A the advantage of an answer,

    grpo        A = r − mean of the group's r                                  GRPO, Shao et al. 2024
                −min(ρ A, clip(ρ, 1 − clip_low, 1 + clip_high) A)  at every token,  ρ = π / π of when it was sampled
                + kl_weight · ρ (π_ref/π − 1 − log π_ref/π)
    rejection   −log π of up to `keep` different right answers a question      rejection-sampling tuning (RAFT, Dong
                                                                               et al. 2023; RFT, Yuan et al. 2023)

GRPO comes with what has since been found wrong with it: every token counts the same, in short answers and long ones,
and the ratio has more room above than below (DAPO, Yu et al. 2025); advantages are not divided by the spread of the
group's rewards, which would make much of the easiest and the hardest questions (Liu et al. 2025, "Understanding
R1-Zero-Like Training"); no KL term. `length_normalization`, `scale_rewards` and `kl_weight` bring those back; the
factor ρ of the KL term makes its gradient unbiased (DeepSeek-V3.2, 2025). A group whose answers are all worth the same
teaches nothing: such groups are counted.

What a step samples is a function of the weights, the seed, the step and the rank, so a run goes on exactly.

Shapes: S slots of a sampling, G answers of a slot, A tokens of an answer, B answers of a batch, T tokens of a row.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from ...arguments import option
from ...data.packing import IGNORE_INDEX, Batch, rank_slice
from ...data.sampled_rows import SampledRows
from ...evaluation.checked_answers import CheckedResult, answer_prompts, measure_answers
from ...evaluation.preferences import token_log_probabilities
from ...evaluation.responses import Response
from ...evaluation.rewards import RewardError, Rewards
from ..arguments import LanguageModelArguments
from ..step import autocast_dtype
from .instruction import InstructionTuning

SPREAD_FLOOR = 1e-4
"""Added to the spread that advantages are divided by, as TRL does."""


@dataclass
class ReinforceArguments(LanguageModelArguments):
    """How to learn from rewards. Recipes inherit this."""

    HELP_GROUPS = {"method": "Training", "reward": "Answers", "eval_questions": "Evaluation"}

    method: Literal["grpo", "rejection"] = option(
        "grpo", "grpo: from better and worse answers; rejection: from the right ones alone."
    )
    group_size: int = option(8, "Answers sampled to each question.", at_least=1)
    steps_per_sampling: int = option(1, "Steps that learn from what is sampled at once.", at_least=1)
    clip_low: float = option(0.2, "grpo: how far a token's probability may fall in them.", at_least=0, at_most=1)
    clip_high: float = option(0.28, "grpo: how far it may rise.", at_least=0, at_most=10)
    kl_weight: float = option(
        0.0, "grpo: weight of the divergence from the model before tuning.", at_least=0, at_most=10
    )
    scale_rewards: bool = option(False, "grpo: divide advantages by the spread of the group's rewards.")
    length_normalization: bool = option(False, "grpo: every answer counts the same, instead of every token.")
    keep: int = option(1, "rejection: right answers of a question that are learned from, at most.", at_least=1)
    reward: list[str] = option(
        ["exact_match"], "exact_match, number_match, format, or module:function; name=weight, and they are summed."
    )
    answer_format: str | None = option(None, "Of the reward format: a regular expression for the whole answer.")
    reward_time_limit: float = option(10.0, "Seconds that a reward of yours may take for an answer.", above=0)
    right_at: float = option(1.0, "An answer with this reward or more is right.", at_least=0)
    response_tokens: int = option(64, "Tokens in an answer, at most.", at_least=1)
    sampling_batch_size: int = option(256, "Answers that are sampled together.", at_least=1)
    eval_questions: int = option(200, "Held-out questions answered at every evaluation, at most.", at_least=1)

    on_loss_spike: Literal["warn", "skip", "stop", "ignore"] = option(
        "ignore", "What to do when the loss jumps, which says nothing here."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "grpo" and self.group_size < 2:
            raise ValueError("group_size=1: grpo compares the answers to a question, so give 2 or more")
        for name in ("kl_weight", "scale_rewards", "length_normalization"):
            if self.method == "rejection" and vars(self)[name]:
                raise ValueError(f"{name} is for --method grpo: leave it out")


def advantages(rewards: torch.Tensor, scale: bool = False) -> torch.Tensor:
    """How much better each answer is than the mean of its group, [S, G].

    Args:
        scale: divide by the standard deviation of the group.
    """
    values = rewards - rewards.mean(-1, keepdim=True)
    return values / (rewards.std(-1, keepdim=True) + SPREAD_FLOOR) if scale else values


def first_right(right: torch.Tensor, texts: Sequence[Sequence[str]], keep: int) -> list[list[int]]:
    """Of each group the numbers of up to `keep` right answers, no two of them the same."""
    found = []
    for row, group in zip(right.tolist(), texts, strict=True):
        different = {text: i for i, text in reversed([*enumerate(group)]) if row[i]}
        found.append(sorted(different.values())[:keep])
    return found


def policy_losses(
    log_probabilities: torch.Tensor,
    advantages: torch.Tensor,
    arguments: ReinforceArguments,
    old: torch.Tensor | None = None,
    reference: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of each token, [B, T].

    Args:
        log_probabilities: [B, T], of the tokens of the answers; 0 elsewhere, as in `old` and `reference`.
        advantages: [B].
        old: by the model that sampled the answers; None: it is this one.
        reference: by the model before tuning; needed where `kl_weight` is above 0.
    """
    if arguments.method == "rejection":
        return -log_probabilities * advantages[:, None]
    ratio = (log_probabilities - (log_probabilities.detach() if old is None else old)).exp()
    clipped = ratio.clamp(1 - arguments.clip_low, 1 + arguments.clip_high)
    losses = -torch.minimum(ratio * advantages[:, None], clipped * advantages[:, None])
    if arguments.kl_weight:
        assert reference is not None
        behind = reference - log_probabilities
        losses = losses + arguments.kl_weight * ratio * (behind.exp() - 1 - behind)
    return losses


@dataclass
class Reinforcement(InstructionTuning):
    """Learning from rewards; the samples are answers.

    Args:
        train_rows: they get the answers that this task samples.
        eval_rows: prompts alone.
        fused_loss: whether the model computes log-probabilities without the logits, as ours does.
        reference: the model before tuning, where the loss looks at it and it is not `model` without its adapter.
        before: what an evaluation found then.
    """

    train_rows: SampledRows
    eval_rows: SampledRows
    arguments: ReinforceArguments
    rewards: Rewards = field(kw_only=True)
    reference: nn.Module | None = None
    before: CheckedResult | None = None

    # Sampling

    def prepare(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        """Samples answers for this step and those after it, unless that is done.

        Returns:
            Measures of what was sampled.

        Raises:
            RewardError: where a reward gives no number, in every process.
        """
        arguments, rows = self.arguments, self.train_rows
        world, rank = accelerator.num_processes, accelerator.process_index
        size = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * world
        if not rows.holds(rows.indices(step, size, arguments.seed)):
            count = arguments.steps_per_sampling
            first = step // count * count
            seed = int(torch.randint(2**62, ()))  # the loop has seeded the generator from seed, step and rank
            steps = [rows.prompts_of(each, size, arguments.seed) for each in range(first, first + count)]
            mine = np.concatenate([rank_slice(numbers, rank, world) for numbers in steps])
            samples, texts, error = self._sample(model, mine, seed, accelerator)
            if errors := [each for each in gather_object([error]) if each]:
                raise RewardError(errors[0])
            self._weigh(samples, texts)
            rows.put(first * size, {name: _in_order(each, count, accelerator) for name, each in samples.items()})
            rows.tally.update(_counts(rows.samples, arguments.right_at))
        return _measures(_counts(rows.samples, arguments.right_at), rows.samples)

    def _sample(
        self, model: nn.Module, numbers: np.ndarray, seed: int, accelerator: Accelerator
    ) -> tuple[dict[str, torch.Tensor], list[list[str]], str]:
        """Answers to prompts with their rewards and log-probabilities; their texts; what was wrong, if anything."""
        arguments, rows, bare = self.arguments, self.train_rows, accelerator.unwrap_model(model)
        group, count = arguments.group_size, len(numbers)
        asked = np.repeat(numbers, group)
        answers, ids = answer_prompts(
            bare, self.tokenizer, [rows.prompt_ids[i] for i in asked], arguments.response_tokens,
            arguments.sampling_batch_size, do_sample=True, seed=seed,
        )  # fmt: skip
        texts = [each.text for each in answers]
        error, rewards = "", np.zeros(len(texts))
        try:
            rewards = self.rewards([rows.prompts[i] for i in asked], texts)
        except RewardError as failure:
            error = str(failure)
        sequences = torch.full((len(texts), rows.context_length), rows.pad_token_id, dtype=torch.int32)
        for row, (i, new_ids) in enumerate(zip(asked, ids, strict=True)):
            whole = [*rows.prompt_ids[i], *new_ids]
            sequences[row, : len(whole)] = torch.tensor(whole, dtype=torch.int32)
        samples = {
            "ids": sequences.view(count, group, -1),
            "starts": torch.tensor([len(rows.prompt_ids[i]) for i in numbers]),
            "lengths": torch.tensor([len(each) for each in ids]).view(count, group),
            "rewards": torch.from_numpy(rewards).float().view(count, group),
            "ended": torch.tensor([int(each.stopped) for each in answers]).view(count, group),
        }
        if arguments.method == "grpo":
            if arguments.steps_per_sampling > 1:
                samples["old"] = self._log_probabilities(bare, samples, accelerator.device)
            if arguments.kl_weight:
                with contextlib.nullcontext() if self.reference is not None else bare.disable_adapter():
                    samples["reference"] = self._log_probabilities(self.reference or bare, samples, accelerator.device)
        return samples, [texts[i * group : (i + 1) * group] for i in range(count)], error

    def _weigh(self, samples: dict[str, torch.Tensor], texts: list[list[str]]) -> None:
        """Adds the advantages; of rejection sampling only the right answers that are kept stay, with advantage 1."""
        arguments, rewards = self.arguments, samples["rewards"]
        if arguments.method == "grpo":
            samples["advantages"] = advantages(rewards, arguments.scale_rewards)
            return
        right = (rewards >= arguments.right_at) & (samples["ended"] > 0)  # one without an end teaches never to end
        samples["advantages"] = torch.zeros(len(rewards), arguments.keep)
        ids = samples["ids"][:, :1].repeat(1, arguments.keep, 1)
        lengths = torch.zeros(len(rewards), arguments.keep, dtype=samples["lengths"].dtype)
        for slot, numbers in enumerate(first_right(right, texts, arguments.keep)):
            for place, number in enumerate(numbers):
                ids[slot, place] = samples["ids"][slot, number]
                lengths[slot, place] = samples["lengths"][slot, number]
                samples["advantages"][slot, place] = 1
        samples |= {"ids": ids, "lengths": lengths, "sampled_lengths": samples["lengths"]}

    @torch.no_grad()
    def _log_probabilities(self, model: Any, samples: dict[str, torch.Tensor], device: torch.device) -> torch.Tensor:
        """[S, G, W] of the tokens of the answers, in evaluation mode; 0 elsewhere."""
        was_training, found = model.training, torch.zeros(samples["ids"].shape)
        model.eval()
        slots = max(1, self.arguments.sampling_batch_size // self.arguments.group_size)
        for start in range(0, len(found), slots):
            part = {name: values[start : start + slots] for name, values in samples.items()}
            batch = {name: tensor.to(device) for name, tensor in self.train_rows.rows_of(part).items()}
            values = token_log_probabilities(model, batch, batch["shift_labels"], self.fused_loss)
            place = found[start : start + slots].flatten(0, 1)
            place[:, : values.shape[1]] = values.float().cpu()
        model.train(was_training)
        return found

    # Learning

    def num_targets(self, batch: Batch) -> torch.Tensor:
        is_target = batch["shift_labels"] != IGNORE_INDEX
        return is_target.any(-1).sum() if self.arguments.length_normalization else is_target.sum()

    def loss(self, model: nn.Module, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        found = token_log_probabilities(model, batch, batch["shift_labels"], self.fused_loss)
        losses = policy_losses(found, batch["advantages"], self.arguments, batch.get("old"), batch.get("reference"))
        is_target = batch["shift_labels"] != IGNORE_INDEX
        losses = losses * is_target
        if self.arguments.length_normalization:
            losses = losses.sum(-1) / is_target.sum(-1).clamp(min=1)
        return losses.sum() / num_targets.clamp(min=1)  # rejection may have kept nothing

    # Measuring

    def evaluate(self, model: nn.Module, accelerator: Accelerator) -> CheckedResult:
        """Greedy answers to the held-out questions.

        Raises:
            RewardError: where a reward gives no number, in every process.
        """
        arguments, rows = self.arguments, self.eval_rows
        count, world = min(len(rows), arguments.eval_questions), accelerator.num_processes
        numbers = range(count)[accelerator.process_index :: world]
        answers, _ = answer_prompts(
            accelerator.unwrap_model(model), self.tokenizer, [rows.prompt_ids[i] for i in numbers],
            arguments.response_tokens, arguments.sampling_batch_size,
        )  # fmt: skip
        error, worth = "", np.zeros(len(answers))
        try:
            worth = self.rewards([rows.prompts[i] for i in numbers], [each.text for each in answers])
        except RewardError as failure:
            error = str(failure)
        mine = [*zip(numbers, answers, worth.tolist(), strict=True)]
        found: list[tuple[int, Response, float]] = gather_object(mine) if world > 1 else mine
        if errors := [each for each in gather_object([error]) if each]:
            raise RewardError(errors[0])
        found.sort(key=lambda each: each[0])
        asked = [rows.prompts[number] for number, _, _ in found]
        rewards = np.array([value for _, _, value in found])
        result = measure_answers(asked, [each for _, each, _ in found], rewards, arguments.right_at)
        result.before, result.sampled = self.before, _in_words(self.train_rows.tally)
        self.train_rows.tally.clear()
        return result


def _in_order(values: torch.Tensor, steps: int, accelerator: Accelerator) -> torch.Tensor:
    """What every process has of each of the steps, [S, …] in all, in the order of the slots."""
    world = accelerator.num_processes
    if world == 1:
        return values
    gathered = accelerator.gather(values.contiguous().to(accelerator.device))
    assert isinstance(gathered, torch.Tensor)
    return gathered.cpu().unflatten(0, (world, steps, -1)).transpose(0, 1).flatten(0, 2).contiguous()


def _counts(samples: dict[str, torch.Tensor], right_at: float) -> dict[str, float]:
    """Sums over what was sampled; of a group all answers may be right, or wrong, or worth the same."""
    rewards, lengths = samples["rewards"], samples.get("sampled_lengths", samples["lengths"])
    right = rewards >= right_at
    return {
        "groups": len(rewards),
        "answers": rewards.numel(),
        "reward": float(rewards.double().sum()),
        "right": int(right.sum()),
        "tokens": int((lengths - samples["ended"]).sum()),  # without the one that ends it
        "ended": int(samples["ended"].sum()),
        "all_right": int(right.all(-1).sum()),
        "all_wrong": int((~right).all(-1).sum()),
        "equal": int((rewards == rewards[:, :1]).all(-1).sum()),
        "learned": int((samples["advantages"] != 0).any(-1).sum()),
    }


def _measures(counts: dict[str, float], samples: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of the last sampling, for a line of metrics."""
    answers, groups = counts["answers"], counts["groups"]
    shares = {f"sampled_{name}": counts[name] / answers for name in ("reward", "right", "tokens", "ended")}
    shares |= {f"groups_{name}": counts[name] / groups for name in ("all_right", "all_wrong", "equal", "learned")}
    return {**shares, "length_correlation": _length_correlation(samples)}


def _length_correlation(samples: dict[str, torch.Tensor]) -> float:
    """Of reward and length within the groups, −1 to 1; 0 where one of them does not vary."""
    both = [samples["rewards"], samples.get("sampled_lengths", samples["lengths"])]
    rewards, lengths = (advantages(each.double()).flatten() for each in both)
    norm = float(rewards.norm() * lengths.norm())
    return float(rewards @ lengths) / norm if norm else 0.0


def _in_words(tally: Counter[str]) -> str:
    """What was sampled since the last evaluation; empty where nothing was."""
    if not tally["answers"]:
        return ""
    answers, groups = tally["answers"], tally["groups"]
    return (
        f"sampled {answers:,} answers: reward {tally['reward'] / answers:.4f}, {tally['right'] / answers:.1%} right, "
        f"{tally['tokens'] / answers:.1f} tokens; of {groups:,} groups {tally['all_right']:,} all right, "
        f"{tally['all_wrong']:,} all wrong, {tally['learned']:,} learned from"
    )


def measure_before(task: Reinforcement, model: Any, accelerator: Accelerator) -> CheckedResult:
    """What an evaluation of `model` finds as it is now; every process calls it, as `Reinforcement.evaluate`."""
    device = accelerator.device
    precision = autocast_dtype(task.arguments, device)
    with torch.autocast(device.type, precision, enabled=precision is not None):
        return task.evaluate(model.to(device), accelerator)
