"""Files and directories that are there whole or not at all.

A directory is written beside its place, as `.<name>.new`, and renamed. While it is written, the kernel's lock (flock)
on it says that somebody does; the lock ends with the process, however that ends. So several callers that write the
same directory take turns, and what a killed one left is recognised and cleared away by the next.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

NEW, OLD = ".new", ".old"

_held: set[int] = set()
"""Open descriptors of locked directories. A forked worker shares a lock: one that outlives us must not keep it."""


def _forget_locks() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if os.name != "nt":
    os.register_at_fork(after_in_child=_forget_locks)


def check_output(directory: str | os.PathLike[str], overwrite: bool, marker: str) -> Path:
    """The directory as a path, after making sure that writing it would destroy nothing unasked.

    Args:
        overwrite: whether an earlier result may be replaced.
        marker: a file that an earlier result holds; a directory without it is never replaced.

    Raises:
        ValueError: when `directory` is a file, or not empty and not to be replaced.
    """
    path = Path(directory).absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: give a directory")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise ValueError(f"{path} is not empty: give another directory, or --overwrite to replace it")
        if not (path / marker).is_file():
            raise ValueError(f"{path} holds no {marker}: it is no earlier result and is not replaced; empty it first")
    return path


@contextmanager
def staged_directory(directory: str | os.PathLike[str], overwrite: bool, marker: str) -> Iterator[Path]:
    """An empty directory beside `directory` to write in; takes its place on success, and is removed on failure.

    Waits while another process (or thread) writes the same directory.

    Raises:
        ValueError: as `check_output`, before anything is written.
    """
    path = check_output(directory, overwrite, marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.with_name(f".{path.name}{OLD}")
    with _claimed(path.with_name(f".{path.name}{NEW}")) as new:
        if old.exists() and not path.exists():  # a kill between the two renames below
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        check_output(path, overwrite, marker)  # another writer may have been first
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replaced_file(file: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `file` to write to; takes its place on success, and is removed on failure. The suffix is the same.

    A full disk or a kill leaves the earlier file as it was.
    """
    path = Path(file).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{NEW}{path.suffix}")
    try:
        yield new
        with new.open("rb+") as stream:
            os.fsync(stream.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes the staging directories in `folder` that nobody is writing in: those of killed processes.

    Raises:
        OSError: as `lock`.
    """
    for path in Path(folder).glob(f".*{NEW}"):
        if path.is_dir() and (descriptor := lock(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            unlock(descriptor)


def lock(path: Path, wait: bool = False) -> int | None:
    """Locks a directory or file against every other such call; `unlock` releases it, and so does the process's end.

    Returns:
        What `unlock` takes; None where somebody else holds it or it is not there.

    Raises:
        OSError: where there are no such locks (Windows, some network file systems).
    """
    try:
        import fcntl  # missing on Windows
    except ImportError as error:
        raise OSError("no locks on this system") from error
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # not renamed or removed while we waited
            _held.add(descriptor)
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def unlock(descriptor: int) -> None:
    if descriptor in _held:  # not in a forked child, where it is closed
        _held.discard(descriptor)
        os.close(descriptor)


@contextmanager
def _claimed(path: Path) -> Iterator[Path]:
    """`path` as an empty directory that nobody else writes in; removed at the end if it is still there."""
    try:
        descriptor = None
        while descriptor is None:
            path.mkdir(exist_ok=True)
            descriptor = lock(path, wait=True)
    except OSError:  # no locks here: a name that nobody else has, and nobody waits
        path = path.with_name(f"{path.stem}.{uuid4().hex[:8]}{NEW}")
        path.mkdir()
    try:
        for leftover in path.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        yield path
    finally:
        # While it is still ours: after a rename the place may be another's already.
        if descriptor is None or _is_at(descriptor, path):
            shutil.rmtree(path, ignore_errors=True)
        if descriptor is not None:
            unlock(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
