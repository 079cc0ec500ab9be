"""Terms of a text: acronyms with what they stand for, names, and what a sentence defines. Never "However"."""

import re
from collections import Counter
from collections.abc import Iterable

ACRONYM = re.compile(r"((?:[\w’'/&-]+ ){1,9})\(([A-Z][A-Za-z0-9-]{1,9})\)")
NAME = re.compile(r"\b(?:[A-Z][\w]*[A-Z0-9][\w]*(?:-[A-Za-z0-9.]+)*|[A-Z]{2,}[\w-]*)\b")
"""A word with a capital (or a digit) within: RMSNorm, GPT-3, MMLU."""

PHRASE = re.compile(r"(?<=[a-z,] )((?:[A-Z][a-z]+[\w-]* ){1,3}[A-Z][a-z]+[\w-]*)(?=[ ,.;)])")
"""Words with capitals in the middle of a sentence: Grouped Query Attention."""

NOT_TERMS = frozenset(
    """
    table figure section appendix equation however moreover furthermore additionally therefore thus finally
    note first second third in on for the a an we our this that these those january february march april may
    june july august september october november december english chinese et al i ii iii iv vi
    """.split()
)
LITTLE_WORDS = frozenset("of and the for to in with on a an by from via as at".split())


def acronyms(text: str) -> dict[str, str]:
    """Acronym → what it stands for, where the initials agree: "Group Relative Policy Optimization (GRPO)"."""
    found: dict[str, str] = {}
    for match in ACRONYM.finditer(text):
        short = match[2]
        letters = re.sub(
            r"[^A-Za-z]", "", short[:-1] if short.endswith("s") and short[:-1].isupper() else short
        ).lower()
        words = match[1].split()
        if len(letters) < 2 or short.lower() in NOT_TERMS:
            continue
        for start in range(len(words) - 1, -1, -1):
            if _spells(words[start:], letters):
                found.setdefault(short, " ".join(words[start:]))
                break
    return {short: long for short, long in found.items() if len(long.split()) > 1 or "-" in long}


def _spells(words: list[str], letters: str) -> bool:
    """Whether the initials of `words`, little words optional, are `letters`; parts of a compound count as words."""
    parts = [part for word in words for part in re.split(r"[-/]", word) if part]
    if words[0].lower() in LITTLE_WORDS or len(parts) > len(letters) + 3:
        return False
    initials = "".join(part[0].lower() for part in parts if part.lower() not in LITTLE_WORDS)
    return initials == letters or "".join(part[0].lower() for part in parts) == letters


def names(texts: Iterable[str], least: int = 2) -> Counter[str]:
    """Names and acronyms with how often they occur, those that occur `least` times or more."""
    counts: Counter[str] = Counter()
    for text in texts:
        plain = re.sub(r"\([^()]*\b(?:19|20)\d\d[a-z]?\b[^()]*\)", " ", text)  # citations name authors
        for pattern in (NAME, PHRASE):
            for match in pattern.finditer(plain):
                term = match[1] if pattern is PHRASE else match[0]
                if is_term(term) and not plain[match.end() :].startswith(" et al"):
                    counts[term] += 1
    return Counter({term: count for term, count in counts.items() if count >= least})


def is_term(term: str) -> bool:
    """Whether it names something: neither a number, a reference to a table, nor the first word of a sentence."""
    words = term.split()
    letters = sum(character.isalpha() for character in term)
    if letters < 2 or len(term) > 60 or words[0].lower() in NOT_TERMS or words[-1].lower() in LITTLE_WORDS:
        return False
    if re.fullmatch(r"[\dA-Z][\d.,]*[KMBT%]?|[A-Z]\d*|\d+\w?|[IVX]+", term):
        return False
    return len(words) > 1 or bool(re.search(r"[A-Z0-9]", term[1:]))


def mentions(term: str, text: str) -> int:
    """How often `term` stands in `text` as a word of its own."""
    return len(re.findall(rf"(?<![\w-]){re.escape(term)}(?![\w-]|\.\d)", text))
