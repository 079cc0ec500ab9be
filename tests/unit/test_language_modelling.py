"""evaluation/language_modelling.py: loss, perplexity and bits per byte, against sums that a reader can check."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from scratchgpt.evaluation.language_modelling import evaluate_language_model, token_byte_counts
from scratchgpt.tokenizers import BPETokenizer, CharTokenizer, to_transformers

SHARES = [1 / 2, 1 / 4, 1 / 8, 1 / 8]
"""What the model below gives the ids 0 to 3, whatever it has read: 1, 2, 3 and 3 bits."""

BYTES = torch.tensor([1, 3, 2, 0])
"""Id 3 is a special token: it spells nothing."""


class Constant(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.calls: list[int] = []

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        assert not self.training
        self.calls.append(len(input_ids))
        return SimpleNamespace(logits=torch.tensor(SHARES).log().expand(*input_ids.shape, 4))


class Rows:
    def __init__(self, targets: list[list[int]]) -> None:
        self.targets = torch.tensor(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        raise AssertionError("an evaluation reads the rows in their order")

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        targets = self.targets[np.asarray(indices)]
        return {"input_ids": torch.zeros_like(targets), "shift_labels": targets}


ROWS = Rows([[0, 1, 1], [3, 0, -100], [2, 2, 2]])


def test_by_hand() -> None:
    # Bits: 1 + 2 + 2, 3 + 1, 3 + 3 + 3: 18 in 8 tokens. The special token (3) left out, 15 for 1 + 6 + 1 + 6 bytes.
    result = evaluate_language_model(Constant(), ROWS, BYTES, 8, Accelerator())
    assert (result.num_tokens, result.num_bytes) == (8, 14)
    assert result.loss == pytest.approx(18 / 8 * math.log(2))
    assert result.perplexity == pytest.approx(2 ** (18 / 8))
    assert result.bits_per_byte == pytest.approx(15 / 14)
    assert result.summary() == "validation loss 1.5596, perplexity 4.76, 1.0714 bits per byte (8 tokens)"


def test_batches_and_the_number_of_rows() -> None:
    model = Constant().train()
    result = evaluate_language_model(model, ROWS, BYTES, 2, Accelerator())
    assert model.calls == [2, 1]
    assert model.training
    assert result.num_tokens == 8
    first = evaluate_language_model(model, ROWS, BYTES, 2, Accelerator(), max_rows=1)
    assert (first.num_tokens, first.num_bytes) == (3, 7)
    assert first.loss == pytest.approx(5 / 3 * math.log(2))
    with pytest.raises(ValueError, match="the validation split has no rows"):
        evaluate_language_model(model, ROWS, BYTES, 2, Accelerator(), max_rows=0)


def test_text_without_a_byte_has_no_bits() -> None:
    result = evaluate_language_model(Constant(), Rows([[3, 3]]), BYTES, 1, Accelerator())
    assert (result.bits_per_byte, result.num_bytes) == (0, 0)
    assert result.perplexity == pytest.approx(8)


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_every_id_counts_the_bytes_that_it_spells(kind: str) -> None:
    text = "naïve 日本語 — 👍🏽 Gold!\n" * 3
    trained = BPETokenizer.train([text] * 3, 290) if kind == "bpe" else CharTokenizer.train([text])
    tokenizer = to_transformers(trained)
    counts = token_byte_counts(tokenizer, len(tokenizer) + 5)
    for token, token_id in trained.vocabulary.items():
        assert counts[token_id] == len(token)
    assert counts[tokenizer.all_special_ids].sum() == 0
    assert counts[len(tokenizer) :].tolist() == [0] * 5
    ids: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert counts[ids].sum() == len(text.encode())
