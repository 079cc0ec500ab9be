"""Text piece by piece while a thread still makes it, for whoever shows an answer as it comes: a server, a page."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class ReaderLeft(Exception):
    """Nobody waits for the rest of an answer."""


def streamed(work: Callable[[Callable[[str], None]], Any], left: threading.Event | None = None) -> Iterator[Any]:
    """What `work(on_text)` passes to `on_text`, as it is made in a thread; at the end what `work` returns.

    Whoever stops reading closes the iterator, or sets `left`, from any thread; then `on_text` raises, so that the work
    ends at its next piece, and the iterator with it.

    Raises:
        Exception: what `work` raises.
    """
    made: queue.SimpleQueue[Any] = queue.SimpleQueue()
    left = left or threading.Event()

    def on_text(piece: str) -> None:
        if left.is_set():
            raise ReaderLeft
        if piece:
            made.put((False, piece))

    def run() -> None:
        try:
            made.put((True, work(on_text)))
        except Exception as error:
            made.put((True, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        ended = False
        while not ended:
            ended, piece = made.get()
            if isinstance(piece, ReaderLeft):
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        left.set()
