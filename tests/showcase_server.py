"""The page of recipes/showcase.py in a process of its own, as a person starts it, with something in every tab."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runs import ROOT
from tests.unit.test_showcase import make_runs
from tests.unit.test_waiting import get

DOCUMENTS = {
    "animals.txt": "Foxes jump over dogs.\n\nCats sleep on <b>mats</b>.\n",
    "python.md": "Lists hold items.\n",
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Served:
    """A process that serves a page; `log` is the file of what it says."""

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port, self.url, self.log = port, f"http://127.0.0.1:{port}", log
        environment = {
            **os.environ,
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment
            )
        self.wait_for("says when the page is there")
        self.first_answer = get(self.url)
        self.wait_for("showing")

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + 280
        while line not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.1)

    def client(self) -> Any:
        from gradio_client import Client

        return Client(self.url, verbose=False, httpx_kwargs={"timeout": 120})  # a busy machine is no failure


@contextmanager
def serving(command: Sequence[str], port: int, folder: Path) -> Iterator[Served]:
    """Ended as Ctrl-C does it; whatever was done, the log holds no traceback."""
    served = Served(command, port, folder / "log")
    try:
        yield served
    finally:
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 130
    assert "Traceback" not in served.log.read_text()


@contextmanager
def serving_runs(folder: Path) -> Iterator[Served]:
    """Runs with two models that write, one that chats, two classifiers, two tokenizers, two reports; and documents."""
    runs = make_runs(folder / "runs")
    shutil.copytree(runs / "reviews", runs / "stars")
    (runs / "base" / "comparison.md").write_text("# Comparison\n\n| model | loss |\n|---|---|\n| base | 2.5 |\n")
    (folder / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "documents" / name).write_text(text)
    port = free_port()
    command = [str(ROOT / "recipes" / "showcase.py"), str(runs), "--documents", str(folder / "documents")]
    with serving([*command, "--port", str(port)], port, folder) as served:
        yield served
