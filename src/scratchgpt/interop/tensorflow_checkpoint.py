"""TensorFlow checkpoints without TensorFlow: the tensors of `<prefix>.index` and `<prefix>.data-…`.

The data files hold the tensors' bytes, one after the other. The index is a table, sorted by name, of where each
begins (sources: tensorflow/core/util/tensor_bundle, tensor_bundle.proto, and LevelDB's table format):

    table   block … block, index block, footer (48 bytes; at its end the magic number)
    block   entry … entry, restart points, their number; then 1 byte for the compression and 4 for a checksum
    entry   bytes shared with the key before, bytes not shared, length of the value (varints); key's rest; value
    value   of the index block: position and size of a block (varints); of a block: a protocol buffer

That is all the format has, and it has not changed since 2016; the extra that could read it would be TensorFlow itself.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

MAGIC = 0xDB4775248B80FB57
TRAILER = 5

DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}
"""Types of tensorflow/core/framework/types.proto that weights have; others are left out."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies, and what it is."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> torch.Tensor:
        """The tensor. Raises ValueError where the file ends before it does."""
        count = int(np.prod(self.shape, dtype=np.int64))
        values = np.fromfile(self.file, self.dtype, count, offset=self.offset)
        if values.size != count:
            raise ValueError(f"{self.file} is truncated: {values.size} of {count} values are there; copy it again")
        return torch.from_numpy(values).reshape(self.shape)


def read_index(index_file: Path) -> dict[str, Entry]:
    """Name → entry, for all tensors of floating-point numbers.

    Raises:
        ValueError: for a file that is no such index, or whose data files are missing.
    """
    try:
        entries = {key.decode(): _fields(value) for key, value in _table(index_file.read_bytes())}
        (shards,) = entries.pop("")[1]  # the header
        prefix = str(index_file).removesuffix(".index")
        found = {}
        for name, entry in entries.items():
            if (dtype := DTYPES.get(entry[1][0])) is None:
                continue
            file = Path(f"{prefix}.data-{entry.get(3, [0])[0]:05d}-of-{shards:05d}")
            dimensions = [_fields(each).get(1, [0])[0] for each in _fields(entry.get(2, [b""])[0]).get(2, [])]
            found[name] = Entry(file, entry.get(4, [0])[0], tuple(dimensions), dtype)
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{index_file} is not the index of a TensorFlow checkpoint, or damaged: {error!r}") from error
    if missing := sorted({str(entry.file) for entry in found.values() if not entry.file.is_file()}):
        raise ValueError(f"{', '.join(missing)} is missing: copy it to {index_file.parent}")
    return found


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry of a table."""
    *_, magic = struct.unpack("<Q", data[-8:])
    if magic != MAGIC:
        raise ValueError("no magic number at its end")
    footer = data[-48:]
    position = _varint(footer, _varint(footer, 0)[1])[1]  # past the position and size of the meta block
    for _, handle in _block(data, *_handle(footer, position)):
        yield from _block(data, *_handle(handle, 0))


def _handle(data: bytes, position: int) -> tuple[int, int]:
    start, position = _varint(data, position)
    return start, _varint(data, position)[0]


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = data[start : start + size]
    if len(data) < start + size + TRAILER or data[start + size] != 0:
        raise ValueError("a block is cut off or compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    key, position, end = b"", 0, size - 4 * (restarts + 1)
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> dict[int, list]:
    """Field number → its values, of a protocol buffer: whole numbers, or bytes."""
    fields: dict[int, list] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if (kind := tag & 7) == 0:
            value, position = _varint(message, position)
        elif kind == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif kind == 5:
            value, position = message[position : position + 4], position + 4
        else:
            raise ValueError(f"a field of kind {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A whole number, seven bits a byte and the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
