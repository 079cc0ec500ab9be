"""Checkpoints that are there whole or not at all.

    output_dir/
      run.lock                       held by the run that writes here
      checkpoint-500/
        config.json, model.safetensors, tokenizer.json, …     a model directory that AutoModel loads
        training_state/state.json, state.safetensors          what resuming needs besides
        manifest.json                                         size and SHA-256 of every file above

A checkpoint is written in a hidden directory beside its place; every file is synced to the disk; the manifest is
written last; then one rename publishes it, and only then are older ones removed. A process killed at any moment, or a
full disk, thus leaves the older checkpoints as they were, and what a disk loses later is noticed by the hashes.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .training_state import load_tree, save_tree

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
LOCK = "run.lock"
STATE = "training_state"
PREFIX = "checkpoint-"
STAGING_PREFIX = f".{PREFIX}"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or is not what was written."""


def save_checkpoint(
    output_dir: str | os.PathLike[str],
    step: int,
    write: Callable[[Path], None],
    *,
    save_total_limit: int | None = None,
    best_step: int | None = None,
) -> Path:
    """Writes `output_dir/checkpoint-<step>`, replacing one of the same step, and removes the ones beyond the limit.

    Only one process calls this, holding the `OutputDirectoryLock`.

    Args:
        write: gets an empty directory and fills it: the model, the tokenizer, and `save_training_state`.
        save_total_limit: how many of the newest stay, the one of `best_step` besides; None: all of them.

    Raises:
        CheckpointError: names the directory and the state of the disk; older checkpoints are untouched.
    """
    output = Path(output_dir).absolute()
    final, staging = output / f"{PREFIX}{step}", output / f"{STAGING_PREFIX}{step}.new"
    aside = output / f"{STAGING_PREFIX}{step}.old"
    try:
        output.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        write(staging)
        _seal(staging)
        if final.exists():  # the run went on from an older one, because this one was broken or by request
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        staging.rename(final)
        _sync_directory(output)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException as error:
        usage = _disk_usage(output)  # before room is made
        shutil.rmtree(staging, ignore_errors=True)
        if aside.exists() and not final.exists():
            aside.rename(final)
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            f"{final} could not be written: {error}. {usage} Older checkpoints are untouched. If the "
            "disk is full, free some of it or lower save_total_limit, then resume."
        ) from error
    if save_total_limit is not None:
        _prune(output, step, save_total_limit, best_step)
    return final


def save_training_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Writes what resuming needs besides the model: a tree of tensors and numbers, see `save_tree`."""
    directory = checkpoint / STATE
    directory.mkdir()
    save_tree(directory, "state", state)


def load_training_state(checkpoint: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_training_state` was given, tensors on the CPU; `verify_checkpoint` first."""
    return load_tree(Path(checkpoint) / STATE, "state")


def verify_checkpoint(checkpoint: str | os.PathLike[str]) -> None:
    """Makes sure that every file is, byte for byte, what was written. Files added later are nobody's business here.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    path = Path(checkpoint)
    for name, entry in _read_manifest(path).items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        size = file.stat().st_size
        if size != entry["size"]:
            raise CheckpointError(f"{file} has {size} bytes, {entry['size']} were written")
        try:
            digest = _sha256(file)
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        if digest != entry["sha256"]:
            raise CheckpointError(f"{file} is damaged: its SHA-256 is not that of what was written")


def newest_valid_checkpoint(output_dir: str | os.PathLike[str]) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The checkpoint to go on from, and the newer ones that are broken, each with the reason, which is also logged."""
    skipped: list[tuple[Path, str]] = []
    for _, path in reversed(list_checkpoints(output_dir)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            logger.warning("Skipping %s: %s", path, error)
            skipped.append((path, str(error)))
        else:
            return path, skipped
    return None, skipped


def list_checkpoints(output_dir: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """(step, path) of every published checkpoint, valid or not, by step."""
    return sorted(
        (int(path.name.removeprefix(PREFIX)), path)
        for path in Path(output_dir).glob(f"{PREFIX}*")
        if path.name.removeprefix(PREFIX).isdecimal() and path.is_dir()
    )


class OutputDirectoryLock:
    """Context manager: this run alone writes to `output_dir`. Clears away what a killed run left half done.

    The lock is the kernel's (flock) and ends with the process, however that ends; the file stays. Only one process of
    a distributed run takes it.

    Raises:
        ValueError: on entering, where another run holds it; names that run's process.
    """

    def __init__(self, output_dir: str | os.PathLike[str]):
        self.directory = Path(output_dir).absolute()
        self._file: IO[str] | None = None

    def __enter__(self) -> "OutputDirectoryLock":
        self.directory.mkdir(parents=True, exist_ok=True)
        file = open(self.directory / LOCK, "a+", encoding="utf-8")
        try:
            import fcntl  # missing on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise ValueError(
                f"Another run is writing to {self.directory} (process {holder}): wait for it, stop it, or give "
                "another output_dir"
            ) from error
        except (ImportError, OSError) as error:  # some network file systems have no locks
            logger.warning("%s cannot be locked (%s): make sure that no other run writes there", self.directory, error)
        else:
            for leftover in self.directory.glob(f"{STAGING_PREFIX}*"):
                shutil.rmtree(leftover, ignore_errors=True)
        self._file = file
        # Forked workers share the lock; one that outlives this process must not keep it.
        os.register_at_fork(after_in_child=self._close)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _seal(directory: Path) -> None:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for file in files:
        _sync(file)
    entries = {
        file.relative_to(directory).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in files
    }
    for folder in {file.parent for file in files}:
        _sync_directory(folder)
    (directory / MANIFEST).write_bytes(_manifest_bytes(entries))
    _sync(directory / MANIFEST)
    _sync_directory(directory)


def _manifest_bytes(entries: dict[str, dict[str, Any]]) -> bytes:
    """The one way to write these entries, with a hash of them, so that damage to the manifest itself is noticed."""
    seal = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
    return json.dumps({"format": 1, "files": entries, "sha256": seal}, indent=1, sort_keys=True).encode() + b"\n"


def _read_manifest(checkpoint: Path) -> dict[str, dict[str, Any]]:
    file = checkpoint / MANIFEST
    try:
        content = file.read_bytes()
        entries = json.loads(content)["files"]
        whole = content == _manifest_bytes(entries)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error}): this is no finished checkpoint") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not whole:
        raise CheckpointError(f"{file} is damaged: it is not what was written")
    return entries


def _prune(output: Path, step: int, limit: int, best_step: int | None) -> None:
    """Removes the oldest sealed checkpoints; broken ones do not count as kept, unsealed ones are not ours."""
    sealed = [(s, path) for s, path in list_checkpoints(output) if (path / MANIFEST).is_file()]
    whole = [s for s, path in sealed if s != step and _looks_whole(path)]
    kept = {step, best_step, *whole[max(0, len(whole) - (limit - 1)) :]}
    for s, path in sealed:
        if s not in kept:
            try:
                _remove(path)
            except OSError as error:
                logger.warning("%s could not be removed: %s", path, error)


def _looks_whole(checkpoint: Path) -> bool:
    """Whether all files are there in their sizes; the hashes would take reading them at every save."""
    with contextlib.suppress(CheckpointError, OSError):
        return all((checkpoint / n).stat().st_size == e["size"] for n, e in _read_manifest(checkpoint).items())
    return False


def _remove(checkpoint: Path) -> None:
    """Renamed before it is emptied: a kill half way must not leave something that is called a checkpoint."""
    aside = checkpoint.parent / f".{checkpoint.name}.old"
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no directories
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_usage(directory: Path) -> str:
    try:
        mount = directory
        while not mount.is_mount():
            mount = mount.parent
        usage = shutil.disk_usage(directory)
    except OSError:
        return ""
    return f"The disk at {mount} has {usage.free / 1e9:.2f} of {usage.total / 1e9:.2f} GB free."
