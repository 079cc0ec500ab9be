"""llama.cpp itself, where it is built here: its server reads a GGUF file, and is asked over HTTP.

    with llama_server("model.gguf", context=256) as server:
        server.tokenize("Hello"), server.write([5, 17], 20)

The environment variable SCRATCHGPT_LLAMA_CPP names the folder with its programs (`build/bin` of llama.cpp). Of these
only `llama-server` is needed, which has everything: tokenizer, chat template, log-probabilities.
"""

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

VARIABLE = "SCRATCHGPT_LLAMA_CPP"

PATIENCE = 120
"""Seconds until the server must have read a file, or answered."""


def llama_program(name: str = "llama-server") -> Path | None:
    """A program of llama.cpp; None where the environment variable is not set.

    Raises:
        ValueError: where the folder that it names does not hold the program.
    """
    if not (folder := os.environ.get(VARIABLE)):
        return None
    found = [path for path in (Path(folder, name), Path(folder, "bin", name)) if path.is_file()]
    if not found:
        raise ValueError(f"{VARIABLE}={folder} holds no {name}: give the folder with llama.cpp's programs, build/bin")
    return found[0].absolute()


@dataclass(frozen=True)
class LlamaServer:
    """
    Args:
        address: of the server.
    """

    address: str

    def ask(self, path: str, **question: Any) -> Any:
        """The answer to a JSON object. Raises OSError where there is none."""
        body = json.dumps(question).encode()
        request = Request(self.address + path, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def tokenize(self, text: str, split_special_tokens: bool = False) -> list[int]:
        """The ids of a text as a program would feed it, with what the file says is put before or after it."""
        return self.ask("/tokenize", content=text, add_special=True, parse_special=not split_special_tokens)["tokens"]

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt of a conversation by the file's chat template, up to where the answer begins."""
        return self.ask("/apply-template", messages=messages)["prompt"]

    def write(self, ids: list[int], count: int) -> list[int]:
        """The ids that follow, the likeliest each time, up to an end of text."""
        return self._complete(ids, n_predict=count)["tokens"]

    def log_probabilities(self, ids: list[int], count: int) -> dict[int, float]:
        """Of the `count` likeliest ids at the position after `ids`: id → natural logarithm of its probability."""
        answer = self._complete(ids, n_predict=1, n_probs=count)
        return {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}

    def _complete(self, ids: list[int], **options: Any) -> Any:
        fixed = {"temperature": -1, "cache_prompt": False, "return_tokens": True}
        return self.ask("/completion", prompt=ids, **fixed, **options)


@contextmanager
def llama_server(file: str | os.PathLike[str], context: int, *options: str) -> Iterator[LlamaServer]:
    """The server with a GGUF file, on this machine only; it ends with the block.

    Args:
        context: tokens. options: more of the server's own.

    Raises:
        ValueError: where there is no server, and where it cannot read the file; with the end of what it said.
    """
    if (program := llama_program()) is None:
        raise ValueError(f"{VARIABLE} is not set: let it name the folder with llama.cpp's programs, build/bin")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        program, "--model", file, "--ctx-size", str(context), "--host", "127.0.0.1", "--port", str(port),
        "--parallel", "1", "--threads", str(os.cpu_count() or 1), *options,
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            if not _is_ready(process, f"http://127.0.0.1:{port}/health"):
                log.seek(0)
                end = " ".join(log.read().split())[-500:]
                raise ValueError(f"llama.cpp cannot read {Path(file).name}: … {end}")
            yield LlamaServer(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()


def _is_ready(process: subprocess.Popen[bytes], health: str) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(health, timeout=PATIENCE):
                return True
        except OSError:  # nobody there yet, or the file is being read
            time.sleep(0.05)
    return False
