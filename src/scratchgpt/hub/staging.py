"""Files and directories that are there whole or not at all.

A directory is written beside its place, as `.<name>.new`, and renamed. While it is written, the kernel's lock (flock)
on it says that somebody does; the lock ends with the process, however that ends. So several callers that write the
same directory take turns, and what a killed one left is recognised and cleared away by the next.
"""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    Waits while another process (or thread) writes the same directory.

    Raises:
        ValueError: as `check_output`, before anything is written.
    """
    path = Path(directory).absolute()
    with claimed(path) as new:
        check_output(path, overwrite, marker)
        yield new
        publish(new, path)


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
    except (FileNotFoundError, IsADirectoryError):  # the latter: gone when we looked, there again now
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
def claimed(path: Path) -> Iterator[Path]:
    """An empty directory beside `path` in which nobody else writes; removed at the end unless it was published.

    Waits for whoever holds it. Restores what a kill between the two renames of `publish` has left aside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new, descriptor = path.with_name(f".{path.name}{NEW}"), None
    try:
        while descriptor is None:
            with suppress(FileExistsError):  # not exist_ok, which raises where it is renamed in that moment
                new.mkdir()
            descriptor = lock(new, wait=True)
    except OSError:  # no locks here: a name that nobody else has, and nobody waits
        new = path.with_name(f".{path.name}.{uuid4().hex[:8]}{NEW}")
        new.mkdir()
    try:
        for leftover in new.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        for aside in path.parent.glob(f".{glob.escape(path.name)}.*{OLD}"):
            if not path.exists():
                aside.rename(path)
            shutil.rmtree(aside, ignore_errors=True)
        yield new
    finally:
        # Only while it is ours: after a rename the place may be another's already.
        if descriptor is None or _is_at(descriptor, new):
            shutil.rmtree(new, ignore_errors=True)
        if descriptor is not None:
            unlock(descriptor)


def publish(new: Path, path: Path) -> None:
    """Renames `new`, which is claimed, to `path`, in the place of what is there."""
    # With a name of its own: from the second rename on the next writer may be at work.
    aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}{OLD}")
    if path.exists():
        path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
