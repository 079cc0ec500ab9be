"""Classification: rows of unequal length, and the task that reads them.

Texts of a batch are padded to its longest, so batches are made of texts of like length. For each epoch the rows are
permuted, the permutation is cut into stretches of `BUCKET_BATCHES` global batches, each stretch is sorted by length
and cut into batches, and the batches are permuted. All of that follows from (seed, epoch), and the rows of a step from
its number: as everywhere in the loop there is no state to save.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from ...data.labelled_texts import LabelledTexts
from ...data.packing import Batch, Rows, row_order
from ...evaluation.classification import ClassificationResult, measure, predict

BUCKET_BATCHES = 20
"""Batches that are sorted by length together: more would pad less and mix less."""

PADDED_TO = 8
"""Batches are padded to a multiple of this: few shapes, and every tensor aligned."""

TOKENIZED_TOGETHER = 1000
"""Texts: what the Rust library returns takes about twenty times the memory of the ids."""


class TextRows:
    """Tokenised texts with their labels. `batch` pads on the tokenizer's side.

    Args:
        max_length: tokens; longer texts are cut on the tokenizer's `truncation_side`, with a warning that counts them.

    Raises:
        ValueError: for a text that has no tokens, and for a tokenizer that cannot pad.
    """

    def __init__(self, data: LabelledTexts, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no pad token: set tokenizer.pad_token")
        self.data, self.tokenizer, self.max_length = data, tokenizer, max_length
        encoded = []
        for start in range(0, len(data), TOKENIZED_TOGETHER):
            texts: Any = tokenizer(data.texts[start : start + TOKENIZED_TOGETHER], verbose=False)
            encoded += [np.asarray(ids, dtype=np.int64) for ids in texts["input_ids"]]
        if empty := [row for row, ids in enumerate(encoded) if not len(ids)]:
            raise ValueError(f"text {empty[0]} has no tokens: {data.texts[empty[0]]!r}")
        self.num_truncated = sum(len(ids) > max_length for ids in encoded)
        if self.num_truncated:
            warnings.warn(
                f"{self.num_truncated:,} of {len(data):,} texts are longer than {max_length} tokens and are cut "
                f"({tokenizer.truncation_side} side)",
                stacklevel=2,
            )
        part = slice(-max_length, None) if tokenizer.truncation_side == "left" else slice(max_length)
        self.input_ids = [ids[part] for ids in encoded]
        self.lengths = np.array([len(ids) for ids in self.input_ids])
        self.labels = np.asarray(data.labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.input_ids)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """`input_ids` and `attention_mask` [B, T], `labels` [B]."""
        rows = [self.input_ids[index] for index in indices]
        length = min(self.max_length, -(-max(map(len, rows)) // PADDED_TO) * PADDED_TO)
        ids_BT = np.full((len(rows), length), self.tokenizer.pad_token_id, dtype=np.int64)
        mask_BT = np.zeros((len(rows), length), dtype=np.int64)
        for row, ids in enumerate(rows):
            part = slice(-len(ids), None) if self.tokenizer.padding_side == "left" else slice(len(ids))
            ids_BT[row, part], mask_BT[row, part] = ids, 1
        return {
            "input_ids": torch.from_numpy(ids_BT),
            "attention_mask": torch.from_numpy(mask_BT),
            "labels": torch.from_numpy(self.labels[np.asarray(indices)]),
        }

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """Numbers [global_batch_size] of the rows that step `step` reads; see the top of the module.

        The last batch of an epoch is filled up with the first rows of its permutation.
        """
        epoch, number = divmod(step, -(-len(self) // global_batch_size))
        return self._batches(global_batch_size, seed, epoch)[number]

    @lru_cache(maxsize=2)  # noqa: B019  # rows live as long as the run
    def _batches(self, size: int, seed: int, epoch: int) -> np.ndarray:
        """The batches of an epoch, [batches, size]."""
        order = row_order(len(self), seed, epoch)
        num_batches = -(-len(order) // size)
        order = np.resize(order, num_batches * size)
        stretch = BUCKET_BATCHES * size
        parts = [order[start : start + stretch] for start in range(0, len(order), stretch)]
        by_length = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        return by_length.reshape(num_batches, size)[row_order(num_batches, seed + 1, epoch)]


@dataclass
class TextClassification:
    """One label per text.

    Args:
        class_weights: [labels], factors of the losses of each label's texts; None: all 1.
        r_drop: every text is read twice, with other dropout, and this times the divergence between the two answers
            (Kullback-Leibler, both ways, averaged) is added to their mean loss (R-Drop, Liang et al. 2021).
    """

    train_rows: Rows
    eval_rows: TextRows
    batch_size: int
    class_weights: torch.Tensor | None = None
    r_drop: float = 0.0

    def num_targets(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(len(batch["labels"]), device=batch["labels"].device)

    def loss(self, model: nn.Module, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        passes = 2 if self.r_drop else 1
        batch = {name: torch.cat([tensor] * passes) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits.float()
        weights = self.class_weights.to(logits.device) if self.class_weights is not None else None
        loss = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / passes
        if self.r_drop:
            one, other = logits.log_softmax(-1).chunk(2)
            forth = F.kl_div(one, other, log_target=True, reduction="sum")
            back = F.kl_div(other, one, log_target=True, reduction="sum")
            loss = loss + self.r_drop * (forth + back) / 2
        return loss / num_targets

    def evaluate(self, model: nn.Module, accelerator: Accelerator) -> ClassificationResult:
        names = self.eval_rows.data.names
        logits = predict(model, self.eval_rows, len(names), self.batch_size, accelerator)
        return measure(logits, self.eval_rows.labels, names)

    def samples(self, model: Any) -> list[str]:
        return []


def balanced_weights(data: LabelledTexts) -> torch.Tensor:
    """Weights [labels] that give every label the same share of the loss; their mean over the texts is 1."""
    counts = torch.tensor(list(data.counts().values()), dtype=torch.float32)
    return len(data) / (len(counts) * counts)


def freeze(model: nn.Module, last_layers: int) -> None:
    """Leaves only the head, the last norm and the last `last_layers` decoder layers of a classifier trainable.

    Raises:
        ValueError: where the model has fewer layers.
    """
    base: Any = model.get_submodule("model")
    num_layers = len(base.layers)
    if not 0 <= last_layers <= num_layers:
        raise ValueError(f"last_layers={last_layers}: the model has {num_layers} layers")
    base.requires_grad_(False)
    for layer in base.layers[num_layers - last_layers :]:
        layer.requires_grad_(True)
    if last_layers:
        base.norm.requires_grad_(True)
