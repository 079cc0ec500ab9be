"""A training step beside its peers: `python benchmarks/model.py [--cases a b c] [--nanogpt path/to/model.py]`.

One step is forward, loss, backward, gradient clipping, AdamW (fused) and zeroing the gradients, on the CPU, without
dropout, on random tokens. Peers run as their documentation says, with torch's default precision and allocator;
scratchgpt with `configure_process`, bf16 autocast, and model and loss compiled together.

Switches of a process cannot be taken back, so each candidate lives in a worker process of its own. The parent lets the
reference and one candidate step by turns, so that both see the same machine, and reports:

- tokens/s: by wall time, which is right on an idle machine only
- tokens per CPU second: by the time of all threads; on an idle machine, times the cores, about the same
- peak memory, MB: the process's maximum beyond what it took to import its libraries, compiler included

Values are medians over the rounds, and each line carries the median of the ratios within a round.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from records import RESULTS, append, machine

# The parent must stay small: a child's peak memory starts from its parent's. Only workers import torch.


class Case(NamedTuple):
    description: str
    layers: int
    heads: int
    width: int
    vocab_size: int
    length: int
    batch_size: int


CASES = {
    "a": Case("(a) 4 layers, width 256, vocabulary 50,304, 4 × 512 tokens", 4, 8, 256, 50304, 512, 4),
    "b": Case("(b) 6 layers, width 384, vocabulary 4,096, 16 × 256 tokens", 6, 6, 384, 4096, 256, 16),
    "c": Case("(c) GPT-2 124M, 2 × 256 tokens", 12, 12, 768, 50304, 256, 2),
}
REFERENCE = "transformers GPT2 fp32"
SEED = 0


def build_transformers(case: Case) -> tuple[Any, Callable]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=case.layers, n_head=case.heads, n_embd=case.width, vocab_size=case.vocab_size,
        n_positions=case.length, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.set_attn_implementation("sdpa")
    return model, lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss


def build_litgpt(case: Case) -> tuple[Any, Callable]:
    import torch.nn.functional as F
    from litgpt import GPT, Config

    config = Config(
        n_layer=case.layers, n_head=case.heads, n_embd=case.width, vocab_size=case.vocab_size,
        padded_vocab_size=case.vocab_size, block_size=case.length,
    )  # fmt: skip
    model = GPT(config)
    return model, lambda ids: F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def build_nanogpt(case: Case, path: str, compiled: bool) -> tuple[Any, Callable]:
    import torch

    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    nanogpt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nanogpt)
    config = nanogpt.GPTConfig(
        n_layer=case.layers, n_head=case.heads, n_embd=case.width, vocab_size=case.vocab_size,
        block_size=case.length, dropout=0.0,
    )  # fmt: skip
    model = nanogpt.GPT(config)
    forward = torch.compile(model) if compiled else model
    # nanoGPT expects shifted targets; which ones they are does not change the time.
    return model, lambda ids: forward(ids, ids)[1]


def build_scratchgpt(case: Case, preset: str, attention: str) -> tuple[Any, Callable]:
    import torch

    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM

    config = ScratchGPTConfig.from_preset(
        preset, num_hidden_layers=case.layers, num_attention_heads=case.heads, hidden_size=case.width,
        vocab_size=case.vocab_size, max_position_embeddings=case.length,
    )  # fmt: skip
    model = ScratchGPTForCausalLM(config)
    model.set_attn_implementation(attention)
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    return model, lambda ids: compiled(input_ids=ids, labels=ids).loss


def build(candidate: str, case: Case, nanogpt: str) -> tuple[Any, Callable, bool]:
    """The model, a function from token ids to the loss, and whether to run it under bf16 autocast."""
    if candidate.startswith("scratchgpt"):
        from scratchgpt.performance import configure_process

        settings = configure_process()
        preset = candidate.split()[1]
        return *build_scratchgpt(case, preset, settings.attention), settings.autocast_dtype is not None
    bf16 = "bf16" in candidate
    if candidate.startswith("nanoGPT"):
        return *build_nanogpt(case, nanogpt, compiled="compiled" in candidate), bf16
    if candidate.startswith("litgpt"):
        return *build_litgpt(case), bf16
    return *build_transformers(case), bf16


def candidates(nanogpt: str) -> list[str]:
    """Names of what can be measured here beside the reference."""
    names = ["transformers GPT2 bf16"]
    if importlib.util.find_spec("litgpt"):
        names.append("litgpt fp32")
    if nanogpt:
        names += ["nanoGPT fp32", "nanoGPT bf16 compiled"]
    return [*names, "scratchgpt gpt2", "scratchgpt modern"]


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB (Linux counts in kB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def work(candidate: str, case: Case, nanogpt: str) -> None:
    """The worker: builds the candidate, then for each line on stdin runs that many steps and prints what they took."""
    import torch
    import transformers  # noqa: F401 - in everyone's baseline of memory

    import scratchgpt  # noqa: F401 - likewise

    imported_mb = peak_mb()
    torch.manual_seed(SEED)
    model, compute_loss, bf16 = build(candidate, case, nanogpt)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, case.vocab_size, (case.batch_size, case.length))

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = compute_loss(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    first_loss = step()
    step()
    print(json.dumps({"first_loss": first_loss, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        took = {"wall": (time.perf_counter() - wall) / steps, "cpu": (time.process_time() - cpu) / steps}
        print(json.dumps({**took, "peak_mb": peak_mb() - imported_mb}), flush=True)


class Worker:
    """A candidate in a process of its own, that steps on command."""

    def __init__(self, candidate: str, letter: str, nanogpt: str):
        command = [sys.executable, __file__, "--worker", candidate, "--cases", letter, "--nanogpt", nanogpt]
        # Threads that spin while they wait would count as work, where others use the machine too. The same for all.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready = self._read()

    def run(self, steps: int) -> dict[str, float]:
        """Seconds per step, by wall and CPU time, and the peak memory so far in MB."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print to stdout too
                return json.loads(line)
        raise RuntimeError(f"The worker ended with exit code {self.process.wait()}; its error is above.")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(letter: str, names: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The measurements of one case: the reference's, then each candidate's."""
    case = CASES[letter]
    tokens = case.batch_size * case.length
    reference = Worker(REFERENCE, letter, arguments.nanogpt)
    reference_rounds: list[dict[str, float]] = []
    measurements = []

    def report(candidate: str, ready: dict, rounds: list[dict], reference_rounds: list[dict]) -> None:
        shared = {
            "benchmark": "Training step", "case": case.description, "candidate": candidate, "relative_to": REFERENCE,
            "rounds": len(rounds), "steps_per_round": arguments.steps, "seed": SEED, **ready,
            **machine("torch", "transformers"),
        }  # fmt: skip
        pairs = list(zip(reference_rounds, rounds, strict=True))
        ratios = {
            "tokens/s": [mine["wall"] / theirs["wall"] for mine, theirs in pairs],
            "tokens per CPU second": [mine["cpu"] / theirs["cpu"] for mine, theirs in pairs],
        }
        for (metric, ratio), key in zip(ratios.items(), ("wall", "cpu"), strict=True):
            seconds = [round_[key] for round_ in rounds]
            measurements.append({
                **shared, "metric": metric, "value": round(tokens / statistics.median(seconds), 1),
                "ratio": round(statistics.median(ratio), 3), "seconds_per_step": [round(s, 4) for s in seconds],
            })  # fmt: skip
        peak, reference_peak = rounds[-1]["peak_mb"], reference_rounds[-1]["peak_mb"]
        ratio = round(peak / reference_peak, 3)
        measurements.append({**shared, "metric": "peak memory, MB", "value": round(peak, 1), "ratio": ratio})
        wall, cpu, memory = measurements[-3:]
        print(
            f"{letter}  {candidate:24s} {wall['value']:8.0f} tokens/s ({wall['ratio']:.2f}×)   "
            f"{cpu['value']:8.0f} per CPU second ({cpu['ratio']:.2f}×)   "
            f"{memory['value']:6.0f} MB ({memory['ratio']:.2f}×)",
            flush=True,
        )

    for name in names:
        worker = Worker(name, letter, arguments.nanogpt)
        pairs = [(reference.run(arguments.steps), worker.run(arguments.steps)) for _ in range(arguments.rounds)]
        worker.close()
        theirs, mine = [list(rounds) for rounds in zip(*pairs, strict=True)]
        reference_rounds += theirs
        report(name, worker.ready, mine, theirs)
    report(REFERENCE, reference.ready, reference_rounds, reference_rounds)
    reference.close()
    return [*measurements[-3:], *measurements[:-3]]


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step beside its peers.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7, help="how often each candidate and the reference take turns")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--candidates", nargs="+", help="names, as in the results; default: all that are installed")
    parser.add_argument("--nanogpt", default="", help="nanoGPT's model.py; without it nanoGPT is not measured")
    parser.add_argument("--output", type=Path, default=RESULTS / "model.jsonl")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, CASES[arguments.cases[0]], arguments.nanogpt)
        return
    names = arguments.candidates or candidates(arguments.nanogpt)
    for letter in arguments.cases:
        measurements = measure(letter, names, arguments)
        append(measurements, arguments.output)


if __name__ == "__main__":
    main()
