"""The one reader of files and data sets: what all of the data modules read, they read with this.

A source is the name of a data set on the Hub, a folder written by `Dataset.save_to_disk`, or one file. A file of rows
is `.csv` or `.tsv` (with a header line; a .tsv without quoting), `.json` (a list of objects), `.jsonl` or `.parquet`;
all but the last, and text, also as `.gz` or `.zst`.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

ROWS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Suffixes of files of rows."""

PIECE = 1 << 20
"""Bytes that are decoded at a time, in search of one that cannot be."""


def is_saved_data_set(folder: Path) -> bool:
    """Whether `folder` was written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_split(source: str | Path, split: str, streaming: bool = False) -> Any:
    """A `datasets.Dataset`: the split of a saved data set or of one from the Hub. A single saved one has no splits.

    Args:
        streaming: a data set from the Hub is an `IterableDataset`, fetched as it is read.

    Raises:
        ValueError: for a source that cannot be read or has no such split.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    if is_saved_data_set(Path(source)):
        data: Any = datasets.load_from_disk(source)
        if not isinstance(data, datasets.DatasetDict):
            return data
    else:
        try:
            data = datasets.load_dataset(str(source), streaming=streaming)
        except (OSError, ValueError, DatasetsError) as error:
            raise ValueError(
                f"{str(source)!r} is neither a file or saved data set here nor one that can be read from the Hub: "
                f"{error}"
            ) from error
    if split not in data:
        raise ValueError(f"{source} has no split {split!r}; it has {list(data)}")
    return data[split]


def read_source(source: str | Path, split: str = "train") -> Iterator[dict[str, Any]]:
    """The rows of a file, a saved data set or one of the Hub.

    Args:
        split: of a data set that has splits; files have none.

    Raises:
        ValueError: as `read_rows` and `load_split`, and for a folder that is no saved data set.
    """
    path = Path(source)
    if path.is_file():
        yield from read_rows(path)
        return
    if path.is_dir() and not is_saved_data_set(path):
        raise ValueError(f"{path} is not a saved data set: name the file in it, or build it (data_builders/)")
    yield from load_split(source, split)


def read_rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file by column; of a .jsonl and a .parquet never all in memory.

    Args:
        columns: that are wanted. Of a .parquet no others are read.

    Raises:
        ValueError: for another kind of file, one that cannot be read, and a broken row: with its line.
    """
    suffix = suffix_of(file)
    if suffix not in ROWS:
        raise ValueError(f"{file} is not {', '.join(ROWS[:-1])} or {ROWS[-1]} (all but the last also as .gz or .zst)")
    if suffix == ".parquet":
        yield from _parquet_rows(file, columns)
        return
    with open_text(file) as lines:
        if suffix == ".json":
            yield from _json_list(lines, file)
        elif suffix == ".jsonl":
            yield from _json_rows(lines, file)
        else:
            quoting: Any = csv.QUOTE_MINIMAL if suffix == ".csv" else csv.QUOTE_NONE
            yield from _table_rows(lines, file, "," if suffix == ".csv" else "\t", quoting)


def suffix_of(file: Path) -> str:
    """`.jsonl` for `a.jsonl` and `a.jsonl.zst`."""
    return Path(file.stem).suffix if file.suffix in (".gz", ".zst") else file.suffix


@contextmanager
def open_text(file: Path) -> Iterator[IO[str]]:
    """A text file, unpacked on the way if it is .gz or .zst; line ends are the reader's.

    Raises:
        ValueError: where the file, as it is read, turns out not to be UTF-8 (says at which byte) or to be damaged.
    """
    try:
        try:
            with io.TextIOWrapper(_open_bytes(file), encoding="utf-8") as text:
                yield text
        except UnicodeDecodeError as error:
            where = f"{error.reason} at byte {_bad_byte(file)}"
            raise ValueError(f"{file} is not text in UTF-8: convert it first ({where})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file} cannot be unpacked: {error}") from error


def _open_bytes(file: Path) -> IO[bytes]:
    if file.suffix == ".gz":
        return cast(IO[bytes], gzip.open(file))
    if file.suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise ValueError(f"{file} needs the package zstandard: install it, or unpack the file") from error
        return cast(IO[bytes], zstandard.open(file, "rb"))
    return file.open("rb")


def _bad_byte(file: Path) -> int:
    """Where `file`, unpacked, stops being UTF-8; the decoder's own error counts from the last piece that it read."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with _open_bytes(file) as pieces:
        while True:
            piece = pieces.read(PIECE)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                return position - pending + error.start
            if not piece:
                return position
            position += len(piece)


def _parquet_rows(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file} is not a parquet file: {error}") from error
    known = table.schema_arrow.names
    if missing := [column for column in columns or [] if column not in known]:
        raise ValueError(f"{file} has no column {missing[0]!r}; it has {known}")
    for batch in table.iter_batches(columns=columns):
        yield from batch.to_pylist()


def _json_list(text: IO[str], file: Path) -> list[dict[str, Any]]:
    try:
        rows = json.load(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} must hold a list of objects with columns; for one a line, name it .jsonl")
    return rows


def _json_rows(lines: Any, file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}: not an object with columns but {type(row).__name__}")
        yield row


def _table_rows(lines: Any, file: Path, delimiter: str, quoting: Any) -> Iterator[dict[str, str]]:
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        header[0] = header[0].removeprefix("\ufeff")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{file}, line {reader.line_num}: {len(row)} columns, where the header {header} has {len(header)}"
                )
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from error
