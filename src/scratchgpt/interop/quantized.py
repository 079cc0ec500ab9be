"""Model directories whose linear layers stay in 8 or 4 bits: `from_pretrained` reads them as any other.

    write_quantized(model, directory, weight_bits=4)
    AutoModelForCausalLM.from_pretrained(directory)

The configuration says how, in the terms of transformers and bitsandbytes: 8 bits are LLM.int8() (Dettmers et al. 2022:
a scale for each row, inputs rounded to 8 bits too), 4 bits are nf4 (Dettmers et al. 2023: blocks of 64 weights, whose
scales are 8-bit numbers themselves). LLM.int8()'s way with outliers is turned off: which columns are exact depends on
all tokens of a call, and so would what is likely at one position on those after it.

Embedding, norms and head stay halves, as transformers has it. So of a small model, which is an embedding for a good
part, more than a quarter or an eighth remains.
"""

import importlib.util
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ..hub.model_directory import load_model
from .checks import check_same_logits, logits_of

REST = {8: torch.float16, 4: torch.bfloat16}
"""Type of what is not rounded. The 8-bit layers take float16 alone, and say so at every call that brings another."""


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
        ValueError: without bitsandbytes, and where the two disagree.
        OSError: where the files cannot be written.
    """
    check_quantized()
    rest = REST[weight_bits]
    config = BitsAndBytesConfig(
        load_in_8bit=weight_bits == 8,
        load_in_4bit=weight_bits == 4,
        llm_int8_threshold=0.0,
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
