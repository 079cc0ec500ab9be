import math
import os
import random
import signal
import threading

import pytest

from scratchgpt.training.guards import (
    EXIT_INTERRUPTED,
    FiniteGuard,
    LossSpikeError,
    NonFiniteError,
    SignalGuard,
    SpikeGuard,
    check_finite,
)


def test_finite_numbers_pass():
    check_finite(1.0, 2.0, 3, "rows 4-8")
    check_finite(1.0, None, 3, "rows 4-8")


@pytest.mark.parametrize(
    ("loss", "norm", "name"),
    [(math.nan, 1.0, "loss is nan"), (math.inf, 1.0, "loss is inf"), (1.0, math.nan, "gradient norm is nan")],
)
def test_non_finite_numbers_are_named(loss, norm, name):
    with pytest.raises(NonFiniteError, match=rf"{name} in step 3 \(rows 4-8\).*learning rate"):
        check_finite(loss, norm, 3, "rows 4-8")


def test_skipping_counts_and_gives_up(caplog):
    guard = FiniteGuard("skip", max_consecutive=3)
    losses = [math.nan, 1.0, math.inf, math.nan, 1.0, math.nan, math.nan]
    assert [guard.allows(loss, 1.0, step, "b") for step, loss in enumerate(losses)] == [
        math.isfinite(loss) for loss in losses
    ]
    assert guard.skipped == 5
    assert "Step 0 is skipped (1 so far)" in caplog.text
    restored = FiniteGuard("skip", max_consecutive=3)
    restored.load_state_dict(guard.state_dict())
    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        restored.allows(math.nan, 1.0, 7, "b")
    with pytest.raises(NonFiniteError, match="step 8"):
        FiniteGuard().allows(1.0, math.nan, 8, "b")


def falling_losses(steps: int) -> list[float]:
    noise = random.Random(0)
    return [2 + 8 * math.exp(-step / 200) + noise.gauss(0, 0.1) for step in range(steps)]


def test_an_ordinary_curve_has_no_spikes():
    guard = SpikeGuard("stop")
    assert all(guard.allows(loss, step, "b") for step, loss in enumerate(falling_losses(3000)))
    flat = SpikeGuard("stop")
    assert all(flat.allows(2.0 + 0.01 * (step % 7 == 0), step, "b") for step in range(500))


def test_spikes_are_found(caplog):
    losses = falling_losses(1000)
    losses[700] += 3
    guards = [SpikeGuard("ignore"), SpikeGuard("warn"), SpikeGuard("skip")]
    for guard in guards:
        allowed = [guard.allows(loss, step, "rows 1-4") for step, loss in enumerate(losses)]
        assert [step for step, ok in enumerate(allowed) if not ok] == ([700] if guard.action == "skip" else [])
        assert guard.spikes == 1
        assert (caplog.text == "") == (guard.action == "ignore")
    assert "in step 700 (rows 1-4), after a median of 2." in caplog.text
    stop = SpikeGuard("stop")
    assert all(stop.allows(loss, step, "b") for step, loss in enumerate(losses[:700]))
    with pytest.raises(LossSpikeError, match="step 700"):
        stop.allows(losses[700], 700, "b")


def test_a_new_level_is_accepted_after_half_a_window():
    guard = SpikeGuard("skip", window=32)
    assert all(guard.allows(1.0 + 0.01 * (step % 3), step, "b") for step in range(32))
    allowed = [guard.allows(5.0, step, "b") for step in range(32)]
    assert allowed == sorted(allowed)
    assert 15 <= allowed.index(True) <= 17


def test_a_restored_guard_goes_on_the_same():
    losses = falling_losses(300)
    losses[250] += 5
    whole, first, second = SpikeGuard("skip"), SpikeGuard("skip"), SpikeGuard("skip")
    expected = [whole.allows(loss, step, "b") for step, loss in enumerate(losses)]
    got = [first.allows(loss, step, "b") for step, loss in enumerate(losses[:200])]
    second.load_state_dict(first.state_dict())
    got += [second.allows(loss, step, "b") for step, loss in enumerate(losses[200:], 200)]
    assert got == expected
    assert second.state_dict() == whole.state_dict()


def test_spike_guard_refuses_nonsense():
    with pytest.raises(ValueError, match="window=4"):
        SpikeGuard(window=4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_noted_and_handlers_come_back(number, capfd):
    before = [signal.getsignal(n) for n in SignalGuard.SIGNALS]
    with SignalGuard() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert [signal.getsignal(n) for n in SignalGuard.SIGNALS] == before
    assert number.name in capfd.readouterr().err
    assert EXIT_INTERRUPTED == 75


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_exits_at_once(second, code):
    child = os.fork()
    if child == 0:
        try:
            with SignalGuard():
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), second)
        finally:
            os._exit(1)  # not reached: the second signal leaves with its own code
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def test_other_threads_have_no_handlers(caplog):
    def enter() -> None:
        with SignalGuard() as signals:
            assert signals.received is None

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in caplog.text
