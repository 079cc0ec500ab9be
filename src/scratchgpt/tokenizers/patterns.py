"""How a text is cut into pre-tokens: the split patterns, and the function that applies one.

No character is lost: what lies between two matches is a pre-token too, as the `Split` of the Rust library has it.

The patterns mean the same to Python's `regex` and to Oniguruma, the engine of the Rust library, on all characters that
the Unicode tables of both know (the newer of the two may call a letter what the other does not know yet).
"""

import functools
import re
from collections.abc import Callable

import regex
from tokenizers import Regex, pre_tokenizers

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


PATTERNS = (GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN, CHAR_PATTERN)


@functools.cache
def splitter(pattern: str) -> Callable[[str], list[str]]:
    """The function that cuts a text into pre-tokens by `pattern`.

    For the patterns above it is the standard library's `re`, which is twice as fast as `regex`. It knows no
    `\\p{…}` and gets the characters spelled out, up to U+FFFF, since sets with later ones are slow. Texts with later
    ones (emoji, rare scripts) take `regex`, and so do patterns of the user's own, with syntax unknown to `re` perhaps.

    Raises:
        ValueError: for a pattern that is no regular expression, here or for the Rust library.
    """
    try:
        compiled = regex.compile(pattern)
        Regex(pattern)
    except Exception as error:  # the Rust library raises no narrower class
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if pattern == CHAR_PATTERN:
        return list
    if pattern not in PATTERNS:
        return lambda text: _cut(compiled, text)
    findall = compiled.findall
    fast_findall = re.compile(_spelled_out(pattern)).findall
    return lambda text: fast_findall(text) if text.isascii() or _within_bmp(text) else findall(text)


def _cut(compiled: regex.Pattern[str], text: str) -> list[str]:
    """The matches and what lies between them, none empty."""
    if compiled.groups == 0:  # else `findall` returns the groups
        pieces = compiled.findall(text)
        if "" not in pieces and sum(map(len, pieces)) == len(text):
            return pieces
    # As the Rust library goes on from match to match: an empty one where the last one ended is no match.
    pieces, end, start, last = [], 0, 0, -1
    while start <= len(text) and (found := compiled.search(text, start)):
        first, beyond = found.span()
        if first == beyond == last:
            start += 1
            continue
        pieces += [text[end:first], text[first:beyond]]
        end = start = last = beyond
    return list(filter(None, [*pieces, text[end:]]))


def check_same_in_rust(pattern: str, text: str) -> None:
    """
    Raises:
        ValueError: for a pattern that cuts `text` otherwise in the Rust library; shows where.
    """
    ours = splitter(pattern)(text)
    theirs = [piece for piece, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)]
    for piece, other in zip(ours, theirs, strict=False):
        if piece != other:
            raise ValueError(
                f"the pattern {pattern!r} cuts off {piece!r} in Python, but {other!r} in the Rust library, which runs "
                "with a model: use syntax that means the same to both"
            )


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
