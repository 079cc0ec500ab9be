"""How a text is cut into pre-tokens: the split patterns, and the function that applies one.

The patterns mean the same to Python's `regex` and to Oniguruma, the engine of the Rust library, on all characters that
the Unicode tables of both know (the newer of the two may call a letter what the other does not know yet).
"""

import functools
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


@functools.cache
def splitter(pattern: str) -> Callable[[str], list[str]]:
    """The function that cuts a text into pre-tokens by `pattern`.

    For the patterns above it is the standard library's `re`, which is twice as fast as `regex`. It knows no
    `\\p{…}` and gets the characters spelled out, up to U+FFFF, since sets with later ones are slow. Texts with later
    ones (emoji, rare scripts) take `regex`, and so do patterns of the user's own, with syntax unknown to `re` perhaps.

    Raises:
        ValueError: for a pattern that is no regular expression.
    """
    try:
        findall = regex.compile(pattern).findall
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if pattern == CHAR_PATTERN:
        return list
    if pattern not in (GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN):
        return findall
    fast_findall = re.compile(_spelled_out(pattern)).findall
    return lambda text: fast_findall(text) if text.isascii() or _within_bmp(text) else findall(text)


def _within_bmp(text: str) -> bool:
    """Whether no character lies beyond U+FFFF: those take two units of UTF-16."""
    return len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)


def _spelled_out(pattern: str) -> str:
    """`pattern` with the classes that `re` lacks or sees otherwise as ranges: sets of their own, or parts of sets."""
    form, in_set = "", False
    for part in re.split(r"(\\p\{.\}|\\s|\\S|[\[\]])", pattern):
        if part in ("[", "]"):
            in_set = part == "["
        elif part == r"\S":
            part = f"[^{_ranges(part.lower())}]"
        elif part == r"\s" or part.startswith(r"\p"):
            part = _ranges(part) if in_set else f"[{_ranges(part)}]"
        form += part
    # A run at the end of an alternative has nothing after it to give characters back to: `re` need not remember how.
    form = form.replace("+|", "++|")
    # With a space, without one: two alternatives are faster than an optional space.
    return re.sub(r" \?(\[[^]]+\]\+\+)", r" \1|\1", form)


def _ranges(character_class: str) -> str:
    """What `regex` counts among `character_class`, as ranges up to U+FFFF for a set."""
    runs = regex.finditer(f"(?:{character_class})+", "".join(map(chr, range(0x10000))))
    return "".join(f"\\u{run.start():04x}-\\u{run.end() - 1:04x}" for run in runs)
