"""Lines → blocks: paragraphs and items of lists, headings, captions, footnotes, formulas, and what is no text.

A block is told by layout and font: a caption by its label set apart from what follows ("Table 3: …", never "Table 3
shows …"), a footnote by small print below the text of its column, a formula by its share of mathematics and its place,
a heading by weight or size and by its number, what is left of tables and figures by gaps and by lines that never fill
the column.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .layout import Page, is_running
from .lines import MARK, MARK_END, MARK_START, Line

CAPTION = re.compile(
    r"(?P<label>(?:Supplementary |Extended Data )?(?:Figure|Fig\.?|Table|Tab\.?|Algorithm|Listing|Chart|Box|Scheme)\s*"
    r"(?:[A-Z]{0,2}[.-]?\d+(?:\.\d+)*|[IVX]+)(?:\s?\(?[a-z]\)?)?)\s*(?P<mark>[:|.—–]|\s-\s)?",
    re.I,
)
SUBCAPTION = re.compile(r"\([a-h]\)\s.{0,90}$")
BULLET = re.compile(r"[•●▪■◦○‣⁃∙·➢➤❖✓✔►▶–—*-]\s+\S")
NUMBERED = re.compile(r"(?:\(?\d{1,2}[.)]|\(?[a-z][.)]|\(?[ivx]{1,4}\)|\[\d+\])\s+\S")
NUMBER = re.compile(
    r"(?:(?:Appendix|Section|Chapter)\s+)?"
    r"(?P<number>\d{1,2}(?:\.\d{1,2}){0,4}|[A-Z](?:\.\d{1,2}){0,4}|[IVX]{1,4}(?=\.))[.:]?\s+(?P<name>\S.*)$"
)
KNOWN_HEADING = re.compile(
    r"(?:abstract|summary|introduction|background|related works?|methods?|results|discussion|conclusions?|limitations|"
    r"references|bibliography|acknowledge?ments?|appendix|appendices|contents|table of contents|contributions?|"
    r"contributors|contributions and acknowledge?ments?|supplementary materials?|broader impacts?|future work|"
    r"ethics statement|reproducibility statement|list of (?:figures|tables)|core contributors|authors?)[.:]?$",
    re.I,
)
ABBREVIATION = re.compile(r"\b(?:Figs?|Eqs?|Tabs?|Tables?|Secs?|Refs?|No|et al|e\.g|i\.e|cf|vs|resp|approx)\.$")
CJK = re.compile("[\u3400-\u9fff]")
SENTENCE_END = re.compile(r"[.!?:;。！？：；]['\"”’)\]]*$")


@dataclass
class Block:
    kind: str
    """text, item, tail (the end of a paragraph at the top of a column), heading, caption, footnote, formula, table."""
    lines: list[Line]

    @property
    def text(self) -> str:
        return " ".join(line.text for line in self.lines)


def mark_footnotes(page: Page, size: float) -> set[int]:
    """Which of the lines of a page are footnotes: small print at the foot of a column, or below a drawn rule."""
    lines = page.lines
    found: set[int] = set()
    columns: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        columns.setdefault(line.column, []).append(index)
    for members in columns.values():
        ordered = sorted(members, key=lambda index: lines[index].baseline)
        for place, index in enumerate(ordered):
            if re.fullmatch(r"[_\s]{15,}", lines[index].text):
                found.update(ordered[place:])
                break
        for rule in page.rules:
            below = [index for index in ordered if lines[index].y0 > rule[1] - 2]
            if (
                below
                and rule[1] > 0.45 * page.height
                and abs(rule[0] - lines[below[0]].left) < 6
                and 0.1 < (rule[2] - rule[0]) / (lines[below[0]].right - lines[below[0]].left) < 0.55
                and all(lines[index].size <= 0.95 * size for index in below)
            ):
                found.update(below)
        small: list[int] = []
        for index in reversed(ordered):
            line = lines[index]
            is_small = line.size <= 0.93 * size or (line.text.startswith(MARK_START) and line.size <= size)
            if not is_small or _caption_label(line) or line.y1 < 0.4 * max(each.y1 for each in lines):
                break
            small.append(index)
        starts = [
            place
            for place, index in enumerate(small)
            if lines[index].text.startswith((MARK_START, "^", "∗", "*", "†", "‡", "§"))
            or re.match(r"\d{1,2}\s?(https?:|[A-Z])", lines[index].text)
        ]
        if starts:
            found.update(small[: starts[-1] + 1])
    return found


def restore_exponents(blocks: Sequence[Block]) -> None:
    """Raised numbers of a page that are the mark of none of its footnotes become exponents again."""
    footnotes = [block.lines[0].text for block in blocks if block.kind == "footnote"]
    marks = {match[1] for text in footnotes if (match := re.match(f"[{MARK_START}^]?(\\d+)", text))}

    def restored(match: re.Match[str]) -> str:
        raised = match[0].strip(MARK_START + MARK_END)
        numbers = re.findall(r"\d+", raised)
        return f"^{raised}" if numbers and not marks.intersection(numbers) else match[0]

    for block in blocks:
        for line in block.lines:
            line.text = line.text[:1] + MARK.sub(restored, line.text[1:]) if line.text else ""


def _caption_label(line: Line) -> bool:
    match = CAPTION.match(line.text)
    if not match:
        return False
    if match["mark"]:
        return True
    # Without a mark: the label stands out in bold, or nothing but the label is on the line.
    return 0 < line.lead <= len(match[0].strip()) + 2 or line.bold or line.text.strip() == match[0].strip()


def heading_of(line: Line, size: float, above: float, below: float, leading: float) -> bool:
    """Whether a line is (the start of) a heading, by its style and the space around it.

    Args:
        above, below: distance to the neighbouring base lines of its column, in points.
    """
    text = MARK.sub("", line.text).strip()
    letters = sum(character.isalpha() for character in text)
    if not text or len(text) > 130 or letters < 3 or letters < 0.5 * len(text.replace(" ", "")) or line.maths > 0.3:
        return False
    if CAPTION.match(text) or BULLET.match(text) or re.search(r"\.{4,}|(\. ){4,}", text):
        return False
    first = NUMBER.match(text)
    known = bool(KNOWN_HEADING.match(text))
    larger = line.size >= 1.08 * size
    if not (line.bold or larger or known or (first and line.italic) or (first and _small_capitals(text))):
        return False
    if line.size < 0.93 * size and not known:
        return False
    name = first["name"] if first else text
    if not (name[0].isupper() or name[0].isdigit() or name[0] in "“\"'" or not name[0].isascii()):
        return False
    if text.endswith((",", ";", "!", ")" if text.startswith("(") else ",")) or (text.endswith("?") and not first):
        return False
    if text.endswith(".") and not known and not first:
        return False
    if known and (line.bold or larger or text.isupper() or _small_capitals(text)):
        return True
    apart = above >= 1.25 * leading or below >= 1.2 * leading
    if first:
        # A number whose name fills the line and goes on in the next is an item of a list in bold.
        return (line.bold or larger or _small_capitals(text)) or (line.italic and apart)
    long_words = [word for word in re.findall(r"[^\W\d_]+", text) if len(word) > 3]
    capitals = sum(word[0].isupper() or not word.isascii() for word in long_words)
    titled = larger or len(text.split()) <= 3 or capitals >= 0.7 * len(long_words)
    return apart and (line.bold or larger) and titled and line.lead == 0 and len(text.split()) <= 14


def _small_capitals(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return len(letters) >= 4 and all(character.isupper() for character in letters)


def is_formula(line: Line) -> bool:
    """Whether a line is a display formula, or a part of one."""
    text = line.text
    words = [word for word in re.findall(r"[^\W\d_]{3,}", text) if word.lower() not in ("exp", "log", "min", "max")]
    letters = sum(character.isalpha() for character in text)
    indented = line.x0 > line.left + 0.06 * (line.right - line.left)
    if re.search(r"\(\d{1,2}(\.\d+)?\)$", text) and line.maths > 0.12 and line.x1 > line.right - 20:
        return True
    if line.maths > 0.5 and len(words) <= 4:
        return True
    if line.maths > 0.25 and indented and len(words) <= 5:
        return True
    return indented and len(words) <= 1 and (line.maths > 0.1 or letters < 0.4 * len(text)) and len(text) < 60


def split_blocks(page: Page, size: float, leading: float) -> list[Block]:
    """The blocks of a page in reading order."""
    lines = page.lines
    footnotes = mark_footnotes(page, size)
    blocks: list[Block] = []

    def step(index: int, other: int) -> float:
        if not 0 <= other < len(lines) or lines[other].column != lines[index].column:
            return 99.0
        distance = abs(lines[index].baseline - lines[other].baseline)
        return distance if (lines[other].baseline < lines[index].baseline) == (other < index) else 99.0

    index = 0
    while index < len(lines):
        line = lines[index]
        if index in footnotes:
            kind = "footnote"
        elif _caption_label(line) and (step(index, index - 1) > 1.1 * leading or not _open(blocks)):
            kind = "caption"
        elif heading_of(line, size, step(index, index - 1), step(index, index + 1), leading):
            kind = "heading"
        elif is_formula(line):
            kind = "formula"
        elif BULLET.match(line.text) or (NUMBERED.match(line.text) and line.maths < 0.3):
            kind = "item"
        else:
            kind = "text"
        block = Block(kind, [line])
        index += 1
        while index < len(lines) and _goes_on(block, lines, index, index in footnotes, size, leading, step):
            block.lines.append(lines[index])
            index += 1
        blocks.append(block)
    tops = {
        id(line) for line, before in zip(lines, [None, *lines], strict=False) if not before or _is_top(line, before)
    }
    for block in blocks:
        if block.kind in ("text", "item") and not reads_as_text(block, size):
            first = block.lines[0]
            is_tail = (
                id(first) in tops
                and len(block.lines) == 1
                and first.text[0].islower()
                and abs(first.size - size) < 0.3
                and first.gap < 1
                and SENTENCE_END.search(MARK.sub("", first.text))
            )
            block.kind = "tail" if is_tail else "table"
    _spread_tables(blocks, size)
    restore_exponents(blocks)
    return blocks


def _is_top(line: Line, before: Line) -> bool:
    return line.column != before.column or line.baseline < before.baseline


def _open(blocks: list[Block]) -> bool:
    """Whether the last block is a sentence that has not ended."""
    last = blocks[-1] if blocks else None
    return bool(last and last.kind in ("text", "item") and last.lines[-1].full and not SENTENCE_END.search(last.text))


def _goes_on(
    block: Block, lines: list[Line], index: int, is_footnote: bool, size: float, leading: float, step
) -> bool:
    """Whether the line at `index` belongs to `block`, whose last line is the one before it."""
    line, last = lines[index], block.lines[-1]
    distance = step(index, index - 1)
    if block.kind == "footnote":
        return is_footnote and not line.text.startswith((MARK_START, "^"))
    reach = 1.9 * line.size if CJK.search(last.text) and last.full else 1.45 * max(leading, 1.15 * line.size)
    if is_footnote or distance > reach or abs(line.size - last.size) > 1.3:
        return False
    if block.kind == "formula":
        return is_formula(line)
    if block.kind == "caption":
        same = abs(line.size - last.size) < 0.4 and distance < 1.3 * max(line.size * 1.25, 0.9 * leading)
        return same and not _caption_label(line) and not _starts_item(line)
    if block.kind == "heading":
        # A heading that needs two lines: same style, close by, without a number of its own.
        same = abs(line.size - last.size) < 0.3 and line.bold == last.bold and line.italic == last.italic
        is_long = last.width > 0.55 * (last.right - last.left)
        close = distance < 1.5 * line.size
        return same and is_long and close and len(block.lines) < 3 and not NUMBER.match(line.text) and line.lead == 0
    if distance > 1.3 * leading and not CJK.search(last.text) and distance > 1.35 * line.size * 1.2:
        return False
    following = heading_of(line, size, distance, step(index, index + 1), leading)
    if following and (SENTENCE_END.search(last.text) or not last.full):
        return False
    in_text = line.x0 < line.left + 3 or abs(line.x0 - last.x0) < 2
    if is_formula(line) and not (last.full and in_text and distance < 1.15 * leading):
        return False
    if ABBREVIATION.search(last.text) and last.full:
        return True
    if re.match(r"\S{1,5}: ", line.text) and not last.full:
        return False
    if (line.gap > 2.5) != (last.gap > 2.5) and not (line.full and last.full):
        return False
    if _starts_item(line) and (SENTENCE_END.search(last.text) or not last.full or BULLET.match(line.text)):
        return False
    if _caption_label(line) and not last.full:
        return False
    ended = bool(re.search(r"[.!?:]['\"”’)\]]*(\ue000.*)?$", last.text))
    indent = line.x0 - (line.left if block.kind == "text" else last.x0)
    if block.kind == "text":
        first = block.lines[0]
        hanging = (len(block.lines) >= 2 and abs(line.x0 - last.x0) < 2) or abs(line.x0 - first.x0) < 1
        if 0.7 * size < indent < 4 * size and ended and not hanging:
            return False
        if len(block.lines) >= 2 and line.x0 - last.x0 > 0.7 * size and ended:
            return False
    elif ended and (line.x0 < block.lines[0].x0 - 1 or (len(block.lines) > 1 and abs(line.x0 - last.x0) > 0.7 * size)):
        return False
    if ended and not last.full and last.x1 < last.right - 0.12 * (last.right - last.left):
        return False  # the last line of a paragraph; the next is not indented
    return not (ended and line.lead > 0 and line.text[:1].isupper() and not last.full)


def _starts_item(line: Line) -> bool:
    return bool(BULLET.match(line.text) or NUMBERED.match(line.text))


def reads_as_text(block: Block, size: float) -> bool:
    """Whether a block is made of sentences, or is a cell, a label, a row of names or numbers."""
    text = MARK.sub("", block.text)
    letters = sum(character.isalpha() for character in text)
    words = re.findall(r"[^\W\d_]{2,}", text)
    cjk = len(CJK.findall(text))
    lines = block.lines
    if block.kind == "item" and len(lines) == 1 and 2 <= len(words) < 4 and lines[0].gap < 1.5:
        return lines[0].x0 - lines[0].left < 4 * size and abs(lines[0].size - size) < 0.3 and words[-1].islower()
    if len(lines) == 1 and 2 <= len(words) < 4 and re.search(r"[.?!]['\"”’)]*$", text) and text[:1].isupper():
        # A short sentence, a line of a dialogue: only where a paragraph would begin.
        return abs(lines[0].x0 - lines[0].left) < 2 and abs(lines[0].size - size) < 0.3 and lines[0].gap < 1
    if letters < 0.55 * len(text.replace(" ", "")) or len(words) + cjk // 2 < 4:
        return False
    gapped = sum(line.gap > 2.5 or (line.gap > 1.7 and not line.full) for line in lines)
    if gapped > 0.3 * len(lines):
        return False
    if max(line.size for line in lines) < 0.7 * size:
        return False
    if cjk > 0.3 * letters:
        return cjk >= 8 or (cjk >= 4 and bool(SENTENCE_END.search(text)))
    lower = sum(word[0].islower() for word in words)
    if lower < (0.12 if block.kind == "item" else 0.3) * len(words):
        return False
    sizes = [line.size for line in lines]
    running = sum(is_running(line, line.left, line.right, size) for line in lines)
    if running and running >= 0.25 * len(lines):
        return True
    ends = bool(SENTENCE_END.search(text)) or text.endswith((",", "-"))
    begins = text[:1].isupper() or not text[:1].isalpha() or block.kind == "item"
    same_size = max(sizes) >= 0.88 * size
    if len(lines) == 1:
        line = lines[0]
        at_edge = line.x0 < line.left + 0.2 * (line.right - line.left) or block.kind == "item"
        is_item = block.kind == "item" and len(words) >= 3
        # A last line that stands alone at the top of a column begins in the middle of a sentence.
        return same_size and at_edge and line.gap < 2.0 and (is_item or (ends and (begins or len(words) >= 4)))
    narrow = max(line.width for line in lines) < 0.5 * (lines[0].right - lines[0].left)
    return (ends or block.kind == "item" or len(words) >= 12) and not narrow and lower >= 0.4 * len(words)


def _spread_tables(blocks: list[Block], size: float) -> None:
    """A short block between two that are no text, or between one and its caption, is no text either."""
    no_text = ("table", "caption", "formula")
    for index, block in enumerate(blocks):
        before = blocks[index - 1].kind if index else ""
        after = blocks[index + 1].kind if index + 1 < len(blocks) else ""
        line, is_alone = block.lines[0], block.kind in ("text", "item") and len(block.lines) == 1
        if is_alone and before == after == "table" and not is_running(line, line.left, line.right, size):
            block.kind = "table"
        if block.kind == "heading" and not NUMBER.match(block.text) and before == "table" and after in no_text:
            block.kind = "table"
        if block.kind == "text" and SUBCAPTION.match(block.text) and (before in no_text or after in no_text):
            block.kind = "caption"
