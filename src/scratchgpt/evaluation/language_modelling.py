"""Loss, perplexity and bits per byte of a language model on packed rows.

Perplexity depends on the tokenizer: longer tokens are fewer and harder. Bits per byte does not: it divides the
information in the text by the text's own length, so models with different tokenizers compare, and so do gzip and xz.
Special tokens spell no text: they have no bytes, and their loss is left out of the bits.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from ..data.packing import CountedRows


@dataclass
class LanguageModelResult:
    """What `evaluate_language_model` found, with the counts it was computed on."""

    loss: float
    """Mean cross-entropy per token, in nats."""

    perplexity: float
    """exp(loss)."""

    bits_per_byte: float
    """Bits for the tokens that spell text, per byte of that text."""

    num_tokens: int
    num_bytes: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)

    def summary(self) -> str:
        return (
            f"validation loss {self.loss:.4f}, perplexity {self.perplexity:.2f}, {self.bits_per_byte:.4f} bits per "
            f"byte ({self.num_tokens:,} tokens)"
        )


def token_byte_counts(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> torch.Tensor:
    """Bytes of UTF-8 that each id spells, [vocab_size], 0 for special tokens and ids without a token.

    Byte-level tokenizers spell each byte as one character of a token (see `tokenizers.byte_to_unicode`).
    """
    counts = torch.zeros(vocab_size, dtype=torch.long)
    special = set(tokenizer.all_special_ids)
    for token, token_id in tokenizer.get_vocab().items():
        if token_id < vocab_size and token_id not in special:
            counts[token_id] = len(token)
    return counts


@torch.no_grad()
def evaluate_language_model(
    model: torch.nn.Module,
    rows: CountedRows,
    byte_counts: torch.Tensor,
    batch_size: int,
    accelerator: Accelerator,
    max_rows: int | None = None,
) -> LanguageModelResult:
    """Evaluates on the first `max_rows` rows (default: all), split over the processes.

    Args:
        model: called with `input_ids` [B, T]; returns logits [B, T, V].
        byte_counts: [V], from `token_byte_counts`.
        batch_size: rows per process and forward pass.

    Raises:
        ValueError: where there are no rows.
    """
    num_rows = len(rows) if max_rows is None else min(len(rows), max_rows)
    if num_rows == 0:
        raise ValueError("there is nothing to evaluate on: the validation split has no rows")
    device, was_training = accelerator.device, model.training
    model.eval()
    byte_counts = byte_counts.to(device)
    totals = torch.zeros(4, dtype=torch.float64, device=device)  # nats, tokens, nats of text, bytes
    mine = np.arange(num_rows)[accelerator.process_index :: accelerator.num_processes]
    # Every process takes part in every forward pass (FSDP gathers weights in it), if need be with a row that counts 0.
    num_batches = math.ceil(math.ceil(num_rows / accelerator.num_processes) / batch_size)
    for i in range(num_batches):
        indices = mine[i * batch_size : (i + 1) * batch_size]
        batch = {name: t.to(device) for name, t in rows.batch(indices if len(indices) else np.zeros(1, int)).items()}
        targets = batch.pop("shift_labels")
        logits = model(**batch, use_cache=False).logits.float()
        if len(indices) == 0:
            continue
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none"
        ).double()
        real = targets.flatten() != -100
        sizes = byte_counts[targets.flatten().clamp(min=0)] * real
        totals += torch.stack((nats.sum(), real.sum().double(), nats[sizes > 0].sum(), sizes.sum().double()))
    model.train(was_training)
    totals = accelerator.reduce(totals, "sum")
    assert isinstance(totals, torch.Tensor)
    nats, tokens, text_nats, num_bytes = totals.tolist()
    loss = nats / tokens
    return LanguageModelResult(
        loss=loss,
        perplexity=math.exp(min(loss, 700)),
        bits_per_byte=text_nats / math.log(2) / max(num_bytes, 1),
        num_tokens=int(tokens),
        num_bytes=int(num_bytes),
    )
