"""Checkpoints that are there whole or not at all.

    output_dir/
      run.lock                       held by the run that writes here
      checkpoint-500/
        config.json, model.safetensors, tokenizer.json, …     a model directory that AutoModel loads
        training_state/state.json, state.safetensors          what resuming needs besides
        manifest.json                                         size and hash of every file above: `hub.seals`

A checkpoint is written in a hidden directory beside its place; every file is synced to the disk; the manifest is
written last; then one rename publishes it, and only then are older ones removed. A process killed at any moment, or a
full disk, thus leaves the older checkpoints as they were, and what a disk loses later is noticed by the hashes.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..hub.seals import MANIFEST, SealError, looks_whole, seal, sync_directory, verify_seal
from ..hub.staging import NEW, clear_leftovers, lock, unlock
from .training_state import load_tree, save_tree

logger = logging.getLogger(__name__)

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
        seal(staging)
        if final.exists():  # the run went on from an older one, because this one was broken or by request
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        staging.rename(final)
        sync_directory(output)
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
    """Makes sure that every file is, byte for byte, what was written. Files added later do not matter.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    try:
        verify_seal(checkpoint)
    except SealError as error:
        raise CheckpointError(str(error)) from error


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

    The lock is the kernel's (flock), on the directory itself, so that deleting run.lock gives nobody else a way in;
    where directories cannot be locked (NFS) it is on run.lock. It ends with the process, however that ends. Only one
    process of a distributed run takes it.

    Raises:
        ValueError: on entering, where another run holds it; names that run's process.
    """

    def __init__(self, output_dir: str | os.PathLike[str]):
        self.directory = Path(output_dir).absolute()
        self._lock: int | None = None

    def __enter__(self) -> "OutputDirectoryLock":
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / LOCK
        file.touch()
        try:
            self._lock = self._take(file)
        except OSError as error:  # some network file systems have no locks
            logger.warning("%s cannot be locked (%s): make sure that no other run writes there", self.directory, error)
        else:
            if self._lock is None:
                holder = file.read_text(encoding="utf-8").strip() or "unknown"
                raise ValueError(
                    f"Another run is writing to {self.directory} (process {holder}): wait for it, stop it, or give "
                    "another output_dir"
                )
        try:
            if self._lock is not None:
                self._clear()
            file.write_text(f"{os.getpid()}\n", encoding="utf-8")
        except BaseException:  # a full disk: this process may try again
            self.__exit__()
            raise
        return self

    def _clear(self) -> None:
        clear_leftovers(self.directory)
        for aside in self.directory.glob(f"{STAGING_PREFIX}*.old"):  # a kill between the renames that replace one
            place = self.directory / aside.name[1:].removesuffix(".old")
            if looks_whole(aside) and not place.exists():
                aside.rename(place)
        for leftover in (*self.directory.glob(f"{STAGING_PREFIX}*"), *self.directory.glob(f".*{NEW}.*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _take(self, file: Path) -> int | None:
        try:
            return lock(self.directory)
        except OSError:
            return lock(file)

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            unlock(self._lock)
            self._lock = None


def _prune(output: Path, step: int, limit: int, best_step: int | None) -> None:
    """Removes the oldest sealed checkpoints; broken ones do not count as kept, unsealed ones are not ours."""
    sealed = [(s, path) for s, path in list_checkpoints(output) if (path / MANIFEST).is_file()]
    whole = [s for s, path in sealed if s != step and looks_whole(path)]
    kept = {step, best_step, *whole[max(0, len(whole) - (limit - 1)) :]}
    for s, path in sealed:
        if s not in kept:
            try:
                _remove(path)
            except OSError as error:
                logger.warning("%s could not be removed: %s", path, error)


def _remove(checkpoint: Path) -> None:
    """Renamed before it is emptied: a kill half way must not leave something that is called a checkpoint."""
    aside = checkpoint.parent / f".{checkpoint.name}.old"
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside)


def _disk_usage(directory: Path) -> str:
    try:
        mount = directory
        while not mount.is_mount():
            mount = mount.parent
        usage = shutil.disk_usage(directory)
    except OSError:
        return ""
    return f"The disk at {mount} has {usage.free / 1e9:.2f} of {usage.total / 1e9:.2f} GB free."
