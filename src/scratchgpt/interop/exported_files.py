"""What stands beside exported weights: the tokenizer and the configuration, as every engine reads them."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..tokenization_scratchgpt import ScratchGPTTokenizer


def first_tokens(tokenizer: Any, vocab_size: int) -> ScratchGPTTokenizer:
    """The tokenizer without the special tokens from the id `vocab_size` on, and then without the chat template."""
    if len(tokenizer) <= vocab_size:
        return tokenizer
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < vocab_size]
    kept = {token["content"] for token in document["added_tokens"]}
    return ScratchGPTTokenizer(
        tokenizer_object=Tokenizer.from_str(json.dumps(document)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token if tokenizer.pad_token in kept else None,
        model_max_length=tokenizer.model_max_length,
    )


def complete_config(file: Path) -> None:
    """Adds what readers besides transformers 5 look for: `n_ctx` (llama.cpp), `rope_theta` and `rope_scaling`."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if "n_positions" in config:
        config["n_ctx"] = config["n_positions"]
    if rope := config.get("rope_parameters"):
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
