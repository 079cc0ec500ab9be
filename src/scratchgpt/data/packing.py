"""Documents → training rows of a fixed length, in an order that is a function of the step.

A corpus of N tokens, document after document with end-of-text (EOT) between them, is a chain of N - 1 transitions
from a token to the next. A row of T tokens holds T of them:

    tokens         a b EOT c d e EOT f g EOT          row 0   input a b EOT c   target b EOT c d
                                                      row 1   input d e EOT f   target e EOT f g
    T = 4                                             row 2   input g EOT · ·   target EOT - - -

`PackedRows` cuts the chain without overlap: **every transition is in exactly one row**. So every token but the last is
an input with a target once, and every token but the first is a target once. The last token, an EOT that nothing
follows, stands in the padding of the last row. Padding is EOT with the target -100, at the end of the last row only,
and every row has targets, so no loss divides by zero. Nothing is dropped.

With `mask_documents` a row has `position_ids` too, which begin anew after every EOT (and with the row: the tail of a
document that the row border cuts is a document of its own). scratchgpt models, and flash attention in transformers,
take that as a border that attention does not cross, so the logits are those of the documents alone. The targets stay
the same, also that of an EOT: the first token of the next document. It cannot be known, but its distribution can,
and that is what generation from EOT (our beginning-of-text) samples from and what lm-eval scores a text's first token
with; at -100 it would never be trained. It also keeps losses with and without the mask comparable.

`SlidingWindows` lets rows overlap. `StreamingRows` makes the rows of `PackedRows` from texts as they arrive.

The order of rows is a permutation for each epoch, drawn from (seed, epoch) alone; that of a stream is its own. The
rows of a step follow from the step's number, for all processes together; each takes its part. So there is no state to
save (but the place in a stream), a run resumes anywhere without replay, and two processes see the rows that one would
with the same global batch.

Shapes: B rows of a batch, T tokens of a row (`context_length`).
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from .corpus import Corpus, Encoder

IGNORE_INDEX = -100

DECODED_TOGETHER = 256
"""Documents, where rows are made text again."""

Batch = dict[str, torch.Tensor]

Window = tuple[np.ndarray, dict[str, int]]
"""The T + 1 tokens of a streamed row, fewer at the end of the texts, and the state after it."""


class Rows(Protocol):
    """Rows by number: what training reads."""

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """Numbers [global_batch_size] of the rows that step `step` reads, in all processes together; a function of
        its arguments alone, so that a run resumes without replay."""
        ...

    def batch(self, indices: np.ndarray) -> Batch:
        """Tensors [B, T]: `input_ids`, and what else the model and the loss take."""
        ...

    def fingerprint(self) -> str:
        """A hash that other rows do not have, for the identity of a run."""
        ...

    def texts(self, tokenizer: Any) -> Iterator[str]:
        """What the rows were made from, for the sketch of the training text; `tokenizer` is the one of their ids."""
        ...


class CountedRows(Rows, Protocol):
    """Rows that have an end: what an evaluation reads."""

    def __len__(self) -> int: ...


@runtime_checkable
class StatefulRows(Rows, Protocol):
    """Rows that are not a function of their numbers alone: what they remember goes into every checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, as `training_state.save_tree` writes them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class SlidingWindows:
    """Rows that begin every `stride` tokens of the corpus, as in "Build a Large Language Model (From Scratch)".

    Row i has the inputs `tokens[i * stride : i * stride + T]`. With stride < T rows overlap by T - stride tokens, and
    a token in an overlap is input and target in each of them, up to ceil(T / stride) times an epoch. Unlike the book's
    loader it keeps the end: the last row reaches the last token and is padded.

    Args:
        context_length: T.
        stride: 1 … T; with T the rows are those of `PackedRows`.
        mask_documents: whether rows have `position_ids`, so that attention stays within documents.

    Raises:
        ValueError: for a length below 1, and a stride that would repeat a row for ever or lose tokens between rows.
    """

    def __init__(self, corpus: Corpus, context_length: int, stride: int, mask_documents: bool = False) -> None:
        if context_length < 1:
            raise ValueError(f"context_length must be at least 1, got {context_length}")
        if not 1 <= stride <= context_length:
            raise ValueError(
                f"stride must be in 1 … context_length={context_length}, got {stride}: beyond that the tokens between "
                "two windows would be lost"
            )
        self.corpus, self.context_length, self.stride = corpus, context_length, stride
        self.mask_documents = mask_documents

    def __len__(self) -> int:
        """The fewest rows that hold every transition; at least one."""
        beyond_first = self.corpus.num_tokens - 1 - self.context_length
        return 1 + max(0, -(-beyond_first // self.stride))

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """See `batch_indices`."""
        return batch_indices(len(self), step, global_batch_size, seed)

    def __getitem__(self, index: int) -> Batch:
        """One row, each tensor [T]."""
        return {name: values[0] for name, values in self.batch([index]).items()}

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Rows by their numbers: int64 tensors [B, T] `input_ids`, `shift_labels` and, if asked for, `position_ids`.

        Copied from the memory map at once, without a Python loop over rows.

        Raises:
            IndexError: for a row that does not exist.
        """
        first_B = np.asarray(indices, dtype=np.int64)
        if first_B.size and (first_B.min() < 0 or first_B.max() >= len(self)):
            raise IndexError(f"rows are 0 … {len(self) - 1}, got {first_B.min()} … {first_B.max()}")
        first_B = first_B * self.stride
        where_BT = first_B[:, None] + np.arange(self.context_length + 1)
        # Clipped at the last token, which is EOT: that is the padding.
        window_BT = np.take(self.corpus.tokens, where_BT, mode="clip")
        num_tokens_B = self.corpus.num_tokens - first_B
        return make_rows(window_BT, num_tokens_B, self.corpus.eos_token_id, self.mask_documents)

    def texts(self, tokenizer: Any) -> Iterator[str]:
        """The documents of the corpus."""
        for start in range(0, self.corpus.num_documents, DECODED_TOGETHER):
            numbers = range(start, min(start + DECODED_TOGETHER, self.corpus.num_documents))
            yield from tokenizer.batch_decode(
                [self.corpus.document(number).tolist() for number in numbers], skip_special_tokens=True
            )

    def fingerprint(self) -> str:
        """SHA-256 of what the rows are made of, as hexadecimal digits."""
        parts = (self.corpus.fingerprint, self.context_length, self.stride, self.mask_documents)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class PackedRows(SlidingWindows):
    """Rows without overlap: every transition from a token to the next is in exactly one. See the top of the module."""

    def __init__(self, corpus: Corpus, context_length: int, mask_documents: bool = False) -> None:
        super().__init__(corpus, context_length, context_length, mask_documents)


def make_rows(window_BT: np.ndarray, num_tokens_B: np.ndarray, eos_token_id: int, mask_documents: bool) -> Batch:
    """Inputs and targets [B, T] from windows [B, T + 1] of which the first `num_tokens_B` are real."""
    inputs_BT, targets_BT = window_BT[:, :-1].astype(np.int64), window_BT[:, 1:].astype(np.int64)
    length = inputs_BT.shape[1]
    for row in np.flatnonzero(num_tokens_B <= length):
        targets_BT[row, max(0, num_tokens_B[row] - 1) :] = IGNORE_INDEX
    batch = {"input_ids": torch.from_numpy(inputs_BT), "shift_labels": torch.from_numpy(targets_BT)}
    if mask_documents:
        batch["position_ids"] = torch.from_numpy(document_positions(inputs_BT, eos_token_id))
    return batch


def document_positions(inputs_BT: np.ndarray, eos_token_id: int) -> np.ndarray:
    """Positions [B, T] that count from 0 at the start of the row and after every end-of-text."""
    columns_T = np.arange(inputs_BT.shape[1])
    begin_BT = np.zeros_like(inputs_BT)
    begin_BT[:, 1:] = (inputs_BT[:, :-1] == eos_token_id) * columns_T[1:]
    return columns_T - np.maximum.accumulate(begin_BT, axis=1)


@lru_cache(maxsize=2)  # the epochs on both sides of a border
def row_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of 0 … num_rows - 1 in which `epoch` reads its rows; read-only.

    Rows are sorted by random keys: the raw output of a bit generator, which numpy promises never to change, whereas
    that of `Generator.permutation` may. Takes 16 bytes per row while it is made, then 8.
    """
    keys = np.random.PCG64([seed, epoch]).random_raw(num_rows)
    order = np.argsort(keys, kind="stable")
    order.flags.writeable = False
    return order


def batch_indices(num_rows: int, step: int, global_batch_size: int, seed: int, shuffle: bool = True) -> np.ndarray:
    """Numbers [global_batch_size] of the rows that all processes together read in one forward pass.

    Step after step this is epoch 0 in its order, then epoch 1, and so on: within an epoch each row comes once, and a
    batch may hold the end of one epoch and the beginning of the next.

    Args:
        step: forward passes before this one (with gradient accumulation more than optimizer steps).
        global_batch_size: rows of all processes.

    Raises:
        ValueError: for no rows, an empty batch, or a negative step.
    """
    if num_rows < 1 or global_batch_size < 1 or step < 0:
        raise ValueError(
            "num_rows and global_batch_size must be at least 1 and step at least 0, "
            f"got {num_rows}, {global_batch_size} and {step}"
        )
    first = step * global_batch_size
    epochs, indices = np.divmod(np.arange(first, first + global_batch_size), num_rows)
    if shuffle:
        for epoch in np.unique(epochs).tolist():
            indices[epochs == epoch] = row_order(num_rows, seed, epoch)[indices[epochs == epoch]]
    return indices


def rank_slice(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of a global batch that process `rank` of `world_size` takes: contiguous, all of one size.

    Raises:
        ValueError: when the batch cannot be divided evenly.
    """
    assert 0 <= rank < world_size, f"rank {rank} of {world_size}"
    size, rest = divmod(len(indices), world_size)
    if rest:
        raise ValueError(
            f"a global batch of {len(indices)} rows cannot be divided among {world_size} processes: make it a multiple"
        )
    return indices[rank * size : (rank + 1) * size]


class StreamingRows:
    """The rows of `PackedRows`, made from texts as they arrive, in their order: for what does not fit on a disk.

    Rows are numbered from the beginning of the run. Where the texts end they begin anew, and so does the packing.
    Every process reads and tokenises all of them, and takes its part of the rows.

    These rows have a state: the place in the stream where the next step's rows begin, the same in all processes. To
    go on from it, the documents before are read and skipped, not tokenised. It holds for any number of processes and
    any batch size.

    Args:
        texts: opens the documents; called each time they are to be read from their beginning.
        tokenizer_dir: of a saved tokenizer.

    Raises:
        ValueError: for a tokenizer that cannot be read; while reading, for a stream without text, and for one that is
            not that of the state.
    """

    CHUNK = 64
    """Documents that are tokenised together."""

    def __init__(
        self,
        texts: Callable[[], Iterable[str]],
        tokenizer_dir: str | os.PathLike[str],
        context_length: int,
        mask_documents: bool = False,
    ) -> None:
        if context_length < 1:
            raise ValueError(f"context_length must be at least 1, got {context_length}")
        self.documents, self.encoder = texts, Encoder.load(tokenizer_dir)
        self.context_length, self.mask_documents = context_length, mask_documents
        self.load_state_dict({"epoch": 0, "documents": 0, "tokens": 0})

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next `indices`, whatever their numbers, are of the rows that begin at `state`."""
        self._windows: deque[Window] = deque()
        """Rows that are read and not yet done with."""
        self._first: int | None = None
        """The number of the first of them, or of the next one; None until `indices` says it."""
        self._count = 0
        """How many rows the last `indices` were."""
        self._state = dict(state)
        """Where row `_first` begins."""
        self._stream = self._read_windows(**state)

    def state_dict(self) -> dict[str, int]:
        """Where the rows begin that follow those of the last `indices`: how often the texts were read to their end,
        how many of the documents since are wholly used, and how many tokens of the next one."""
        return dict(self._window(self._count - 1)[1] if self._count else self._state)

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """The rows after those of the last call, which are forgotten. There is no other order: `seed` is not used.

        Raises:
            ValueError: for a step that has gone by.
        """
        first = step * global_batch_size
        done = 0 if self._first is None else first - self._first
        if done < 0:
            raise ValueError(f"a stream is read in its order: row {first} has gone by, the next one is {self._first}")
        for _ in range(done):
            self._state = self._window(0)[1]
            self._windows.popleft()
        self._first, self._count = first, global_batch_size
        return np.arange(first, first + global_batch_size)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Rows as of `PackedRows.batch`: those of the last `indices`, or the first ones where there were none."""
        first = self._first or 0
        windows = [self._window(int(index) - first)[0] for index in indices]
        padded_BT = np.full((len(windows), self.context_length + 1), self.encoder.eos_token_id, dtype=np.int64)
        for row, window in zip(padded_BT, windows, strict=True):
            row[: len(window)] = window
        lengths_B = np.array([len(window) for window in windows])
        return make_rows(padded_BT, lengths_B, self.encoder.eos_token_id, self.mask_documents)

    def texts(self, tokenizer: Any) -> Iterator[str]:
        """The documents that were read so far."""
        state = self.state_dict()
        return iter(self.documents() if state["epoch"] else islice(self.documents(), state["documents"] + 1))

    def fingerprint(self) -> str:
        """SHA-256 of how the rows are made; what the texts are it cannot know."""
        parts = (self.encoder.fingerprint, self.context_length, self.mask_documents)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _window(self, index: int) -> Window:
        while len(self._windows) <= index:
            self._windows.append(next(self._stream))
        return self._windows[index]

    def _read_windows(self, epoch: int, documents: int, tokens: int) -> Iterator[Window]:
        """Rows without end, from the given place on."""
        length = self.context_length
        while True:
            texts, beginning = iter(self.documents()), documents == tokens == 0
            if sum(1 for _ in islice(texts, documents)) < documents:
                raise ValueError(
                    f"the stream ends before document {documents}, where the state is: it is not the same"
                )
            buffer, number, skip = np.empty(0, dtype=self.encoder.dtype), documents, tokens
            lengths: deque[int] = deque()  # of the documents from `documents` on that have been read
            while chunk := list(islice(texts, self.CHUNK)):
                ids, chunk_lengths, _ = self.encoder.encode_chunk(number, chunk)
                number += len(chunk)
                lengths.extend(chunk_lengths.tolist())
                if skip >= lengths[0]:
                    raise ValueError(f"document {documents} is shorter than where the state is in it: not the same")
                buffer, skip = np.concatenate([buffer, ids[skip:]]), 0
                while len(buffer) > length:
                    window, buffer = buffer[: length + 1], buffer[length:]
                    tokens += length
                    while tokens >= lengths[0]:
                        tokens -= lengths.popleft()
                        documents += 1
                    yield window, {"epoch": epoch, "documents": documents, "tokens": tokens}
                    beginning = False
            epoch, documents, tokens = epoch + 1, 0, 0
            if len(buffer) > 1:
                yield buffer, {"epoch": epoch, "documents": 0, "tokens": 0}
            elif beginning:
                raise ValueError("the stream is empty: there is no text in it; check the data set and its column")
