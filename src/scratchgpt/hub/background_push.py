"""Push a run's checkpoints while it goes on, and its final model at the end; whatever the network does, the run stays.

A thread pushes one checkpoint after the other to the repository's root, so that its history has them all. Each is
first linked (or copied) aside, because the run may remove it meanwhile. Where a newer one comes before an older one's
turn, the older is passed over. A failure is one line; the next checkpoint is tried again.
"""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils import logging as hub_logging

from .push import Pushed, as_on_the_hub, push
from .push_checks import check_answers, check_files, files_to_push
from .staging import NEW

PATIENCE = 600.0
"""Seconds that the end of a run waits for what is on its way, beside a second for each megabyte."""


class BackgroundPush:
    """
    Args:
        repo_id: on the Hub; private when it is made.
        base: of an adapter, directory or name on the Hub.
        base_repo_id: its name there, if it is a directory.
        say: prints a line.

    Raises:
        ValueError: for an adapter whose base is a directory without a name on the Hub.
    """

    def __init__(
        self, repo_id: str, private: bool, base: str | None, base_repo_id: str | None, say: Callable[[str], object]
    ) -> None:
        if base is not None and base_repo_id is None and Path(base).is_dir():
            raise ValueError(
                f"the base {base} is a directory here: push it first, and give its name on the Hub with "
                "--hub_base_id, or train without --push_to_hub"
            )
        self.repo_id, self.private, self.base_repo_id, self.say = repo_id, private, base_repo_id, say
        self.there: dict[str, Pushed] = {}
        self.not_there: dict[str, str] = {}
        """Why."""
        self._waiting: tuple[Path, Path] | None = None
        """A directory, and where its files are kept aside."""
        self._change = threading.Condition()
        self._busy = self._ended = False
        self._thread: threading.Thread | None = None

    def checkpoint(self, directory: Path) -> None:
        """Hands over a finished checkpoint and returns at once."""
        aside = directory.with_name(f".push-{directory.name}{NEW}")  # what a kill leaves is removed with the run's own
        try:
            shutil.rmtree(aside, ignore_errors=True)
            for file in files_to_push(directory):
                link = aside / file.relative_to(directory)
                link.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(file, link)
        except (OSError, ValueError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            return self._failed(directory.name, error)
        with self._change:
            if self._waiting is not None:
                passed_over, files = self._waiting
                self.not_there[passed_over.name] = "a newer one came before its turn"
                shutil.rmtree(files, ignore_errors=True)
            self._waiting = directory, aside
            self._change.notify_all()
        if self._thread is None:
            disable_progress_bars()
            hub_logging.set_verbosity_error()  # its tries are no news; their end is, in one line
            self._thread = threading.Thread(target=self._work, name="push to the Hub", daemon=True)
            self._thread.start()
        return None

    def finish(self, final: Path | None, patience: float | None = None) -> None:
        """Pushes the final model after what is on its way, and says what is on the Hub and what is not.

        Args:
            final: None where the run was interrupted.
            patience: seconds to wait; default: see `PATIENCE`.
        """
        if final is not None:
            # Its card is written by now; that it answers elsewhere is found out only here, when nothing else computes.
            try:
                check_answers(final)
            except ValueError as error:
                self._failed(final.name, error)
            else:
                self.checkpoint(final)
            size = sum(file.stat().st_size for file in final.rglob("*"))
            patience = PATIENCE + size / 1e6 if patience is None else patience
        with self._change:
            self._ended = True
            self._change.notify_all()
            done = self._change.wait_for(lambda: self._waiting is None and not self._busy, patience)
            if self._waiting is not None:
                shutil.rmtree(self._waiting[1], ignore_errors=True)
        there, lacking = ", ".join(self.there) or "nothing", "; ".join(f"{n} ({w})" for n, w in self.not_there.items())
        newest = f", the last as revision {list(self.there.values())[-1].commit}" if self.there else ""
        unfinished = "" if done else " The connection does not get on: what was on its way is left."
        self.say(f"On the Hub in {self.repo_id}: {there}{newest}. Not there: {lacking or 'nothing'}.{unfinished}")
        if lacking or not done:
            self.say(
                f"Push by hand what is missing: scratchgpt push {final or '<directory>'} --repo_id {self.repo_id}"
            )

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._ended)
                if self._waiting is None:
                    return
                (directory, files), self._waiting, self._busy = self._waiting, None, True
            try:
                check_files(files, with_card=False)
                with as_on_the_hub(files, self.repo_id, self.base_repo_id) as folder:
                    message = f"Training: {directory.name}"
                    self.there[directory.name] = push(
                        folder, self.repo_id, private=self.private, commit_message=message
                    )
            except Exception as error:  # whatever it is, the run goes on
                self._failed(directory.name, error)
            shutil.rmtree(files, ignore_errors=True)
            with self._change:
                self._busy = False
                self._change.notify_all()

    def _failed(self, name: str, error: Exception) -> None:
        reason = " ".join(str(error).split())
        self.not_there[name] = "see above"
        self.say(f"{name} is not on the Hub, and the run goes on: {reason}")


def _link_or_copy(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except OSError:  # no links on this file system
        shutil.copyfile(file, link)
