"""Language modelling: the next token, in pretraining and, on rows of chats, in instruction tuning."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from ...data.packing import IGNORE_INDEX, Batch, CountedRows, Rows
from ...evaluation.language_modelling import LanguageModelResult, evaluate_language_model, token_byte_counts
from ..arguments import LanguageModelArguments
from .base import row_length


@dataclass
class LanguageModelling:
    """The next token: rows with `input_ids` and `shift_labels` [B, T].

    Args:
        eval_rows: the validation split; `arguments.eval_tokens` says how much of it.
        fused_loss: whether the model computes the loss of `shift_labels` itself, without the logits, as ours does.
    """

    train_rows: Rows
    eval_rows: CountedRows
    tokenizer: PreTrainedTokenizerBase
    arguments: LanguageModelArguments
    fused_loss: bool = True

    def prepare(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        return {}

    def num_targets(self, batch: Batch) -> torch.Tensor:
        return (batch["shift_labels"] != IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        if self.fused_loss:
            return model(**batch, num_items_in_batch=num_targets).loss
        inputs = {name: tensor for name, tensor in batch.items() if name != "shift_labels"}
        logits_BTV = model(**inputs, use_cache=False).logits.float()
        targets = batch["shift_labels"].flatten()
        total = F.cross_entropy(logits_BTV.flatten(0, 1), targets, ignore_index=IGNORE_INDEX, reduction="sum")
        return total / num_targets

    def evaluate(self, model: nn.Module, accelerator: Accelerator) -> LanguageModelResult:
        max_rows = None
        if self.arguments.eval_tokens is not None:
            max_rows = max(1, self.arguments.eval_tokens // row_length(self.eval_rows))
        byte_counts = token_byte_counts(self.tokenizer, accelerator.unwrap_model(model).config.vocab_size)
        return evaluate_language_model(
            model, self.eval_rows, byte_counts, self.arguments.per_device_train_batch_size, accelerator, max_rows
        )

    def samples(self, model: Any) -> list[str]:
        """Completions of `sample_prompts`; the seed makes them comparable over time."""
        texts = []
        for prompt in self.arguments.sample_prompts:
            torch.manual_seed(self.arguments.seed)
            inputs = self.tokenizer(prompt, return_tensors="pt").to(model.device)
            room = model.config.max_position_embeddings - inputs["input_ids"].shape[1]
            ids = model.generate(
                **inputs,
                max_new_tokens=min(self.arguments.sample_tokens, room),
                do_sample=True,
                temperature=0.8,
                top_k=50,
            )
            texts.append(self.tokenizer.decode(ids[0], skip_special_tokens=True))
        return texts
