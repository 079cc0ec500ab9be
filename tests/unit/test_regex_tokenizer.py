"""tokenizers/regex.py: words and characters, with byte fallback and with <|unk|>."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.tokenizers import UNK_TOKEN, CharTokenizer, RegexTokenizer, from_json, to_json, to_rust

TEXTS = ["The cat sat on the mat, didn't it?\n\tThe  naïve cat: 42 日本. <|end|>"] * 2
KINDS = [(RegexTokenizer, False), (RegexTokenizer, True), (CharTokenizer, False), (CharTokenizer, True)]
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
PIECES = [
    "The",
    " cat",
    " sat",
    "'t",
    "\n",
    "\t",
    "  ",
    ",",
    " 42",
    "日本",
    "<|end|>",
    "<|unk|>",
    "ſ",
    "\x85",
    "e\u0301",
]
STRINGS = st.lists(st.one_of(st.text(CHARACTERS, max_size=8), st.sampled_from(PIECES)), max_size=12).map("".join)


@pytest.fixture(scope="module", params=KINDS, ids=["words", "words-unk", "characters", "characters-unk"])
def tokenizer(request: pytest.FixtureRequest) -> RegexTokenizer:
    kind, unk = request.param
    return kind.train(TEXTS, unk=unk)


@given(STRINGS)
def test_round_trip_and_same_ids_as_rust(tokenizer: RegexTokenizer, text: str) -> None:
    rust = to_rust(tokenizer)
    for split_special_tokens in (False, True):
        ids = tokenizer.encode(text, split_special_tokens)
        rust.encode_special_tokens = split_special_tokens
        assert ids == rust.encode(text).ids
        assert rust.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
        if tokenizer.unk_id not in ids:
            assert tokenizer.decode(ids) == text


def test_every_character_round_trips() -> None:
    """Every code point, also those that Python's tables do not know, 512 in a text."""
    tokenizer = RegexTokenizer.train(TEXTS)
    for start in range(0, sys.maxunicode, 512):
        text = "".join(chr(code) for code in range(start, start + 512) if unicodedata.category(chr(code)) != "Cs")
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_known_words_are_one_token_unknown_ones_their_bytes() -> None:
    tokenizer = RegexTokenizer.train(TEXTS)
    assert [tokenizer.token_bytes[i] for i in tokenizer.encode("The cat\n")] == [b"The", b" cat", b"\n"]
    assert tokenizer.encode(" dög") == list(" dög".encode())


def test_unknown_words_are_unk_when_asked() -> None:
    tokenizer = RegexTokenizer.train(TEXTS, unk=True)
    assert tokenizer.encode("The dog sat") == [
        tokenizer.vocabulary[b"The"],
        tokenizer.special_tokens[UNK_TOKEN],
        tokenizer.vocabulary[b" sat"],
    ]
    assert tokenizer.decode(tokenizer.encode("The cat sat, didn't it?")) == "The cat sat, didn't it?"
    assert b"T" not in tokenizer.vocabulary


def test_frequency_and_size_limit_the_vocabulary() -> None:
    texts = ["b b b a a a c c d"]
    tokenizer = RegexTokenizer.train(texts, pattern=r"\S+|\s", special_tokens=[], unk=True, vocab_size=4)
    # The most frequent first, ties in the order of their bytes; c finds no room, d is too rare.
    assert tokenizer.vocabulary == {b" ": 0, b"a": 1, b"b": 2}
    assert tokenizer.special_tokens == {UNK_TOKEN: 3}


def test_characters() -> None:
    tokenizer = CharTokenizer.train(["hello wörld"], min_frequency=1, unk=True)
    assert tokenizer.vocab_size == len(set("hello wörld")) + 7
    assert len(tokenizer.encode("hello wörld")) == len("hello wörld")
    with_bytes = CharTokenizer.train(["hello wörld"], min_frequency=1)
    assert with_bytes.encode("ö") == [256]
    assert with_bytes.encode("ß") == list("ß".encode())


def test_saved_form_loads_again(tokenizer: RegexTokenizer) -> None:
    again = from_json(to_json(tokenizer))
    assert type(again) is type(tokenizer)
    assert again.vocabulary == tokenizer.vocabulary
    assert again.special_tokens == tokenizer.special_tokens
    assert again.pattern == tokenizer.pattern


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="corpus is empty"):
        RegexTokenizer.train([])
    with pytest.raises(ValueError, match=r"smaller than the alphabet.*at least 262"):
        RegexTokenizer.train(TEXTS, 261)
    with pytest.raises(ValueError, match="lower min_frequency"):
        RegexTokenizer.train(["a b c"], min_frequency=9, unk=True)
    with pytest.raises(ValueError, match=r"smaller than the alphabet.*characters"):
        CharTokenizer.train(["hello"], 10, min_frequency=1, unk=True)
    with pytest.raises(ValueError, match="lacks bytes"):
        RegexTokenizer({b"a": 0}, r"\S", {})
    with pytest.raises(ValueError, match="each once"):
        RegexTokenizer({b"a": 0}, r"\S", {UNK_TOKEN: 2})
    with pytest.raises(ValueError, match="rename"):
        RegexTokenizer({b"<|unk|>": 0}, r"\S+", {UNK_TOKEN: 1})
