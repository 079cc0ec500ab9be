"""evaluation/tokenization.py: the rates of a tokenizer, against a hand computation."""

import pytest

from scratchgpt.evaluation.tokenization import (
    CountedTexts,
    measure_tokenizer,
    split_word,
    tokenizer_report,
)
from scratchgpt.hub.markdown import tokenizer_table
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer

TEXTS = ["a cat, a cät", "a cat"]


def test_rates_are_those_of_a_hand_computation() -> None:
    bytewise = BPETokenizer.train(TEXTS, vocab_size=256, special_tokens=[])
    found = measure_tokenizer(bytewise, TEXTS)
    assert (found["num_bytes"], found["num_tokens"], found["num_words"], found["num_texts"]) == (18, 18, 6, 2)
    assert (found["bytes_per_token"], found["tokens_per_word"], found["unknown_rate"]) == (1, 3, 0)
    assert found["round_trip"] == found["same_ids_in_rust"] == "2/2"


def test_unknown_pieces_are_counted() -> None:
    words = RegexTokenizer.train(["a cat a cat"], None, min_frequency=1, unk=True)
    found = measure_tokenizer(words, ["a cat a dog"])
    assert found["unknown_rate"] == pytest.approx(1 / 4, abs=1e-6)
    assert found["round_trip"] == "0/1"


def test_the_report_counts_what_was_read_and_shows_splits() -> None:
    texts = CountedTexts(TEXTS, ["cat", "dog"])
    tokenizer = BPETokenizer.train(texts, vocab_size=262, special_tokens=[])
    report = tokenizer_report({"bpe": tokenizer}, texts, TEXTS, eval_on_train=True)
    assert report["train"] == {"num_texts": 2, "num_bytes": 18}
    assert {word: entry["seen"] for word, entry in report["new_words"].items()} == {"cat": True, "dog": False}
    assert "".join(split_word(tokenizer, "dog")) == " dog"
    table = tokenizer_table(report)
    assert "| cat (in the training texts) |" in table
    assert "measured on 2 of them (18 bytes)" in table
