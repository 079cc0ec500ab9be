"""How a text is cut into pre-tokens: the split patterns, and the function that applies one.

The patterns mean the same to Python's `regex` and to Oniguruma, the engine of the Rust library, on all characters that
the Unicode tables of both know (the newer of the two may call a letter what the other does not know yet).
"""

import re
from collections.abc import Callable

import regex

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""Words with the space before them, runs of digits, runs of anything else; the last space of a run goes with the word
that follows (source: GPT-2's encoder.py)."""

GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
"""As GPT-2's, but: contractions in capitals too, any one character before a word, at most three digits, line ends
with the punctuation before them (source: tiktoken's cl100k_base)."""

WORD_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s"""
"""Words, numbers and single marks of punctuation, each with one space before it; contractions; white space."""

CHAR_PATTERN = r"[\s\S]"
"""Single characters (Unicode code points)."""


def splitter(pattern: str) -> Callable[[str], list[str]]:
    """The function that cuts a text into pre-tokens by `pattern`.

    For the patterns above, ASCII texts take the standard library's `re`, which is twice as fast as `regex` but knows
    no `\\p{…}`; a pattern of the user's own may use syntax that only `regex` has.

    Raises:
        ValueError: for a pattern that is no regular expression.
    """
    try:
        findall = regex.compile(pattern).findall
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if pattern not in (GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN, CHAR_PATTERN):
        return findall
    ascii_findall = re.compile(_ascii_form(pattern), re.ASCII).findall
    return lambda text: ascii_findall(text) if text.isascii() else findall(text)


def _ascii_form(pattern: str) -> str:
    """`pattern` with `\\p{…}` spelled out for ASCII: as a set of its own, or as part of the set around it."""
    spelled = {r"\p{L}": "a-zA-Z", r"\p{N}": "0-9", r"\p{M}": ""}
    form, in_set = "", False
    for part in re.split(r"(\\p\{.\}|[\[\]])", pattern):
        if part in ("[", "]"):
            in_set = part == "["
        elif part in spelled:
            part = spelled[part] if in_set else f"[{spelled[part]}]"
        form += part
    return form
