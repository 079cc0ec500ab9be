"""tokenizers/patterns.py: nothing is lost, and the fast way splits as the other does."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.tokenizers import CHAR_PATTERN, GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN
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


def test_patterns_of_ones_own() -> None:
    assert splitter(r"\p{Lu}\p{Ll}*|\s|.")("OneTwo x") == ["One", "Two", " ", "x"]
    with pytest.raises(ValueError, match="no regular expression"):
        splitter("(")
