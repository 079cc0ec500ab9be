"""What pretraining takes, told before it begins: memory by part, tokens a second, hours; `scratchgpt plan` prints it.

Of this machine everything is measured: two copies of the model, cut to 1 and to 4 layers, take real steps in processes
of their own. Time and memory of a step are linear in the number of layers, so the rest follows.

Of a machine that is not here it is arithmetic, N parameters in fp32 under bf16 autocast:

    weights, gradients     4 N bytes each
    optimizer              8 N for AdamW; 4 for each weight of a matrix that Muon moves
    activations            rows · layers · what autograd keeps of a layer for a row, counted by running one layer here
    logits                 a chunk of the loss operator, in bf16 and as a gradient, and the gradient of the head
    at most at a time      all of it but gradients: those come as activations go, so the larger of the two counts
    tokens a second        machines · peak · MFU / FLOPs per token

MFU, the share of a card's peak that training reaches, is what this code has measured on one card, and so are the peaks
that the memory is checked against (benchmarks/results/gpu.jsonl; docs/experiments.md).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from transformers.utils import logging

from ..arguments import option
from ..configuration_scratchgpt import ScratchGPTConfig
from ..data.packing import Batch, Rows
from ..hub.model_directory import count_parameters
from ..loss_scratchgpt import GPU_CHUNK_BYTES
from ..modeling_scratchgpt import ScratchGPTDecoderLayer, ScratchGPTForCausalLM
from ..tokenizers import BPETokenizer, to_transformers
from .loop import measure
from .metrics import flops_per_token
from .plan import Measured, in_words
from .pretraining import PretrainArguments
from .tasks.language_modelling import LanguageModelling

DEPTHS = (1, 4)
"""Layers of the two models that are measured."""

VOCAB_SIZE = 50304
"""Where none is given: GPT-2's, rounded up to a multiple of 64."""

MFU = 0.28
"""Share of the data sheet's peak that the compiled step of 124M parameters reached on one NVIDIA H200."""

CONTEXT_OF_CUDA = 0.6e9
"""Bytes that a GPU's libraries take for themselves, about."""

USABLE = 0.9
"""Of a device's memory; the rest is lost between the blocks of the allocator."""


@dataclass(frozen=True)
class Machine:
    name: str
    flops: float
    """Floating-point operations a second in bf16, dense, as the data sheet has it."""
    memory: float
    """Bytes."""
    count: int = 1


CARDS = {
    "h200": Machine("NVIDIA H200 SXM", 989e12, 141e9),
    "h100": Machine("NVIDIA H100 SXM", 989e12, 80e9),
    "a100": Machine("NVIDIA A100 SXM", 312e12, 80e9),
    "l40s": Machine("NVIDIA L40S", 362e12, 48e9),
    "rtx4090": Machine("NVIDIA RTX 4090", 165e12, 24e9),
    "rtx3090": Machine("NVIDIA RTX 3090", 71e12, 24e9),
}
"""From NVIDIA's data sheets and, of the last two, the white papers of Ada and Ampere (fp32 accumulation)."""


def find_machine(name: str) -> Machine | None:
    """A card or several, `h100x8`; None for `this`.

    Raises:
        ValueError: for another name.
    """
    if name == "this":
        return None
    found = re.fullmatch(r"([a-z0-9]+?)(?:x([1-9]\d*))?", name.lower())
    if found is None or found[1] not in CARDS:
        raise ValueError(f"machine={name} is not known: give this, or {', '.join(CARDS)}, or several as in h100x8")
    return replace(CARDS[found[1]], count=int(found[2] or 1))


@dataclass
class ForecastArguments(PretrainArguments):
    """Pretraining's options, of which text and places do not matter."""

    HELP_GROUPS = {"tokens": "Training", "machine": "Speed and memory"}

    data: str = option("any", "Does not matter here.")
    tokens: float | None = option(None, "Tokens to train on; default: max_steps steps.", above=0, at_most=1e18)
    machine: str = option("this", f"this, {', '.join(CARDS)}, or several of a kind: h100x8.")
    sharded: bool = option(False, "FSDP: weights, gradients and optimizer state are spread over the machines.")

    def __post_init__(self) -> None:
        super().__post_init__()
        find_machine(self.machine)
        if self.model_name_or_path is not None:
            raise ValueError("--model_name_or_path has a size of its own: give preset, hidden_size, … here")


@dataclass(frozen=True)
class Forecast:
    """Of one process, unless it says otherwise."""

    where: str
    parameters: int
    flops_per_token: float
    tokens_per_second: float
    """Of all processes."""
    speed: str
    """How that number comes about."""
    memory: dict[str, float]
    """Bytes by part, `GRADIENTS` and `ACTIVATIONS` among them."""
    available: float
    """Bytes."""
    row_bytes: float
    """That another row of a batch would take."""
    rows: int
    tokens_per_step: int
    tokens: float

    @property
    def peak(self) -> float:
        """Bytes that a step holds at most at a time: gradients come as activations go."""
        return sum(self.memory.values()) - min(self.memory[GRADIENTS], self.memory[ACTIVATIONS])

    @property
    def largest_batch(self) -> int:
        """Rows per process that fit; 0 where not even one does."""
        fixed = sum(self.memory.values()) - self.memory[GRADIENTS] - self.memory[ACTIVATIONS]
        room = USABLE * self.available - fixed
        return max(0, int(room // self.row_bytes)) if room >= self.memory[GRADIENTS] else 0

    def __str__(self) -> str:
        seconds = self.tokens / self.tokens_per_second
        lines = [
            f"{self.parameters / 1e6:,.1f} million parameters, {self.flops_per_token / 1e6:,.0f} million operations "
            "for a token, forward and backward",
            "",
            f"Memory of a process, {self.where}, {self.rows} rows at a time:",
            *(f"  {name:<34}{value / 1e9:>8.2f} GB" for name, value in self.memory.items()),
            f"  {'at most at a time':<34}{self.peak / 1e9:>8.2f} GB of {self.available / 1e9:.1f}",
            f"Gradients come as activations go. The largest batch that fits: {self.largest_batch:,} rows."
            if self.largest_batch >= self.rows
            else f"IT DOES NOT FIT: the largest batch that does has {self.largest_batch:,} rows.",
            "",
            f"Speed: {self.tokens_per_second:,.0f} tokens/s ({self.speed})",
            f"{self.tokens:,.0f} tokens: {self.tokens / self.tokens_per_step:,.0f} steps of {self.tokens_per_step:,} "
            f"tokens, {in_words(seconds)}. Evaluations, checkpoints and compiling come on top.",
        ]
        return "\n".join(lines)


HERE, GRADIENTS, ACTIVATIONS = "measured on this machine", "gradients (fp32)", "activations"


def forecast(arguments: ForecastArguments, say: Callable[[str], object] = print) -> Forecast:
    """
    Raises:
        ValueError: for a shape that no model can have.
        OSError: where a measured model does not fit into the memory.
    """
    config = configuration(arguments)
    machine = find_machine(arguments.machine)
    with torch.device("meta"):
        parameters = count_parameters(ScratchGPTForCausalLM(config))
    length, rows = config.max_position_embeddings, arguments.per_device_train_batch_size
    flops = flops_per_token(config, parameters, length)
    count = machine.count if machine else 1
    per_step = rows * length * arguments.gradient_accumulation_steps * count
    tokens = float(arguments.tokens or arguments.max_steps * per_step)
    parts = state_bytes(config, parameters, arguments)
    if machine is None:
        measured = []
        for layers in DEPTHS:
            say(f"Measuring real steps of {layers} layer{'s' * (layers > 1)} …")
            measured.append(measured_steps(arguments, config, layers))
        memory, row_bytes = measured_memory(measured, config, parts, rows)
        rate = per_step / _at(config.num_hidden_layers, *(each.step_seconds for each in measured))
        say("")
        available = float(psutil.virtual_memory().total)
        return Forecast(
            HERE, parameters, flops, rate, f"real steps of {DEPTHS[0]} and {DEPTHS[1]} layers", memory, available,
            row_bytes, rows, per_step, tokens,
        )  # fmt: skip
    if arguments.sharded:
        parts = {name: value / count for name, value in parts.items()}
    kept = kept_bytes(config, arguments.compile)
    layers = config.num_hidden_layers
    row_bytes = kept.rest + layers * kept.layer
    if arguments.gradient_checkpointing:  # only what goes into a layer, in fp32, and all of one layer at a time
        row_bytes = kept.rest + layers * 4.0 * length * config.hidden_size + kept.layer
    memory = {
        **parts,
        "bf16 copies of the weights": layers * kept.copies + 2.0 * config.vocab_size * config.hidden_size,
        ACTIVATIONS: row_bytes * rows,
        "a chunk of logits": chunk_bytes(config),
        "CUDA itself": CONTEXT_OF_CUDA,
    }
    speed = (
        f"{count} × {machine.flops / 1e12:,.0f} TFLOP/s × {MFU:.0%} / {flops / 1e6:,.0f} MFLOP; {MFU:.0%} is what one "
        "H200 reached with 124M; traffic between cards not counted"
    )
    where = f"estimated for {count} × {machine.name}"
    rate = count * machine.flops * MFU / flops
    return Forecast(
        where, parameters, flops, rate, speed, memory, machine.memory, row_bytes, rows, per_step, tokens
    )  # fmt: skip


def configuration(arguments: PretrainArguments) -> ScratchGPTConfig:
    """As `pretraining.model_config`, without a tokenizer."""
    shape = arguments.given("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    config = ScratchGPTConfig.from_preset(
        arguments.preset, max_position_embeddings=arguments.context_length or 512,
        vocab_size=arguments.vocab_size or VOCAB_SIZE, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        **{**shape, **arguments.given("hidden_dropout", "attention_dropout")},
    )  # fmt: skip
    return config


def state_bytes(config: ScratchGPTConfig, parameters: int, arguments: PretrainArguments) -> dict[str, float]:
    """Bytes of weights, gradients and optimizer state, all in fp32."""
    state = 8.0 * parameters
    if arguments.optimizer == "muon":  # one moment of the layers' matrices, two of the rest
        with torch.device("meta"):
            layer = ScratchGPTDecoderLayer(config, 0)
        state -= 4.0 * config.num_hidden_layers * sum(each.numel() for each in layer.parameters() if each.ndim == 2)
    ema = {"moving average (fp32)": 4.0 * parameters} if arguments.ema_decay else {}
    return {
        "weights (fp32)": 4.0 * parameters, GRADIENTS: 4.0 * parameters,
        f"state of the optimizer ({arguments.optimizer})": state, **ema,
    }  # fmt: skip


def chunk_bytes(config: ScratchGPTConfig) -> float:
    """The loss operator's buffer of logits, as much again for their gradient, and that of the head in fp32."""
    buffer = max(GPU_CHUNK_BYTES, 2 * config.vocab_size * config.hidden_size)
    return 2.0 * buffer + 4.0 * config.vocab_size * config.hidden_size


@dataclass(frozen=True)
class Kept:
    """Bytes that autograd keeps from the forward pass for the backward pass."""

    layer: float
    """Of one layer, for one row."""
    rest: float
    """Of what is around the layers, for one row."""
    copies: float
    """Of one layer: its weights in bf16."""


def kept_bytes(config: ScratchGPTConfig, compiled: bool) -> Kept:
    """Counted by running models of one and of two layers on rows of zeros under bf16 autocast.

    Compiled, cheap parts are computed anew in the backward pass: the compiler's own partition of the two passes says
    which.
    """

    def count(layers: int, rows: int) -> float:
        cut = ScratchGPTConfig.from_dict(config.to_dict() | {"num_hidden_layers": layers, "vocab_size": 8})
        decoder = ScratchGPTForCausalLM(cut).model
        decoder.set_attn_implementation("sdpa")
        torch._dynamo.reset()  # it compiles one function a few times only, and then silently runs it as it is
        model: Any = (
            torch.compile(decoder, backend="aot_eager_decomp_partition", dynamic=False) if compiled else decoder
        )
        weights = {each.untyped_storage().data_ptr() for each in decoder.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        hidden = torch.zeros(rows, config.max_position_embeddings, config.hidden_size, requires_grad=True)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            output = model(inputs_embeds=hidden, use_cache=False)  # kept alive, and with it what is counted
        del output
        return float(sum(kept.values()))

    # count(layers, rows) = rows * (rest + layers * layer) + layers * copies
    one, two_rows, two_layers = count(1, 1), count(1, 2), count(2, 2)
    copies = 2 * one - two_rows
    layer = (two_layers - two_rows - copies) / 2
    return Kept(layer, two_rows - one - layer, copies)


# What is here


@dataclass(frozen=True)
class RandomRows(Rows):
    """Rows of random tokens, as many as are asked for."""

    length: int
    vocab_size: int

    def __len__(self) -> int:
        return 1

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        return np.arange(global_batch_size)

    def batch(self, indices: np.ndarray) -> Batch:
        ids = torch.randint(0, self.vocab_size, (len(indices), self.length))
        return {"input_ids": ids, "shift_labels": ids.roll(-1, 1)}

    def fingerprint(self) -> str:
        return "random"

    def texts(self, tokenizer: Any) -> Iterator[str]:
        yield from ()


def measured_steps(arguments: PretrainArguments, config: ScratchGPTConfig, layers: int) -> Measured:
    """Of a model with so many layers, in a new process: the most memory that a process held stays its most."""
    cut = config.to_dict() | {"num_hidden_layers": layers}
    plain = replace(
        arguments, eval_tokens=1, push_to_hub=False, hub_model_id=None, hub_base_id=None, lr_schedule="constant",
        warmup_steps=0, sample_prompts=[], resume_from_checkpoint=None,
    )  # fmt: skip
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measured, plain, cut).result()


def _measured(arguments: PretrainArguments, config: dict[str, Any]) -> Measured:
    logging.disable_progress_bar()
    tokenizer = to_transformers(BPETokenizer.train(["a b"], vocab_size=262))
    made = ScratchGPTConfig.from_dict(config)
    rows = RandomRows(made.max_position_embeddings, made.vocab_size)
    task = LanguageModelling(rows, rows, tokenizer, arguments)
    torch.manual_seed(arguments.seed)
    return measure(
        task, ScratchGPTForCausalLM(made), tokenizer, arguments, Accelerator(cpu=not torch.cuda.is_available())
    )


def measured_memory(
    measured: Sequence[Measured], config: ScratchGPTConfig, parts: dict[str, float], rows: int
) -> tuple[dict[str, float], float]:
    """Bytes by part, and those of one more row, which the layers keep."""
    total = 1e6 * _at(config.num_hidden_layers, *(each.memory_mb for each in measured))
    layer = 1e6 * (measured[1].memory_mb - measured[0].memory_mb) / (DEPTHS[1] - DEPTHS[0])
    with torch.device("meta"):
        of_layer = sum(each.numel() for each in ScratchGPTDecoderLayer(config, 0).parameters())
    # Weights and the state of the optimizer stay; of activations and gradients the larger counts.
    staying = sum(parts.values()) - parts[GRADIENTS]
    activations = max(0.0, (layer - of_layer * staying / (parts[GRADIENTS] / 4)) * config.num_hidden_layers)
    rest = max(0.0, total - staying - max(activations, parts[GRADIENTS]))
    memory = {**parts, ACTIVATIONS: activations, "logits, buffers, Python, torch": rest}
    return memory, max(activations / rows, 4.0 * config.max_position_embeddings * config.hidden_size)


def _at(layers: int, first: float, second: float) -> float:
    """The straight line through two depths, at another."""
    return first + (layers - DEPTHS[0]) * (second - first) / (DEPTHS[1] - DEPTHS[0])
