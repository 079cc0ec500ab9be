"""Tokenizers beside their peers: `python benchmarks/tokenization.py [--rounds 3] [--data folder]`.

Training a byte-level BPE with 8,192 tokens, and encoding a corpus with it. In each round each candidate runs once, one
after the other in this process; reported are medians over the rounds. CPU seconds of all threads are what is compared:
wall time would compare how many cores somebody else is using.

- `naive` recounts all pairs for every merge, the algorithm of minbpe; extrapolated from a few merges.
- `scratchgpt, cold` starts with an empty cache, as `tokenizers` does; `warm` encodes the same texts a second time.
- tiktoken and `tokenizers` encode with scratchgpt's vocabulary, and their ids are compared with its own; rustbpe and
  sentencepiece with what they trained themselves.

Wants the folder of real data (`SCRATCHGPT_SHARED_DATA`, or `shared/data` beside the checkout).
"""

import argparse
import io
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import rustbpe
import sentencepiece
import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from records import RESULTS, SHARED_DATA, append, machine
from scratchgpt.data.text import read_texts
from scratchgpt.tokenizers import GPT2_PATTERN, BPETokenizer, from_json, to_json, to_rust
from scratchgpt.tokenizers.base import count_pieces

VOCAB_SIZE = 8192
NAIVE_MERGES = 3
REFERENCE = "tokenizers"


def train_scratchgpt(texts: list[str]) -> BPETokenizer:
    return BPETokenizer.train(texts, VOCAB_SIZE, GPT2_PATTERN, special_tokens=[])


def train_tokenizers(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def train_rustbpe(texts: list[str]) -> Any:
    tokenizer: Any = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]: it has no type stubs
    tokenizer.train_from_iterator(iter(texts), VOCAB_SIZE, pattern=GPT2_PATTERN)
    return tokenizer


def train_sentencepiece(texts: list[str]) -> Any:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        max_sentence_length=1 << 20,
        num_threads=os.cpu_count(),
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def naive_merges(texts: list[str]) -> None:
    """A few merges, with the pairs counted anew for each."""
    words = [(list(piece.encode()), count) for piece, count in count_pieces(texts, GPT2_PATTERN, []).items()]
    # minbpe keeps every occurrence of a word, not the distinct ones.
    words = [word for word, count in words for _ in range(count)]
    for new in range(256, 256 + NAIVE_MERGES):
        counts: Counter[tuple[int, int]] = Counter()
        for word in words:
            counts.update(pairwise(word))
        best = max(counts, key=counts.__getitem__)
        for i, word in enumerate(words):
            merged: list[int] = []
            for symbol in word:
                if merged and (merged[-1], symbol) == best:
                    merged[-1] = new
                else:
                    merged.append(symbol)
            words[i] = merged


def cpu_seconds(function: Callable[[list[str]], Any], texts: list[str]) -> tuple[float, Any]:
    start = time.process_time()
    result = function(texts)
    return time.process_time() - start, result


def time_training(texts: list[str], rounds: int, naive: bool) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """CPU seconds of each round, and the last tokenizer trained, for each candidate."""
    trainers = {
        "tokenizers": train_tokenizers,
        "scratchgpt": train_scratchgpt,
        "rustbpe": train_rustbpe,
        "sentencepiece": train_sentencepiece,
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    trained = {}
    for _ in range(rounds):
        for name, train in trainers.items():
            taken, trained[name] = cpu_seconds(train, texts)
            seconds[name].append(taken)
    if naive:
        taken, _ = cpu_seconds(naive_merges, texts)
        seconds["naive, extrapolated"] = [taken / NAIVE_MERGES * (VOCAB_SIZE - 256)]
    return seconds, trained


def time_encoding(texts: list[str], rounds: int, trained: dict[str, Any]) -> dict[str, list[float]]:
    """CPU seconds of each round for each candidate.

    Raises:
        ValueError: where candidates with the same vocabulary do not give the same ids.
    """
    content = to_json(trained["scratchgpt"])
    ranks = trained["scratchgpt"].vocabulary
    tik = tiktoken.Encoding("scratchgpt", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    names = ["tokenizers", "scratchgpt, cold", "scratchgpt, warm", "tiktoken", "rustbpe", "sentencepiece"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        fresh = from_json(content)
        encoders: dict[str, Callable[[list[str]], Any]] = {
            "tokenizers": to_rust(fresh).encode_batch,
            "scratchgpt, cold": lambda texts, fresh=fresh: list(fresh.encode_batch(texts)),
            "scratchgpt, warm": lambda texts, fresh=fresh: list(fresh.encode_batch(texts)),
            "tiktoken": lambda texts: [tik.encode_ordinary(text) for text in texts],
            "rustbpe": lambda texts: [trained["rustbpe"].encode(text) for text in texts],
            "sentencepiece": lambda texts: [trained["sentencepiece"].encode(text) for text in texts],
        }
        counts = {}
        for name, encode in encoders.items():
            taken, ids = cpu_seconds(encode, texts)
            seconds[name].append(taken)
            counts[name] = sum(map(len, ids))
        same = {counts[name] for name in ("tokenizers", "scratchgpt, cold", "scratchgpt, warm", "tiktoken")}
        if len(same) > 1:
            raise ValueError(f"candidates with the same vocabulary gave different numbers of tokens: {counts}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the tokenizers beside their peers.")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of real data")
    parser.add_argument("--rounds", type=int, default=3, help="how often each candidate runs")
    parser.add_argument("--output", type=Path, default=RESULTS / "tokenization.jsonl")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} does not exist: --data, or SCRATCHGPT_SHARED_DATA, names the folder of real data")

    reports = "".join(read_texts(arguments.data / "seed/combined_clean.txt.zst")).splitlines(keepends=True)
    reviews, num_bytes = [], 0
    for text in read_texts(arguments.data / "text/imdb_unsup_25k.jsonl.zst"):
        reviews.append(text)
        num_bytes += len(text.encode())
        if num_bytes >= 25e6:
            break
    facts = {
        **machine("tokenizers", "tiktoken", "sentencepiece", "rustbpe", "regex"),
        "vocab_size": VOCAB_SIZE,
    }
    for case, texts in (("2.4 MB of reports", reports), ("25 MB of reviews", reviews)):
        size = sum(len(text.encode()) for text in texts)
        training, trained = time_training(texts, arguments.rounds, naive=texts is reports)
        encoding = time_encoding(texts, arguments.rounds, trained)
        measurements = []
        for benchmark, metric, seconds in (
            ("Tokenizer training", "CPU seconds", training),
            ("Tokenizer encoding", "MB per CPU second", encoding),
        ):
            for candidate, rounds in seconds.items():
                taken = statistics.median(rounds)
                measurement = {
                    "benchmark": benchmark,
                    "case": case,
                    "candidate": candidate,
                    "metric": metric,
                    "value": taken if metric == "CPU seconds" else size / 1e6 / taken,
                    "relative_to": REFERENCE,
                    "rounds": len(rounds),
                    "seconds": rounds,
                    "num_bytes": size,
                    "num_texts": len(texts),
                    **facts,
                }
                measurements.append(measurement)
                ratio = taken / statistics.median(seconds[REFERENCE])
                print(f"{benchmark}, {case}: {candidate} {measurement['value']:.3g} {metric} (time {ratio:.2f}×)")
        append(measurements, arguments.output)


if __name__ == "__main__":
    main()
