"""Whether another architecture can express a model, and whether both sides then compute the same."""

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_scratchgpt import ScratchGPTConfig

SENTENCE = "The quick brown fox jumps over the lazy dog; it's 3.14 o'clock, and nobody knows why."
"""What two models are compared on."""

TOLERANCE = 1e-5
"""Of two computations of the same logits in fp32; in units of the largest logit, or of 1 where that is smaller."""


def check_expressible(target: str, config: ScratchGPTConfig, **required: Any) -> None:
    """Makes sure that another architecture has what a model of ours uses.

    Args:
        target: the architecture's name. required: the fields of our configuration that it fixes, and their values.

    Raises:
        ValueError: names the fields that stand in the way.
    """
    found = config.to_dict()
    wrong = [f"{name}={found[name]} (must be {value})" for name, value in required.items() if found[name] != value]
    if wrong:
        raise ValueError(f"{target} cannot express this model, because of {', '.join(wrong)}: choose another target")


@torch.no_grad()
def logits_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of the ids [B, T]."""
    return model(input_ids=ids, use_cache=False).logits


def check_same_logits(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of two models' logits [B, T, V], over the ids that both have.

    Raises:
        ValueError: where it is beyond `TOLERANCE`, or not a number.
    """
    size = min(ours.shape[-1], theirs.shape[-1])
    ours, theirs = ours[..., :size].float(), theirs[..., :size].float()
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ValueError(
            f"The two models disagree: their logits differ by up to {difference:.2e}, and are as large as "
            f"{largest:.3g}. The weights are not finite, or a layer is computed in another way."
        )
    return difference


def sample_ids(tokenizer: PreTrainedTokenizerBase | None, vocab_size: int, context: int) -> torch.Tensor:
    """Ids [1, T] of a sentence, below `vocab_size` and within the context; without tokenizer, ids from all over."""
    if tokenizer is None:
        return (torch.arange(min(context, 32)) * 7919 % vocab_size)[None]
    ids = [i for i in tokenizer(SENTENCE, add_special_tokens=False)["input_ids"] if i < vocab_size]
    return torch.tensor([ids[:context]])
