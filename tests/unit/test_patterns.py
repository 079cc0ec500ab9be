"""tokenizers/patterns.py: nothing is lost, and the fast way for ASCII splits as the other does."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.tokenizers import CHAR_PATTERN, GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN
from scratchgpt.tokenizers.patterns import splitter

PATTERNS = [GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN, CHAR_PATTERN]
ASCII = st.text(st.one_of(st.characters(max_codepoint=127), st.sampled_from(" \t\r\n\x0b\x1c'stLv9")), max_size=30)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.one_of(ASCII, st.text()))
def test_pre_tokens_are_those_of_the_pattern_and_lose_nothing(pattern: str, text: str) -> None:
    pieces = splitter(pattern)(text)
    assert pieces == regex.findall(pattern, text)
    assert "".join(pieces) == text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_ascii_character_is_classed_alike(pattern: str) -> None:
    for code in range(128):
        for text in (chr(code), f"a{chr(code)}1 {chr(code)}{chr(code)}\n'{chr(code)}"):
            assert splitter(pattern)(text) == regex.findall(pattern, text)


def test_patterns_of_ones_own() -> None:
    assert splitter(r"\p{Lu}\p{Ll}*|\s|.")("OneTwo x") == ["One", "Two", " ", "x"]
    with pytest.raises(ValueError, match="no regular expression"):
        splitter("(")
