"""A run does not depend on its terminal: `| head -1`, a closed window, a full disk behind `> log` do not end it."""

import os
import sys
from typing import Any, TextIO


def survive_lost_output() -> None:
    """From now on standard output and standard error may break: what is written after that goes nowhere."""
    for name, other in (("stdout", "stderr"), ("stderr", "stdout")):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
        elif not isinstance(stream, SurvivingStream):
            setattr(sys, name, SurvivingStream(stream, f"standard {name[3:]}".replace("err", "error"), other))


class SurvivingStream:
    """A text stream whose errors end nothing: after the first one it leads to nowhere, and the other one says so."""

    def __init__(self, stream: TextIO, name: str, other: str) -> None:
        self._stream, self._name, self._other = stream, name, other

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # The descriptor itself: what is left in buffers, and what libraries write below Python, must find an end too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        print(
            f"{self._name} is lost ({error.strerror}): the run goes on; metrics.jsonl has its history",
            file=getattr(sys, self._other),
            flush=True,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
