"""The one reader of files and data sets, for every builder and recipe.

A source is the name of a data set on the Hub, a folder written by `Dataset.save_to_disk`, or one file. A file of rows
is `.csv` or `.tsv` (with a header line), `.json` (a list of objects), `.jsonl` or `.parquet`; all but the last, and
text, also as `.gz` or `.zst`. Suffixes may be in capitals.

Files come as other programs write them. What can mean one thing only is read: UTF-8 with or without a byte order
mark, UTF-16 and UTF-32 with one, any line ends, headers with quotes or stray spaces, fields of any length, the line
with the type that PowerShell writes first. Everything else is refused with the file and the line.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

ROWS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Suffixes of files of rows."""

COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
"""Suffix → its name in pyarrow, whose streams notice where a file was cut off; those of zstandard do not."""

BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",  # before UTF-16's, with which it begins
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}

LONGEST_FIELD = 2**31 - 1
"""Characters in a field of a .csv: the csv module's own limit, 131,072, is less than a chapter."""


def is_saved_data_set(folder: Path) -> bool:
    """Whether `folder` was written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def saved_splits(folder: Path) -> list[str]:
    """The splits of a saved data set; none of a single one, and of what is none."""
    names = folder / "dataset_dict.json"
    return json.loads(names.read_text(encoding="utf-8"))["splits"] if names.is_file() else []


def load_split(source: str | Path, split: str, streaming: bool = False) -> Any:
    """A `datasets.Dataset`: the split of a saved data set or of one from the Hub. A single saved one has no splits.

    Args:
        streaming: a data set from the Hub is an `IterableDataset`, fetched as it is read.

    Raises:
        ValueError: for a source that cannot be read or has no such split.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    path = Path(source)
    if is_saved_data_set(path):
        data: Any = datasets.load_from_disk(source)
        if not isinstance(data, datasets.DatasetDict):
            return data
    else:
        is_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(source)) and suffix_of(path) not in (*ROWS, ".txt")
        is_below = len(path.parts) > 1 and Path(path.parts[0]).is_dir()  # data/mine is no owner called data
        if not path.exists() and (is_below or not is_name):
            raise ValueError(
                f"{str(source)!r} is neither a file or saved data set here nor a name on the Hub (owner/name): check "
                "the path"
            )
        try:
            data = datasets.load_dataset(str(source), streaming=streaming)
        except (OSError, ValueError, DatasetsError) as error:
            if path.is_dir():
                raise ValueError(_not_a_data_set(path)) from error
            raise ValueError(
                f"{str(source)!r} is neither a file or saved data set here nor one that can be read from the Hub: "
                f"check the path or the name ({' '.join(str(error).split())})"
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
        raise ValueError(_not_a_data_set(path))
    yield from load_split(source, split)


def _not_a_data_set(folder: Path) -> str:
    inside = sorted(each.name for each in folder.iterdir() if is_saved_data_set(each))
    remedy = f"name one of those in it, {inside}" if inside else "name the file in it, or build it (data_builders/)"
    return f"{folder} is not a saved data set: {remedy}"


def source_name(source: str | Path) -> str:
    """What a card or a report calls `source`: a file or folder by its own name, without where it lies."""
    path = Path(source)
    return path.absolute().name if path.exists() or path.is_absolute() else str(source)


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
            yield from _table_rows(lines, file, "," if suffix == ".csv" else "\t")


def suffix_of(file: Path) -> str:
    """`.jsonl` for `a.jsonl` and `A.JSONL.ZST`."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() if suffix in COMPRESSION else suffix


@contextmanager
def open_text(file: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A text file, unpacked on the way if it is .gz or .zst, without its byte order mark.

    Args:
        newline: as for `open`; by default every line ends with `\\n`.

    Raises:
        ValueError: where the file, as it is read, turns out not to be UTF-8 (says in which line) or to be damaged.
    """
    encoding = "utf-8"
    try:
        with _open_bytes(file) as start:
            beginning = start.read(4)
        encoding = next((BYTE_ORDER_MARKS[mark] for mark in BYTE_ORDER_MARKS if beginning.startswith(mark)), encoding)
        if encoding == "utf-8" and b"\0" in beginning:
            raise ValueError(f"{file} is not text in UTF-8: convert it first (it begins with {beginning!r}: UTF-16?)")
        with io.TextIOWrapper(_open_bytes(file), encoding=encoding, newline=newline) as text:
            yield text
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            raise ValueError(_not_utf8(file)) from error
        raise ValueError(f"{file} is not text in {encoding}, as its byte order mark says: convert it first") from error
    except OSError as error:
        if error.errno is not None or file.suffix.lower() not in COMPRESSION:
            raise
        raise ValueError(f"{file} cannot be unpacked: {error}. It is damaged or cut off: copy it again") from error


def _open_bytes(file: Path) -> IO[bytes]:
    compression = COMPRESSION.get(file.suffix.lower())
    if compression is None:
        return file.open("rb")
    import pyarrow

    if file.stat().st_size == 0:
        raise OSError("there is nothing in it")
    return cast(IO[bytes], io.BufferedReader(cast(Any, pyarrow.input_stream(file, compression=compression))))


def _not_utf8(file: Path) -> str:
    """What is wrong with the first line that is not UTF-8."""
    position = 0
    with _open_bytes(file) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                shown = line[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace").strip()
                return (
                    f"{file} is not text in UTF-8: convert it first (line {number}, at byte {position + error.start}; "
                    f"as Windows-1252 it reads {shown!r}: if that is right, iconv -f WINDOWS-1252 -t UTF-8)"
                )
            position += len(line)
    raise AssertionError(f"{file} is UTF-8")


def _parquet_rows(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a parquet file, or a damaged one: copy it again ({error})") from error
    known = table.schema_arrow.names
    _check_names(known, f"{file}")
    if missing := [column for column in columns or [] if column not in known]:
        raise ValueError(f"{file} has no column {missing[0]!r}; it has {known}")
    count, batches = 0, table.iter_batches(columns=columns)
    while True:
        try:
            rows = next(batches).to_pylist()
        except StopIteration:
            return
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is damaged after row {count}: copy it again ({error})") from error
        yield from rows
        count += len(rows)


def _check_names(names: Sequence[str], where: str) -> None:
    """
    Raises:
        ValueError: for a name that occurs twice. Columns without a name are ignored.
    """
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise ValueError(f"{where} has two columns named {twice[0]!r}: rename one of them")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        _check_names([name for name, _ in pairs], "an object")
    return found


def _check_unicode(row: Any, text: str, where: str) -> None:
    """JSON can spell half a character, `\\ud83d` without its other half, which no text can hold.

    Raises:
        ValueError: for such a row.
    """
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(f"{where}: {half} is half a character (a lone surrogate): repair or drop it") from error


def _json_list(text: IO[str], file: Path) -> Iterator[dict[str, Any]]:
    content = text.read()
    try:
        rows = json.loads(content, object_pairs_hook=_object)
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} must hold a list of objects with columns; for one a line, name it .jsonl")
    for number, row in enumerate(rows, start=1):
        _check_unicode(row, content, f"{file}, row {number}")
        yield row


def _json_rows(lines: IO[str], file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        line = line.lstrip("\ufeff")  # of files that were put one behind the other
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}: not an object with columns but {type(row).__name__}")
        _check_unicode(row, line, f"{file}, line {number}")
        yield row


def _table_rows(lines: IO[str], file: Path, delimiter: str) -> Iterator[dict[str, str]]:
    csv.field_size_limit(LONGEST_FIELD)
    skipped, first = 0, lines.readline()
    if first.startswith("#TYPE "):  # PowerShell's Export-Csv
        skipped, first = 1, lines.readline()
    # In a .tsv quotes are text, unless the header is in quotes: then a program wrote it that quotes everything.
    quoted = delimiter == "," or all(re.fullmatch(r'".*"', name) for name in first.strip().split(delimiter))
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(chain([first] if first else [], lines), delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_names(header, f"{file}, line {skipped + 1}: the header")
        while True:
            line = skipped + reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{file}, line {line}: {len(row)} columns, where the header {header} has {len(header)}"
                )
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        cause = "a quote that is opened here is never closed" if "unexpected end of data" in str(error) else error
        raise ValueError(f"{file}, line {line}: {cause}") from error
