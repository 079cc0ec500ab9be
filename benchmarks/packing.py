"""From texts to batches, beside `datasets`: `python benchmarks/packing.py [--rounds 3] [--data folder]`.

The same saved data set and the same tokenizer for both. In each round each candidate runs once, one after the other;
reported are medians over the rounds of the CPU seconds of all threads and child processes.

- Tokenise and pack: from a data set on disk to rows of 1,024 tokens. `datasets.map` does it as `run_clm.py` of
  transformers does: one map with the tokenizer, one that concatenates and cuts. Ours is `tokenize_corpus` and, since
  that is when it packs, one pass over all rows; the rows of both are compared. With more than one process every
  process fills a cache of its own, which costs CPU time and saves wall time.
- Reading: shuffled batches of 32 rows, from the memory map and from the peer's data set through a DataLoader.

Wants the folder of real data (`SCRATCHGPT_SHARED_DATA`, or `shared/data` beside the checkout).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from records import RESULTS, SHARED_DATA, append, machine
from scratchgpt.data.corpus import tokenize_corpus
from scratchgpt.data.packing import PackedRows, row_order
from scratchgpt.data.text import read_texts
from scratchgpt.tokenizers import GPT2_PATTERN, BPETokenizer, to_transformers

VOCAB_SIZE = 8192
LENGTH = 1024
BATCH_SIZE = 32
REFERENCE = "datasets.map, HF tokenizer"
READING_REFERENCE = "datasets, DataLoader"


class Stopwatch:
    """CPU and wall seconds of a `with` block, ended child processes included."""

    def __enter__(self) -> "Stopwatch":
        self._cpu, self._wall = self._cpu_now(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = self._cpu_now() - self._cpu, time.perf_counter() - self._wall

    @staticmethod
    def _cpu_now() -> float:
        times = os.times()  # in hundredths, too coarse for this process
        return time.process_time() + times.children_user + times.children_system


def map_with_datasets(saved: Path, tokenizer: Any, folder: Path) -> datasets.Dataset:
    """Packed rows as run_clm.py makes them, end-of-text between documents; the tail that fills no row is dropped."""

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[*ids, tokenizer.eos_token_id] for ids in tokenizer(batch["text"])["input_ids"]]}

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        ids = list(chain(*batch["input_ids"]))
        total = len(ids) // LENGTH * LENGTH
        return {"input_ids": [ids[i : i + LENGTH] for i in range(0, total, LENGTH)]}

    data = datasets.Dataset.load_from_disk(os.fspath(saved))
    tokenised = data.map(
        tokenise, batched=True, remove_columns=data.column_names, cache_file_name=os.fspath(folder / "ids.arrow")
    )
    return tokenised.map(group, batched=True, cache_file_name=os.fspath(folder / "rows.arrow"))


def pack_ours(saved: Path, tokenizer_dir: Path, folder: Path, num_workers: int) -> PackedRows:
    rows = PackedRows(tokenize_corpus(saved, tokenizer_dir, folder, num_workers=num_workers, progress=False), LENGTH)
    for first in range(0, len(rows), BATCH_SIZE):
        rows.batch(range(first, min(first + BATCH_SIZE, len(rows))))
    return rows


def check_same(rows: PackedRows, theirs: datasets.Dataset) -> None:
    """Raises ValueError unless the first rows are the same; later ones shift, as theirs drop tokens."""
    first = theirs.with_format("numpy")[:8]["input_ids"]
    if not np.array_equal(first, rows.batch(range(len(first)))["input_ids"].numpy()):
        raise ValueError("the candidates did not give the same rows")


def read_ours(rows: PackedRows, num_batches: int) -> int:
    order = row_order(len(rows), 0, 0)
    num_tokens = 0
    for i in range(num_batches):
        num_tokens += rows.batch(np.take(order, range(i * BATCH_SIZE, (i + 1) * BATCH_SIZE), mode="wrap"))[
            "input_ids"
        ].numel()
    return num_tokens


def read_datasets(theirs: datasets.Dataset, num_batches: int) -> int:
    data: Any = theirs.with_format("torch")
    loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True)
    return sum(batch["input_ids"].numel() for _, batch in zip(range(num_batches), loader, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure tokenising, packing and reading beside `datasets`.")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of real data")
    parser.add_argument("--megabytes", type=float, default=25.0, help="how much text")
    parser.add_argument("--rounds", type=int, default=3, help="how often each candidate runs")
    parser.add_argument("--workers", type=int, default=2, help="processes of our candidate with several")
    parser.add_argument("--output", type=Path, default=RESULTS / "packing.jsonl")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} does not exist: --data, or SCRATCHGPT_SHARED_DATA, names the folder of real data")
    datasets.disable_progress_bars()
    torch.set_num_threads(1)

    texts, num_bytes = [], 0
    for text in read_texts(arguments.data / "text/imdb_unsup_25k.jsonl.zst"):
        texts.append(text)
        num_bytes += len(text.encode())
        if num_bytes >= arguments.megabytes * 1e6:
            break
    several = f"scratchgpt, {arguments.workers} processes"
    packing: dict[str, list[Stopwatch]] = {REFERENCE: [], "scratchgpt": [], several: []}
    reading: dict[str, list[float]] = {READING_REFERENCE: [], "scratchgpt": []}
    num_tokens = 0
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        tokenizer = to_transformers(BPETokenizer.train(texts, VOCAB_SIZE, GPT2_PATTERN), model_max_length=10**9)
        tokenizer.save_pretrained(work / "tokenizer")
        datasets.Dataset.from_dict({"text": texts}).save_to_disk(work / "saved")
        for number in range(arguments.rounds):
            folder = work / str(number)
            folder.mkdir()
            with Stopwatch() as watch:
                theirs = map_with_datasets(work / "saved", tokenizer, folder)
            packing[REFERENCE].append(watch)
            with Stopwatch() as watch:
                rows = pack_ours(work / "saved", work / "tokenizer", folder / "one", 1)
            packing["scratchgpt"].append(watch)
            with Stopwatch() as watch:
                pack_ours(work / "saved", work / "tokenizer", folder / "several", arguments.workers)
            packing[several].append(watch)
            check_same(rows, theirs)
            num_tokens = rows.corpus.num_tokens
            with Stopwatch() as watch:
                read = read_datasets(theirs, 20)
            reading[READING_REFERENCE].append(read / 1e6 / watch.cpu)
            with Stopwatch() as watch:
                read = read_ours(rows, 1000)
            reading["scratchgpt"].append(read / 1e6 / watch.cpu)

    facts = {
        "case": f"{arguments.megabytes:g} MB of reviews",
        "rounds": arguments.rounds,
        "num_bytes": num_bytes,
        "num_texts": len(texts),
        "num_tokens": num_tokens,
        "vocab_size": VOCAB_SIZE,
        "context_length": LENGTH,
        **machine("datasets", "tokenizers", "transformers", "torch", "numpy"),
    }
    measurements: list[dict[str, Any]] = []
    for candidate, watches in packing.items():
        seconds = [watch.cpu for watch in watches]
        measurements.append(
            {
                "benchmark": "Tokenise and pack",
                "candidate": candidate,
                "metric": "CPU seconds",
                "value": statistics.median(seconds),
                "relative_to": REFERENCE,
                "seconds": seconds,
                "wall_seconds": [watch.wall for watch in watches],
            }
        )
    for candidate, rates in reading.items():
        measurements.append(
            {
                "benchmark": "Reading batches",
                "candidate": candidate,
                "metric": "million tokens per CPU second",
                "value": statistics.median(rates),
                "relative_to": READING_REFERENCE,
                "values": rates,
                "batch_size": BATCH_SIZE,
            }
        )
    append((measurement | facts for measurement in measurements), arguments.output)
    for each in measurements:
        print(f"{each['benchmark']}: {each['candidate']} {each['value']:.3g} {each['metric']}")


if __name__ == "__main__":
    main()
