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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
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
        """The answer to a JSON object. Raises OSError where there is none, with what the server said."""
        body = json.dumps(question).encode()
        request = Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise OSError(
                f"llama.cpp does not answer {path}: {error.read().decode(errors='replace')[:300]}"
            ) from error

    def tokenize(self, text: str, split_special_tokens: bool = False) -> list[int]:
        """The ids of a text as a program would feed it, with what the file says is put before or after it."""
        return self.ask("/tokenize", content=text, add_special=True, parse_special=not split_special_tokens)["tokens"]

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt of a conversation by the file's chat template, up to where the answer begins."""
        return self.ask("/apply-template", messages=messages)["prompt"]

    def write(self, ids: list[int], count: int, ends: Sequence[int] = ()) -> list[int]:
        """The ids that follow, the likeliest each time, up to one of `ends`, which is the last of them then."""
        written: list[int] = []
        while len(written) < count and not (written and written[-1] in ends):
            written += self.log_probabilities(ids + written, 1, keep=True)
        return written

    def log_probabilities(self, ids: list[int], count: int, keep: bool = False) -> dict[int, float]:
        """Of the `count` likeliest ids at the position after `ids`: id → natural logarithm of its probability.

        Args:
            keep: do not compute again what the last question had at its beginning too.
        """
        answer = self.ask(
            "/completion", prompt=ids, n_predict=1, n_probs=count, cache_prompt=keep, temperature=-1,
            # What it writes is another token than the likeliest: of bytes that are no UTF-8 the server makes an error.
            logit_bias=[[self.letter, 1e6]],
        )  # fmt: skip
        return {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}

    @cached_property
    def letter(self) -> int:
        """The id of some letter."""
        return self.tokenize("a")[-1]


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
