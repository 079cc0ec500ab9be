"""Rendered conversations → training rows of a fixed length, several short ones in a row.

    row      <|user|> a b <|end|> <|assistant|> c <|user|> d <|end|> <|assistant|> e f · ·
    target         -  - -       -             c <|end|>  - -       -             e f <|end|> - -
    position       0  1 2       3             4 5        0 1       2             3 4 5       0 1

The position begins anew with every conversation, which models here, and flash attention in transformers, take as a
border that attention does not cross: a conversation has the loss it would have alone. Rows are filled best-fit
decreasing: the longest conversation first, each into the fullest row that still has room (Ding et al. 2024, "Fewer
Truncations Improve Language Modeling"); real chats fill more than 95 % of the rows.

A conversation longer than a row is cut after the last answer that is whole, so no answer is ever trained on without
its end; where not even the first one fits, the conversation is left out, and counted.

Shapes: B rows of a batch, T tokens of a row (`context_length`).
"""

import hashlib
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .chat import RenderedChat, text_of_ids
from .packing import IGNORE_INDEX, Batch, batch_indices


class ChatRows:
    """Rows for training on what the assistant says; satisfies `packing.Rows`.

    Args:
        context_length: T.
        pad_token_id: fills up rows; never a target.
        packing: whether several conversations may share a row.
        train_on_prompt: learn what system and user say too.

    Raises:
        ValueError: where no conversation is left.
    """

    def __init__(
        self,
        chats: Sequence[RenderedChat],
        context_length: int,
        pad_token_id: int,
        packing: bool = True,
        train_on_prompt: bool = False,
    ) -> None:
        self.context_length, self.pad_token_id = context_length, pad_token_id
        self.train_on_prompt = train_on_prompt
        self.num_cut = 0
        """Conversations that lost turns at their end."""
        self.num_dropped = 0
        """Conversations that were left out: their first answer ends beyond the row."""
        self.chats: list[tuple[np.ndarray, np.ndarray]] = []
        """(ids, mask of the assistant) of those that stay, each at most T + 1: the last id is a target only."""
        for chat in chats:
            ids, mask = np.array(chat.input_ids, dtype=np.int32), np.array(chat.assistant_mask, dtype=bool)
            ends = np.flatnonzero(mask & ~np.append(mask[1:], False)) + 1  # where each answer has ended
            fitting = ends[ends <= context_length + 1]
            if not len(fitting):
                self.num_dropped += 1
                continue
            self.num_cut += len(fitting) < len(ends)
            self.chats.append((ids[: fitting[-1]], mask[: fitting[-1]]))
        if not self.chats:
            raise ValueError(
                f"none of the {len(chats)} conversations has an answer that ends within context_length="
                f"{context_length} tokens: give a longer context, or shorter conversations"
            )
        lengths = [len(ids) - 1 for ids, _ in self.chats]
        self.rows = best_fit(lengths, context_length) if packing else [[i] for i in range(len(lengths))]
        """For each row the numbers of its conversations."""
        self.num_targets = sum(int(self._targets(mask).sum()) for _, mask in self.chats)

    def _targets(self, mask: np.ndarray) -> np.ndarray:
        """Which of the ids after the first one are learned."""
        return np.ones(len(mask) - 1, dtype=bool) if self.train_on_prompt else mask[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """See `packing.batch_indices`."""
        return batch_indices(len(self), step, global_batch_size, seed)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Rows by their numbers: int64 tensors [B, T] `input_ids`, `shift_labels` and `position_ids`.

        Raises:
            IndexError: for a row that does not exist.
        """
        shape = len(indices), self.context_length
        inputs_BT = np.full(shape, self.pad_token_id, dtype=np.int64)
        targets_BT = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        positions_BT = np.zeros(shape, dtype=np.int64)
        for b, row in enumerate(indices):
            start = 0
            for number in self.rows[row]:
                ids, mask = self.chats[number]
                end = start + len(ids) - 1
                inputs_BT[b, start:end] = ids[:-1]
                targets_BT[b, start:end] = np.where(self._targets(mask), ids[1:], IGNORE_INDEX)
                positions_BT[b, start:end] = np.arange(end - start)
                start = end
            positions_BT[b, start:] = np.arange(self.context_length - start)
        batch = {"input_ids": inputs_BT, "shift_labels": targets_BT, "position_ids": positions_BT}
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def texts(self, tokenizer: Any) -> Iterator[str]:
        """The conversations, each as one document."""
        return (text_of_ids(ids.tolist(), tokenizer) for ids, _ in self.chats)

    def fingerprint(self) -> str:
        """SHA-256 of everything the rows are made of, as hexadecimal digits."""
        digest = hashlib.sha256(repr((self.context_length, self.train_on_prompt, self.rows)).encode())
        for ids, mask in self.chats:
            digest.update(ids.tobytes() + mask.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        tokens = sum(len(ids) - 1 for ids, _ in self.chats)
        return (
            f"{len(self.chats):,} conversations ({self.num_cut:,} cut after a whole answer, {self.num_dropped:,} left "
            f"out: no answer ends within {self.context_length} tokens) in {len(self):,} rows, "
            f"{tokens / (len(self) * self.context_length):.1%} filled; {self.num_targets:,} of {tokens:,} tokens "
            "are learned"
        )


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Numbers of the items of each bin: the longest item first, each into the fullest bin that still has room.

    Args:
        lengths: of the items, each at most `capacity`.
    """
    assert not lengths or max(lengths) <= capacity
    bins: list[list[int]] = []
    by_room: dict[int, list[int]] = defaultdict(list)
    rooms: list[int] = []  # sorted: how much room there is in some bin
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(rooms, lengths[item])
        if place == len(rooms):
            room, number = capacity, len(bins)
            bins.append([])
        else:
            room = rooms[place]
            number = by_room[room].pop()
            if not by_room[room]:
                del rooms[place]
        bins[number].append(item)
        room -= lengths[item]
        if not by_room[room]:
            insort(rooms, room)
        by_room[room].append(number)
    return bins
