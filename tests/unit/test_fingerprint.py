"""tokenizers/fingerprint.py: what changes ids changes it, and nothing else does."""

import json
from pathlib import Path

import pytest

from scratchgpt.data.corpus import Encoder
from scratchgpt.hub.fingerprints import tokenizer_fingerprint
from scratchgpt.tokenizers import GPT2_PATTERN, BPETokenizer, RegexTokenizer, to_json, to_transformers
from scratchgpt.tokenizers.fingerprint import fingerprint

TEXTS = ["one two three two one " * 3]


def test_a_corpus_and_an_adapter_mean_the_same_by_it(tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(TEXTS, 270)
    saved = to_transformers(tokenizer)
    for plain in (False, True):
        saved.save_pretrained(tmp_path, plain=plain)
        assert Encoder.load(tmp_path).fingerprint == tokenizer_fingerprint(saved) == fingerprint(to_json(tokenizer))
    saved("some text", truncation=True, max_length=1, padding="max_length")  # sets the backend's truncation
    assert tokenizer_fingerprint(saved) == fingerprint(to_json(tokenizer))
    assert fingerprint(json.dumps(json.loads(to_json(tokenizer)), indent=9)) == fingerprint(to_json(tokenizer))


def test_what_changes_ids_changes_it() -> None:
    first = BPETokenizer.train(TEXTS, 270)
    others = [
        BPETokenizer.train(TEXTS, 269),
        BPETokenizer.train(TEXTS, 270, pattern=GPT2_PATTERN),
        BPETokenizer(first.vocabulary, first.merges[::-1], first.pattern, first.special_tokens),
        BPETokenizer.train(TEXTS, 270, special_tokens=["<|endoftext|>", *"↑↓←→↔"]),
        RegexTokenizer.train(TEXTS),
        RegexTokenizer.train(TEXTS, unk=True),
    ]
    assert len({fingerprint(to_json(each)) for each in [first, *others]}) == 7
    changed = json.loads(to_json(first))
    changed["normalizer"] = {"type": "NFC"}
    assert fingerprint(json.dumps(changed)) != fingerprint(to_json(first))


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no tokenizer.json"):
        fingerprint("{}")
