"""Whether a GGUF file says what was exported: read again, by llama.cpp where it is built here, else by transformers.

Three things are compared. Tokenizer: the ids of a page of awkward text. Weights: the logits of a sentence, against the
model with its weights rounded as in the file, which transformers must give to the last digits. llama.cpp computes in
lower precision (halves, and 8-bit activations beside quantised weights), so there the differences are larger.
Writing: the likeliest continuations of three prompts.
"""

import os
import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .checks import (
    AWKWARD,
    NUM_WRITTEN,
    check_same_ids,
    check_same_logits,
    continuation,
    end_ids,
    is_near_tie,
    logits_of,
    prompt_ids,
    sample_ids,
)
from .gguf import read_tokenizer
from .llama_cpp import LlamaServer, llama_program, llama_server

NUM_COMPARED = 10
"""The likeliest ids, of which llama.cpp's log-probabilities are compared."""

LLAMA_TOLERANCE = 0.5
"""Of llama.cpp's log-probabilities. Its own rounding is a tenth of that at most; another computation is far beyond."""


def check_gguf_file(file: str | os.PathLike[str], rounded: Any, tokenizer: Any) -> str:
    """Reads a GGUF file and compares it with the model that it was written from.

    Args:
        rounded: that model, as `write_gguf` leaves it. tokenizer: its tokenizer.

    Returns:
        What was found, for people.

    Raises:
        ValueError: where the file says something else; names what.
    """
    context = rounded.config.max_position_embeddings
    prompts = prompt_ids(tokenizer, context)
    ids = sample_ids(tokenizer, rounded.config.vocab_size, context)
    if llama_program() is not None:
        with llama_server(file, context) as server:
            return _check_with_llama_cpp(server, rounded, tokenizer, ids, prompts)
    check_same_ids(read_tokenizer(file).reread().encode(AWKWARD), tokenizer)
    read: Any = AutoModelForCausalLM.from_pretrained(
        Path(file).parent, gguf_file=Path(file).name, config=rounded.config, dtype=torch.float32
    ).eval()
    read.generation_config = rounded.generation_config
    difference = check_same_logits(logits_of(rounded, ids), logits_of(read, ids))
    for prompt in prompts:
        is_near_tie(rounded, prompt, continuation(read, prompt), difference)
    return f"read by transformers: logits of {ids.shape[1]} tokens agree, largest difference {difference:.2e}"


def random_texts(count: int) -> list[str]:
    """Of up to 40 characters from all of Unicode, the frequent ranges oftener, no surrogates; always the same."""
    chosen = random.Random(0)
    ranges = [(0x20, 0x7F), (0, 0x20), (0x80, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0xE000, 0x110000)]
    weights = [8, 2, 3, 3, 2, 2]
    return [
        "".join(chr(chosen.randrange(*chosen.choices(ranges, weights)[0])) for _ in range(chosen.randint(1, 40)))
        for _ in range(count)
    ]


def same_ids(server: LlamaServer, tokenizer: Any, text: str) -> bool:
    """Whether llama.cpp gives a text the tokenizer's ids, its special tokens read as such and as text."""
    return all(
        server.tokenize(text, split_special_tokens=split)
        == tokenizer(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        for split in (False, True)
    )


@torch.no_grad()
def _check_with_llama_cpp(
    server: LlamaServer, rounded: Any, tokenizer: Any, ids: torch.Tensor, prompts: list[list[int]]
) -> str:
    check_same_ids(server.tokenize(AWKWARD), tokenizer)
    largest = 0.0
    for length in range(1, ids.shape[1] + 1):
        prompt = ids[:, :length]
        ours = logits_of(rounded, prompt)[0, -1].log_softmax(-1)
        for token_id, theirs in server.log_probabilities(prompt[0].tolist(), NUM_COMPARED).items():
            largest = max(largest, abs(theirs - ours[token_id].item()))
    if not largest <= LLAMA_TOLERANCE:
        raise ValueError(f"llama.cpp computes something else: its log-probabilities differ by up to {largest:.2e}")
    near_ties = 0
    for prompt in prompts:
        count = min(NUM_WRITTEN, rounded.config.max_position_embeddings - len(prompt))
        near_ties += is_near_tie(rounded, prompt, server.write(prompt, count, end_ids(rounded)), largest)
    ties = f", {near_ties} of {len(prompts)} continuations part at a near-tie" if near_ties else ""
    return (
        f"read by llama.cpp: log-probabilities of {ids.shape[1]} tokens agree, largest difference {largest:.2e}{ties}"
    )
