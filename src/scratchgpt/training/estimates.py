"""What a run takes before it is begun: parameters, FLOPs, memory by part, tokens a second.

Pure arithmetic, but for `short_run`, which takes a few real steps. With D width, Q and K widths of all queries and all
keys, F width of the MLP, and s bytes of a number in a product (2 in bf16, 4 in fp32):

    weights, gradients, AdamW       4, 4 and 8 bytes a parameter; Muon has 4 for the matrices of the layers
    activations, a token and layer  8·D for two residuals (fp32) + s·(2·D + Q + Q + 2·K + 2·F, gated 3·F)
                                    for the inputs of the products and attention, + s·(Q + K) with QK-norm
    logits                          a chunk of them and its softmax, the head's gradient, and its copy in bf16
    peak                            weights + optimizer + the larger of: activations + logits (+ gradients, where they
                                    are accumulated), and gradients + two of the head's

What a compiled backward pass keeps was read off AOTAutograd's graphs; without compilation it keeps more. Peaks that
were measured on an H200 are met within 3 % (tests/unit/test_estimates.py). A CPU's process has the compiler and the
holes of its heap besides: there the peak is multiplied by what the short run took in relation to the arithmetic.
"""

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from ..configuration_scratchgpt import ScratchGPTConfig
from ..loss_scratchgpt import CHUNK_BYTES, GPU_CHUNK_BYTES, ROWS_BYTES
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..performance import configure_process
from .metrics import flops_per_token, measure_peak_flops
from .optimizers import OptimizerName, build_optimizers

ASSUMED_MFU = 0.278
"""Of a GPU: what training GPT-2 124M in bf16 reached on an H200 (benchmarks/results/gpu.jsonl)."""

USABLE = 0.9
"""Of a GPU's memory: an assumption; the rest is the driver's, the communication's, and lost between blocks."""

SHORT_SECONDS = 3.0
"""Of a pass of the short run: a model for which it would take longer is measured with fewer layers and rows."""

SHORT_LAYERS = (1, 3)
SHORT_TOKENS = 2048


@dataclass(frozen=True)
class Machine:
    """A kind of GPU: dense bf16 with fp32 accumulation, and memory, from the data sheet."""

    name: str
    flops: float
    memory: float
    source: str


MACHINES = {
    "h100": Machine("NVIDIA H100 SXM", 989.4e12, 80e9, "NVIDIA H100 data sheet"),
    "h200": Machine("NVIDIA H200 SXM", 989.4e12, 141e9, "NVIDIA H200 data sheet"),
    "a100": Machine("NVIDIA A100 SXM", 312e12, 80e9, "NVIDIA A100 data sheet"),
    "rtx4090": Machine("NVIDIA RTX 4090", 165.2e12, 24e9, "NVIDIA Ada architecture paper, appendix A"),
    "rtx3090": Machine("NVIDIA RTX 3090", 71e12, 24e9, "NVIDIA GA102 architecture paper, appendix A"),
}


@dataclass(frozen=True)
class Run:
    """What memory and speed depend on."""

    config: ScratchGPTConfig
    rows: int
    """Of a forward pass."""
    length: int
    accumulation: int = 1
    optimizer: OptimizerName = "adamw"
    bf16: bool = True
    compiled: bool = True
    on_cpu: bool = False
    checkpointing: bool = False
    ema: bool = False
    processes: int = 1
    sharded: bool = False

    @property
    def tokens(self) -> int:
        """Of a forward pass."""
        return self.rows * self.length

    @property
    def tokens_per_step(self) -> int:
        return self.tokens * self.accumulation * self.processes


def parameters(config: Any) -> dict[str, int]:
    """Number of weights by part, in the order of the model."""
    width, layers = config.hidden_size, config.num_hidden_layers
    query, key = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    matrices = 3 if config.gated_mlp else 2
    attention, mlp = 2 * width * (query + key), matrices * width * config.intermediate_size
    if config.use_bias:
        attention += query + 2 * key + width
        mlp += (matrices - 1) * config.intermediate_size + width
    norm = 2 if config.norm_type == "layernorm" and config.use_bias else 1
    found = {
        "token embeddings": config.vocab_size * width,
        "positions": config.max_position_embeddings * width if config.position_embedding_type == "learned" else 0,
        "attention": layers * attention,
        "MLP": layers * mlp,
        "norms": norm * (width * (2 * layers + 1) + 2 * layers * config.head_dim * config.qk_norm),
        "head": 0 if config.tie_word_embeddings else config.vocab_size * width,
    }
    return {part: number for part, number in found.items() if number}


def matrix_weights(config: Any) -> int:
    """Of the layers' linear maps, biases left out: what is copied in bf16, and what Muon is for."""
    query, key = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    mlp = (3 if config.gated_mlp else 2) * config.intermediate_size
    return config.num_hidden_layers * config.hidden_size * (2 * (query + key) + mlp)


def optimizer_bytes(config: Any, optimizer: str) -> int:
    """State of the optimizer: two moments in fp32; of a matrix under Muon, one."""
    return 8 * sum(parameters(config).values()) - (4 * matrix_weights(config) if optimizer == "muon" else 0)


def activation_bytes(run: Run) -> tuple[int, int]:
    """What the backward pass needs of one token in one layer, and of the layer whatever the number of tokens."""
    config: Any = run.config
    width, hidden, size = config.hidden_size, config.intermediate_size, 2 if run.bf16 else 4
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    query, key = heads * config.head_dim, groups * config.head_dim
    rotary = config.position_embedding_type == "rotary"
    blockwise = run.on_cpu and run.compiled
    # Queries and keys of blockwise attention are kept as they were turned, in fp32.
    turned = 4 if blockwise and rotary else size
    found = 8 * width + turned * (query + key) + size * (key + query)
    found += size * hidden * (3 if config.gated_mlp else 2)
    if run.compiled:
        found += size * 2 * width + size * (query + key) * config.qk_norm
        if blockwise and run.length <= 256:
            found += size * heads * (run.length if run.length <= 128 else (128 + run.length) // 2)
    else:
        # A copy in bf16 for each product that reads it; RMSNorms keep what they scale; the activation its own result.
        found += size * width * ((5 if config.gated_mlp else 4) if run.bf16 else 2)
        found += 8 * width * (config.norm_type == "rmsnorm") + size * hidden * config.gated_mlp
        found += (4 + size) * (query + key) * config.qk_norm
    return found, 2 * matrix_weights(config) // config.num_hidden_layers if run.bf16 else 0


def activations(run: Run) -> int:
    """Bytes at the end of the forward pass; checkpointed, each layer's input and one layer whole."""
    a_token, fixed = activation_bytes(run)
    layers, width = run.config.num_hidden_layers, 4 * run.config.hidden_size
    whole = run.tokens * a_token + fixed
    return run.tokens * width + (layers * run.tokens * width + whole if run.checkpointing else layers * whole)


def logits(run: Run) -> int:
    """Bytes while the loss is computed, by the chunks of `loss_scratchgpt`."""
    vocab_size, width, size = run.config.vocab_size, run.config.hidden_size, 2 if run.bf16 else 4
    most = max(CHUNK_BYTES if run.on_cpu else GPU_CHUNK_BYTES, vocab_size * width * size)
    chunk = math.ceil(run.tokens / math.ceil(run.tokens * vocab_size * size / most))
    rows = min(chunk, ROWS_BYTES // (4 * vocab_size) or 1) if run.on_cpu else 1 << (chunk.bit_length() - 1)
    chunk = chunk if run.on_cpu else rows
    softmax = 4 * rows * vocab_size * (1 if run.compiled else 4)
    head = vocab_size * width * (4 + (2 if run.bf16 else 0))
    return chunk * vocab_size * size + softmax + head + run.tokens * width * size


def memory(run: Run) -> dict[str, float]:
    """Bytes of a process by part, and the `peak`.

    Several processes have DDP's buckets beside the gradients. Sharded (FSDP2), each has its share, and whole, for the
    moment, the embeddings and two layers.
    """
    config: Any = run.config
    parts = parameters(config)
    number = sum(parts.values())
    share = run.processes if run.sharded else 1
    layer = (parts["attention"] + parts["MLP"]) / config.num_hidden_layers
    root = number - parts["attention"] - parts["MLP"]
    whole = 4 * (root + 2 * layer) if share > 1 else 0
    found = {
        "weights": 4 * number / share + whole,
        "gradients": 4 * number / share + whole,
        "optimizer": (optimizer_bytes(config, run.optimizer) + 4 * number * run.ema) / share,
        "DDP's buckets": 4.0 * number if run.processes > 1 and share == 1 else 0.0,
        "activations": float(activations(run)),
        "logits": float(logits(run)),
    }
    forward = found["activations"] + found["logits"] + (found["gradients"] if run.accumulation > 1 else 0)
    update = found["gradients"] + 8 * config.vocab_size * config.hidden_size
    peak = found["weights"] + found["optimizer"] + found["DDP's buckets"] + max(forward, update)
    return {**found, "peak": peak}


def largest_rows(run: Run, available: float, factor: float = 1.0) -> int:
    """The most rows of a forward pass for which `factor` × the peak is within `available` bytes; 0: none."""
    fits = lambda rows: factor * memory(replace(run, rows=rows))["peak"] <= available  # noqa: E731
    low, high = 0, 1
    while fits(high) and high < 2**20:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Measured:
    """By `short_run`, for the whole model."""

    roof: float
    """FLOPs a second of a matrix product."""
    pass_seconds: float
    """Forward and backward, for `Run.tokens`."""
    update_seconds: float
    heap: float
    """Measured peak memory in relation to that of the arithmetic; 1 on a GPU."""
    process_bytes: float
    """Of Python and its libraries."""
    measured: str
    """Which layers and tokens."""
    took: float
    """Seconds, compiling included."""

    def tokens_per_second(self, run: Run) -> float:
        seconds = run.accumulation * self.pass_seconds + self.update_seconds
        return run.tokens * run.accumulation / seconds


def short_run(
    run: Run, device: torch.device, seconds: float = 1.5, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Times a few steps of the model; of a large one with one and three layers, whose difference more layers take too.

    Args:
        seconds: of timed steps of a model; compiling comes on top.
        clock: `time.process_time` where others use the machine too, and there is one thread.
    """
    before, started = _resident(), time.perf_counter()
    settings, number = configure_process(device), run.config.num_hidden_layers
    roof = measure_peak_flops(device, torch.bfloat16 if run.bf16 else torch.float32)
    flops = flops_per_token(run.config, sum(parameters(run.config).values()), run.length)
    whole = run.tokens * flops / (ASSUMED_MFU * roof) < SHORT_SECONDS or number <= SHORT_LAYERS[-1]
    rows = run.rows if whole else max(1, min(run.rows, SHORT_TOKENS // run.length))
    found = []
    for layers in (number,) if whole else SHORT_LAYERS:
        config = ScratchGPTConfig.from_dict({**run.config.to_dict(), "num_hidden_layers": layers})
        times = _timed(replace(run, config=config, rows=rows), device, settings.attention, seconds, clock)
        found.append((*times, _peak() - before))
    first, last = found[0], found[-1]
    more = 0.0 if whole else (number - SHORT_LAYERS[0]) / (SHORT_LAYERS[1] - SHORT_LAYERS[0])
    a_pass, update, peak = (one + more * (other - one) for one, other in zip(first, last, strict=True))
    # A process cannot hold less than its tensors; what the smaller model left free may hide that.
    heap = max(1.0, peak / memory(replace(run, rows=rows))["peak"]) if run.on_cpu else 1.0
    measured = f"{'all' if whole else '1 and 3'} of {number} layers, {rows:,} × {run.length:,} tokens"
    return Measured(roof, run.rows / rows * a_pass, update, heap, before, measured, time.perf_counter() - started)


def _timed(
    run: Run, device: torch.device, attention: str, seconds: float, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds of a forward and backward pass, and of clipping and the optimizers' step: medians."""
    model: Any = ScratchGPTForCausalLM(run.config)
    model.to(device).train()
    if run.compiled:
        model.set_attn_implementation(attention)
    if run.checkpointing:
        model.gradient_checkpointing_enable()
    optimizers = build_optimizers(model, optimizer=run.optimizer, learning_rate=1e-4)
    ids = torch.randint(run.config.vocab_size, (run.rows, run.length), device=device)

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
            return model(input_ids=ids, labels=ids).loss

    compute = torch.compile(loss, dynamic=False) if run.compiled else loss

    def forward_and_backward() -> float:
        value = compute()
        value.backward()
        return value.item()  # its graph ends here, as in a training step, and does not last into the next

    passes: list[float] = []
    updates: list[float] = []
    # The first step compiles and makes the optimizers' state, the second still warms up.
    while len(passes) < 5 or (sum(passes[2:]) < seconds and len(passes) < 100):
        begun = clock()
        for _ in range(min(2, run.accumulation)):
            forward_and_backward()
        between = clock()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step()
        optimizers.zero_grad()
        norm.item()
        passes.append((between - begun) / min(2, run.accumulation))
        updates.append(clock() - between)
    return median(passes[2:]), median(updates[2:])


def _resident() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
