"""Log-likelihoods beside lm-eval's own loop: `python benchmarks/evaluation.py [--pairs 10] [--rounds 5]`.

A model of the demo's shape with random weights, on the CPU, scores the same sequences in three ways: BLiMP's
sentences, so many pairs of each kind, and a running text in windows of its whole context. In each round every
candidate takes its turn, so that all see the same machine; values are medians over the rounds, ratios medians within a
round.

- the model alone: its forward passes over as many tokens, all logits, in full batches without padding, nothing else
- lm-eval: `HFLM._loglikelihood_tokens`, which its tasks call, with its default batch size and with a larger one
- scratchgpt: `LogLikelihoods.score`

The scores must be the same, or nothing is written. Cutting into tokens is done before, and is no part of the times.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from records import RESULTS, SHARED_DATA, append, machine
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.text import read_texts
from scratchgpt.evaluation.blimp import BlimpSuite
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods
from scratchgpt.evaluation.text import tokenize, windows
from scratchgpt.inference.decoding import prepare_for_decoding
from scratchgpt.tokenizers import BPETokenizer, to_transformers

CONTEXT, VOCAB_SIZE, BATCH = 256, 4096, 64
REFERENCE = "lm-eval, batch 1 (its default)"
SEED = 0

Sequences = list[tuple[list[int], int]]


def build() -> tuple[Any, Any]:
    """The model and a tokenizer trained on a text."""
    text = "".join(read_texts(SHARED_DATA / "text" / "wikitext-2" / "valid.txt.zst"))
    tokenizer = to_transformers(BPETokenizer.train([text], VOCAB_SIZE))
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=VOCAB_SIZE, hidden_size=256, num_hidden_layers=6, num_attention_heads=4,
        intermediate_size=704, max_position_embeddings=CONTEXT, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(SEED)
    return ScratchGPTForCausalLM(config).eval(), tokenizer


def sequences_of(case: str, tokenizer: Any, pairs: int, num_windows: int) -> Sequences:
    start = tokenizer.bos_token_id
    if case.startswith("BLiMP"):
        suite = BlimpSuite(SHARED_DATA / "eval", pairs)
        tokens = tokenize(tokenizer, [text for pair in suite.pairs for text in (pair.good, pair.bad)])
        return [([start, *each], len(each)) for each in tokens]
    text = "".join(read_texts(SHARED_DATA / "text" / "wikitext-2" / "test.txt.zst"))
    (tokens,) = tokenize(tokenizer, [text])
    found = [(list(each), new) for each, new in windows(tokens, start, CONTEXT, CONTEXT)]
    return found[:num_windows]


@torch.inference_mode()
def forward(model: Any, sequences: Sequences) -> None:
    """As many tokens, in rows of their mean length."""
    num_tokens = sum(len(tokens) - 1 for tokens, _ in sequences)
    width = round(num_tokens / len(sequences))
    rows = max(1, 4096 // width)
    ids = torch.randint(0, VOCAB_SIZE, (-(-num_tokens // width), width))
    for batch in ids.split(rows):
        model(input_ids=batch, use_cache=False)


def theirs(model: Any, tokenizer: Any, batch_size: int) -> Callable[[Sequences], list[float]]:
    kind: Any = HFLM  # a decorator hides its arguments from type checkers
    loop = kind(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size, max_length=CONTEXT)

    def score(sequences: Sequences) -> list[float]:
        requests = [(("", str(i)), t[: len(t) - n], t[len(t) - n :]) for i, (t, n) in enumerate(sequences)]
        return [value for value, _ in loop._loglikelihood_tokens(requests, disable_tqdm=True)]

    return score


def measure(case: str, sequences: Sequences, model: Any, tokenizer: Any, rounds: int) -> list[dict[str, Any]]:
    ours = LogLikelihoods(prepare_for_decoding(model))  # as the recipe loads it; lm-eval gets the same model
    candidates: dict[str, Callable[[Sequences], Sequence[float] | None]] = {
        REFERENCE: theirs(model, tokenizer, 1),
        f"lm-eval, batch {BATCH}": theirs(model, tokenizer, BATCH),
        "the model alone": lambda each: forward(model, each),
        "scratchgpt": lambda each: [scored.log_likelihood for scored in ours.score(each)],
    }
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    scores: dict[str, Sequence[float]] = {}
    for _ in range(rounds):
        for name, score in candidates.items():
            started = time.perf_counter()
            found = score(sequences)
            wall[name].append(time.perf_counter() - started)
            if found is not None:
                scores[name] = found
    apart = max(abs(a - b) for found in scores.values() for a, b in zip(found, scores[REFERENCE], strict=True))
    if apart > 1e-2:
        raise ValueError(f"{case}: log-likelihoods differ by {apart} nats")
    shared = {
        "benchmark": "Log-likelihoods, 5.9M parameters, CPU", "case": case, "metric": "sequences/s",
        "relative_to": REFERENCE, "rounds": rounds, "seed": SEED, "sequences": len(sequences),
        "tokens": sum(count for _, count in sequences), "nats_apart": apart, "threads": torch.get_num_threads(),
        **machine("torch", "transformers", "lm_eval"),
    }  # fmt: skip
    measurements = []
    for name, times in wall.items():
        value = len(sequences) / statistics.median(times)
        ratio = statistics.median(a / b for a, b in zip(wall[REFERENCE], times, strict=True))
        measurements.append(
            {**shared, "candidate": name, "value": round(value, 1), "ratio": round(ratio, 3),
             "seconds": [round(each, 3) for each in times]}
        )  # fmt: skip
        print(f"{case:40s} {name:32s} {value:9.1f} sequences/s ({ratio:.2f}×)", flush=True)
    return measurements


def main() -> None:
    parser = argparse.ArgumentParser(description="Log-likelihoods beside lm-eval's own loop.")
    parser.add_argument("--pairs", type=int, default=10, help="of each of BLiMP's 67 kinds")
    parser.add_argument("--windows", type=int, default=96, help="of the running text")
    parser.add_argument("--rounds", type=int, default=5, help="how often each candidate takes its turn")
    parser.add_argument("--output", type=Path, default=RESULTS / "evaluation.jsonl")
    arguments = parser.parse_args()
    model, tokenizer = build()
    found = []
    for case in ("BLiMP's sentences", f"text, windows of {CONTEXT} tokens"):
        sequences = sequences_of(case, tokenizer, arguments.pairs, arguments.windows)
        found += measure(case, sequences, model, tokenizer, arguments.rounds)
    append(found, arguments.output)


if __name__ == "__main__":
    main()
