"""Pairs of answers → rows: prompt and chosen answer, prompt and rejected answer, in one batch.

    row 0     <|user|> a b <|end|> <|assistant|> c d        chosen: what is learned is c d <|end|>
    row B     <|user|> a b <|end|> <|assistant|> e ·        rejected: e <|end|>

A batch of B pairs has 2 B rows: first all chosen answers, then all rejected ones, so that one forward pass reads both.
Rendering and the mask are those of instruction tuning, but only the last answer counts: earlier ones are the same in
both. Padding stands at the end, where no real token sees it, so the model needs no mask.

Nothing is cut: a pair of which an answer does not end within the context is left out, and counted.

Shapes: B pairs of a batch, T tokens of a row.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .chat import RenderedChat, render_chats, text_of_ids
from .chat_sources import describe
from .packing import IGNORE_INDEX, Batch, batch_indices
from .preferences import Pair

WIDTHS = 4
"""Rows are as wide as the longest of their batch, rounded up to one of so many widths: each is compiled anew."""
NARROWEST = 64


class PreferenceRows:
    """Rows for learning from pairs; satisfies `packing.Rows`. A row's number is its pair's.

    Args:
        tokenizer: of an assistant, with its chat template.
        context_length: T, at most.

    Raises:
        ValueError: where no pair is left, with the reasons; and as `render_chats`.
    """

    def __init__(self, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, context_length: int) -> None:
        ids: Any = tokenizer  # annotated as if ids could be text
        self.pad_token_id: int = ids.eos_token_id if ids.pad_token_id is None else ids.pad_token_id
        self.left_out: Counter[str] = Counter()
        """Reasons, and how many pairs were left out."""
        self.sequences: list[tuple[np.ndarray, np.ndarray]] = []
        """Of each pair the ids with the chosen answer and with the rejected one; the last id is a target only."""
        self.starts: list[int] = []
        """Of each pair the number of prompt tokens: the answers begin there."""
        chosen = render_chats([pair.conversation(pair.chosen) for pair in pairs], tokenizer)
        rejected = render_chats([pair.conversation(pair.rejected) for pair in pairs], tokenizer)
        for sides in zip(chosen, rejected, strict=True):
            (first, start), (second, _) = map(_last_answer, sides)
            if reason := _fault(first, second, start, context_length):
                self.left_out[reason] += 1
                continue
            self.sequences.append((first, second))
            self.starts.append(start)
        if not self.sequences:
            raise ValueError(
                f"none of the {len(pairs)} pairs can be learned from: {describe(self.left_out)}; give shorter pairs, "
                "or a longer context_length"
            )
        self.context_length = max(len(ids) - 1 for sides in self.sequences for ids in sides)
        self.lengths = np.array(
            [[len(ids) - start for ids in sides] for sides, start in zip(self.sequences, self.starts, strict=True)]
        )
        """[pairs, 2]: tokens of the chosen and of the rejected answer, the one that ends it included."""
        self.reference: np.ndarray | None = None
        """float32 [pairs, 2]: log-probabilities of the answers by the model before it is tuned."""

    def __len__(self) -> int:
        return len(self.sequences)

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """See `packing.batch_indices`."""
        return batch_indices(len(self), step, global_batch_size, seed)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Pairs by their numbers: int64 tensors [2 B, T] `input_ids`, `shift_labels` and `attention_mask`, and, where
        the reference is known, `reference` [B, 2].

        Raises:
            IndexError: for a pair that does not exist.
        """
        chosen = [(self.sequences[i][0], self.starts[i]) for i in indices]
        rows = [*chosen, *((self.sequences[i][1], self.starts[i]) for i in indices)]
        batch = answer_batch(rows, self.pad_token_id, self.context_length)
        if self.reference is not None:
            batch["reference"] = torch.from_numpy(self.reference[np.asarray(indices)])
        return batch

    def texts(self, tokenizer: Any) -> Iterator[str]:
        """Of each pair the two conversations, each as one document."""
        return (text_of_ids(ids.tolist(), tokenizer) for sides in self.sequences for ids in sides)

    def fingerprint(self) -> str:
        """SHA-256 of everything the rows are made of, what the reference says included, as hexadecimal digits."""
        digest = hashlib.sha256(repr((self.context_length, self.starts)).encode())
        for chosen, rejected in self.sequences:
            digest.update(chosen.tobytes() + b"\0" + rejected.tobytes() + b"\0")
        if self.reference is not None:
            digest.update(self.reference.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        chosen, rejected = self.lengths.mean(0)
        left_out = f" (left out: {describe(self.left_out)})" if self.left_out else ""
        return (
            f"{len(self):,} pairs{left_out}; {chosen:.0f} tokens in a chosen answer and {rejected:.0f} in a rejected "
            f"one; rows of {self.context_length:,} tokens at most"
        )


def answer_batch(rows: Sequence[tuple[np.ndarray, int]], pad_token_id: int, context_length: int) -> Batch:
    """Rows of which the answers are targets: `input_ids`, `shift_labels` and `attention_mask`, each [rows, T].

    Args:
        rows: of each the ids of prompt and answer, and where the answer begins. The last id is a target only.
        context_length: T, at most.
    """
    step = max(NARROWEST, -(-context_length // WIDTHS))
    longest = max(len(ids) for ids, _ in rows) - 1
    shape = len(rows), min(-(-longest // step) * step, context_length)
    inputs_BT = np.full(shape, pad_token_id, dtype=np.int64)
    targets_BT = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    mask_BT = np.zeros(shape, dtype=np.int64)
    for b, (ids, start) in enumerate(rows):
        length = len(ids) - 1
        inputs_BT[b, :length], mask_BT[b, :length] = ids[:-1], 1
        targets_BT[b, start - 1 : length] = ids[start:]
    batch = {"input_ids": inputs_BT, "shift_labels": targets_BT, "attention_mask": mask_BT}
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def _last_answer(chat: RenderedChat) -> tuple[np.ndarray, int]:
    """The ids up to the end of the last answer, and where it begins."""
    mask = np.array(chat.assistant_mask, dtype=bool)
    end = int(np.flatnonzero(mask)[-1]) + 1 if mask.any() else 0
    before = np.flatnonzero(~mask[:end])
    return np.array(chat.input_ids[:end], dtype=np.int32), int(before[-1]) + 1 if len(before) else 0


def _fault(first: np.ndarray, second: np.ndarray, start: int, context_length: int) -> str | None:
    if not len(first) or not len(second) or start == 0:
        return "an answer that the chat template does not show"
    if start > context_length:
        return f"a prompt that fills the context of {context_length} tokens"
    if max(len(first), len(second)) > context_length + 1:
        return f"an answer that ends beyond the context of {context_length} tokens"
    return "answers that are the same in tokens" if np.array_equal(first, second) else None
