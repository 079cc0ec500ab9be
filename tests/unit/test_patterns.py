"""tokenizers/patterns.py: nothing is lost, and the fast way splits as the other does."""

import pytest
import regex
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from scratchgpt.tokenizers import (
    CHAR_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    WORD_PATTERN,
    BPETokenizer,
    RegexTokenizer,
    from_json,
    to_json,
    to_rust,
)
from scratchgpt.tokenizers.patterns import splitter

PATTERNS = [GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN, CHAR_PATTERN]
BMP = st.text(st.one_of(st.characters(max_codepoint=0xFFFF), st.sampled_from("'’ſsſtSLVé٣½\u0301\u2028\xa0 \n")))
ASCII = st.text(st.one_of(st.characters(max_codepoint=127), st.sampled_from(" \t\r\n\x0b\x1c'stLv9")), max_size=30)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.one_of(ASCII, BMP, st.text()))
def test_pre_tokens_are_those_of_the_pattern_and_lose_nothing(pattern: str, text: str) -> None:
    pieces = splitter(pattern)(text)
    assert pieces == regex.findall(pattern, text)
    assert "".join(pieces) == text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_character_is_classed_alike(pattern: str) -> None:
    characters = [chr(code) for code in range(0x10000)]
    for template in ("{0} ", "a{0}1 {0}{0}\n'{0}"):
        text = "".join(map(template.format, characters))
        assert splitter(pattern)(text) == regex.findall(pattern, text)
    for character in characters[:128]:  # on its own: the text ends after it
        assert splitter(pattern)(character) == regex.findall(pattern, character)


ATOMS = ["a", "b", r"\p{L}", r"\p{N}", r"\s", "[a-z]", "[^a]", ".", r"\b", "", "(?=b)", "(?<=a)", "(?!a)", "1"]
OWN_TEXTS = st.text(st.sampled_from("ab1 \nB.é日👍"), max_size=12)
OWN_PATTERNS = st.recursive(
    st.sampled_from(ATOMS),
    lambda parts: st.one_of(
        st.tuples(parts, parts).map("".join),
        st.tuples(parts, parts).map("|".join),
        parts.map("({})".format),
        st.tuples(parts, st.sampled_from(["*", "+", "?", "*?", "+?", "{1,2}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=6,
)


@given(OWN_PATTERNS, OWN_TEXTS)
@example("(a)|(b)", "xaxb")
@example("[a-z]*", "1a23")
@example(r"\p{L}+|\p{N}+", "Hello, 42 worlds!")
@example("|aa", "aab")
def test_any_pattern_loses_nothing_and_is_the_same_in_rust(pattern: str, text: str) -> None:
    try:
        pieces = splitter(pattern)(text)
    except ValueError:  # refused, such as a repeated \\b, which Oniguruma does not know
        reject()
    assert "".join(pieces) == text
    assert "" not in pieces
    rust = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text) if text else []
    assert pieces == [piece for piece, _ in rust]


@settings(max_examples=30)
@given(OWN_PATTERNS, OWN_TEXTS, st.sampled_from([BPETokenizer, RegexTokenizer]))
def test_tokenizers_of_any_pattern_give_the_text_back(pattern: str, text: str, kind) -> None:
    options = {"vocab_size": 258, "special_tokens": [], "min_frequency": 1}
    try:
        tokenizer = kind.train(["ab1 ab1\nB.é日👍", text], pattern=pattern, **options)
    except ValueError:
        reject()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert to_rust(tokenizer).encode(text).ids == ids
    assert from_json(to_json(tokenizer)).encode(text) == ids


def test_what_means_something_else_to_the_rust_library_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cuts off '\\na' in Python, but '\\n' in the Rust library"):
        BPETokenizer.train(["b\na"], 260, "^.", special_tokens=[])
    with pytest.raises(ValueError, match="no regular expression"):
        splitter("(?P<name>a)|.")


def test_patterns_of_ones_own() -> None:
    assert splitter(r"\p{L}+|\p{N}+")("Hello, 42!") == ["Hello", ", ", "42", "!"]
    assert splitter("(a)|(b)")("xab") == ["x", "a", "b"]
    assert splitter(r"\p{Lu}\p{Ll}*|\s|.")("OneTwo x") == ["One", "Two", " ", "x"]
    with pytest.raises(ValueError, match="no regular expression"):
        splitter("(")
