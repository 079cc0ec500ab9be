"""Sections → passages: whole paragraphs of one section, or whole sentences where a paragraph is too long."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import cast

from datasketch import MinHash, MinHashLSH

from .document import Section

SENTENCE_END = re.compile(r"[.!?][\"”’)]*(?=\s+[A-Z(“\"‘\[])|[。！？][”’」）]*")
NOT_AN_END = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|cf|vs|Fig|Figs|Eq|Sec|Tab|No|Dr|Mr|resp|approx|etc)\.|\b[A-Z]\.)[\"”’)]*$"
)

NUM_PERM, BANDS = 64, (16, 4)
"""MinHash: pairs at a similarity of 0.8 are found with a probability above 0.999."""


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; an abbreviation does not end one."""
    ends = [match.end() for match in SENTENCE_END.finditer(text) if not NOT_AN_END.search(text[: match.end()])]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part]


def count_words(text: str) -> int:
    """Words; of writing without spaces, half its characters."""
    return len(text.split()) + sum("\u3400" <= character <= "\u9fff" for character in text) // 2


def make_passages(section: Section, words: int) -> Iterator[str]:
    """Passages of about `words` words: at least half as long where the section allows it, rarely much longer."""
    units: list[tuple[str, str]] = []
    for paragraph in section.paragraphs:
        if count_words(paragraph) <= 1.5 * words:
            units.append(("\n\n", paragraph))
            continue
        for index, sentence in enumerate(sentences(paragraph)):
            units.append(("\n\n" if not index else " ", sentence))
    passages, current = [], ""
    for joint, unit in units:
        if current and count_words(current) + count_words(unit) > 1.25 * words:
            passages.append(current)
            current = ""
        current = f"{current}{joint}{unit}" if current else unit
    if current:
        if passages and count_words(current) < words / 4:
            passages[-1] += f"\n\n{current}"
        else:
            passages.append(current)
    yield from passages


def drop_duplicates(documents: Iterable[list[Section]], threshold: float, min_words: int = 8) -> list[int]:
    """Takes out paragraphs that say again what one before says, in this document or in another.

    Args:
        threshold: Jaccard similarity of the sets of five words in a row from which the later one goes; above 1, none.
        min_words: shorter paragraphs stay: many documents may say "The results are as follows."

    Returns:
        Characters removed, by document.
    """
    index = MinHashLSH(num_perm=NUM_PERM, params=BANDS)
    seen: set[bytes] = set()
    kept_shingles: list[set[str]] = []
    removed = []
    for sections in documents:
        characters = 0
        for section in sections:
            kept = []
            for paragraph in section.paragraphs:
                words = paragraph.casefold().split()
                if (
                    threshold <= 1
                    and len(words) >= min_words
                    and _is_known(words, threshold, seen, index, kept_shingles)
                ):
                    characters += len(paragraph)
                else:
                    kept.append(paragraph)
            section.paragraphs = kept
        removed.append(characters)
    return removed


def _is_known(
    words: list[str], threshold: float, seen: set[bytes], index: MinHashLSH, kept_shingles: list[set[str]]
) -> bool:
    digest = hashlib.sha256(" ".join(words).encode()).digest()
    if digest in seen:
        return True
    seen.add(digest)
    own = {" ".join(words[start : start + 5]) for start in range(max(1, len(words) - 4))}
    sketch = MinHash(num_perm=NUM_PERM)
    sketch.update_batch([shingle.encode() for shingle in own])
    for key in index.query(sketch):
        other = kept_shingles[cast(int, key)]
        if len(own & other) >= threshold * len(own | other):
            return True
    index.insert(len(kept_shingles), sketch)
    kept_shingles.append(own)
    return False
