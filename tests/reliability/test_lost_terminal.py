"""A run outlives its terminal: `| head -1`, a closed window, a full disk behind standard output."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scratchgpt.training.checkpoints import newest_valid_checkpoint
from scratchgpt.training.guards import EXIT_INTERRUPTED
from tests.runs import command, make_workplace, metrics

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SHORT = {"max_steps": 40, "eval_steps": 1, "save_steps": 100}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("lost"))


@pytest.mark.parametrize("where", ["head", "full", "closed"])
def test_standard_output_and_error_may_break(workplace: Path, where: str) -> None:
    """The run died unsaved, with BrokenPipeError, ENOSPC, or in the progress bar."""
    started = command(workplace, where, **SHORT)
    if where == "head":
        process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        code = process.wait(timeout=120)
    elif where == "full":
        with open("/dev/full", "w") as full:
            code = subprocess.run(started, stdout=full, stderr=full, env=ENVIRONMENT, timeout=120).returncode
    else:
        shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *started]
        code = subprocess.run(shell, env=ENVIRONMENT, timeout=120).returncode
    assert code == 0
    assert (workplace / where / "results.json").is_file()
    assert len(metrics(workplace / where)) == 40


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")
def test_a_closed_terminal_saves_and_leaves(workplace: Path) -> None:
    """A real terminal, which is closed: SIGHUP comes, perhaps twice, and nothing can be written any more."""
    import pty

    started = command(workplace, "closed_terminal", **SHORT | {"max_steps": 100_000, "eval_steps": 100_000})
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup pass on that it is ignored
        os.execve(started[0], started, ENVIRONMENT)
    output, deadline = workplace / "closed_terminal", time.monotonic() + 120
    os.set_blocking(terminal, False)
    while not (output / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 10_000)
    os.close(terminal)
    os.kill(child, signal.SIGHUP)  # the shell's, beside the kernel's
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == EXIT_INTERRUPTED
    step = metrics(output)[-1]["step"]
    assert newest_valid_checkpoint(output) == (output / f"checkpoint-{step}", [])
