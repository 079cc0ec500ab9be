"""`scratchgpt plan` beside the run that it plans: `python benchmarks/plan.py [--cases small …] [--rounds 3]`.

Plan and run take turns, each in a fresh process. The run is `training.loop.train` on random tokens, without
evaluations and checkpoints; its peak is the process's largest size beyond what imports, rows and tokenizer took,
the compiler included, and its speed the median of the steps after the second. Both are measured in one thread and by
CPU time, which is wall time on an idle machine: others may use this one. Values are medians over the rounds; the ratio
is that of planned to measured, the median over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from records import RESULTS, append, machine


class Case(NamedTuple):
    description: str
    preset: str
    layers: int
    heads: int
    width: int
    vocab_size: int
    length: int
    options: dict[str, Any]
    """Of the recipe."""
    steps: int


def options(rows: int, accumulation: int = 1, precision: str = "bf16", compiled: bool = False, **more: Any) -> dict:
    return {
        "per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation,
        "mixed_precision": precision, "compile": compiled, **more,
    }  # fmt: skip


CASES = {
    "small": Case("modern, 6M, 16 × 256 tokens, bf16, Muon", "modern", 6, 4, 256, 4096, 256,
                  options(16, optimizer="muon"), 6),
    "compiled": Case("modern, 6M, 8 × 256 tokens, bf16, compiled", "modern", 6, 4, 256, 4096, 256,
                     options(8, compiled=True), 6),
    "head": Case("gpt2, 16M, 4 × 512 tokens, fp32", "gpt2", 4, 8, 256, 50304, 512, options(4, precision="no"), 4),
    "accumulated": Case("modern, 16M, 2 × 2 × 512 tokens, bf16", "modern", 4, 8, 256, 50304, 512, options(2, 2), 4),
    "checkpointed": Case("gpt2, 12M, 8 × 256 tokens, fp32, checkpointed", "gpt2", 6, 6, 384, 4096, 256,
                         options(8, precision="no", gradient_checkpointing=True), 4),
    "124M": Case("gpt2, 124M, 2 × 256 tokens, bf16", "gpt2", 12, 12, 768, 50304, 256, options(2), 4),
}  # fmt: skip
PLANNED, MEASURED = "scratchgpt plan", "the run"


def work(candidate: str, case: Case) -> None:
    """The worker: prints the bytes of memory and the tokens a second."""
    import psutil
    import torch

    import scratchgpt.training.loop  # noqa: F401 - in the baseline of memory
    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
    from scratchgpt.training import estimates
    from training import random_rows, run_loop, word_tokenizer

    rows, tokenizer = random_rows(case.vocab_size, case.length), word_tokenizer(case.vocab_size)
    ready = psutil.Process().memory_info().rss
    config = ScratchGPTConfig.from_preset(
        case.preset, num_hidden_layers=case.layers, num_attention_heads=case.heads, hidden_size=case.width,
        vocab_size=case.vocab_size, max_position_embeddings=case.length,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    given = case.options
    run = estimates.Run(
        config, given["per_device_train_batch_size"], case.length, given["gradient_accumulation_steps"],
        given.get("optimizer", "adamw"), given["mixed_precision"] == "bf16", given["compile"], True,
        given.get("gradient_checkpointing", False),
    )  # fmt: skip
    if candidate == PLANNED:
        measured = estimates.short_run(run, torch.device("cpu"), clock=time.process_time)
        peak = measured.heap * estimates.memory(run)["peak"]
        found = {"peak_mb": peak / 1e6, "speed": measured.tokens_per_second(run), "took": measured.took}
        print(json.dumps({**found, "heap": measured.heap}))
        return
    begun: list[float] = []

    def before_step() -> None:
        begun.append(time.process_time())
        if len(begun) == case.steps + 3:
            step = statistics.median(after - before for before, after in pairwise(begun[2:]))
            print(json.dumps({"peak_mb": (estimates._peak() - ready) / 1e6, "speed": run.tokens_per_step / step}))
            sys.stdout.flush()
            os._exit(0)

    torch.manual_seed(0)
    run_loop(ScratchGPTForCausalLM(config), rows, tokenizer, before_step, **given)


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """The measurements of one case."""
    found: dict[str, list[dict[str, float]]] = {MEASURED: [], PLANNED: []}
    for _ in range(rounds):
        for candidate, lines in found.items():
            done = subprocess.run(
                [sys.executable, __file__, "--worker", candidate, "--cases", name], text=True, capture_output=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
            if not answers:
                raise RuntimeError(f"{name}, {candidate}: exit code {done.returncode}\n{done.stderr[-2000:]}")
            lines.append(json.loads(answers[-1]))
            print(name, candidate, answers[-1], flush=True)
    measurements = []
    for metric, key in (("peak memory, MB", "peak_mb"), ("tokens per CPU second", "speed")):
        for candidate, lines in found.items():
            values = [line[key] for line in lines]
            ratios = [value / line[key] for value, line in zip(values, found[MEASURED], strict=True)]
            measurements.append({
                "benchmark": "A run and its plan", "case": CASES[name].description, "candidate": candidate,
                "metric": metric, "value": round(statistics.median(values), 1), "relative_to": MEASURED,
                "ratio": round(statistics.median(ratios), 3), "rounds": rounds,
                "values": [round(value, 1) for value in values],
                **machine("torch", "accelerate", "transformers"),
            })  # fmt: skip
    return measurements


def main() -> None:
    parser = argparse.ArgumentParser(description="`scratchgpt plan` beside the run that it plans.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="how often plan and run take turns")
    parser.add_argument("--output", type=Path, default=RESULTS / "plan.jsonl")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, CASES[arguments.cases[0]])
        return
    for name in arguments.cases:
        append(measure(name, arguments.rounds), arguments.output)


if __name__ == "__main__":
    main()
