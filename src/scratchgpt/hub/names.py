"""Directories here and names on the Hub: which of them is meant, told without the network."""

import difflib
import os
import re
from pathlib import Path

DATA_SUFFIXES = {".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt", ".yaml"}

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_source(source: str | os.PathLike[str]) -> None:
    """Makes sure that `source` is there, or can be a name on the Hub (owner/name).

    A name whose first part is a folder here is taken for a path: `runs/base` is no owner called runs.

    Raises:
        ValueError: for a path that is not there; suggests the nearest one that is.
    """
    path = Path(source).expanduser()
    if path.exists() or (HUB_NAME.fullmatch(str(source)) and not Path(path.parts[0], "").is_dir()):
        return
    parent = next(each for each in path.parents if each.exists())
    missing = path.relative_to(parent).parts[0]
    close = difflib.get_close_matches(missing, os.listdir(parent), n=1) if parent.is_dir() else []
    hint = f"did you mean {parent / close[0]}?" if close else "check the path"
    raise ValueError(f"{source} is neither here nor a name on the Hub (owner/name): {hint}")


def is_hub_name(source: str, seen_from: str | os.PathLike[str] = ".") -> bool:
    """Whether `source` can only be owner/name on the Hub: no file here, and no folder called owner here or above."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) or Path(source).suffix in DATA_SUFFIXES:
        return False
    places = [Path(), *Path(seen_from).absolute().parents]
    return not any((place / source.partition("/")[0]).exists() for place in places)
