"""Decoding fast: layers made for one token at a time, fewer bits a weight, and a decoding step that is compiled.

    model, tokenizer = load_for_decoding("runs/chat/final", weight_bits=8)
    model.generate(**inputs, max_new_tokens=128, **compiled_decoding(model, max_length=256))

One token at a time, every weight is read once a token and used once: the time is that of reading them. So fewer bytes
a weight (bf16, 8 bits, 4 bits) are fewer milliseconds, if the kernel keeps up with the memory. The loop itself is
`generate` of transformers with its samplers and streamers: with a static cache and a compiled step it takes 0.2 ms a
token. docs/experiments.md has the measurements.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    CompileConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StaticCache,
)
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..adapters import is_adapter, load_adapter, merge_adapter
from ..attention import one_query_attention_forward
from ..hub.model_directory import is_quantized, load_model
from ..hub.names import local_copy
from ..modeling_scratchgpt import CACHE
from ..performance import choose_autocast_dtype

KERNEL_ROWS = 16
"""Up to so many rows the 8-bit kernel is faster than converting the weights and multiplying."""

UNPACKS_INT8 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether compiled code unpacks 8-bit weights faster than the kernel: by half there; with AVX2 it takes five times as
long."""


def load_for_decoding(
    model_name_or_path: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    weight_bits: int | None = None,
    device: str = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that is ready to talk, and its tokenizer.

    Args:
        model_name_or_path: a model directory or Hub name (owner/name, or owner/name@revision), quantised or not; or
            that of an adapter, which is merged into its base.
        base: of an adapter; default: where it was when the adapter was trained.
        dtype: float32, bfloat16 or float16; default: bfloat16 where the hardware multiplies it, else float32. One
            whose directory is quantised has its own, but for 8 bits on the CPU: there the default is bfloat16.
        weight_bits: as in `prepare_for_decoding`; the rest is bfloat16 then.

    Raises:
        ValueError: as `local_copy`, `load_adapter`, `load_model` and `prepare_for_decoding`, and for an unknown
            `dtype`, or one that a quantised model cannot have.
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    model_name_or_path = local_copy(model_name_or_path)
    quantized = is_quantized(model_name_or_path)
    if dtype is None:
        chosen = torch.bfloat16 if weight_bits or quantized else choose_autocast_dtype(device)[0] or torch.float32
    elif dtype in dtypes:
        chosen = dtypes[dtype]
    else:
        raise ValueError(f"dtype={dtype!r}: give one of {', '.join(dtypes)}")
    model: Any
    if is_adapter(model_name_or_path):
        adapted, tokenizer = load_adapter(model_name_or_path, base, "CAUSAL_LM")
        model = merge_adapter(adapted)  # in fp32, and rounded then
        model.to(chosen)
    else:
        # One that is quantised is read in its own types: transformers would give its biases another, and only them.
        model = load_model(AutoModelForCausalLM, model_name_or_path, dtype="auto" if quantized else chosen)
        tokenizer = AutoTokenizer.from_pretrained(model_name_or_path)
    prepared = prepare_for_decoding(model.to(device).eval(), weight_bits)
    if quantized and any(isinstance(layer, Int8Linear) for layer in prepared.modules()):
        nn.Module.to(prepared, chosen)  # transformers' own refuses, as if bitsandbytes' layers were still there
    elif quantized and dtype is not None and prepared.dtype != chosen:
        own = str(prepared.dtype).removeprefix("torch.")
        raise ValueError(f"{model_name_or_path} is quantised, and computes in {own}: leave out dtype")
    return prepared, tokenizer


def one_row_product(weight: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """A weight [O, I] by an input of I numbers, in fp32 [O]: compiled, a single pass over the weight.

    That pass runs at the memory's bandwidth; the matrix libraries reach a third of it (oneDNN bf16) or less.
    """
    # as_strided makes the compiler store the row: else each row of the weight computes it again, its norm included.
    row = input.reshape(-1).float().contiguous().as_strided((weight.shape[1],), (1,))
    return (weight.float() * row).sum(-1)


class OneRowLinear(nn.Linear):
    """`nn.Linear`; where one row is compiled, its product is `one_row_product`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() or input.numel() != self.in_features:
            return super().forward(input)
        output = one_row_product(self.weight, input)
        if self.bias is not None:
            output = output + self.bias
        return output.to(input.dtype).view(*input.shape[:-1], self.out_features)


class Int8Linear(nn.Module):
    """A linear layer whose weights are 8-bit integers with one scale for each row; inputs stay what they are.

    Source: the weight-only scheme of torchao's `Int8WeightOnlyConfig`, on the same kernel of torch.

    Args:
        linear: the layer to round. Its largest weight of a row becomes 127.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float).tiny) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.reshape(-1, self.in_features)
        if rows.shape[0] == 1 and torch.compiler.is_compiling() and (rows.device.type != "cpu" or UNPACKS_INT8):
            output = (one_row_product(self.weight, rows) * self.scale).to(rows.dtype)
        elif rows.shape[0] <= KERNEL_ROWS and rows.device.type == "cpu":
            output = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            output = F.linear(rows, self.weight.to(rows.dtype)) * self.scale
        if self.bias is not None:
            output = output + self.bias
        return output.view(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def unrounded(layer: Any) -> nn.Linear:
    """A `Linear8bitLt` of bitsandbytes, which nothing has passed through yet, in fp32.

    It has the scheme of `Int8Linear` (LLM.int8(), Dettmers et al. 2022), which makes the same integers of it again.
    """
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        linear.weight.copy_(layer.weight.float() * (layer.weight.SCB.float()[:, None] / 127))
        if layer.bias is not None:
            linear.bias.copy_(layer.bias)
    return linear


def four_bit_linear(linear: nn.Linear) -> nn.Module:
    """The layer in nf4 of bitsandbytes (blocks of 64 weights, Dettmers et al. 2023), computing in the layer's type."""
    # It looks for a kernel on the Hub first, and says at length that it takes its own.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from bitsandbytes.nn.modules import Linear4bit

    layer = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        quant_type="nf4",
        compress_statistics=False,
    )
    layer.load_state_dict(linear.state_dict())
    return layer.to(linear.weight.device).eval()  # the move rounds


def prepare_for_decoding(model: PreTrainedModel, weight_bits: int | None = None) -> PreTrainedModel:
    """Gives `model`, in place, linear layers and attention that are fast for a token at a time; returns it.

    Args:
        model: in the type it is to compute in; for weights in 8 or 4 bits that is bf16.
        weight_bits: None keeps the weights; 8 rounds them, row by row; 4 takes nf4 for the layers, and 8 bits for the
            head and for shapes that the 4-bit kernel lacks. The embedding stays as it is. Layers that bitsandbytes
            rounded to 8 bits keep their weights; on the CPU they no longer round their inputs.

    Raises:
        ValueError: for other numbers of bits, for 4 bits without bitsandbytes, and for weights that are quantised
            already.
    """
    if weight_bits not in (None, 8, 4):
        raise ValueError(f"weight_bits={weight_bits}: give 8 or 4, or leave it out")
    if weight_bits and "quantization_config" in model.config.to_dict():
        raise ValueError("the model is quantised already: leave out weight_bits")
    if weight_bits == 4 and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError('weight_bits=4 needs the package bitsandbytes: pip install "scratchgpt[quant]"')
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer).__name__ == "Linear8bitLt" and model.device.type == "cpu":
            # bitsandbytes rounds the inputs too.
            model.set_submodule(name, Int8Linear(unrounded(layer)).to(model.dtype))
        if type(layer) is not nn.Linear:
            continue
        if weight_bits is None:
            layer.__class__ = OneRowLinear  # the same layer, weights tied as they were; only its product differs
        elif weight_bits == 4 and layer is not head and layer.in_features % 64 == layer.out_features % 32 == 0:
            model.set_submodule(name, four_bit_linear(layer))
        else:
            model.set_submodule(name, Int8Linear(layer))
    if model.device.type == "cpu":
        untyped: Any = model
        untyped.hf_quantizer = None  # with it transformers does not compile the step, though all layers above can be
        AttentionInterface.register("one_query", one_query_attention_forward)
        AttentionMaskInterface.register("one_query", sdpa_mask)
        model.set_attn_implementation("one_query")
    return model


class CompiledDecoding(Mapping[str, Any]):
    """What `compiled_decoding` returns: keyword arguments whose cache is empty whenever they are unpacked (`**`)."""

    def __init__(self, cache: StaticCache, compile_config: CompileConfig):
        self._arguments = {CACHE: cache, "compile_config": compile_config}

    def __getitem__(self, name: str) -> Any:
        if name == CACHE:
            self._arguments[CACHE].reset()
        return self._arguments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)


def compiled_decoding(model: PreTrainedModel, max_length: int) -> CompiledDecoding:
    """Keyword arguments for `model.generate` that make it compile the step of one token, once for all of its calls.

        decoding = compiled_decoding(model, max_length=256)
        model.generate(**inputs, max_new_tokens=64, **decoding)
        model.generate(**others, max_new_tokens=64, **decoding)

    The first answer waits for the compiler (for 124M parameters 12 s, from the second process on 4 s). One call at a
    time can use them, and all calls have one batch size.

    Args:
        max_length: tokens of prompt and answer together; each step looks at so many, used or not.
    """
    # On a GPU the step is recorded once and replayed (CUDA graphs): launching its kernels one by one takes longer than
    # they run.
    mode = "default" if model.device.type == "cpu" else "reduce-overhead"
    compile_config: Any = CompileConfig(fullgraph=True, dynamic=False, mode=mode)
    compile_config._compile_all_devices = True  # else only on GPUs
    return CompiledDecoding(StaticCache(model.config, max_cache_len=max_length), compile_config)
