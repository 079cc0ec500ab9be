"""Blocks → a document: its title, and its sections with their headings and paragraphs.

The title is the largest print at the top of the first page. What stands between it and the abstract are authors and
affiliations, and goes. References go up to the next heading, so that an appendix stays. A paragraph that a column, a
page, a figure or a footnote interrupts is put together again.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .blocks import BULLET, CAPTION, KNOWN_HEADING, NUMBER, NUMBERED, SENTENCE_END, Block
from .layout import Page, Removed
from .lines import MARK, MARK_END, MARK_START, Line
from .words import join_lines, mend_spaces

NAMES_HEADING = re.compile(r"(?:^|\s)(?:authors?|contributors|contributions)$", re.I)
"""Of sections that hold names; without a sentence, they go."""


@dataclass
class Section:
    heading: str
    level: int
    """1 for a chapter, 2 for 2.1; 0 for what stands before the first heading."""
    paragraphs: list[str] = field(default_factory=list)


@dataclass
class Document:
    title: str
    sections: list[Section]


@dataclass(kw_only=True)
class Options:
    """What of a document is kept. The defaults make a corpus of running text."""

    header_threshold: float = 0.25
    keep_references: bool = False
    keep_captions: bool = False
    keep_footnotes: bool = False
    min_words: int = 4
    max_number_share: float = 0.35


def find_title(page: Page) -> list[Line]:
    """The lines of the title: the largest print in the upper part of the first page."""
    upper = [
        line
        for line in page.lines
        if line.y0 < 0.6 * page.height
        and sum(character.isalpha() for character in line.text) >= 4
        and not re.match(r"\d{1,2}(\.\d+)*[.:]? ", line.text)
    ]
    if not upper:
        return []
    largest = max(line.size for line in upper)
    body = Counter(round(line.size) for line in page.lines if len(line.text) > 30)
    if body and largest < 1.1 * body.most_common(1)[0][0]:
        return []
    members = [line for line in upper if line.size >= 0.97 * largest]
    first = members[0]
    title = [first]
    for line in members[1:]:
        if 0 < line.baseline - title[-1].baseline < 2.2 * largest:
            title.append(line)
    return title


class Assembler:
    """Takes the blocks in reading order and builds the sections."""

    def __init__(self, options: Options, counts: Counter[str], removed: Removed, size: float) -> None:
        self.options, self.counts, self.removed, self.size = options, counts, removed, size
        self.sections = [Section("", 0)]
        self.captions: list[str] = []
        self.open: str | None = None
        """The paragraph that may go on in the next block."""
        self.open_full = False
        self.in_references = self.in_contents = False
        self.last_number: list[int] | None = None
        self.reference_style: tuple[float, bool] | None = None
        self.after_formula = False

    def add(self, block: Block) -> None:
        if block.kind == "heading" and self._heading(block):
            return
        if self.in_references or self.in_contents:
            if self.in_references and self.options.keep_references:
                self.flush()
                self.sections[-1].paragraphs.append(self._text(block.lines))
            else:
                self.removed.add("references" if self.in_references else "table of contents", *block.lines)
            return
        if block.kind == "caption":
            self.captions.append(self._text(block.lines))
        kept_as_text = {"caption": self.options.keep_captions, "footnote": self.options.keep_footnotes}
        if kept_as_text.get(block.kind):
            self.sections[-1].paragraphs.append(self._text(block.lines))
            return
        if block.kind in ("caption", "footnote", "formula", "table"):
            reasons = {"caption": "captions", "footnote": "footnotes", "formula": "formulas", "table": "tables"}
            self.removed.add(reasons[block.kind], *block.lines)
            self.after_formula = block.kind == "formula"
            return
        text = self._text(block.lines)
        if block.kind == "tail" and (self.open is None or sentence_ended(self.open)):
            self.removed.add("tables", *block.lines)
            return
        is_item = block.kind == "item"
        last = block.lines[-1]
        if self.open is not None and self._continues(text, is_item, block.lines[0]):
            self.open = join_lines(self.open, text, self.counts)
        else:
            self.flush()
            self.open = text
        self.open_full = last.full
        self.after_formula = False

    def flush(self) -> None:
        if self.open is not None:
            self.sections[-1].paragraphs.append(self.open)
        self.open = None

    def _continues(self, text: str, is_item: bool, line: Line) -> bool:
        assert self.open is not None
        before = self.open
        if is_item and not re.match(r"[–—-] [a-z]", text):
            return False
        if before.endswith("-") and text[:1].isalnum():
            return True
        if re.search(r"[.!?。！？]['\"”’)\]]*$", before) and not re.search(
            r"\b(e\.g|i\.e|et al|cf|vs|Fig|Eq)\.$", before
        ):
            return False
        if text[:1].islower() or text[:1] in ",;)":
            return True
        if before.endswith(":"):
            return False
        return self.open_full or (self.after_formula is False and not line.lead and before[-1:].isalpha())

    def _heading(self, block: Block) -> bool:
        """Opens a section; False where the heading turns out to be none."""
        text = mend_spaces(MARK.sub("", block.text)).strip()
        known = KNOWN_HEADING.match(text)
        plain = re.sub(r"^(?:\d+|[A-Z])[.:]?\s+", "", text)
        match = NUMBER.match(text)
        line = block.lines[0]
        if self.in_references and not self._ends_references(text, line):
            return False
        if re.match(r"(references?|bibliography|works cited|literature cited)[.:]?$", plain, re.I):
            self.flush()
            self.in_references, self.in_contents = True, False
            self.reference_style = (line.size, line.bold)
            if self.options.keep_references:
                self.sections.append(Section(text, 1))
            else:
                self.removed.add("references", text)
            return True
        if re.match(r"((table of )?contents|list of (figures|tables))$", plain, re.I):
            self.flush()
            self.in_contents = True
            self.removed.add("table of contents", text)
            return True
        if self.in_contents and not known and re.search(r"\s\d{1,3}$|(\. ?){4,}", text):
            return False
        level = 1
        if match and not known:
            parts = self._number(match["number"])
            if parts is None or not self._follows(parts):
                return False
            level, self.last_number = len(parts), parts
        elif not known:
            # Without a number: as high as its print is large.
            level = 1 if line.size >= 1.15 * self.size else min(4, len(self.last_number or [1]) + 1)
        self.flush()
        self.in_references = self.in_contents = False
        self.sections.append(Section(text.rstrip(":"), level))
        return True

    def _ends_references(self, text: str, line: Line) -> bool:
        """Whether a heading within the references ends them: as large as theirs, or that of an appendix."""
        assert self.reference_style is not None
        size, bold = self.reference_style
        appendix = re.match(
            r"(appendi(x|ces)|supplementa|[A-Z](\.\d+)?[.:]?\s+[A-Z]|contribut|acknowledg|limitations)", text, re.I
        )
        return (line.size >= size - 0.3 and (line.bold or not bold)) or (bool(appendix) and line.bold)

    def _number(self, number: str) -> list[int] | None:
        parts = number.split(".")
        if re.fullmatch(r"[IVX]{2,4}", parts[0]):
            values = {"I": 1, "V": 5, "X": 10}
            digits = [values[each] for each in parts[0]]
            return [sum(-a if a < b else a for a, b in zip(digits, [*digits[1:], 0], strict=True))]
        first = parts[0]
        if first.isalpha():
            return [100 + ord(first) - ord("A"), *map(int, parts[1:])]
        return [int(part) for part in parts]

    def _follows(self, parts: list[int]) -> bool:
        """Whether a number may come after the last: no section stands before its predecessor."""
        if self.last_number is None:
            return parts[0] in (0, 1, 2, 100) or len(parts) > 1
        if parts <= self.last_number:
            return False
        if parts[0] - self.last_number[0] <= 2:
            return True
        return self.last_number[0] < 100 <= parts[0] <= 102

    def _text(self, lines: Sequence[Line]) -> str:
        """The lines of a block as one text."""
        text = ""
        for index, line in enumerate(lines):
            content = line.text
            if index == 0 and 0 < line.lead < len(content) and not BULLET.match(content):
                # A heading in the line, which only its weight sets apart from the sentence after it.
                head, rest = content[: line.lead].rstrip(), content[line.lead :].lstrip()
                if (
                    head
                    and (head[-1].isalnum() or head[-1] == ")")
                    and rest[:1].isupper()
                    and line.gap > 0.6
                    and len(head.split()) <= 12
                ):
                    content = f"{head}. {rest}"
            content = _drop_marks(content)
            text = join_lines(text, content, self.counts) if text else content
        text = re.sub(r"^[•●▪■◦○‣⁃∙·➢➤❖►▶]\s*", "- ", text)
        return mend_spaces(text)


def _drop_marks(text: str) -> str:
    return MARK.sub("", text).replace(MARK_START, "").replace(MARK_END, "")


def front_matter(blocks: list[Block], title: Sequence[Line]) -> tuple[list[Block], list[Block]]:
    """The blocks before the abstract (authors, affiliations, dates), and the rest.

    The abstract begins at its heading, at "Abstract" before a sentence, or, without either, at the first paragraph of
    forty words or more after the title.
    """
    names = {id(line) for line in title}
    start = 0
    for index, block in enumerate(blocks):
        if any(id(line) in names for line in block.lines):
            start = index + 1
    limit = next(
        (i for i, b in enumerate(blocks) if i >= start and b.kind == "heading" and re.match(r"(1|I)[.:]?\s", b.text)),
        min(len(blocks), start + 60),
    )
    for index in range(start, limit):
        block = blocks[index]
        if re.match(r"abstract\b|a ?bstract\b", block.text, re.I) or (
            block.kind == "heading" and re.match(r"(executive )?summary$", block.text, re.I)
        ):
            return blocks[:index], blocks[index:]
    for index in range(start, limit):
        block = blocks[index]
        if (
            block.kind == "text"
            and len(block.text.split()) >= 40
            and re.search(r"\b(we|this|our|is|are)\b", block.text)
        ):
            return blocks[:index], blocks[index:]
    return blocks[:start], blocks[start:]


def finish_sections(sections: list[Section], options: Options, removed: Removed) -> list[Section]:
    """Without paragraphs that are too short or too full of numbers, and without debris."""
    for section in sections:
        kept = []
        for paragraph in section.paragraphs:
            words = re.findall(r"[^\W\d_]{2,}|[\u3400-\u9fff]", paragraph)
            digits = sum(character.isdigit() for character in paragraph)
            is_item = bool(NUMBERED.match(paragraph)) or paragraph.startswith("- ")
            if len(words) < (min(options.min_words, 2) if is_item else options.min_words):
                removed.add("short paragraphs", paragraph)
            elif digits > options.max_number_share * len(paragraph):
                removed.add("numbers", paragraph)
            elif CAPTION.match(paragraph) and len(words) < 4:
                removed.add("captions", paragraph)
            else:
                kept.append(paragraph)
        section.paragraphs = kept
    kept_sections = []
    for section, following in zip(sections, [*sections[1:], Section("", 0)], strict=True):
        has_parts = following.level > section.level
        if section.paragraphs or (section.heading and (has_parts or not NAMES_HEADING.search(section.heading))):
            kept_sections.append(section)
    return kept_sections


def to_text(document: Document) -> str:
    """Title, headings (as Markdown's, by level) and paragraphs, an empty line between."""
    parts = [f"# {document.title}"] if document.title else []
    for section in document.sections:
        if section.heading:
            parts.append(f"{'#' * min(6, section.level + 1)} {section.heading}")
        parts += section.paragraphs
    return "\n\n".join(parts) + "\n"


def sentence_ended(text: str) -> bool:
    return bool(SENTENCE_END.search(text))
