"""What stops a run in time: numbers that are not finite, loss spikes, and signals.

Exit codes of a training process: 0 finished; 75 (`EXIT_INTERRUPTED`) a signal came, the state is saved, run the same
command with `--resume_from_checkpoint true`; 143 or 130 a second SIGTERM or SIGINT came, nothing was saved; 1 an
error.

Where accelerate's launcher or torchrun starts several processes, it hands SIGTERM on to them and they save as above,
but the launcher itself ends with 1, whatever their codes are: what tells is whether results.json is there. It waits
30 s before it kills, so a step and a save must fit into that; else the last checkpoint stands.
"""

import contextlib
import logging
import math
import os
import signal
import statistics
import sys
import threading
from collections import deque
from types import FrameType
from typing import Literal

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 75
"""sysexits.h's EX_TEMPFAIL: try again. Not 128 + signal: that is what a process shows that died without saving."""

REMEDIES = (
    "Lower the learning rate, warm up longer, clip gradients (max_grad_norm), take mixed_precision=bf16 instead of "
    "fp16, or look at that batch."
)


class NonFiniteError(ValueError):
    """A loss or gradient is infinite or not a number."""


class LossSpikeError(ValueError):
    """The loss jumped far above its recent values."""


def check_finite(loss: float, grad_norm: float | None, step: int, batch: str) -> None:
    """To be called before the optimizer step, so that nothing non-finite reaches weights or checkpoints.

    Args:
        grad_norm: norm of all gradients before clipping; None where it is not computed.
        step: optimizer steps done before this one.
        batch: which data this is, in words.

    Raises:
        NonFiniteError: names what is not finite, the step, the batch, and remedies.
    """
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if value is not None and not math.isfinite(value):
            raise NonFiniteError(
                f"The {name} is {value} in step {step} ({batch}); the weights are unchanged. {REMEDIES}"
            )


class FiniteGuard:
    """`check_finite` for every step, or skipping and counting.

    Args:
        action: stop raises at once; skip leaves the optimizer step out, `max_consecutive` times in a row at most.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop", max_consecutive: int = 10):
        self.action = action
        self.max_consecutive = max_consecutive
        self.skipped = 0
        self.consecutive = 0

    def allows(self, loss: float, grad_norm: float | None, step: int, batch: str) -> bool:
        """Whether to take the optimizer step.

        Raises:
            NonFiniteError: as `check_finite`; when skipping, only after too many in a row.
        """
        try:
            check_finite(loss, grad_norm, step, batch)
        except NonFiniteError as error:
            self.skipped += 1
            self.consecutive += 1
            if self.action == "stop":
                raise
            if self.consecutive >= self.max_consecutive:
                raise NonFiniteError(f"{self.consecutive} steps in a row: {error}") from error
            logger.warning("Step %d is skipped (%d so far): %s", step, self.skipped, error)
            return False
        self.consecutive = 0
        return True

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "consecutive": self.consecutive}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.consecutive = state["skipped"], state["consecutive"]


class SpikeGuard:
    """Notices a loss far above the recent ones: more than `threshold` robust standard deviations above their median.

    The deviation is 1.4826 × the median distance from the median (equal to the standard deviation for normal noise,
    and not moved by the spikes themselves), at least 1 % of the median, so that a flat curve has no false alarms.
    Spikes enter the window too: a loss that stays at a new level is accepted after half a window.

    Args:
        action: warn logs; skip leaves the optimizer step out; stop raises; ignore only counts.
        window: recent losses that are compared with; nothing is judged before a quarter of them is there.
    """

    def __init__(
        self, action: Literal["warn", "skip", "stop", "ignore"] = "warn", window: int = 128, threshold: float = 10.0
    ):
        if window < 8 or threshold <= 0:
            raise ValueError(f"window={window} must be 8 or more and threshold={threshold} positive")
        self.action = action
        self.threshold = threshold
        self.spikes = 0
        self.losses: deque[float] = deque(maxlen=window)

    def allows(self, loss: float, step: int, batch: str) -> bool:
        """Whether to take the optimizer step; `loss` is finite and enters the window.

        Raises:
            LossSpikeError: names the loss, what was usual, the step and the batch, where the action is stop.
        """
        median, limit = self._usual()
        self.losses.append(loss)
        if loss <= limit:
            return True
        self.spikes += 1
        if self.action == "ignore":
            return True
        message = f"The loss is {loss:.4g} in step {step} ({batch}), after a median of {median:.4g}."
        if self.action == "stop":
            raise LossSpikeError(f"{message} The weights are unchanged. {REMEDIES}")
        skipped = self.action == "skip"
        logger.warning("%s%s", message, " The step is skipped." if skipped else "")
        return not skipped

    def _usual(self) -> tuple[float, float]:
        assert self.losses.maxlen is not None
        if len(self.losses) < self.losses.maxlen // 4:
            return math.nan, math.inf
        median = statistics.median(self.losses)
        deviation = 1.4826 * statistics.median(abs(loss - median) for loss in self.losses)
        return median, median + self.threshold * max(deviation, 0.01 * abs(median))

    def state_dict(self) -> dict[str, int | list[float]]:
        return {"spikes": self.spikes, "losses": list(self.losses)}

    def load_state_dict(self, state: dict) -> None:
        self.spikes = state["spikes"]
        self.losses = deque(state["losses"], maxlen=self.losses.maxlen)


class SignalGuard:
    """Context manager: the first SIGTERM, SIGINT or SIGHUP is noted in `received`, for the loop to save and exit with
    `EXIT_INTERRUPTED`; a second SIGTERM or SIGINT ends the process at once with 128 + its number.

    SIGHUP says that the terminal was closed. It comes more than once then, from the shell and from the kernel, so a
    second one changes nothing; where it is ignored (`nohup`) it stays so.

    The processes of a distributed run get a signal at different moments: they must agree on `received` before acting.
    Outside of the main thread Python has no signal handlers; then this does nothing but say so.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if sys.platform != "win32" else ()))

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "SignalGuard":
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in self.SIGNALS if not (_is_hangup(number) and _is_ignored(number))]
            self._previous = {number: signal.signal(number, self._handle) for number in wanted}
        else:
            logger.warning("Not in the main thread: SIGTERM and SIGINT will not save a checkpoint")
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            _tell(f"\n{self.received.name}: saving after this step; once more exits at once\n")
        elif not _is_hangup(number):
            _tell("\nSecond signal: exiting at once\n")
            os._exit(128 + number)


def _is_hangup(number: int) -> bool:
    return sys.platform != "win32" and number == signal.SIGHUP


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


def _tell(text: str) -> None:
    """By os.write, because print may be what was interrupted; the terminal may be gone."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
