"""Model directories: a model and its tokenizer, saved together or not at all, and checked against each other.

A model is a whole one or a base under a peft adapter; then the directory is the adapter's, as peft writes it, and
names its base.
"""

import os
import sys
from typing import TYPE_CHECKING, TypeGuard

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .fingerprints import base_reference, write_base_reference
from .staging import staged_directory

if TYPE_CHECKING:
    from peft import PeftModel  # heavy to import, and only adapters need it


UNUSED_ROWS = 1024
"""Embedding rows that a model may have beyond its tokenizer's ids: round sizes are faster, and 50,304 for GPT-2's
50,257 is usual. More than this, and the tokenizer is another model's."""


def is_adapted(model: "PreTrainedModel | PeftModel") -> "TypeGuard[PeftModel]":
    """Whether `model` is a base under a peft adapter."""
    return "peft" in sys.modules and isinstance(model, sys.modules["peft"].PeftModel)


def check_tokenizer(model: "PreTrainedModel | PeftModel", tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes sure that `tokenizer` can be the model's own.

    Raises:
        ValueError: for a vocabulary of another size, or special tokens with other ids; names both and the remedy.
    """
    config, size = model.config, len(tokenizer)
    if not size <= config.vocab_size <= size + UNUSED_ROWS:
        raise ValueError(
            f"The tokenizer has {size} ids, the model's vocab_size is {config.vocab_size}: they do not belong "
            "together. Take the tokenizer that the model was trained with, or call "
            "model.resize_token_embeddings(len(tokenizer)) before training."
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ours, theirs = getattr(config, name), getattr(tokenizer, name)
        if ours is None or theirs is None or theirs == ours or (isinstance(ours, list) and theirs in ours):
            continue
        raise ValueError(
            f"The tokenizer's {name} is {theirs}, the model's is {ours}: they do not belong together. Take the "
            f"tokenizer that the model was trained with, or set model.config.{name} to {theirs} before training."
        )


def save_model(
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    directory: str | os.PathLike[str],
    overwrite: bool = False,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes a model directory that `AutoModel…` and `AutoTokenizer` load: weights, configuration, tokenizer, code.

    Args:
        overwrite: whether an earlier model directory may be replaced; that happens only after the new one is complete.
        state_dict: weights to write instead of the model's own (gathered from several devices, or averaged).

    Raises:
        ValueError: as `check_tokenizer`, and where `directory` holds something that is not to be replaced; then
            nothing is written.
    """
    check_tokenizer(model, tokenizer)
    marker = "adapter_config.json" if is_adapted(model) else "config.json"
    with staged_directory(directory, overwrite, marker=marker) as staging:
        write_model(model, tokenizer, staging, state_dict)


def write_model(
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    directory: str | os.PathLike[str],
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """The files of `save_model`, into a directory that the caller has staged."""
    tokenizer.save_pretrained(directory)
    model.save_pretrained(os.fspath(directory), state_dict=state_dict)
    if is_adapted(model):
        write_base_reference(base_reference(model, tokenizer), directory)


def load_weights(model: "PreTrainedModel | PeftModel", directory: str | os.PathLike[str]) -> None:
    """Overwrites the weights of `model`, or of its adapter, by the ones that `save_model` wrote for its like."""
    if is_adapted(model):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(os.fspath(directory), device="cpu"))
    else:
        assert isinstance(model, PreTrainedModel)
        model.load_state_dict(type(model).from_pretrained(directory, dtype=torch.float32).state_dict())
