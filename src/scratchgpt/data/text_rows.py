"""Rows of labelled texts, of unequal length.

Texts of a batch are padded to its longest, so batches are made of texts of like length. For each epoch the rows are
permuted, the permutation is cut into stretches of `BUCKET_BATCHES` global batches, each stretch is sorted by length
and cut into batches, and the batches are permuted. All of that follows from (seed, epoch), and the rows of a step from
its number: as everywhere in training there is no state to save.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .encoding import encode_typed
from .labelled_texts import LabelledTexts
from .packing import Batch, row_order

BUCKET_BATCHES = 20
"""Batches that are sorted by length together: more would pad less and mix less."""

PADDED_TO = 8
"""Batches are padded to a multiple of this: few shapes, and every tensor aligned."""

TOKENIZED_TOGETHER = 1000
"""Texts: what the Rust library returns takes about twenty times the memory of the ids."""


class TextRows:
    """Tokenised texts with their labels; a special token that somebody typed is text. `batch` pads on the tokenizer's
    side.

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
            texts = encode_typed(data.texts[start : start + TOKENIZED_TOGETHER], tokenizer, add_special_tokens=True)
            encoded += [np.asarray(ids, dtype=np.int64) for ids in texts]
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

    def texts(self, tokenizer: Any) -> Iterator[str]:
        return iter(self.data.texts)

    def fingerprint(self) -> str:
        """SHA-256 of ids, labels, the labels' names and how batches are padded, as hexadecimal digits."""
        names, padding = self.data.names, (self.tokenizer.padding_side, self.tokenizer.pad_token_id)
        digest = hashlib.sha256(repr((names, self.max_length, padding, self.lengths.tolist())).encode())
        digest.update(self.labels.tobytes())
        for ids in self.input_ids:
            digest.update(ids.tobytes())
        return digest.hexdigest()

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
