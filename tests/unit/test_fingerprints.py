"""Fingerprints, of weights, tokenizers, corpora, labelled texts: by hand, and whatever is in them changes them."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scratchgpt.data.corpus import tokenize_corpus
from scratchgpt.data.labelled_texts import LabelledTexts, fingerprint_texts
from scratchgpt.hub.fingerprints import tokenizer_fingerprint, weights_fingerprint
from scratchgpt.tokenizers import BPETokenizer, to_transformers

TENSORS = {"a": torch.arange(4.0).view(2, 2), "b": torch.ones(3, dtype=torch.bfloat16)}


def written(folder: Path, tensors: dict[str, torch.Tensor]) -> str:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return weights_fingerprint(folder)


def test_weights(tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for name, tensor in TENSORS.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    assert written(tmp_path / "0", TENSORS) == digest.hexdigest()
    changes = [
        {"b": torch.tensor([1, 1, 2], dtype=torch.bfloat16)},
        {"a": TENSORS["a"].view(4)},
        {"b": TENSORS["b"].view(torch.float16)},
        {"c": torch.zeros(1)},
    ]
    found = {written(tmp_path / str(i), TENSORS | change) for i, change in enumerate(changes, start=1)}
    assert len(found | {digest.hexdigest()}) == 1 + len(changes)


def test_a_file_that_is_replaced_and_keeps_its_time_is_read_again(tmp_path: Path) -> None:
    """The fingerprint was that of the first file: it was kept by name and time."""
    first = written(tmp_path / "base", TENSORS)
    file = tmp_path / "base" / "model.safetensors"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    save_file(TENSORS | {"a": TENSORS["a"] + 1}, file)
    os.utime(file, ns=times)
    assert weights_fingerprint(tmp_path / "base") != first


def test_tokenizers() -> None:
    first = BPETokenizer.train(["aaab aaab abab bbbb " * 5], 268, min_frequency=1)
    merges = [first.merges[1], first.merges[0], *first.merges[2:]]  # other merges, the same vocabulary
    others = [
        BPETokenizer(first.vocabulary, merges, first.pattern, first.special_tokens),
        BPETokenizer(first.vocabulary, first.merges, r"\S+|\s+", first.special_tokens),
        BPETokenizer.train(["aaab aaab abab bbbb " * 5], 267, min_frequency=1),
    ]
    again = BPETokenizer(first.vocabulary, first.merges, first.pattern, first.special_tokens)
    fingerprints = [tokenizer_fingerprint(to_transformers(each)) for each in (first, again, *others)]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 1 + len(others)


def test_corpora(tmp_path: Path) -> None:
    tokenizer = to_transformers(BPETokenizer.train(["one two three"] * 3, 270))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    corpus = tokenize_corpus(["one", "", "two three"], tmp_path / "tokenizer", tmp_path / "cache", progress=False)
    by_hand = hashlib.sha256(corpus.tokens.tobytes() + corpus.offsets.tobytes()).hexdigest()
    assert corpus.fingerprint == by_hand
    other = tokenize_corpus(["one", "two three", ""], tmp_path / "tokenizer", tmp_path / "cache", progress=False)
    assert other.fingerprint != by_hand


@pytest.mark.parametrize(
    "change", [{"texts": ["x", "z"]}, {"labels": [1, 1]}, {"names": ["yes", "no"]}, {"texts": ["y", "x"]}]
)
def test_labelled_texts(change: dict) -> None:
    data = LabelledTexts(["x", "y"], [0, 1], ["no", "yes"])
    assert fingerprint_texts(data) == fingerprint_texts(replace(data))
    assert fingerprint_texts(replace(data, **change)) != fingerprint_texts(data)
