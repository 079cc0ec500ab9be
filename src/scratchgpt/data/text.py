"""Texts of a language-modelling data set, schema `{"text"}`, one after the other and never all in memory.

A source is the name of a data set on the Hub, a folder written by `Dataset.save_to_disk`, a folder of files, or one
file: `.txt`, `.jsonl` or `.parquet`, the first two also as `.gz` or `.zst`. A `.txt` has no rows, so it is read in
blocks of whole lines. So is a `.md`, but only when it is named: in a folder of data it is the card.
"""

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

BLOCK = 1 << 20
"""Characters in a block of a .txt file, roughly: a block ends with a line."""

SUFFIXES = (".txt", ".jsonl", ".parquet")


def read_texts(source: str | Path, split: str = "train", column: str = "text") -> Iterator[str]:
    """Iterates over the texts of `source`, in its order.

    Args:
        split: of a data set that has splits; files have none.
        column: where the text is; .txt files have none.

    Raises:
        ValueError: for a source that does not exist or has no such split or column, and for a broken row: with the
            file and line.
    """
    path = Path(source)
    if path.is_file():
        yield from _read_file(path, column)
    elif path.is_dir():
        if is_saved_data_set(path):
            yield from _rows(load_split(path, split), column, str(path))
            return
        files = sorted(file for file in path.rglob("*") if file.is_file() and suffix_of(file) in SUFFIXES)
        if not files:
            raise ValueError(f"{path} holds neither a saved data set nor .txt, .jsonl or .parquet files")
        for file in files:
            yield from _read_file(file, column)
    else:
        yield from _read_hub(str(source), split, column)


def is_saved_data_set(folder: Path) -> bool:
    """Whether `folder` was written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_split(source: str | Path, split: str) -> Any:
    """A `datasets.Dataset`: the split of a saved data set or of one from the Hub. A single saved one has no splits.

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
            data = datasets.load_dataset(str(source))
        except (OSError, ValueError, DatasetsError) as error:
            raise ValueError(
                f"{str(source)!r} is neither a file or saved data set here nor one that can be read from the Hub: "
                f"{error}"
            ) from error
    if split not in data:
        raise ValueError(f"{source} has no split {split!r}; it has {list(data)}")
    return data[split]


def suffix_of(file: Path) -> str:
    """`.jsonl` for `a.jsonl` and `a.jsonl.zst`."""
    return Path(file.stem).suffix if file.suffix in (".gz", ".zst") else file.suffix


def open_text(file: Path) -> IO[str]:
    """A text file, unpacked on the way if it is .gz or .zst; line ends are the reader's."""
    return io.TextIOWrapper(_open_bytes(file), encoding="utf-8")


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


def not_utf8(file: Path, error: UnicodeDecodeError) -> ValueError:
    """What to raise for a file that cannot be decoded: says where it stops being UTF-8."""
    return ValueError(f"{file} is not text in UTF-8: convert it first ({error.reason} at byte {_bad_byte(file)})")


def _bad_byte(file: Path) -> int:
    """Where `file`, unpacked, stops being UTF-8; the decoder's own error counts from the last piece that it read."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with _open_bytes(file) as pieces:
        while True:
            piece = pieces.read(BLOCK)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                return position - pending + error.start
            if not piece:
                return position
            position += len(piece)


def _read_file(file: Path, column: str) -> Iterator[str]:
    suffix = suffix_of(file)
    if suffix not in (*SUFFIXES, ".md"):
        raise ValueError(f"{file} is not .txt, .jsonl or .parquet (.txt and .jsonl also as .gz or .zst)")
    try:
        if suffix in (".txt", ".md"):
            with open_text(file) as lines:
                while block := lines.readlines(BLOCK):
                    yield "".join(block)
        elif suffix == ".jsonl":
            with open_text(file) as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield _text_of_line(line, column, f"{file}, line {number}")
        else:
            yield from _read_parquet(file, column)
    except UnicodeDecodeError as error:
        raise not_utf8(file, error) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} cannot be unpacked: {error}") from error


def _text_of_line(line: str, column: str, where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        columns = list(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{where}: no text in column {column!r}; it has {columns}")
    return row[column]


def _read_parquet(file: Path, column: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file} is not a parquet file: {error}") from error
    if column not in table.schema_arrow.names:
        raise ValueError(f"{file} has no column {column!r}; it has {table.schema_arrow.names}")
    for batch in table.iter_batches(columns=[column]):
        yield from _texts(batch.to_pydict()[column], column, str(file))


def _read_hub(name: str, split: str, column: str) -> Iterator[str]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        data = datasets.load_dataset(name, split=split, streaming=True)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"{name!r} is neither a file or folder here nor a data set that can be read from the Hub: {error}"
        ) from error
    yield from _rows(data, column, name)


def _rows(data, column: str, where: str) -> Iterator[str]:
    if data.column_names is not None and column not in data.column_names:
        raise ValueError(f"{where} has no column {column!r}; it has {data.column_names}")
    for batch in data.select_columns([column]).iter(batch_size=1000):
        yield from _texts(batch[column], column, where)


def _texts(values: list, column: str, where: str) -> Iterator[str]:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{where}: column {column!r} holds {type(value).__name__}, not text")
        yield value
