"""Decoding beside its peers: `python benchmarks/generation.py [--batch_sizes 1 8] [--rounds 5]`.

The shape of GPT-2 124M with random weights, a prompt of 32 tokens, 128 new ones, greedy, on the CPU. One process holds
all models; in each round each candidate decodes once, one after the other, so that all see the same machine. Compiling
comes before the first round. Peers run as their documentation says.

- tokens/s: by wall time, which is right on an idle machine only
- tokens per CPU second: by the time of all threads

The bandwidth limit is what reading every weight once per step would take, at the speed at which this process read a
large buffer in the same rounds. Values are medians over the rounds, and each line carries the median of the ratios
to the reference within a round. With more than one sequence the limit of a step holds for all of them together.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import CompileConfig, GPT2Config, GPT2LMHeadModel, StaticCache

from records import RESULTS, append, machine
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.inference.decoding import compiled_decoding, prepare_for_decoding
from scratchgpt.modeling_scratchgpt import CACHE
from scratchgpt.performance import set_matmul_precision

LAYERS, HEADS, WIDTH, VOCAB_SIZE, CONTEXT = 12, 12, 768, 50257, 1024
PROMPT, NEW = 32, 128
REFERENCE = "transformers GPT2 fp32"
SEED = 0

Decode = Callable[[torch.Tensor, int], torch.Tensor]
"""Prompts [B, PROMPT] and a number of new tokens, up to NEW → prompts and answers."""

GREEDY: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def build_transformers(dtype: torch.dtype, compiled: bool, batch_size: int) -> Decode:
    config = GPT2Config(
        n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=VOCAB_SIZE, n_positions=CONTEXT,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).eval()
    model.to(dtype)
    if not compiled:
        return lambda ids, new: model.generate(ids, max_new_tokens=new, **GREEDY)
    compile_config: Any = CompileConfig(mode="default", fullgraph=True, dynamic=False)
    compile_config._compile_all_devices = True
    cache = StaticCache(config, max_cache_len=PROMPT + NEW)

    def decode(ids: torch.Tensor, new: int) -> torch.Tensor:
        cache.reset()
        arguments = {CACHE: cache, "compile_config": compile_config}
        return model.generate(ids, max_new_tokens=new, **arguments, **GREEDY)

    return decode


def build_litgpt(dtype: torch.dtype, batch_size: int) -> Decode:
    from litgpt import GPT, Config

    config = Config(
        n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=VOCAB_SIZE, padded_vocab_size=VOCAB_SIZE,
        block_size=PROMPT + NEW,
    )  # fmt: skip
    model = GPT(config).to(dtype).eval()
    model.set_kv_cache(batch_size, dtype=dtype)

    # Its own loop, litgpt.generate.base.generate, is for one sequence; this does the same for a batch.
    @torch.inference_mode()
    def decode(ids: torch.Tensor, new: int) -> torch.Tensor:
        tokens, position = [ids], torch.arange(PROMPT)
        for step in range(new):
            tokens.append(model(tokens[-1], position)[:, -1].argmax(-1, keepdim=True))
            position = torch.tensor([PROMPT + step])
        return torch.cat(tokens, dim=1)

    return decode


def build_scratchgpt(dtype: torch.dtype, weight_bits: int | None, compiled: bool, batch_size: int) -> Decode:
    config = ScratchGPTConfig.from_preset(
        "gpt2", num_hidden_layers=LAYERS, num_attention_heads=HEADS, hidden_size=WIDTH, vocab_size=VOCAB_SIZE,
        max_position_embeddings=CONTEXT,
    )  # fmt: skip
    model: Any = ScratchGPTForCausalLM(config).eval()
    prepare_for_decoding(model.to(dtype), weight_bits)
    if not compiled:
        return lambda ids, new: model.generate(ids, max_new_tokens=new, **GREEDY)
    arguments = compiled_decoding(model, PROMPT + NEW)
    return lambda ids, new: model.generate(ids, max_new_tokens=new, **arguments, **GREEDY)


def candidates() -> dict[str, Callable[[int], Decode]]:
    """By name, what can be measured here: a function from the batch size to the decoder."""
    fp32, bf16 = torch.float32, torch.bfloat16
    found: dict[str, Callable[[int], Decode]] = {
        REFERENCE: lambda size: build_transformers(fp32, False, size),
        "transformers GPT2 bf16": lambda size: build_transformers(bf16, False, size),
        "transformers GPT2 fp32, static cache, compiled": lambda size: build_transformers(fp32, True, size),
        "transformers GPT2 bf16, static cache, compiled": lambda size: build_transformers(bf16, True, size),
    }
    if importlib.util.find_spec("litgpt"):
        found["litgpt fp32"] = lambda size: build_litgpt(fp32, size)
    found |= {
        "scratchgpt bf16, not compiled": lambda size: build_scratchgpt(bf16, None, False, size),
        "scratchgpt int8, not compiled": lambda size: build_scratchgpt(bf16, 8, False, size),
        "scratchgpt fp32": lambda size: build_scratchgpt(fp32, None, True, size),
        "scratchgpt bf16": lambda size: build_scratchgpt(bf16, None, True, size),
        "scratchgpt int8": lambda size: build_scratchgpt(bf16, 8, True, size),
    }
    if importlib.util.find_spec("bitsandbytes"):
        found["scratchgpt int4"] = lambda size: build_scratchgpt(bf16, 4, True, size)
    return found


def weights_of_a_step() -> int:
    """How many weights one decoding step reads: all but the embedding tables, the head included."""
    return LAYERS * 12 * WIDTH**2 + VOCAB_SIZE * WIDTH


def read_speed(buffer: torch.Tensor) -> float:
    """Bytes per second at which all threads read `buffer` once."""
    start = time.perf_counter()
    buffer.sum()
    return buffer.nbytes / (time.perf_counter() - start)


def measure(batch_size: int, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """The measurements of one batch size: the candidates', then the limits'."""
    torch.manual_seed(SEED)
    ids = torch.randint(0, VOCAB_SIZE, (batch_size, PROMPT))
    found = candidates()
    # Ours takes the faster fp32 kernels where they are exact; the peers get torch's default, as they leave it.
    precision = {True: set_matmul_precision("cpu")[0], False: "highest"}
    # All before the first is compiled: a later model may register attention, which compiled steps are guarded against.
    decoders = {name: found[name](batch_size) for name in names}
    for name in names:
        torch.set_float32_matmul_precision(precision[name.startswith("scratchgpt")])
        start = time.perf_counter()
        for _ in range(2):  # what depends on a used cache is compiled the second time
            if decoders[name](ids, 4).shape != (batch_size, PROMPT + 4):
                raise ValueError(f"{name} did not decode 4 tokens")
        print(f"batch {batch_size}  {name:48s} ready after {time.perf_counter() - start:5.1f} s", flush=True)
    buffer = torch.ones(2**27)  # 512 MB, beyond every cache
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    speeds: list[float] = []
    for _ in range(rounds):
        speeds.append(read_speed(buffer))
        for name in names:
            torch.set_float32_matmul_precision(precision[name.startswith("scratchgpt")])
            start_wall, start_cpu = time.perf_counter(), time.process_time()
            decoders[name](ids, NEW)
            wall[name].append(time.perf_counter() - start_wall)
            cpu[name].append(time.process_time() - start_cpu)
    shared = {
        "benchmark": "Decoding, GPT-2 124M, 128 new tokens", "case": f"batch {batch_size}", "relative_to": REFERENCE,
        "rounds": rounds, "prompt": PROMPT, "seed": SEED, "threads": torch.get_num_threads(),
        **machine("torch", "transformers"),
    }  # fmt: skip
    measurements = []
    for metric, times in (("tokens/s", wall), ("tokens per CPU second", cpu)):
        for name in names:
            value = batch_size * NEW / statistics.median(times[name])
            ratio = statistics.median(a / b for a, b in zip(times[REFERENCE], times[name], strict=True))
            seconds = [round(s, 3) for s in times[name]]
            measurements.append(
                {**shared, "candidate": name, "metric": metric, "value": round(value, 1), "ratio": round(ratio, 3),
                 "seconds": seconds}
            )  # fmt: skip
            print(f"batch {batch_size}  {name:48s} {value:7.1f} {metric} ({ratio:.2f}×)", flush=True)
    speed = statistics.median(speeds)
    for name, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
        value = batch_size * speed / (weights_of_a_step() * size)
        measurements.append(
            {**shared, "candidate": f"memory bandwidth limit {name}", "metric": "tokens/s", "value": round(value, 1),
             "bytes_per_second": round(speed), "ratio": round(value / measurements[0]["value"], 3)}
        )  # fmt: skip
        print(f"batch {batch_size}  limit {name} at {speed / 1e9:.1f} GB/s {value:29.1f} tokens/s", flush=True)
    return measurements


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding beside its peers.")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3, help="how often each candidate takes its turn")
    parser.add_argument("--candidates", nargs="+", default=[], help="names beside the reference; default: all")
    parser.add_argument("--output", type=Path, default=RESULTS / "generation.jsonl")
    arguments = parser.parse_args()
    names = list(dict.fromkeys([REFERENCE, *(arguments.candidates or candidates())]))
    for batch_size in arguments.batch_sizes:
        measurements = measure(batch_size, names, arguments.rounds)
        torch.compiler.reset()
        append(measurements, arguments.output)


if __name__ == "__main__":
    main()
