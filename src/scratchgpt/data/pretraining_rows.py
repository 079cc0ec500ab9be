"""The rows that a language model is pretrained on: windows of a tokenised corpus, or of text as it comes."""

import hashlib
import json

from transformers.utils.hub import cached_file

from ..hub.names import check_source
from .corpus import describe_source, tokenize_corpus
from .packing import Rows, SlidingWindows, StreamingRows
from .text import read_texts


def find_tokenizer(name: str) -> str:
    """The path of tokenizer.json, downloaded if the tokenizer is one of the Hub.

    Raises:
        ValueError: where there is none.
    """
    check_source(name)
    try:
        file = cached_file(name, "tokenizer.json")
    except OSError as error:
        raise ValueError(
            f"{name} is no tokenizer with a tokenizer.json, neither here nor on the Hub: train one with "
            f"recipes/train_tokenizer.py, or name another ({error})"
        ) from error
    assert file is not None
    return file


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
        ValueError: as `tokenize_corpus` and `SlidingWindows`.
    """
    if streaming:
        rows = StreamingRows(lambda: read_texts(source, split, column), tokenizer_file, length, mask_documents)
        content = [describe_source(source, split), split, column, rows.encoder.fingerprint]
    else:
        corpus = tokenize_corpus(source, tokenizer_file, cache_dir, split, column)
        rows = SlidingWindows(corpus, length, stride or length, mask_documents)
        content = corpus.fingerprint
    return rows, hashlib.sha256(json.dumps([content, length, stride, mask_documents]).encode()).hexdigest()
