"""Texts of a language-modelling data set, schema `{"text"}`, one after the other and never all in memory.

A source is the name of a data set on the Hub, a folder written by `Dataset.save_to_disk`, a folder of files, or one
file. Of a folder `.txt`, `.jsonl` and `.parquet` are read, the first two also as `.gz` or `.zst`. A file that is named
may also be `.csv`, `.tsv` or `.json`, which in a folder of data are often something else, or `.md`, which is its card
there; a folder of nothing but `.md` is read. A `.txt` or `.md` has no rows, so it is read in blocks of whole lines.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .files import ROWS, is_saved_data_set, load_split, open_text, read_rows, suffix_of

BLOCK = 1 << 20
"""Characters in a block of a .txt file, roughly: a block ends with a line."""

SUFFIXES = (".txt", ".jsonl", ".parquet")
"""Of the files that are read in a folder."""


def text_files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files of texts in `folder` and below it, in order; none that is hidden. Without any, its .md files.

    Raises:
        ValueError: where these are the cards of saved data sets.
    """
    files = [file for file in folder.rglob("*") if not file.name.startswith(".") and file.is_file()]
    found = sorted(file for file in files if suffix_of(file) in suffixes)
    if not found and (saved := sorted({file.parent for file in files if is_saved_data_set(file.parent)})):
        raise ValueError(f"{folder} is not a saved data set but has one in it: name {saved[0]}")
    return found or sorted(file for file in files if suffix_of(file) == ".md")


def read_texts(source: str | Path, split: str = "train", column: str = "text") -> Iterator[str]:
    """Iterates over the texts of `source`, in its order.

    Args:
        split: of a data set that has splits; files have none.
        column: where the text is; .txt files have none.

    Raises:
        ValueError: for a source that does not exist or has no such split or column, and for a broken row: with the
            file and the place in it.
    """
    return (text for _, text in read_documents(source, split, column))


def read_documents(source: str | Path, split: str = "train", column: str = "text") -> Iterator[tuple[str, str]]:
    """The texts of `read_texts`, each with the name of its document: the blocks of one .txt file share theirs."""
    path = Path(source)
    if path.is_file():
        yield from _read_file(path, column)
    elif path.is_dir() and not is_saved_data_set(path):
        files = text_files(path)
        if not files:
            raise ValueError(f"{path} holds neither a saved data set nor .txt, .jsonl, .parquet or .md files")
        for file in files:
            yield from _read_file(file, column)
    else:
        texts = _read_data_set(load_split(source, split, streaming=True), column, str(source))
        yield from ((f"row {number}", text) for number, text in enumerate(texts, start=1))


def _read_file(file: Path, column: str) -> Iterator[tuple[str, str]]:
    suffix = suffix_of(file)
    if suffix in (".txt", ".md"):
        with open_text(file) as lines:
            while block := lines.readlines(BLOCK):
                yield str(file), "".join(block)
    elif suffix in ROWS:
        for number, row in enumerate(read_rows(file, [column]), start=1):
            if column not in row:
                raise ValueError(f"{file}, row {number}: no text in column {column!r}; it has {list(row)}")
            where = f"{file}, row {number}"
            yield where, _text(row[column], column, where)
    else:
        raise ValueError(f"{file} is not .txt, .jsonl or .parquet, nor .csv, .tsv or .json (text also as .gz or .zst)")


def _read_data_set(data: Any, column: str, where: str) -> Iterator[str]:
    if data.column_names is not None and column not in data.column_names:
        raise ValueError(f"{where} has no column {column!r}; it has {data.column_names}")
    for batch in data.select_columns([column]).iter(batch_size=1000):
        for value in batch[column]:
            yield _text(value, column, where)


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: column {column!r} holds {type(value).__name__}, not text")
    return value
