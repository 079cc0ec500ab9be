"""Whether another architecture can express a model, and whether both sides then compute the same."""

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_scratchgpt import ScratchGPTConfig

SENTENCE = "The quick brown fox jumps over the lazy dog; it's 3.14 o'clock, and nobody knows why."
"""What two models are compared on."""

AWKWARD = (
    "I'm sure they'll say it's YOU'RE, I'LL, O'Neil's or 'tis; don't!\n\n\n  Two   spaces,\ttabs\t\t, "
    'trailing  \r\n\r\n1234567890 3.14159 2,000,000 ½ ² Ⅳ ٣٤ x²+y²≠z³ ==> {"key": [1, 2]}\n\tdef f(x):\n\t\treturn x\n'
    "naïve café Straße ǅ Ωμέγα Привет, мир! שלום مرحبا नमस्ते ไทย 日本語のテキスト。中文 한국어 e\u0301 \u1e9b\u0323 "
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 \u00a0\u2003\u3000\u200b\ufeff\u2028 “quotes” – — … http://a.b/c?d=e&f#g __init__ C++ <b>&amp;</b> "
    "<|endoftext|><|user|> hi<|end|> <|assistant|>\n<|pad|><|not special|> \x00\x01\x7f\x85 𝔘𝔫𝔦 𐍈 \U000e0041\n \n"
)
"""What tokenizers stumble over: contractions, runs of spaces and line ends, digits, scripts, emoji, controls."""

PROMPTS = ("The", "Once upon a time, there was a", "1, 2, 3,")

NUM_WRITTEN = 20
"""Ids that follow each prompt, where the context has room."""

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


def prompt_ids(tokenizer: Any, context: int) -> list[list[int]]:
    """The ids of `PROMPTS`, each at most half of the context."""
    found = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    return [ids[: context // 2] for ids in found if ids]


def continuation(model: Any, prompt: list[int], count: int = NUM_WRITTEN, **settings: Any) -> list[int]:
    """The ids that follow a prompt, the likeliest each time; an end of text ends them.

    Args:
        settings: more for `generate`.
    """
    settings |= {"do_sample": False, "max_new_tokens": min(count, model.config.max_position_embeddings - len(prompt))}
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return written[0, len(prompt) :].tolist()


def end_ids(model: Any) -> list[int]:
    """The ids that end a text."""
    ends = model.generation_config.eos_token_id
    return [] if ends is None else ends if isinstance(ends, list) else [ends]


@torch.no_grad()
def is_near_tie(model: Any, prompt: list[int], theirs: list[int], tolerance: float, **settings: Any) -> bool:
    """Whether somebody else's continuation parts from the model's own where two ids are about as likely.

    Args:
        tolerance: of the log-probabilities: two ids nearer to each other than twice that are a tie.
        settings: as for `continuation`.

    Returns:
        False where both write the same.

    Raises:
        ValueError: where they part at no tie, or one of them ends early.
    """
    ours = continuation(model, prompt, len(theirs), **settings)
    for i, (own, other) in enumerate(zip(ours, theirs, strict=False)):
        if own != other:
            logits = logits_of(model, torch.tensor([prompt + ours[:i]]))[0, -1]
            if (gap := (logits[own] - logits[other]).item()) > 2 * tolerance:
                raise ValueError(
                    f"the file continues {prompt} with {theirs[: i + 1]}, and the model with {ours[: i + 1]}, "
                    f"which is likelier by {gap:.2e}"
                )
            return True
    if len(ours) != len(theirs):
        raise ValueError(f"the file continues {prompt} with {theirs}, and the model with {ours}")
    return False


def awkward_ids(tokenizer: Any) -> list[int]:
    """The ids of `AWKWARD`, which may be more than the context: nobody reads them."""
    return tokenizer.backend_tokenizer.encode(AWKWARD, add_special_tokens=False).ids


def check_same_ids(theirs: list[int], tokenizer: Any) -> None:
    """Makes sure that somebody else's ids of `AWKWARD` are the tokenizer's.

    Raises:
        ValueError: names the first that is not.
    """
    ours = awkward_ids(tokenizer)
    if theirs != ours:
        first = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        raise ValueError(
            f"the file's tokenizer gives other ids from the one at {first} on: {theirs[first : first + 5]}, and the "
            f"model's {ours[first : first + 5]} ({tokenizer.decode(ours[first : first + 5])!r})"
        )
