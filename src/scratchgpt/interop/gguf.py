"""GGUF: a model in one file, for llama.cpp and what is built on it (Ollama, LM Studio).

    write_gguf(to_qwen3(model), tokenizer, "model.gguf", "q8_0", name="mine")

The file holds hyperparameters, tokenizer, chat template and weights. Matrices are rounded to the type asked for, which
is what the package `gguf` can make: blocks of 32 numbers of a row with a scale (`q8_0` …), or halves. What is small
and delicate stays in fp32: norms, biases, learned positions. With 4 or 5 bits the embeddings and the head, which feel
rounding most, get 8.

Two layouts differ from transformers'. GPT-2's `Conv1D` holds its matrices as [in, out], GGUF as [out, in]. Llama's
rotation turns neighbours in llama.cpp, (0, 1), (2, 3), …, and the two halves of a head in transformers, so the rows of
its queries and keys change places. Qwen3's does not: llama.cpp turns halves there.

Source: the GGUF specification (ggml, docs/gguf.md), and the architectures of llama.cpp (src/models).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from .checks import check_expressible
from .families import to_family
from .gguf_tokenizer import GGUFTokenizer

BLOCK = 32
"""Numbers that share a scale."""

QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""What a file's matrices can be, the largest first."""

POSITIONS, VOCABULARY = ("wpe.weight",), ("embed_tokens.weight", "wte.weight", "lm_head.weight")


def check_gguf() -> None:
    """Raises ValueError where the package `gguf` is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ValueError('GGUF needs the package gguf: pip install "scratchgpt[gguf]"') from error


def to_llama_cpp(model: ScratchGPTForCausalLM) -> Any:
    """The model as GPT-2, Qwen3 or Llama, whichever it is; a copy.

    Raises:
        ValueError: for a model that llama.cpp cannot express; names the fields.
    """
    _check_llama_cpp(model.config)
    return to_family(model)


def _check_llama_cpp(config: ScratchGPTConfig) -> None:
    """llama.cpp has one activation for each architecture, and we write no scaled rotation."""
    if config.position_embedding_type == "learned":
        if config.hidden_act != "gelu_new":  # another name of the same function
            check_expressible("llama.cpp", config, hidden_act="gelu_pytorch_tanh")
        return
    plain = {"rope_type": "default", "rope_theta": (config.rope_parameters or {}).get("rope_theta", 10000.0)}
    check_expressible("llama.cpp", config, hidden_act="silu", rope_parameters=plain)


@torch.no_grad()
def write_gguf(
    exported: Any,
    tokenizer: Any,
    file: str | os.PathLike[str],
    quantization: str = "f16",
    *,
    name: str,
    license: str | None = None,
    source: str | None = None,
) -> int:
    """Writes a GGUF file, which must not be there yet.

    Args:
        exported: what `to_llama_cpp` returns. Afterwards it is in fp32, with the weights rounded as they are in the
            file, so that what reads the file can be compared with it exactly.
        tokenizer: the model's, of transformers.
        quantization: one of `QUANTIZATIONS`.
        name: of the model, as programs show it.
        license: its licence, if it is known. source: the address of what it was made from.

    Returns:
        How many matrices stay f16, since their rows are no multiple of 32 numbers.

    Raises:
        ValueError: without the package `gguf`; for an unknown quantization, a tokenizer that llama.cpp cannot express,
            and weights too large for the type.
        OSError: where the file cannot be written.
    """
    check_gguf()
    from gguf import GGMLQuantizationType, GGUFWriter, dequantize, get_tensor_name_map, quantize
    from gguf.constants import GGML_QUANT_VERSION, MODEL_ARCH, LlamaFileType

    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization}: choose one of {', '.join(QUANTIZATIONS)}")
    config, asked = exported.config, GGMLQuantizationType[quantization.upper()]
    fields = GGUFTokenizer.of(tokenizer, config.vocab_size)
    writer = GGUFWriter(os.fspath(file), config.model_type)
    writer.add_type("model")
    writer.add_name(name)
    if license is not None:
        writer.add_license(license)
    if source is not None:
        writer.add_source_url(source)
    kind = "ALL_F32" if quantization == "f32" else f"MOSTLY_{quantization.upper()}"
    writer.add_file_type(LlamaFileType[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_tokenizer(writer, fields, tokenizer)
    names = get_tensor_name_map(MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    kept = 0
    for their_name, parameter in exported.float().named_parameters():
        tensor_name = names.get_name(their_name, try_suffixes=(".weight", ".bias"))
        assert tensor_name is not None, their_name
        is_turned = isinstance(exported.get_submodule(their_name.rpartition(".")[0]), Conv1D) and parameter.ndim == 2
        values = parameter.T if is_turned else parameter  # a view: what is written there is the model's
        order = _rows(their_name, config)
        rows = np.ascontiguousarray(values[order].numpy())
        type_ = _type_of(their_name, rows, asked)
        kept += type_ == GGMLQuantizationType.F16 != asked
        with np.errstate(over="ignore", invalid="ignore"):
            stored = quantize(rows, type_)
            rounded = dequantize(stored, type_)
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"{their_name} has weights that are too large for {type_.name.lower()}: choose bf16 or f32"
            )
        values[order] = torch.from_numpy(rounded.reshape(rows.shape))
        writer.add_tensor(tensor_name, stored, raw_dtype=type_)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError as error:  # numpy's says only how many numbers were written
        raise OSError(f"{Path(file).name} could not be written: is the disk full? ({error})") from error
    return kept


def _type_of(name: str, rows: np.ndarray, asked: Any) -> Any:
    kinds = type(asked)
    if rows.ndim == 1 or name.endswith(POSITIONS):
        return kinds.F32
    if asked in (kinds.F32, kinds.F16, kinds.BF16):
        return asked
    if rows.shape[1] % BLOCK:
        return kinds.F16
    return kinds.Q8_0 if name.endswith(VOCABULARY) else asked


def _rows(name: str, config: Any) -> Any:
    """The order in which the file has the rows of a tensor."""
    if config.model_type != "llama" or not any(part in name for part in (".q_proj.", ".k_proj.")):
        return slice(None)
    heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
    halves = torch.arange(heads * config.head_dim).view(heads, 2, config.head_dim // 2)
    return halves.transpose(1, 2).flatten()


def _add_shape(writer: Any, config: Any) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: Any, fields: GGUFTokenizer, tokenizer: Any) -> None:
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whatever the architecture
    writer.add_tokenizer_pre(fields.pre)
    writer.add_token_list(fields.tokens)
    writer.add_token_types(fields.types)
    writer.add_token_merges(fields.merges)
    # Our tokenizers put nothing before or after a text; left out, some pre-tokenizers of llama.cpp would.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_eot_token_id, _end_of_turn(fields)),
    ):
        if token_id is not None:
            add(token_id)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _end_of_turn(fields: GGUFTokenizer) -> int | None:
    return fields.tokens.index("<|end|>") if "<|end|>" in fields.tokens else None


def read_tokenizer(file: str | os.PathLike[str]) -> GGUFTokenizer:
    """What a GGUF file says of its tokenizer."""
    from gguf import GGUFReader

    found = {
        name: field.contents()
        for name, field in GGUFReader(Path(file)).fields.items()
        if name.startswith("tokenizer.")
    }
    values = (found[f"tokenizer.ggml.{name}"] for name in ("pre", "tokens", "token_type", "merges"))
    return GGUFTokenizer(*values)
