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

from .checks import check_same_logits, logits_of, sample_ids
from .gguf import read_tokenizer
from .llama_cpp import LlamaServer, llama_program, llama_server

AWKWARD = (
    "I'm sure they'll say it's YOU'RE, I'LL, O'Neil's or 'tis; don't!\n\n\n  Two   spaces,\ttabs\t\t, "
    'trailing  \r\n\r\n1234567890 3.14159 2,000,000 ½ ² Ⅳ ٣٤ x²+y²≠z³ ==> {"key": [1, 2]}\n\tdef f(x):\n\t\treturn x\n'
    "naïve café Straße ǅ Ωμέγα Привет, мир! שלום مرحبا नमस्ते ไทย 日本語のテキスト。中文 한국어 e\u0301 \u1e9b\u0323 "
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 \u00a0\u2003\u3000\u200b\ufeff\u2028 “quotes” – — … http://a.b/c?d=e&f#g __init__ C++ <b>&amp;</b> "
    "<|endoftext|><|user|> hi<|end|> <|assistant|>\n<|pad|><|not special|> \x00\x01\x7f\x85 𝔘𝔫𝔦 𐍈 \U000e0041\n \n"
)
"""What tokenizers stumble over: contractions, runs of spaces and line ends, digits, scripts, emoji, controls."""

PROMPTS = ("The", "Once upon a time, there was a", "1, 2, 3,")

NUM_WRITTEN = 20
"""Ids that follow each prompt, where the context has room."""

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
    prompts = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    context = rounded.config.max_position_embeddings
    prompts = [ids[: context // 2] for ids in prompts if ids]
    ids = sample_ids(tokenizer, rounded.config.vocab_size, context)
    if llama_program() is not None:
        with llama_server(file, context) as server:
            return _check_with_llama_cpp(server, rounded, tokenizer, ids, prompts)
    _check_ids(read_tokenizer(file).reread().encode(AWKWARD), tokenizer)
    read: Any = AutoModelForCausalLM.from_pretrained(
        Path(file).parent, gguf_file=Path(file).name, config=rounded.config, dtype=torch.float32
    ).eval()
    read.generation_config = rounded.generation_config
    difference = check_same_logits(logits_of(rounded, ids), logits_of(read, ids))
    for prompt in prompts:
        if (theirs := continuation(read, prompt)) != (ours := continuation(rounded, prompt)):
            raise ValueError(f"the file continues {prompt} with {theirs}, and the model with {ours}")
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


def continuation(model: Any, prompt: list[int], count: int = NUM_WRITTEN) -> list[int]:
    """The ids that follow a prompt, the likeliest each time; an end of text ends them."""
    count = min(count, model.config.max_position_embeddings - len(prompt))
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count)
    return written[0, len(prompt) :].tolist()


def _check_ids(theirs: list[int], tokenizer: Any) -> None:
    ours = tokenizer(AWKWARD, add_special_tokens=False)["input_ids"]
    if theirs != ours:
        first = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        raise ValueError(
            f"the file's tokenizer gives other ids from the one at {first} on: {theirs[first : first + 5]}, and the "
            f"model's {ours[first : first + 5]} ({tokenizer.decode(ours[first : first + 5])!r})"
        )


@torch.no_grad()
def _check_with_llama_cpp(
    server: LlamaServer, rounded: Any, tokenizer: Any, ids: torch.Tensor, prompts: list[list[int]]
) -> str:
    _check_ids(server.tokenize(AWKWARD), tokenizer)
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
        near_ties += is_near_tie(rounded, prompt, server.write(prompt, count), largest)
    ties = f", {near_ties} of {len(prompts)} continuations part at a near-tie" if near_ties else ""
    return (
        f"read by llama.cpp: log-probabilities of {ids.shape[1]} tokens agree, largest difference {largest:.2e}{ties}"
    )


@torch.no_grad()
def is_near_tie(model: Any, prompt: list[int], theirs: list[int], tolerance: float) -> bool:
    """Whether somebody else's continuation parts from the model's own where two ids are about as likely.

    Args:
        tolerance: of the log-probabilities: two ids nearer to each other than twice that are a tie.

    Returns:
        False where both write the same.

    Raises:
        ValueError: where they part at no tie.
    """
    ours = continuation(model, prompt, len(theirs))
    for i, (own, other) in enumerate(zip(ours, theirs, strict=False)):
        if own != other:
            logits = logits_of(model, torch.tensor([prompt + ours[:i]]))[0, -1]
            if (gap := (logits[own] - logits[other]).item()) > 2 * tolerance:
                raise ValueError(
                    f"llama.cpp continues {prompt} with {theirs[: i + 1]}, and the model with {ours[: i + 1]}, "
                    f"which is likelier by {gap:.2e}"
                )
            return True
    return False
