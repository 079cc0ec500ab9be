"""What one NVIDIA GPU does: `python benchmarks/gpu.py [--parts step loss …] [--nanogpt path/to/model.py] [--tiny]`.

Nothing is downloaded; models have random weights. Below ten minutes in all:

- step: a training step of 124M parameters in bf16, forward to optimizer, beside transformers' GPT2 and nanoGPT. Each
  candidate lives in a process of its own; all compile at once, then they take turns. MFU is model FLOPs (as in
  `training.metrics.flops_per_token`) against the card's dense bf16 peak by its data sheet, where that is known, and
  against a large matrix product that was timed in the same process.
- loss: the loss operator beside whole logits, compiled, forward and backward, by vocabulary.
- attention: torch's kernels, one by one, and flex attention, forward and backward, by length; rows of one document and
  rows of packed documents.
- memory: peak of a training step by length and by vocabulary.
- decoding: 124M in bf16 and 8 bits, a static cache and a compiled step, beside transformers' own; and the limit that
  reading every weight once a token sets.

`--tiny` runs every line of it at a size for which a CPU will do; tests do that, and nothing is recorded.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import model as peers
from records import RESULTS, append, machine
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.loss_scratchgpt import linear_cross_entropy
from scratchgpt.performance import configure_process, make_deterministic
from scratchgpt.training.metrics import flops_per_token, measure_peak_flops
from scratchgpt.training.optimizers import build_optimizers

PEAK_TFLOPS = {"H100 80GB HBM3": 989.4, "H200": 989.4, "A100": 312.0, "RTX 4090": 165.2, "RTX 3090": 71.0}
"""Dense bf16 with fp32 accumulation, from NVIDIA's data sheets."""

SEED = 0


class Sizes(NamedTuple):
    layers: int = 12
    heads: int = 12
    width: int = 768
    vocab_size: int = 50304
    steps: tuple[tuple[int, int], ...] = ((8, 1024), (16, 1024))
    """Rows and tokens in a row."""
    vocabularies: tuple[int, ...] = (8192, 50304, 131072)
    lengths: tuple[int, ...] = (1024, 2048, 4096, 8192)
    tokens: int = 8192
    """Of a batch, in the parts loss, attention and memory."""
    prompt: int = 32
    new: int = 128
    repeats: int = 20
    turn: int = 10
    """Steps of a turn."""
    peers: bool = True


REAL = Sizes()
TINY = Sizes(1, 2, 32, 256, ((2, 32),), (256, 320), (32, 64), 64, 4, 8, 2, 1)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def config(sizes: Sizes, preset: str, length: int, vocab_size: int | None = None) -> ScratchGPTConfig:
    return ScratchGPTConfig.from_preset(
        preset, num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, hidden_size=sizes.width,
        vocab_size=vocab_size or sizes.vocab_size, max_position_embeddings=length,
    )  # fmt: skip


# What the card is


def card() -> dict[str, Any]:
    if DEVICE.type == "cpu":
        return machine("torch", "transformers")
    return {"gpu": torch.cuda.get_device_name(), **machine("torch", "transformers")}


def data_sheet_flops() -> float | None:
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else ""
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call, after three that warm up."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        synchronize()
        started = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - started)
    return times


def peak_gb(function: Callable[[], Any]) -> float:
    """Most memory held during a call, beyond what was held before, in GB; 0 where torch does not count it."""
    if DEVICE.type == "cpu":
        function()
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def result(benchmark: str, case: str, candidate: str, metric: str, value: float, **more: Any) -> dict[str, Any]:
    digits = 1 if value >= 100 else 3
    print(f"{benchmark}  {case:34s} {candidate:44s} {value:12,.{digits}f} {metric}", flush=True)
    return {
        "benchmark": benchmark, "case": case, "candidate": candidate, "metric": metric, "value": round(value, 4),
        "seed": SEED, **more, **card(),
    }  # fmt: skip


# A training step


def step_candidates(nanogpt: str) -> list[str]:
    names = ["transformers GPT2", "transformers GPT2, compiled"]
    if nanogpt:
        names.append("nanoGPT, compiled")
    return [
        *names,
        "scratchgpt gpt2",
        "scratchgpt gpt2, deterministic",
        "scratchgpt modern",
        "scratchgpt modern, Muon",
    ]


def build(candidate: str, sizes: Sizes, rows: int, length: int, nanogpt: str) -> tuple[Any, Callable, Any]:
    """The model, a function from token ids to the loss, and the optimizer."""
    case = peers.Case("", sizes.layers, sizes.heads, sizes.width, sizes.vocab_size, length, rows)
    if candidate.startswith("scratchgpt"):
        settings = configure_process(DEVICE)
        if candidate.endswith("deterministic"):
            make_deterministic(DEVICE)
        model: Any = ScratchGPTForCausalLM(config(sizes, candidate.split()[1].strip(","), length))
        model.to(DEVICE)
        model.set_attn_implementation(settings.attention)
        compiled = torch.compile(model, fullgraph=True, dynamic=False)
        optimizer = build_optimizers(
            model, optimizer="muon" if candidate.endswith("Muon") else "adamw", learning_rate=1e-4
        )
        return model, lambda ids: compiled(input_ids=ids, labels=ids).loss, optimizer
    torch.set_float32_matmul_precision("high")  # as nanoGPT's own train.py does
    if candidate.startswith("nanoGPT"):
        model, compute_loss = peers.build_nanogpt(case, nanogpt, compiled=True)
    else:
        model, compute_loss = peers.build_transformers(case)
    model.to(DEVICE)
    if candidate == "transformers GPT2, compiled":
        compiled = torch.compile(model, dynamic=False)
        compute_loss = lambda ids: compiled(input_ids=ids, labels=ids, use_cache=False).loss  # noqa: E731
    return model, compute_loss, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def work(candidate: str, sizes: Sizes, rows: int, length: int, nanogpt: str) -> None:
    """A worker: compiles, says so, then for each line on stdin takes so many steps and says how long they took."""
    torch.manual_seed(SEED)
    model, compute_loss, optimizer = build(candidate, sizes, rows, length, nanogpt)
    model.train()
    ids = torch.randint(0, sizes.vocab_size, (rows, length), device=DEVICE)

    def step() -> float:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = compute_loss(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()  # as a training loop reads it

    started = time.perf_counter()
    first_loss = step()
    seconds = time.perf_counter() - started
    for _ in range(4):
        step()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    preset = "modern" if "modern" in candidate else "gpt2"
    flops = flops_per_token(config(sizes, preset, length), parameters, length) * rows * length
    print(json.dumps({"first_loss": first_loss, "first_step_seconds": seconds, "flops": flops}), flush=True)
    for line in sys.stdin:
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for _ in range(int(line)):
            step()
        took = (time.perf_counter() - started) / int(line)
        peak = torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else 0.0
        print(json.dumps({"seconds": took, "peak_gb": peak}), flush=True)


class Worker:
    """A candidate in a process of its own, that steps on command."""

    def __init__(self, candidate: str, tiny: bool, rows: int, length: int, nanogpt: str) -> None:
        command = [sys.executable, __file__, "--worker", candidate, str(rows), str(length), "--nanogpt", nanogpt]
        # All compile at once: with a pool of torch's usual size in each they would be in each other's way.
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "2", **os.environ}
        self.process = subprocess.Popen(
            command + ["--tiny"] * tiny, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print to stdout too
                return json.loads(line)
        raise RuntimeError(f"the worker ended with exit code {self.process.wait()}; its error is above")

    def turn(self, steps: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure_step(sizes: Sizes, rounds: int, nanogpt: str) -> Iterator[dict[str, Any]]:
    benchmark, sheet = "GPU training step, 124M, bf16", data_sheet_flops()
    reference = "transformers GPT2, compiled"
    measured = measure_peak_flops(DEVICE, torch.bfloat16) if DEVICE.type == "cuda" else 1e12
    for rows, length in sizes.steps:
        workers = {name: Worker(name, sizes is TINY, rows, length, nanogpt) for name in step_candidates(nanogpt)}
        for name, worker in workers.items():
            worker.ready = worker.read()
            print(f"{name}: first step after {worker.ready['first_step_seconds']:.0f} s", flush=True)
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for round_ in range(rounds):
            for name in sorted(workers, reverse=round_ % 2 == 1):
                turns[name].append(workers[name].turn(sizes.turn))
        for worker in workers.values():
            worker.close()
        case = f"{rows} × {length:,} tokens"
        for name, took in turns.items():
            seconds = [each["seconds"] for each in took]
            ratios = [theirs["seconds"] / mine for theirs, mine in zip(turns[reference], seconds, strict=True)]
            more = {
                "rounds": rounds, "steps_per_round": sizes.turn, "seconds_per_step": [round(s, 5) for s in seconds],
                "first_step_seconds": round(workers[name].ready["first_step_seconds"], 1), "relative_to": reference,
            }  # fmt: skip
            median = statistics.median(seconds)
            yield result(
                benchmark, case, name, "tokens/s", rows * length / median, ratio=round(statistics.median(ratios), 3),
                **more,
            )  # fmt: skip
            rate = workers[name].ready["flops"] / median
            if sheet:
                yield result(benchmark, case, name, "MFU against the data sheet, %", 100 * rate / sheet, **more)
            yield result(benchmark, case, name, "MFU against a matrix product, %", 100 * rate / measured, **more)
            yield result(benchmark, case, name, "peak memory, GB", max(each["peak_gb"] for each in took), **more)


# The parts of a step


def whole_logits(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets)


def measure_loss(sizes: Sizes) -> Iterator[dict[str, Any]]:
    benchmark = "GPU loss of a linear head, forward and backward"
    for vocab_size in sizes.vocabularies:
        torch.manual_seed(SEED)
        head = torch.nn.Linear(sizes.width, vocab_size, bias=False, device=DEVICE)
        hidden = torch.randn(sizes.tokens, sizes.width, device=DEVICE, requires_grad=True)
        targets = torch.randint(0, vocab_size, (sizes.tokens,), device=DEVICE)
        case = f"{sizes.tokens:,} tokens, vocabulary {vocab_size:,}"
        for name, loss in (("whole logits, compiled", whole_logits), ("scratchgpt", linear_cross_entropy)):
            compiled = torch.compile(loss, dynamic=False)

            def call(compiled: Callable = compiled, hidden=hidden, head=head, targets=targets) -> None:
                with torch.autocast(DEVICE.type, torch.bfloat16):
                    compiled(hidden, head, targets).backward()
                hidden.grad = head.weight.grad = None

            seconds = statistics.median(timed(call, sizes.repeats))
            more = {"repeats": sizes.repeats, "relative_to": "whole logits, compiled"}
            yield result(benchmark, case, name, "ms", 1000 * seconds, **more)
            yield result(benchmark, case, name, "memory, GB", peak_gb(call), **more)


def attention_kernels(length: int, packed: bool) -> dict[str, Callable[..., torch.Tensor]]:
    """By name, functions of query, key and value."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document = torch.arange(length, device=DEVICE) // max(1, length // 4)  # four documents in a row
    mask = (document[:, None] == document) & torch.ones(length, length, dtype=torch.bool, device=DEVICE).tril()

    def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if packed:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def only(backend: SDPBackend) -> Callable[..., torch.Tensor]:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel(backend):
                return sdpa(q, k, v)

        return attend

    found: dict[str, Callable[..., torch.Tensor]] = {"sdpa, as torch chooses": sdpa}
    if DEVICE.type == "cpu":
        return found
    found["sdpa, cuDNN"] = only(SDPBackend.CUDNN_ATTENTION)
    found["sdpa, memory-efficient"] = only(SDPBackend.EFFICIENT_ATTENTION)
    if not packed:
        found["sdpa, flash"] = only(SDPBackend.FLASH_ATTENTION)

    def visible(b: Any, h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q >= k) & (document[q] == document[k]) if packed else q >= k

    block_mask = create_block_mask(visible, None, None, length, length, device=DEVICE.type)
    flex = torch.compile(flex_attention, dynamic=False)
    found["flex, compiled"] = lambda q, k, v: flex(q, k, v, block_mask=block_mask)  # pyright: ignore
    return found


def measure_attention(sizes: Sizes) -> Iterator[dict[str, Any]]:
    benchmark, head_dim = "GPU attention, forward and backward", sizes.width // sizes.heads
    for length in (sizes.lengths[0], sizes.lengths[-1]):
        for packed in (False, True):
            case = f"{sizes.tokens // length} × {length:,}{', four documents a row' if packed else ''}"
            for name, attend in attention_kernels(length, packed).items():
                shape = (max(1, sizes.tokens // length), sizes.heads, length, head_dim)
                q, k, v = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
                gradient = torch.randn_like(q)

                def call(attend: Callable = attend, q=q, k=k, v=v, gradient=gradient) -> None:
                    torch.autograd.grad(attend(q, k, v), (q, k, v), gradient)

                try:
                    seconds = statistics.median(timed(call, sizes.repeats))
                except RuntimeError as error:  # a kernel that does not take this
                    print(f"{case}, {name}: {str(error).splitlines()[0][:120]}", flush=True)
                    continue
                yield result(
                    benchmark, case, name, "ms", 1000 * seconds, relative_to="sdpa, as torch chooses",
                    repeats=sizes.repeats,
                )  # fmt: skip


def measure_memory(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Of a step without the compiler, whose buffers would come on top: what the model itself needs."""
    cases = [(length, sizes.vocab_size) for length in sizes.lengths]
    cases += [(sizes.lengths[0], vocab_size) for vocab_size in sizes.vocabularies if vocab_size != sizes.vocab_size]
    settings = configure_process(DEVICE)
    for length, vocab_size in cases:
        torch.manual_seed(SEED)
        model: Any = ScratchGPTForCausalLM(config(sizes, "modern", length, vocab_size))
        model.to(DEVICE)
        model.set_attn_implementation(settings.attention)
        ids = torch.randint(0, vocab_size, (max(1, sizes.tokens // length), length), device=DEVICE)

        def call(model: Any = model, ids: torch.Tensor = ids) -> None:
            with torch.autocast(DEVICE.type, torch.bfloat16):
                model(input_ids=ids, labels=ids).loss.backward()
            model.zero_grad()

        case = f"{len(ids)} × {length:,} tokens, vocabulary {vocab_size:,}"
        call()
        yield result("GPU memory of forward and backward, modern", case, "scratchgpt", "GB", peak_gb(call))
        del model, call
        gc.collect()


# Decoding


def measure_decoding(sizes: Sizes, rounds: int) -> Iterator[dict[str, Any]]:
    from transformers import CompileConfig, GPT2LMHeadModel, StaticCache

    from scratchgpt.inference.decoding import compiled_decoding, prepare_for_decoding
    from scratchgpt.modeling_scratchgpt import CACHE

    greedy: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    benchmark, length = "GPU decoding, GPT-2 124M", sizes.prompt + sizes.new
    reference = "transformers GPT2 bf16, static cache, compiled"

    def theirs(compiled: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        case = peers.Case("", sizes.layers, sizes.heads, sizes.width, sizes.vocab_size, 1024, 1)
        model: GPT2LMHeadModel = peers.build_transformers(case)[0]
        model.to(DEVICE, torch.bfloat16).eval()  # pyright: ignore
        if not compiled:
            return lambda ids: model.generate(ids, max_new_tokens=sizes.new, **greedy)  # pyright: ignore
        cache = StaticCache(model.config, max_cache_len=length)
        compile_config: Any = CompileConfig(fullgraph=True, dynamic=False)
        compile_config._compile_all_devices = True

        def decode(ids: torch.Tensor) -> torch.Tensor:
            cache.reset()
            how: dict[str, Any] = {CACHE: cache, "compile_config": compile_config, **greedy}
            return model.generate(ids, max_new_tokens=sizes.new, **how)  # pyright: ignore

        return decode

    def ours(bits: int | None) -> Callable[[torch.Tensor], torch.Tensor]:
        model: Any = ScratchGPTForCausalLM(config(sizes, "gpt2", 1024)).eval()
        model.to(DEVICE, torch.bfloat16)
        prepare_for_decoding(model, bits)
        how = compiled_decoding(model, length)
        return lambda ids: model.generate(ids, max_new_tokens=sizes.new, **how, **greedy)

    candidates: dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]] = {
        "transformers GPT2 bf16": lambda: theirs(compiled=False),
        reference: lambda: theirs(compiled=True),
        "scratchgpt bf16": lambda: ours(None),
        "scratchgpt int8": lambda: ours(8),
    }
    weights = sizes.layers * 12 * sizes.width**2 + sizes.vocab_size * sizes.width
    buffer = torch.ones(2**24 if sizes is TINY else 2**30, device=DEVICE)
    speed = buffer.nbytes / statistics.median(timed(buffer.sum, 10))
    del buffer
    for batch_size in (1, 8):
        case, turns = f"batch {batch_size}", dict[str, list[float]]()
        ids = torch.randint(0, sizes.vocab_size, (batch_size, sizes.prompt), device=DEVICE)
        decoders = {}
        for name, make in candidates.items():
            started = time.perf_counter()
            try:
                torch.manual_seed(SEED)
                decoders[name] = make()
                for _ in range(2):  # what depends on a used cache is compiled the second time
                    decoders[name](ids)
                print(f"{case}, {name}: ready after {time.perf_counter() - started:.1f} s", flush=True)
            except Exception as error:  # one that cannot run must not cost the others
                print(f"{case}, {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                decoders.pop(name, None)
        for _ in range(rounds):
            for name, decode in decoders.items():
                synchronize()
                started = time.perf_counter()
                decode(ids)
                synchronize()
                turns.setdefault(name, []).append(time.perf_counter() - started)
        for name, seconds in turns.items():
            value = batch_size * sizes.new / statistics.median(seconds)
            ratio = statistics.median(a / b for a, b in zip(turns[reference], seconds, strict=True))
            yield result(
                benchmark, case, name, "tokens/s", value, ratio=round(ratio, 3), relative_to=reference, rounds=rounds
            )
        for name, size in (("bf16", 2), ("int8", 1)):
            value = batch_size * speed / (weights * size)
            yield result(
                benchmark, case, f"memory bandwidth limit {name}", "tokens/s", value, bytes_per_second=round(speed)
            )
        torch.compiler.reset()


PARTS = ("step", "loss", "attention", "memory", "decoding")


def main() -> None:
    parser = argparse.ArgumentParser(description="What one NVIDIA GPU does.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=7, help="how often candidates take turns")
    parser.add_argument("--nanogpt", default="", help="nanoGPT's model.py; without it nanoGPT is not measured")
    parser.add_argument("--tiny", action="store_true", help="every line at a size for a CPU; nothing is recorded")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.jsonl")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else REAL
    if arguments.worker:
        candidate, rows, length = arguments.worker
        work(candidate, sizes, int(rows), int(length), arguments.nanogpt)
        return
    if DEVICE.type == "cpu" and not arguments.tiny:
        sys.exit("there is no GPU here; --tiny runs every line of this on the CPU")
    measures: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "step": lambda: measure_step(sizes, arguments.rounds, arguments.nanogpt),
        "loss": lambda: measure_loss(sizes),
        "attention": lambda: measure_attention(sizes),
        "memory": lambda: measure_memory(sizes),
        "decoding": lambda: measure_decoding(sizes, arguments.rounds),
    }
    for part in arguments.parts:
        started = time.perf_counter()
        for measurement in measures[part]():
            if not arguments.tiny:
                append([measurement], arguments.output)  # at once: what is measured is kept, whatever comes after
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
