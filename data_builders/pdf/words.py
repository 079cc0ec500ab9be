"""Words that a line end cut in two, mended with a check against the document's own words."""

import re
from collections import Counter
from collections.abc import Iterable

WORD = re.compile(r"[^\W\d_]+(?:[-’'][^\W_]+)*")

PREFIXES = frozenset("self non multi co ex quasi semi high low long short well open cross post pre zero few".split())
"""What is more often written with a hyphen than without."""


JOINED = frozenset("under over inter out some any every with there where up down back trans per com con for".split())
"""Words that are the beginning of other words more often than of a compound."""

SUFFIX = re.compile(
    r"(ing|ed|er|ers|ment|ments|ness|nesses|less|ly|ally|ful|able|ible|ation|ations|i[sz]\w+|ist|ists|ism|ity|ities|"
    r"ive|al|ous|ence|ance|ant|ent|tion|tions|sion|sions)$"
)


SECOND_PART = re.compile(
    r"(\w{4}ed|\w{4}ing|based|level|like|free|wide|aware|scale|specific|style|type|driven|agnostic|centric|friendly|"
    r"source|time|shot)$"
)
"""Words that many compounds end with: human-annotated, domain-specific."""


def count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each word occurs, in lower case; the parts of words that line ends cut in two do not count.

    Compounds count whole ("state-of-the-art") and by their parts.
    """
    counts: Counter[str] = Counter()
    was_cut = False
    for line in lines:
        words = WORD.findall(line.casefold())
        cut = bool(re.search(r"\w[-\u00ad]$", line.rstrip()))
        if was_cut:
            words = words[1:]
        if cut:
            words = words[:-1]
        was_cut = cut
        for word in words:
            counts[word] += 1
            if "-" in word:
                counts.update(word.split("-"))
    return counts


def join_lines(first: str, second: str, counts: Counter[str]) -> str:
    """Two lines of a paragraph as one: with a space, or with a cut word made whole."""
    first, second = first.rstrip(), second.lstrip()
    if not first or not second:
        return first + second
    if first.endswith("\u00ad"):
        return first[:-1] + second
    if re.search(r"[\u3000-\u9fff\uff00-\uffef]$", first) and re.match(r"[\u3000-\u9fff\uff00-\uffef]", second):
        return first + second
    if first.endswith(("—", "/")) and not first.endswith((" —", " /")):
        return first + second
    left = re.search(r"(?:^|[\s(\[“\"‘'/—])((?:[\w’']+-)*[\w’']+)-$", first)
    right = re.match(r"((?:[\w’']+-)*[\w’']+)", second)
    if not left or not right:
        return first + second if re.search(r"[\w)\]]-$", first) else f"{first} {second}"
    return first + second if keeps_hyphen(left[1], right[1], counts) else first[:-1] + second


def keeps_hyphen(left: str, right: str, counts: Counter[str]) -> bool:
    """Whether the hyphen between `left` and `right` belongs to the word: "state-of-" + "the-art", not "mo-" + "del".

    The document decides where it has the word elsewhere, with the hyphen or without. Otherwise: before a digit or a
    capital it stays; between two words that the document knows it stays; else it goes.
    """
    whole_left, whole_right = left.casefold(), right.casefold()
    last, first = whole_left.split("-")[-1], whole_right.split("-")[0]
    with_hyphen = counts[f"{whole_left}-{whole_right}"] + counts[f"{last}-{first}"]
    without = counts[last + first] + counts[whole_left + whole_right] * ("-" in whole_left + whole_right)
    if with_hyphen or without:
        return with_hyphen > without
    if not right[0].islower() or left[-1].isdigit() or (left.isupper() and len(left) > 1):
        return True
    if "-" in whole_left and "-" in whole_right:
        return True
    if "-" in whole_left and counts[last] and not (len(last) <= 3 and counts[last] < 3):
        return True
    if last in PREFIXES and counts[first]:
        return True
    if last in JOINED or SUFFIX.match(first):
        return False
    if len(last) >= 3 and len(first) >= 3 and counts[last] and counts[first]:
        return True
    return len(last) >= 4 and counts[last] >= 2 and bool(SECOND_PART.search(first))


def mend_spaces(text: str) -> str:
    """Spaces as they are written: none before a full stop or a comma, none doubled."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"[·.⋯] [·.] ?[·.]|[⋯…]", "...", text)
    text = re.sub(r" +([,;.!?)\]”’](?:\s|$))", r"\1", text)
    text = re.sub(r"([(\[“‘]) +", r"\1", text)
    return re.sub(r"\b(\d{1,3}), (000)\b", r"\1,\2", text)  # a thin space of TeX
