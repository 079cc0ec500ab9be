"""Directories that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_writable(directory: str | os.PathLike[str]) -> None:
    """Makes sure that files can be written in a directory, which need not exist yet; leaves nothing behind.

    Raises:
        ValueError: where they cannot; says why.
    """
    path, missing = Path(directory).absolute(), []
    try:
        missing = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written to ({error.strerror}): give another directory") from error
    finally:
        for made in missing:
            with suppress(OSError):  # another process uses it already
                made.rmdir()


def check_output(directory: str | os.PathLike[str], overwrite: bool, marker: str) -> Path:
    """The directory as a path, after making sure that writing it would destroy nothing unasked.

    Args:
        overwrite: whether an earlier result may be replaced.
        marker: a file that an earlier result holds; a directory without it is never replaced.

    Raises:
        ValueError: when `directory` is a file, cannot be written, or is not empty and not to be replaced.
    """
    path = Path(directory).absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: give a directory")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise ValueError(f"{path} is not empty: give another directory, or --overwrite to replace it")
        if not (path / marker).is_file():
            raise ValueError(f"{path} holds no {marker}: it is no earlier result and is not replaced; empty it first")
    check_writable(path.parent if path.exists() else path)
    return path


@contextmanager
def staged_directory(directory: str | os.PathLike[str], overwrite: bool, marker: str) -> Iterator[Path]:
    """An empty directory beside `directory` to write in; takes its place on success, and is removed on failure.

    Raises:
        ValueError: as `check_output`, before anything is written.
    """
    path = check_output(directory, overwrite, marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()  # with the usual permissions, which mkdtemp's own directory does not have
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
