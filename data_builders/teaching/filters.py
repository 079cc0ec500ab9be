"""What is wrong with an answer. Each check has a name, and how many answers each rejected is counted."""

import re
from collections import Counter
from dataclasses import dataclass

TRUNCATED, LENGTH, TALK = "truncated", "wrong length", "talks about the task"
COPY, UNSUPPORTED, DUPLICATE = "a copy of the passage", "not supported by the passage", "a duplicate"
REASONS = (TRUNCATED, LENGTH, TALK, COPY, UNSUPPORTED, DUPLICATE)

ABOUT_THE_TASK = re.compile(
    r"(?:^|\n)\W*(?:note|notes|answer|summary|explanation|response|question|instruction|passage|output)\W*:|"
    r"\b(?:the|this|that|above|given|provided|following) (?:excerpt|passage|text snippet|snippet|paragraph|prompt)\b|"
    r"\bthe (?:provided|given|above) (?:text|information|context|document)\b|"
    r"\bas an? (?:ai|artificial intelligence|language model|assistant)\b|"
    r"^\W*(?:sure|certainly|of course|okay|here is|here are|here's|i hope|i cannot|i can't|i'm sorry|i am sorry|as "
    r"requested)\b|\blet me know\b|\bin (?:two|three|four) sentences\b|\b(?:does not|doesn't) "
    r"(?:mention|specify|provide)\b",
    re.I,
)
WORD = re.compile(r"[^\W_]+(?:[.,’'-][^\W_]+)*")
COMMON = frozenset(
    """
    the a an and or but of to in on for with by from as at is are was were be been being it its this that
    these those they their them which who what how why when where while than then so such not no can could
    may might will would should must have has had do does did more most less least also both each other
    another between into over under through during after before using used use uses based within without
    about because if we our us you your he she there here all any some many much very only own same too s t
    however therefore thus including include includes like well new one two first second
    """.split()
)


@dataclass(kw_only=True)
class Filters:
    min_words: int = 8
    max_words: int = 250
    max_copied: float = 0.6
    """Share of the answer that may be runs of eight words of the passage."""
    min_support: float = 0.6
    """Share of the answer's content words that the passage must hold."""

    def judge(self, answer: str, passage: str, finished: bool, may_copy: bool = False) -> str:
        """Why an answer is rejected; empty when it is accepted (duplicates are for `Seen`)."""
        text = answer.strip()
        words = text.split()
        if not finished or (text and not re.search(r"[.!?。:)\]\"”’]$", text) and not may_copy):
            return TRUNCATED
        if not self.min_words <= len(words) <= self.max_words:
            return LENGTH
        if ABOUT_THE_TASK.search(text):
            return TALK
        if not may_copy and copied_share(text, passage) > self.max_copied:
            return COPY
        return "" if self._supported(text, passage) else UNSUPPORTED

    def _supported(self, answer: str, passage: str) -> bool:
        """Whether the passage holds the answer's numbers, and enough of its other words."""
        known = {stem(word) for word in WORD.findall(passage.casefold())}
        numbers = set(re.findall(r"\d+(?:[.,]\d+)*", answer)) - set(re.findall(r"\d+(?:[.,]\d+)*", passage))
        if {number for number in numbers if len(number) > 1}:
            return False
        content = [word for word in WORD.findall(answer.casefold()) if word not in COMMON and not word.isdigit()]
        return not content or sum(stem(word) in known for word in content) >= self.min_support * len(content)


def stem(word: str) -> str:
    """A word without its commonest endings: enough to see that "training" and "trained" are about the same."""
    return re.sub(r"(?:’s|'s)$|(?<=\w{4})(?:ations?|ings?|ed|es|s|ly|ers?|ies|y|e)$", "", word)


def copied_share(answer: str, passage: str, run: int = 8) -> float:
    """The share of the answer's words that stand in a run of eight that the passage has too."""
    words, other = answer.casefold().split(), passage.casefold().split()
    runs = {tuple(other[start : start + run]) for start in range(len(other) - run + 1)}
    copied = set()
    for start in range(len(words) - run + 1):
        if tuple(words[start : start + run]) in runs:
            copied.update(range(start, start + run))
    return len(copied) / max(1, len(words))


class Seen:
    """What was accepted: a question once, and an answer once, punctuation and case aside."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def is_new(self, question: str, answer: str) -> bool:
        keys = {"q" + _plain(question), "a" + _plain(answer)}
        if keys & self.known:
            return False
        self.known |= keys
        return True


def _plain(text: str) -> str:
    return " ".join(WORD.findall(text.casefold()))


def counts_of(rejected: Counter[str]) -> dict[str, int]:
    return {reason: rejected[reason] for reason in REASONS}
