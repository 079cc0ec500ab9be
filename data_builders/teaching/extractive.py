"""Instruction pairs without a teacher: questions whose answers stand in the report, word for word.

    abstract     what is the report about?             → its abstract
    section      what does it say about this heading?  → the beginning of the section, in whole sentences
    term         what is this?                         → the sentence that defines it
    acronym      what does it stand for?               → what is written before it in brackets
    figure       what does Figure 3 show?              → its caption
    gap          (passage) fill in the missing number  → the number, in its sentence
    sentence     (passage) where is a term mentioned?  → the only sentence that names it
    list         what are the following?               → the items that follow

An answer is nothing but text of the report, so no answer is made up; what can be wrong is that it does not fit its
question. Hence the conditions: an answer to "what is X" begins with X and a verb that defines, and so on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from scratchgpt.data.splits import draw

from .terms import acronyms, is_term, mentions, names

if __package__ and __package__.startswith("data_builders"):
    from ..pdf.passages import count_words, sentences
else:
    from pdf.passages import count_words, sentences

DEFINES = (
    r"(?:is|are) (?:an?|the|one|designed|used|intended|based|composed|derived|defined|built|made|known|trained)\b|"
    r"(?:refers?|aims?|consists?|comprises?|denotes?|stands?|measures?|covers?|contains?|provides?|evaluates?|tests?|"
    r"includes?|combines?|extends?|serves?|focuses|assesses|describes?|represents?|enables?|allows?|requires?)\b"
)
DEFINITION = re.compile(
    rf"^(?:[-•] )?(?P<term>[A-Z][\w+.’'/-]*(?: (?:(?:of|and|for) )?[A-Z0-9][\w+’'/-]*){{0,4}})"
    rf"(?P<more> \([^()]{{2,90}}\))*:?"
    rf"(?: benchmark)? (?:{DEFINES})"
)
POINTS_BACK = re.compile(
    r"^(?:it|they|this|these|those|that|he|she|such|however|moreover|furthermore|additionally|therefore|thus|hence|"
    r"also|for example|for instance|in addition|then|next|finally|similarly|instead|as a result|besides|meanwhile|"
    r"consequently|notably|specifically)\b",
    re.I,
)
PRONOUNS = frozenset("we our this these it they there here both each all some many most one two three such".split())
CAPTION = re.compile(
    r"(?P<kind>Figure|Fig\.|Table|Tab\.)\s*(?P<number>[A-Z]?\d+(?:\.\d+)*)\s*[:.|—–-]?\s*(?P<text>.+)", re.S
)
HEADING = re.compile(r"^#{2,6} (?:(?:Appendix\s+)?(?:\d+(?:\.\d+)*|[A-Z](?:\.\d+)*|[IVX]+)[.:]?\s+)?(?P<name>.+)$")
NUMBER = re.compile(r"(?<![\w.,/:’'-])\d+(?:,\d{3})*(?:\.\d+)?(?:%|[KMBT]\b)?(?![\w/-]|:\d)")
ENDS = re.compile(r"[.!?:。！？：][\"”’)]*$")
ITEM = re.compile(r"[-•] |\(?\d{1,2}[.)] ")
GENERAL = re.compile(
    r"(introduction|conclusions?|discussion|results?|evaluation|experiments?|appendix|background|limitations?|"
    r"approach|method|methods|methodology|overview|prompts?|outputs?.*|related works?|acknowledge?ments?)$",
    re.I,
)

QUESTIONS = {
    "abstract": ["What is the report “{title}” about?", "Summarise the report “{title}”."],
    "section": [
        "What does “{title}” say about {heading}?",
        "Explain {heading}, as “{title}” describes it.",
        "In “{title}”, what is said about {heading}?",
    ],
    "general section": ["How does the section “{heading}” of “{title}” begin?"],
    "term": ["What is {term}?", "What is meant by {term}?", "Explain the term {term}."],
    "acronym": ["What does {term} stand for?", "What is {term} short for?"],
    "figure": ["What does {label} of “{title}” show?", "Describe {label} of “{title}”."],
    "gap": ["Which number is missing? “{sentence}”"],
    "sentence": ["Which sentence of the passage mentions {term}?"],
    "list": ["“{title}” says: “{lead}” What follows?"],
}

ANSWER_WORDS = 120
"""Of an answer that is the beginning of a section."""


@dataclass
class Pair:
    question: str
    answer: str
    task: str
    passage: str = ""
    """What the question is about, where it cannot be answered without."""
    evidence: str = ""
    """What the report says, where the answer does not say it word for word."""


def opening(paragraphs: list[str], words: int) -> str:
    """As many whole sentences from the beginning as `words` words hold, none that announces what is cut off."""
    kept: list[str] = []
    rest = list(paragraphs)
    while rest:
        part: list[str] = []
        for sentence in sentences(rest[0]):
            if count_words(" ".join([*kept, *part, sentence])) > words or not ENDS.search(sentence):
                break  # a sentence without an end went on in a formula
            part.append(sentence)
        whole = len(part) == len(sentences(rest[0]))
        if part:
            kept.append(" ".join(part))
        if not whole:
            break
        del rest[0]
    if rest:
        if kept and count_words(kept[-1]) < 4 and not ITEM.match(kept[-1]):
            del kept[-1]  # a heading within the line, whose paragraph did not fit
        kept = _without_torn_list(kept, rest[0])
    text = "\n\n".join(kept)
    while text and not re.search(r"[.!?。][\"”’)]*$", text):
        shorter = re.sub(r"(?:^|(?<=[.!?])[\"”’)]*\s+)[^.!?]*[^.!?\"”’)]*$", "", text)
        text = shorter.rstrip() if len(shorter) < len(text) else ""
    return text


def _without_torn_list(kept: list[str], following: str) -> list[str]:
    """The paragraphs without the items of a list of which more follow; what announced them goes in `opening`."""
    announced = next((i for i in range(len(kept) - 1, -1, -1) if kept[i].endswith(":")), -1)
    if announced < 0 and not (kept and ITEM.match(kept[0])):  # there is none, or it is all that there is
        return kept
    items = list(takewhile(ITEM.match, kept[announced + 1 :]))
    complete = items and not (items == kept[announced + 1 :] and ITEM.match(following))
    return kept if complete else kept[: announced + 1]


def parse(text: str) -> list[tuple[str, list[str]]]:
    """Headings (without their numbers) and paragraphs of a document's text."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for part in text.split("\n\n"):
        part = part.strip()
        if match := HEADING.match(part):
            sections.append((match["name"], []))
        elif part and not part.startswith("# "):
            sections[-1][1].append(part)
    return sections


def make_pairs(title: str, text: str, captions: list[str], seed: int) -> Iterator[Pair]:
    """All pairs of a document, whose text is as `pdf_reports` writes it. The same document and seed give the same."""

    def ask(kind: str, **parts: str) -> str:
        choices = QUESTIONS[kind]
        return choices[int(draw(seed, title, kind, *parts.values()) * len(choices))].format(title=title, **parts)

    sections = parse(text)
    prose = [paragraph for _, paragraphs in sections for paragraph in paragraphs]
    for heading, paragraphs in sections:
        if re.fullmatch(r"abstract|summary", heading, re.I):
            if answer := opening(paragraphs, 4 * ANSWER_WORDS):
                yield Pair(ask("abstract"), answer, "abstract")
        elif heading and not re.match(r"acknowledg|contribut|prompts|outputs", heading, re.I):
            answer = opening(paragraphs, ANSWER_WORDS)
            if count_words(answer) >= 20 and heading[:1].isupper():
                kind = "general section" if GENERAL.match(heading) else "section"
                yield Pair(ask(kind, heading=heading.rstrip("?.")), answer, "section")
    yield from _acronyms(prose, ask)
    yield from _definitions(prose, ask)
    yield from _captions(captions, ask)
    yield from _lists(sections, ask)
    yield from _about_passages(prose, ask, title, seed)


def _acronyms(prose: list[str], ask) -> Iterator[Pair]:
    for short, long in acronyms("\n".join(prose)).items():
        yield Pair(ask("acronym", term=short), f"{short} stands for {long}.", "acronym", evidence=f"{long} ({short})")


def _definitions(prose: list[str], ask) -> Iterator[Pair]:
    seen: set[str] = set()
    for paragraph in prose:
        for sentence in sentences(paragraph):
            match = DEFINITION.match(sentence)
            if not match or not 8 <= count_words(sentence) <= 60 or not sentence.endswith("."):
                continue
            term = match["term"]
            if term in seen or not is_term(term) or term.split()[0].lower() in PRONOUNS or len(term.split()) > 5:
                continue
            if re.search(r"\b(Table|Figure|Section|Appendix|and|or|which|that)\b", term):
                continue
            seen.add(term)
            yield Pair(ask("term", term=term), sentence.removeprefix("- "), "term")


def _captions(captions: list[str], ask) -> Iterator[Pair]:
    for caption in captions:
        match = CAPTION.match(caption)
        if not match or count_words(match["text"]) < 5 or not re.match(r"[\"“A-Z]", match["text"]):
            continue
        answer = opening([match["text"]], 80)
        if count_words(answer) < 5:
            continue
        kind = "Figure" if match["kind"].startswith("Fig") else "Table"
        yield Pair(ask("figure", label=f"{kind} {match['number']}"), answer, "figure")


def _lists(sections: list[tuple[str, list[str]]], ask) -> Iterator[Pair]:
    for _, paragraphs in sections:
        for index, paragraph in enumerate(paragraphs):
            if not paragraph.endswith(":"):
                continue
            items = []
            for item in paragraphs[index + 1 :]:
                if not ITEM.match(item):
                    break
                items.append(item)
            lead = sentences(paragraph)[-1]
            says = count_words(lead) >= 8 and not POINTS_BACK.match(lead)  # “We find:” could be anywhere
            if says and len(items) >= 2 and count_words(" ".join(items)) <= 250:
                yield Pair(ask("list", lead=lead), "\n".join(items), "list")


def _about_passages(prose: list[str], ask, title: str, seed: int) -> Iterator[Pair]:
    """Questions that only the passage can answer: it is part of the question."""
    known = names(prose)
    for number, paragraph in enumerate(prose):
        parts = sentences(paragraph)
        if len(parts) < 3 or not 50 <= count_words(paragraph) <= 220:
            continue
        gaps = [
            (sentence, match)
            for sentence in parts
            for match in NUMBER.finditer(sentence)
            if _fits_gap(sentence, match)
        ]
        if gaps:
            sentence, match = gaps[int(draw(seed, title, number, "gap") * len(gaps))]
            # The passage would give the number away: it is shown without this sentence's number, with the rest.
            hidden = f"{sentence[: match.start()]}___{sentence[match.end() :]}"
            yield Pair(ask("gap", sentence=hidden), f"{match[0]}: “{sentence}”", "gap", paragraph)
        single = [
            (term, sentence)
            for term in sorted(known)
            if len(term) > 2 and paragraph.count(term) == 1
            for sentence in parts
            if mentions(term, sentence) == 1
            and 8 <= count_words(sentence) <= 60
            and not POINTS_BACK.match(sentence)
            and re.search(r"[.!?][\"”’)]*$", sentence)
            and _outside_brackets(term, sentence)
        ]
        if single:
            term, sentence = single[int(draw(seed, title, number, "sentence") * len(single))]
            yield Pair(ask("sentence", term=term), sentence.removeprefix("- "), "sentence", paragraph)


def _fits_gap(sentence: str, match: re.Match[str]) -> bool:
    """Whether a number says something: no year, no number of a table, of a section or of an item, and its only one."""
    before = sentence[: match.start()]
    if re.search(r"(?:Table|Figure|Fig\.|Section|Appendix|Eq\.|Stage|Part|version|v|Step|\()\s*$|^\W*$", before):
        return False
    if re.search(r"\b(?:Tables?|Figures?|Sections?|Figs?\.)\s[\d., ]*(?:and|to|or)\s*$", before):
        return False
    if re.search(r"[A-Z][\w-]*\s*$", before) or re.fullmatch(r"\d", match[0]):
        return False  # the version or the number of something, or a number that many others would fit
    if re.fullmatch(r"(?:19|20)\d\d", match[0]) or sentence.count(match[0]) != 1:
        return False
    return (
        8 <= count_words(sentence) <= 45
        and bool(re.search(r"[.!?][\"”’)]*$", sentence))
        and before.count("(") == before.count(")")
        and before.count("[") == before.count("]")
    )


def _outside_brackets(term: str, sentence: str) -> bool:
    before = sentence[: sentence.find(term)]
    return before.count("(") == before.count(")")
