"""Directories here and names on the Hub: which of them is meant, and the copy of what is on the Hub.

A name is owner/name or, pinned to a branch, tag or commit, owner/name@revision, as in the paths of huggingface_hub's
file system (hf://…). Whatever is given as a path that is here never touches the network.
"""

import difflib
import os
import re
from functools import lru_cache
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id

DATA_SUFFIXES = {".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt", ".yaml"}

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_source(source: str | os.PathLike[str]) -> None:
    """Makes sure that `source` is there, or can be a name on the Hub (owner/name, or owner/name@revision).

    A name whose first part is a folder here is taken for a path: `runs/base` is no owner called runs.

    Raises:
        ValueError: for a path that is not there; suggests the nearest one that is.
    """
    path = Path(source).expanduser()
    if path.exists() or (HUB_NAME.fullmatch(str(source).partition("@")[0]) and not Path(path.parts[0], "").is_dir()):
        return
    parent = next(each for each in path.parents if each.exists())
    missing = path.relative_to(parent).parts[0].partition("@")[0]
    close = difflib.get_close_matches(missing, os.listdir(parent), n=1) if parent.is_dir() else []
    hint = f"did you mean {parent / close[0]}?" if close else "check the path"
    raise ValueError(f"{source} is neither here nor a name on the Hub (owner/name, or owner/name@revision): {hint}")


def check_repo_id(name: str) -> None:
    """
    Raises:
        ValueError: for what can be no name of a repository.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name!r} can be no name on the Hub: give owner/name ({error})") from error


def is_hub_name(source: str, seen_from: str | os.PathLike[str] = ".") -> bool:
    """Whether `source` can only be owner/name on the Hub: no file here, and no folder called owner here or above."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) or Path(source).suffix in DATA_SUFFIXES:
        return False
    places = [Path(), *Path(seen_from).absolute().parents]
    return not any((place / source.partition("/")[0]).exists() for place in places)


IGNORED = ("*.bin", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.pkl", "*.pt", "*.pth", "original/*")
"""Files of the Hub that are not read here, the pickles among them."""

SNAPSHOT = re.compile(r"models--(?P<name>[^/\\]+)[/\\]snapshots[/\\](?P<commit>[0-9a-f]{40})[/\\]?$")
"""How the cache of huggingface_hub names a copy."""


def local_copy(source: str | os.PathLike[str], weights: bool = True) -> str:
    """The directory of a model or tokenizer: what is here as it is, and of a name on the Hub a copy.

    The copy is that of one commit, the same for the whole process, in the cache of huggingface_hub; offline, it has to
    be there already.

    Args:
        weights: whether they are needed too.

    Raises:
        ValueError: as `check_source`; for a name or a revision that is not on the Hub, and for one that is not in the
            cache where the Hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.exists():
        return str(path)
    check_source(source)
    return _download(str(source), weights)


@lru_cache(maxsize=64)
def _download(source: str, weights: bool) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    ignored = [*IGNORED, *([] if weights else ["*.safetensors"])]
    try:
        return snapshot_download(name, revision=revision or None, ignore_patterns=ignored)
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{source} is not here, and the Hub cannot be reached: give a directory, or fetch it where there is a "
            f"network (hf download {name}{f' --revision {revision}' if revision else ''})"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ValueError(f"{source} cannot be had from the Hub: {str(error).strip().splitlines()[-1]}") from error


def hub_name(source: str) -> str:
    """owner/name@commit for a copy in the cache of huggingface_hub; anything else as it is."""
    found = SNAPSHOT.search(source)
    return f"{found['name'].replace('--', '/', 1)}@{found['commit']}" if found else source
