"""The rows that a language model is pretrained on: windows of a tokenised corpus, or of text as it comes."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from ..hub.intermediates import made_once
from ..hub.names import local_copy
from ..tokenizers import BPETokenizer, to_transformers
from .corpus import Corpus, describe_source, tokenize_corpus
from .packing import Rows, SlidingWindows, StreamingRows
from .text import read_texts

READ_FOR_TOKENIZER = 100_000_000
"""Characters: a byte-level BPE does not get better with more of them, only slower."""


def train_tokenizer(
    source: str,
    split: str,
    column: str,
    directory: Path,
    vocabulary_size: Callable[[int], int],
    say: Callable[[str], object],
) -> None:
    """A byte-level BPE of the training text, saved in `directory`; reused while text and options are the same.

    Args:
        vocabulary_size: from the size of the text in characters.

    Raises:
        ValueError: as `read_texts`, for an empty text, and where something else is in the way.
    """

    def texts() -> Iterator[str]:
        size = 0
        for text in read_texts(source, split, column):
            yield text
            size += len(text)
            if size >= READ_FOR_TOKENIZER:
                return

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = BPETokenizer.train(texts(), vocab_size)
        to_transformers(tokenizer).save_pretrained(folder)
        return {"vocab_size": tokenizer.vocab_size}

    vocab_size = vocabulary_size(sum(map(len, texts())))
    inputs = {
        "source": describe_source(source, split), "split": split, "column": column, "vocab_size": vocab_size,
        "most": READ_FOR_TOKENIZER,
    }  # fmt: skip
    facts = made_once(directory, inputs, make)
    say(
        f"Tokenizer: a byte-level BPE of the training text, {facts['vocab_size']:,} tokens: {directory}. "
        "--tokenizer takes another"
    )


def find_tokenizer(name: str) -> str:
    """The path of tokenizer.json, downloaded if the tokenizer is one of the Hub.

    Raises:
        ValueError: where there is none.
    """
    directory = local_copy(name, weights=False)
    try:
        file = cached_file(directory, "tokenizer.json")
    except OSError as error:
        raise ValueError(
            f"{name} is no tokenizer with a tokenizer.json, neither here nor on the Hub: train one with "
            f"recipes/train_tokenizer.py, or name another ({error})"
        ) from error
    assert file is not None
    return file


def check_length(corpus: Corpus, length: int, source: str) -> None:
    """Makes sure that a text to train on fills a row.

    Raises:
        ValueError: says how long the rows can be.
    """
    if corpus.num_tokens <= length:
        shorter = max(1, (corpus.num_tokens - 1) // 4)
        raise ValueError(
            f"{source} has {corpus.num_tokens:,} tokens to train on, too few for one row of {length:,}: give more "
            f"text, or shorter rows (--context_length {shorter})"
        )


def training_rows(
    source: str,
    split: str,
    column: str,
    tokenizer_file: str,
    cache_dir: str,
    length: int,
    *,
    stride: int | None = None,
    mask_documents: bool = False,
    streaming: bool = False,
) -> tuple[Rows, str]:
    """Rows of `length` tokens, and a fingerprint that other rows do not have.

    Args:
        stride: a row begins every so many tokens; by default every `length`.
        mask_documents: attention does not cross from one document to the next.
        streaming: tokenise while training, in the order of the source, instead of before.

    Raises:
        ValueError: as `tokenize_corpus`, `check_length` and `SlidingWindows`.
    """
    if streaming:
        rows = StreamingRows(lambda: read_texts(source, split, column), tokenizer_file, length, mask_documents)
        content = [describe_source(source, split), split, column, rows.encoder.fingerprint]
    else:
        corpus = tokenize_corpus(source, tokenizer_file, cache_dir, split, column)
        check_length(corpus, length, source)
        rows = SlidingWindows(corpus, length, stride or length, mask_documents)
        content = corpus.fingerprint
    return rows, hashlib.sha256(json.dumps([content, length, stride, mask_documents]).encode()).hexdigest()
