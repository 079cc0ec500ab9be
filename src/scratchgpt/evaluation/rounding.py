"""What rounded weights cost: bits per byte of the same text before and after.

Where there is no text of the user's, the model writes one: drawn from its own distribution, its bits per byte rise on
average by what the rounded model has unlearned of it (their Kullback-Leibler divergence).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .log_likelihoods import LogLikelihoods, context_length, prefix_token
from .results import Measurement
from .text import Text, TextSuite

NUM_TEXTS, NUM_TOKENS, SEED = 16, 256, 0
"""That the model writes."""

OWN_TEXT = "text that the model wrote itself"


@dataclass(frozen=True)
class RoundingCost:
    before: Measurement
    after: Measurement
    text: str
    """What they were measured on."""

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {"text": self.text, "before": self.before.as_dict(), "after": self.after.as_dict()}

    def __str__(self) -> str:
        change = self.after.value - self.before.value
        return (
            f"bits per byte {self.before.value:.4f} → {self.after.value:.4f} ({change:+.4f}) on "
            f"{self.before.count:,} bytes of {self.text}"
        )


def rounding_cost(before: Any, after: Any, tokenizer: Any, text: Text | None = None) -> RoundingCost:
    """
    Args:
        before, after: the models, in evaluation mode.
        text: default: what `before` writes.

    Raises:
        ValueError: for a tokenizer without a token that begins or ends texts.
    """
    if text is not None:
        return _compare(before, after, tokenizer, text, f"{text.source}, split {text.split}")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": each}) + "\n" for each in written(before, tokenizer)))
        return _compare(before, after, tokenizer, Text(str(file)), OWN_TEXT)


def _compare(before: Any, after: Any, tokenizer: Any, text: Text, name: str) -> RoundingCost:
    suite = TextSuite(text)
    suite.check(None, tokenizer)
    first, second = (suite.run(LogLikelihoods(model), tokenizer).metrics["bits_per_byte"] for model in (before, after))
    return RoundingCost(first, second, name)


@torch.no_grad()
def written(model: Any, tokenizer: Any) -> list[str]:
    """Texts drawn from the model's own distribution, each begun by the start token; the same at each call."""
    start = torch.full((NUM_TEXTS, 1), prefix_token(tokenizer))
    state = torch.get_rng_state()
    torch.manual_seed(SEED)
    ids = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        max_length=min(NUM_TOKENS, context_length(model.config)), pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.set_rng_state(state)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)
