"""Model directories whose linear layers stay in 8 or 4 bits: `from_pretrained` reads them as any other.

    write_quantized(model, directory, weight_bits=4)
    AutoModelForCausalLM.from_pretrained(directory)

The configuration says how, in the terms of transformers and bitsandbytes: 8 bits are LLM.int8() (Dettmers et al. 2022:
a scale for each row, inputs rounded to 8 bits too), 4 bits are nf4 (Dettmers et al. 2023: blocks of 64 weights, whose
scales are 8-bit numbers themselves). LLM.int8()'s way with outliers is turned off: which columns are exact depends on
all tokens of a call, and so would what is likely at one position on those after it.

Embedding, norms and head stay halves, as transformers has it. So of a small model, which is an embedding for a good
part, more than a quarter or an eighth remains. In 4 bits so do layers whose inputs are no multiple of 64 or whose
outputs are none of 32: on CPUs that multiply bf16, bitsandbytes 0.50 packs weights in such tiles, and fails on others.
"""

import importlib.util
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from ..hub.model_directory import load_model
from .checks import check_same_logits, logits_of

REST = {8: torch.float16, 4: torch.bfloat16}
"""Type of what is not rounded. The 8-bit layers take float16 alone, and say so at every call that brings another."""


TILE = (32, 64)
"""Outputs and inputs of which a 4-bit layer has a multiple."""


def check_quantized() -> None:
    """Raises ValueError where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError('weight_bits needs the package bitsandbytes: pip install "scratchgpt[quant]"')


def write_quantized(model: Any, directory: str | os.PathLike[str], weight_bits: int, ids: torch.Tensor) -> Any:
    """Writes weights and configuration of a model whose linear layers are rounded, and reads them again.

    Args:
        model: a causal language model of transformers, ours or another; it stays as it is.
        directory: there already, and without a model.
        weight_bits: 8 or 4.
        ids: [1, T], on which what was read must give the logits of what was written.

    Returns:
        The model as `from_pretrained` reads it.

    Raises:
        ValueError: without bitsandbytes, where no layer can be rounded, and where the two disagree.
        OSError: where the files cannot be written.
    """
    check_quantized()
    rest, head = REST[weight_bits], model.get_output_embeddings()
    layers = {name: layer for name, layer in model.named_modules() if _is_linear(layer) and layer is not head}
    unfit = [name for name, layer in layers.items() if weight_bits == 4 and not _fits(layer)]
    if len(unfit) == len(layers):
        raise ValueError(
            f"weight_bits=4: no layer of this model has inputs that are a multiple of {TILE[1]} and outputs that are "
            f"one of {TILE[0]}, as bitsandbytes needs: take 8"
        )
    config = BitsAndBytesConfig(
        load_in_8bit=weight_bits == 8,
        load_in_4bit=weight_bits == 4,
        llm_int8_threshold=0.0,
        llm_int8_skip_modules=[*unfit, "lm_head"] if unfit else None,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=rest,
    )
    with TemporaryDirectory(dir=Path(directory)) as whole:  # only what is read is rounded
        try:
            model.save_pretrained(whole)
            rounded = AutoModelForCausalLM.from_pretrained(whole, quantization_config=config, dtype=rest)
            rounded.save_pretrained(os.fspath(directory))
        except SafetensorError as error:
            raise OSError(f"the weights could not be written: is the disk full? ({error})") from error
    read = load_model(AutoModelForCausalLM, directory)
    check_same_logits(logits_of(rounded, ids), logits_of(read, ids))
    return read


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, torch.nn.Linear | Conv1D)


def _fits(layer: Any) -> bool:
    rows, columns = layer.weight.shape if isinstance(layer, torch.nn.Linear) else layer.weight.T.shape
    return rows % TILE[0] == columns % TILE[1] == 0
