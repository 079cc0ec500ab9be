"""ONNX: a model as a graph, for onnxruntime (in a service, on a phone, in a browser) and transformers.js.

    write_onnx(to_family(model), "onnx/model.onnx")
    quantize_onnx("onnx/model.onnx", "onnx/model_quantized.onnx")

The graph is one step of decoding with a key-value cache, which transformers.js calls as it is:

    input_ids, position_ids [B, T]    attention_mask [B, P + T]    past_key_values.<layer>.key, .value [B, K, P, C]
    → logits [B, T, V]                present.<layer>.key, .value [B, K, P + T, C]

with B texts, P tokens in the cache, T new ones, K key-value heads of width C, V ids. The first step has P = 0.

Source: the ONNX specification, and what transformers.js feeds a decoder (src/models/session.js, decoder_forward).
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import CACHE, ScratchGPTForCausalLM
from .families import to_family

LARGEST = 2**31
"""Bytes of a file: the format, protocol buffers, has no more."""

NO_GRAPH = ("dynamic", "longrope")
"""Scaled rotations whose frequencies change with the length of the text: not one graph."""


def check_onnx() -> None:
    """Raises ValueError where one of the packages is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f'ONNX needs the package {error.name}: pip install "scratchgpt[onnx]"') from error


def to_onnx_family(model: ScratchGPTForCausalLM) -> Any:
    """The model as GPT-2, Qwen3 or Llama, in fp32; a copy.

    Raises:
        ValueError: for a model that is none of them, whose rotation is no one graph, or that is too large for a file.
    """
    kind = _rope_type(model.config)
    if kind in NO_GRAPH:
        raise ValueError(f"ONNX cannot express this model, because of rope_type={kind} in rope_parameters")
    exported = to_family(model).float()
    if (size := 4 * sum(each.numel() for each in exported.parameters())) >= 0.99 * LARGEST:
        raise ValueError(f"an ONNX file holds 2 GB, and this model is {size / 1e9:.1f} GB in fp32: export it to gguf")
    return exported


def _rope_type(config: ScratchGPTConfig) -> str | None:
    if config.position_embedding_type != "rotary":
        return None
    assert config.rope_parameters is not None
    return config.rope_parameters["rope_type"]


def cache_shape(config: Any) -> tuple[int, int, int]:
    """Layers, key-value heads, and the width of one, of a configuration of GPT-2, Qwen3 or Llama."""
    if config.model_type == "gpt2":
        return config.n_layer, config.n_head, config.n_embd // config.n_head
    return config.num_hidden_layers, config.num_key_value_heads, config.head_dim


def cache_names(num_layers: int, prefix: str = "past_key_values") -> list[str]:
    """What the graph calls the keys and values of each layer."""
    return [f"{prefix}.{layer}.{kind}" for layer in range(num_layers) for kind in ("key", "value")]


class DecodingStep(nn.Module):
    """A model as the graph has it: nothing but tensors go in and out.

    Args:
        with_attention: also return the attention weights [B, L, H, P + T] of the last token, of L layers and H heads.
    """

    def __init__(self, model: Any, with_attention: bool):
        super().__init__()
        self.model, self.with_attention = model, with_attention

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(config=self.model.config)
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        num_cached, num_new = past[0].shape[2], input_ids.shape[1]
        queries_T1 = num_cached + torch.arange(num_new)[:, None]
        keys_S = torch.arange(attention_mask.shape[1])
        visible_B1TS = (keys_S <= queries_T1) & attention_mask.bool()[:, None, None]
        found = self.model(
            input_ids=input_ids,
            attention_mask=torch.where(visible_B1TS, 0.0, torch.finfo(torch.float32).min),
            position_ids=position_ids,
            use_cache=True,
            output_attentions=self.with_attention,
            **{CACHE: cache},
        )
        layers: Any = cache.layers
        present: list[torch.Tensor] = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        last = [torch.stack([each[:, :, -1] for each in found.attentions], 1)] if self.with_attention else []
        return (found.logits, *present, *last)


def write_onnx(exported: Any, file: str | os.PathLike[str], with_attention: bool = False) -> None:
    """Writes the graph of a decoding step, in fp32.

    Args:
        exported: what `to_onnx_family` returns. with_attention: see `DecodingStep`; the output's name is `attentions`.

    Raises:
        OSError: where the file cannot be written.
    """
    import onnx

    exported.set_attn_implementation("eager")
    num_layers, num_heads, width = cache_shape(exported.config)
    # Example inputs with sizes that are neither 1 nor equal to each other, so that none is taken for fixed.
    batch, new, cached = 2, 3, 5
    ids = torch.zeros(batch, new, dtype=torch.long)
    mask = torch.ones(batch, cached + new, dtype=torch.long)
    past = [torch.zeros(batch, num_heads, cached, width) for _ in range(2 * num_layers)]
    # By these names: transformers.js 4 makes an empty cache of `batch_size` texts, and takes any other name for 0.
    rows = {0: "batch_size", 1: "sequence_length"}
    seen = {0: "batch_size", 1: "total_sequence_length"}
    past_rows = {0: "batch_size", 2: "past_sequence_length"}
    inputs, outputs = cache_names(num_layers), cache_names(num_layers, "present")
    with _quiet():
        program = torch.onnx.export(
            DecodingStep(exported, with_attention).eval(),
            (ids, mask, torch.arange(cached, cached + new).repeat(batch, 1), past),
            input_names=["input_ids", "attention_mask", "position_ids", *inputs],
            output_names=["logits", *outputs, *(["attentions"] if with_attention else [])],
            dynamic_shapes=(rows, seen, rows, [past_rows] * len(past)),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for each in [proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer]:
        each.ClearField("metadata_props")  # where in whose source each node came from
        each.ClearField("doc_string")
    with _named(file):
        onnx.save(proto, os.fspath(file))


def quantize_onnx(file: str | os.PathLike[str], quantized: str | os.PathLike[str]) -> None:
    """Writes the graph with its matrices in 8 bits: whole numbers, with a scale for each column (the embeddings have
    one scale for all); what they are multiplied with is rounded to 8 bits as it comes.

    They are unsigned: the sums of signed ones overflow on processors with AVX2 alone, and results would depend on the
    processor.

    Raises:
        OSError: where the file cannot be written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(os.fspath(file))
    _untie(graph.graph)
    with _quiet(), _named(quantized):
        quantize_dynamic(
            graph, os.fspath(quantized), per_channel=True, weight_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip


def _untie(graph: Any) -> None:
    """A tied head multiplies with the transposed embeddings; only what is there as it is multiplied gets quantised."""
    from onnx import numpy_helper

    weights = {each.name: each for each in graph.initializer}
    for node in [each for each in graph.node if each.op_type == "Transpose" and each.input[0] in weights]:
        weight = numpy_helper.to_array(weights[node.input[0]]).T
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight), node.output[0]))
        graph.node.remove(node)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes about other packages and about its own insides."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _named(file: str | os.PathLike[str]) -> Iterator[None]:
    """An error of the disk names the file."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{Path(file).name} could not be written: is the disk full? ({error})") from error
