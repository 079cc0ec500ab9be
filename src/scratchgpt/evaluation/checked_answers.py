"""How well a model answers questions that a checker knows the worth of, and signs that it has found a way round it.

A reward says only what it was written to say. So beside it stand the length of the answers and how many end properly,
compared with the model before tuning, and, where the right answers are known, how many are right by the letter,
whatever the reward says.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..data.chat import stop_token_id
from ..data.prompts import ANSWER, Prompt
from ..inference.answer_settings import answer_settings
from .responses import Response, generated_ids, response_of
from .rewards import exact_match
from .statistics import ratio_interval, wilson_interval

GROWN = 1.5
"""Answers longer than before by this factor, with a reward that has risen, ring the alarm."""


@dataclass
class CheckedResult:
    """What an evaluation on held-out questions found; answers are greedy, intervals of 95 %."""

    loss: float
    """−reward."""
    reward: float
    """Mean over the questions."""
    reward_interval: tuple[float, float] | None
    right: float
    """Share of questions with a reward of at least `right_at`."""
    right_interval: tuple[float, float]
    exact: float | None
    """Share of answers that are the right one by the letter; None where right answers are not known."""
    exact_interval: tuple[float, float] | None
    answer_tokens: float
    """Mean length of the answers."""
    answer_stop_rate: float
    """Share of answers that end properly within the limit."""
    num_questions: int
    before: "CheckedResult | None" = None
    """The model before tuning."""
    sampled: str = ""
    """What was sampled since the last evaluation, in words."""

    @property
    def alarms(self) -> list[str]:
        """What looks as if the reward paid for something else than it should."""
        before, found = self.before, []
        if before is None or self.reward <= before.reward:
            return found
        if self.answer_tokens > GROWN * before.answer_tokens + 1:
            found.append(
                f"the reward has risen and the answers have grown from {before.answer_tokens:.1f} to "
                f"{self.answer_tokens:.1f} tokens: read some, the reward may pay for length"
            )
        if self.answer_stop_rate < before.answer_stop_rate - 0.1:
            found.append(
                f"the reward has risen and fewer answers end by themselves, {self.answer_stop_rate:.1%} after "
                f"{before.answer_stop_rate:.1%}: read some, the reward may pay for not ending"
            )
        if self.exact is not None and before.exact_interval is not None and self.exact < before.exact_interval[0]:
            found.append(
                f"the reward has risen and fewer answers are right by the letter, {self.exact:.1%} after "
                f"{before.exact:.1%}: the reward pays for something else"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        del values["before"], values["sampled"]
        if self.before is not None:
            values["reference_loss"] = self.before.loss
        return {**values, "alarms": self.alarms}

    def summary(self) -> str:
        low, high = self.right_interval
        text = (
            f"reward {self.reward:.4f}, {self.right:.1%} of {self.num_questions:,} questions right (95 %: {low:.1%} "
            f"to {high:.1%}), "
        )
        if self.exact is not None and self.exact != self.right:
            text += f"{self.exact:.1%} by the letter, "
        text += f"{self.answer_tokens:.1f} tokens in an answer, {self.answer_stop_rate:.1%} end"
        text += f"\n    {self.sampled}" if self.sampled else ""
        return text + "".join(f"\nALARM: {alarm}" for alarm in self.alarms)


def answer_prompts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    do_sample: bool = False,
    seed: int = 0,
) -> tuple[list[Response], list[list[int]]]:
    """An answer to each prompt, greedy or drawn from the model's own distribution, and its ids with what ended it."""
    settings, stop = answer_settings(tokenizer, model.config.vocab_size), stop_token_id(tokenizer)
    # Neither a temperature nor a cut: else what is sampled is not what a loss takes the probability of.
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if do_sample else {"do_sample": False}
    found: dict[int, tuple[Response, list[int]]] = {}
    for batch in generated_ids(model, prompt_ids, max_new_tokens, batch_size, {**settings, **how}, seed):
        for i, new_ids in batch.items():
            response = response_of(new_ids, tokenizer, settings["eos_token_id"], stop)
            found[i] = response, new_ids[: len(response.token_ids) + 1]
    return [found[i][0] for i in range(len(prompt_ids))], [found[i][1] for i in range(len(prompt_ids))]


def measure_answers(
    prompts: Sequence[Prompt], answers: Sequence[Response], rewards: np.ndarray, right_at: float
) -> CheckedResult:
    """
    Args:
        rewards: [N], of the answers.
    """
    count = len(prompts)
    right, stopped = int((rewards >= right_at).sum()), sum(each.stopped for each in answers)
    exact = None
    if all(ANSWER in prompt.row for prompt in prompts):
        pairs = zip(prompts, answers, strict=True)
        exact = int(sum(exact_match(prompt.question, answer.text, prompt.row) for prompt, answer in pairs))
    return CheckedResult(
        loss=-float(rewards.mean()),
        reward=float(rewards.mean()),
        reward_interval=ratio_interval(rewards, np.ones(count)),
        right=right / count,
        right_interval=wilson_interval(right, count),
        exact=None if exact is None else exact / count,
        exact_interval=None if exact is None else wilson_interval(exact, count),
        answer_tokens=sum(len(each.token_ids) for each in answers) / count,
        answer_stop_rate=stopped / count,
        num_questions=count,
    )
