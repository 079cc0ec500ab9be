"""From a GPT-2 to a model directory of ours that is ready for chats: tokenizer, embeddings of new tokens, a check.

GPT-2's ids stay as they are; the tokenizer gets a real pad token and the tokens of the chat template after them, and
the model an embedding for each, the mean of all others.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ..data.chat import end_token_ids
from ..hub.model_directory import check_tokenizer, load_model
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..tokenization_scratchgpt import CHAT_TEMPLATE, END_OF_TURN, PAD, ROLES, ScratchGPTTokenizer
from .checks import check_same_logits, logits_of, sample_ids
from .gpt2 import from_gpt2, reference_model
from .gpt2_files import GPT2Checkpoint


def load_tokenizer(source: str, folder: Path, model_max_length: int) -> ScratchGPTTokenizer:
    """The tokenizer in `folder`, its ids unchanged, with a pad token of its own and the chat tokens after them.

    Raises:
        ValueError: where there is none.
    """
    for vocab, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if not (folder / "tokenizer.json").is_file() and (folder / vocab).is_file():
            return ScratchGPTTokenizer.from_gpt2(folder / vocab, folder / merges, model_max_length=model_max_length)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"{source} has no tokenizer (tokenizer.json, or encoder.json and vocab.bpe, or vocab.json and "
            "merges.txt): give --tokenizer, a folder or a name on the Hub, or --tokenizer none"
        )
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    end = theirs.eos_token or "<|endoftext|>"
    has_pad = theirs.pad_token is not None and theirs.pad_token != end
    return ScratchGPTTokenizer(
        tokenizer_object=theirs.backend_tokenizer,
        bos_token=theirs.bos_token or end,
        eos_token=end,
        pad_token=theirs.pad_token if has_pad else PAD,
        extra_special_tokens=[*ROLES, END_OF_TURN],
        chat_template=theirs.chat_template or CHAT_TEMPLATE,
        model_max_length=model_max_length,
    )


def build(checkpoint: GPT2Checkpoint, tokenizer: Any) -> ScratchGPTForCausalLM:
    """The imported model, with an embedding for every id of the tokenizer, and its special tokens."""
    model = from_gpt2(checkpoint, None if tokenizer is None else len(tokenizer))
    if tokenizer is not None:
        config: Any = model.config  # annotated as if there could be several ends
        generation: Any = model.generation_config
        config.pad_token_id = tokenizer.pad_token_id
        for name in ("bos_token_id", "eos_token_id"):
            if getattr(config, name) is None:
                setattr(config, name, getattr(tokenizer, name))
        generation.bos_token_id = config.bos_token_id
        generation.eos_token_id = end_token_ids(tokenizer)
        generation.pad_token_id = config.pad_token_id
        check_tokenizer(model, tokenizer)
    return model


def write_import(checkpoint: GPT2Checkpoint, tokenizer: Any, folder: Path) -> str:
    """Writes the imported model into `folder`, which the caller has staged; returns what was compared, for people.

    Raises:
        ValueError: as `from_gpt2`, and where the logits of a sentence are not those that transformers computes from
            the same checkpoint.
    """
    model = build(checkpoint, tokenizer)
    config = model.config
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    del model  # one in memory at a time, and what was written is what is compared
    size = checkpoint.tensors["wte.weight"].shape[0]
    ids = sample_ids(tokenizer, size, config.max_position_embeddings)
    theirs = logits_of(reference_model(checkpoint), ids)
    ours = logits_of(load_model(ScratchGPTForCausalLM, folder, dtype=torch.float32), ids)
    difference = check_same_logits(ours, theirs)
    return (
        f"logits of {ids.shape[1]} tokens agree, largest difference {difference:.2e}; vocabulary {size} → "
        f"{config.vocab_size}, {config.hidden_act}"
    )
