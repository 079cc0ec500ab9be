"""What a run reports: the progress bar, metrics.jsonl, speed and memory."""

import contextlib
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..configuration_scratchgpt import ScratchGPTConfig
from ..hub.staging import replaced_file

logger = logging.getLogger(__name__)


def flops_per_token(config: ScratchGPTConfig, num_parameters: int, length: int) -> float:
    """Floating-point operations of forward and backward pass for one token.

    6 for each parameter that multiplies (all but the embeddings, the head counted once), and 12 · layers · heads ·
    head_dim · length for attention, half of it because it is causal (Chowdhery et al. 2022, appendix B).
    """
    assert config.head_dim is not None
    embeddings = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    if config.position_embedding_type == "learned":
        embeddings += config.max_position_embeddings * config.hidden_size
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length
    return 6 * (num_parameters - embeddings) + attention


def measure_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product in `dtype`: what 100 % of model FLOPs utilisation is."""
    size = 1024 if device.type == "cpu" else 8192  # large enough, and done in well below a second
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(6):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times[1:])


def peak_memory_mb(device: torch.device) -> float:
    """Most memory ever held, in MB: of the device on a GPU, of the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class MetricsLogger:
    """The progress bar and metrics.jsonl; silent on every process but the first.

    A line of metrics.jsonl is written at once, so that a killed run leaves all of its history. At the start the file
    is replaced, whole or not at all, by one without lines that were cut short, and without those after the step that
    a resumed run starts from, which will be written again.
    """

    def __init__(self, output_dir: Path, start_step: int, max_steps: int, is_main: bool) -> None:
        self.file, self.is_main = output_dir / "metrics.jsonl", is_main
        self.bar = tqdm(total=max_steps, initial=start_step, unit="step", disable=not is_main, dynamic_ncols=True)
        if is_main and self.file.exists():
            kept = [line for line in read_metrics(self.file) if line["step"] <= start_step]
            with replaced_file(self.file) as new:
                new.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")

    def log(self, step: int, **values: Any) -> None:
        """A line more. A full disk costs this line, with a warning, and not the run."""
        if not self.is_main:
            return
        size = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            logger.warning("%s lacks step %d: %s", self.file, step, error.strerror)
            with contextlib.suppress(OSError):
                os.truncate(self.file, size)  # half a line would spoil the next one

    def show(self, **values: Any) -> None:
        texts = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in values.items() if v is not None}
        self.bar.set_postfix(texts, refresh=False)  # drawn with the next step, not twice

    def advance(self) -> None:
        self.bar.update()

    def first_step_done(self) -> None:
        """`advance` after a step that has compiled: the bar estimates the time left from those that follow."""
        self.bar.unpause()  # as if the bar had begun now
        self.bar.update()
        self.bar.initial = self.bar.last_print_n = self.bar.n

    def say(self, text: str) -> None:
        if self.is_main:
            self.bar.write(text)

    def close(self) -> None:
        self.bar.close()


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, in order; those that a kill or a full disk cut short are left out."""
    lines = []
    for line in file.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(values := json.loads(line), dict) and isinstance(values.get("step"), int):
                lines.append(values)
    return lines


class Throughput:
    """Tokens per second since it was last asked."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens += tokens
        self._seconds += seconds

    def take(self) -> float:
        rate = self._tokens / self._seconds
        self._tokens, self._seconds = 0, 0.0
        return rate


def scalars(values: Mapping[str, Any], prefix: str = "") -> dict[str, int | float]:
    """The numbers in `values`, those in dicts under `name/inner`: what trackers can draw."""
    flat: dict[str, int | float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = value
    return flat
