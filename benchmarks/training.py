"""The recipes' training loop beside a bare step: `python benchmarks/training.py [--cases demo a] [--rounds 9]`.

The same model, optimizers and rows for both, on the CPU, compiled, in bf16 where the CPU multiplies it. A bare step is
forward, loss, backward, clipping, the optimizers' steps and zeroing the gradients, on one batch that is always the
same. The loop is `training.loop.train` with everything that a recipe has it do in every step and, every ten steps, a
line of metrics.jsonl; without evaluations, samples and checkpoints, which are as frequent as one asks for.

Each lives in a process of its own. The parent lets them step by turns, so that both see the same machine, and reports
medians over the rounds, with the median of the ratios within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from records import RESULTS, append, machine


class Case(NamedTuple):
    description: str
    layers: int
    heads: int
    width: int
    vocab_size: int
    length: int
    batch_size: int
    optimizer: str
    steps: int
    """Of a turn."""


CASES = {
    "demo": Case("demo: 6 layers, width 256, 16 × 256 tokens, Muon", 6, 4, 256, 4096, 256, 16, "muon", 4),
    "a": Case("(a) 4 layers, width 256, vocabulary 50,304, 4 × 512 tokens", 4, 8, 256, 50304, 512, 4, "adamw", 4),
    "tiny": Case("tiny: 2 layers, width 64, 8 × 64 tokens", 2, 4, 64, 256, 64, 8, "adamw", 100),
}
REFERENCE, LOOP = "bare step", "the recipes' loop"


class Turns:
    """What a worker says to its parent: that it is ready, then, after each turn, how long a step took."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, -2  # compiled in the first of two steps before the first turn

    def step(self) -> None:
        """To be called before each step; waits where it is the other one's turn."""
        self.done += 1
        if self.done < 0 or self.done % self.steps:
            return
        took = {}
        if self.done:
            wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
            took = {"wall": wall / self.steps, "cpu": cpu / self.steps}
        print(json.dumps(took), flush=True)
        if not sys.stdin.readline():
            os._exit(0)  # the parent has seen enough
        self.wall, self.cpu = time.perf_counter(), time.process_time()


def work(candidate: str, case: Case) -> None:
    """The worker: builds model and rows, and steps until the parent hangs up."""
    import torch

    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM

    torch.manual_seed(0)
    rows = random_rows(case.vocab_size, case.length)
    config = ScratchGPTConfig.from_preset(
        "modern", num_hidden_layers=case.layers, num_attention_heads=case.heads, hidden_size=case.width,
        vocab_size=case.vocab_size, max_position_embeddings=case.length,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = ScratchGPTForCausalLM(config)
    turns = Turns(case.steps)
    if candidate == LOOP:
        run_loop(
            model, rows, word_tokenizer(case.vocab_size), turns.step,
            optimizer=case.optimizer, per_device_train_batch_size=case.batch_size,
        )  # fmt: skip
    else:
        run_bare(model, rows, case, turns.step)


def random_rows(vocab_size: int, length: int) -> Any:
    """A thousand rows of random tokens, always the same."""
    import numpy as np

    from scratchgpt.data.corpus import Corpus
    from scratchgpt.data.packing import PackedRows

    tokens = np.random.default_rng(0).integers(1, vocab_size, 1000 * length + 1).astype(np.uint16)
    offsets = np.array([0, len(tokens)])
    return PackedRows(Corpus(tokens, offsets, 0, len(tokens), "", "", "random", Path()), length)


def run_bare(model: Any, rows: Any, case: Case, before_step: Callable[[], None]) -> None:
    import numpy as np
    import torch

    from scratchgpt.performance import configure_process
    from scratchgpt.training.optimizers import build_optimizers

    settings = configure_process()
    model.set_attn_implementation(settings.attention)
    optimizers = build_optimizers(model, optimizer=case.optimizer, learning_rate=1e-4)  # pyright: ignore
    compiled = torch.compile(model.train(), fullgraph=True, dynamic=False)
    batch = rows.batch(np.arange(case.batch_size))
    while True:
        before_step()
        with torch.autocast("cpu", settings.autocast_dtype, enabled=settings.autocast_dtype is not None):
            loss = compiled(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step()
        optimizers.zero_grad()
        loss.item()


def word_tokenizer(vocab_size: int) -> Any:
    """One whose words are its ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {str(number): number for number in range(vocab_size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="1")), bos_token="0", eos_token="0", pad_token="0"
    )


def run_loop(model: Any, rows: Any, tokenizer: Any, before_step: Callable[[], None], **options: Any) -> None:
    """The recipes' loop, with `options` of `LanguageModelArguments`, until `before_step` ends the process."""
    from scratchgpt.training.arguments import LanguageModelArguments
    from scratchgpt.training.loop import build_accelerator, train
    from scratchgpt.training.tasks.language_modelling import LanguageModelling

    class PacedRows:
        """The rows, which the loop asks for once in each step."""

        def indices(self, step: int, global_batch_size: int, seed: int) -> Any:
            before_step()
            return rows.indices(step, global_batch_size, seed)

        batch, fingerprint, texts = rows.batch, rows.fingerprint, rows.texts

    with tempfile.TemporaryDirectory() as folder:
        arguments = LanguageModelArguments(
            output_dir=folder, max_steps=10**6, eval_steps=10**6, save_steps=10**6, learning_rate=1e-4, **options
        )  # fmt: skip
        task = LanguageModelling(PacedRows(), rows, tokenizer, arguments)
        train(task, model, tokenizer, arguments, build_accelerator(arguments), "random")


class Worker:
    """A candidate in a process of its own, that steps on command."""

    def __init__(self, candidate: str, case: str) -> None:
        command = [sys.executable, __file__, "--worker", candidate, "--cases", case]
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # threads that spin would count as work
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the worker; the bar goes there too
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self._read()

    def turn(self) -> dict[str, float]:
        """Seconds per step, by wall and CPU time."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print to stdout too
                return json.loads(line)
        self.errors.seek(0)
        raise RuntimeError(f"The worker ended with exit code {self.process.wait()}:\n{self.errors.read()[-2000:]}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(case: Case, rounds: int, name: str) -> list[dict[str, Any]]:
    """The measurements of one case."""
    workers = {candidate: Worker(candidate, name) for candidate in (REFERENCE, LOOP)}
    turns: dict[str, list[dict[str, float]]] = {candidate: [] for candidate in workers}
    for round_ in range(rounds):
        for candidate in sorted(workers, reverse=round_ % 2 == 0):
            turns[candidate].append(workers[candidate].turn())
    for worker in workers.values():
        worker.close()
    measurements = []
    for metric, key in (("tokens/s", "wall"), ("tokens per CPU second", "cpu")):
        for candidate, took in turns.items():
            seconds = [turn[key] for turn in took]
            ratios = [theirs[key] / mine for theirs, mine in zip(turns[REFERENCE], seconds, strict=True)]
            measurements.append({
                "benchmark": "Training loop", "case": case.description, "candidate": candidate, "metric": metric,
                "value": round(case.batch_size * case.length / statistics.median(seconds), 1),
                "relative_to": REFERENCE, "ratio": round(statistics.median(ratios), 3), "rounds": rounds,
                "steps_per_round": case.steps, "seconds_per_step": [round(s, 5) for s in seconds],
                **machine("torch", "accelerate", "transformers"),
            })  # fmt: skip
    return measurements


def main() -> None:
    parser = argparse.ArgumentParser(description="The recipes' training loop beside a bare step.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=9, help="how often both take turns")
    parser.add_argument("--output", type=Path, default=RESULTS / "training.jsonl")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, CASES[arguments.cases[0]])
        return
    for name in arguments.cases:
        measurements = measure(CASES[name], arguments.rounds, name)
        append(measurements, arguments.output)
        for each in measurements:
            print(f"{each['case']}: {each['candidate']} {each['value']:.0f} {each['metric']}", end=" ")
            print(f"({each['ratio']:.3f}×)", flush=True)


if __name__ == "__main__":
    main()
