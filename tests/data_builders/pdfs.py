"""PDFs for the tests, drawn line by line: justified columns, and whatever else a report has at its places."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pymupdf

ROMAN, BOLD, ITALIC = "tiro", "tibo", "tiit"
FILLER = (
    "The model is trained on a mixture of sources that covers many domains and languages. We keep the data that is "
    "publicly available and remove what is repeated. The results improve with the number of tokens, and the loss "
    "falls steadily until the end of the run. Longer runs were not needed for the purpose of this study. "
)


WORDS = list(
    """
    plain large small early later final first training testing model token layer loss rate batch step
    """.split()
)


def own_text(seed: int | str, sentences: int = 5) -> str:
    """Sentences that no other seed has."""
    choose = random.Random(seed)
    return " ".join(" ".join(["The", *choose.choices(WORDS, k=12)]) + "." for _ in range(sentences))


def width(text: str, size: float, font: str = ROMAN) -> float:
    return pymupdf.get_text_length(text, fontname=font, fontsize=size)


def wrap(text: str, room: float, size: float, font: str = ROMAN) -> list[str]:
    """Lines of `text` that fit; a word may be cut where it has a `|`, and after its own hyphens."""
    lines, line = [], ""
    for word in text.split():
        plain = word.replace("|", "")
        candidate = f"{line} {plain}".strip()
        if width(candidate, size, font) <= room:
            line = candidate
            continue
        if "|" in word:
            head, tail = word.split("|")
            hyphen = "" if head.endswith("-") else "-"
            if width(f"{line} {head}{hyphen}", size, font) <= room:
                lines.append(f"{line} {head}{hyphen}".strip())
                line = tail
                continue
        lines.append(line)
        line = plain
    return [*lines, line]


@dataclass
class Paper:
    """A document under construction. `column` is the box (left, right) in which `y` moves down."""

    size: float = 10.0
    leading: float = 12.0
    document: pymupdf.Document = field(default_factory=pymupdf.open)
    column: tuple[float, float] = (72.0, 540.0)
    y: float = 72.0

    def page(self, top: float = 72.0) -> "Paper":
        self.current = self.document.new_page(width=612, height=792)
        self.y = top
        return self

    def put(self, x: float, y: float, text: str, size: float | None = None, font: str = ROMAN, **options) -> float:
        self.current.insert_text((x, y), text, fontsize=size or self.size, fontname=font, **options)
        return x + width(text, size or self.size, font)

    def paragraph(self, text: str, size: float | None = None, font: str = ROMAN, indent: float = 0.0) -> "Paper":
        """Justified, but for the last line. `^{22}` is raised and small."""
        size = size or self.size
        left, right = self.column
        lines = wrap(text, right - left - indent, size, font)
        for number, line in enumerate(lines):
            words, x = line.split(), left + indent
            gap = width(" ", size, font)
            if number + 1 < len(lines) and len(words) > 1:
                gap = (right - x - sum(self._word_width(word, size, font) for word in words)) / (len(words) - 1)
            for word in words:
                self._word(x, word, size, font)
                x += self._word_width(word, size, font) + gap
            self.y += self.leading * size / self.size
        self.y += 0.5 * self.leading
        return self

    def _word_width(self, word: str, size: float, font: str) -> float:
        base, _, raised = word.partition("^{")
        raised, _, rest = raised.partition("}")
        return width(base + rest, size, font) + width(raised, 0.7 * size, font)

    def _word(self, x: float, word: str, size: float, font: str) -> None:
        base, _, raised = word.partition("^{")
        raised, _, rest = raised.partition("}")
        x = self.put(x, self.y, base, size, font) if base else x
        if raised:
            x = self.put(x, self.y - 0.35 * size, raised, 0.7 * size, font)
        if rest:
            self.put(x, self.y, rest, size, font)

    def heading(self, text: str, size: float = 12.0) -> "Paper":
        self.y += self.leading
        self.put(self.column[0], self.y, text, size, BOLD)
        self.y += 1.5 * self.leading
        return self

    def table(self, rows: list[list[str]], caption: str = "") -> "Paper":
        """With rules above and below, and the caption underneath."""
        left, right = self.column
        step = (right - left) / len(rows[0])
        self.rule(left, right)
        for row in rows:
            self.y += self.leading
            for number, cell in enumerate(row):
                self.put(left + number * step, self.y, cell, 0.9 * self.size)
        self.y += 0.4 * self.leading
        self.rule(left, right)
        self.y += 1.5 * self.leading
        if caption:
            self.paragraph(caption, 0.9 * self.size)
        self.y += self.leading
        return self

    def rule(self, left: float, right: float) -> None:
        self.current.draw_line((left, self.y), (right, self.y), width=0.8)

    def footnote(self, mark: str, text: str, y: float) -> None:
        left = self.column[0]
        self.current.draw_line((left, y - 12), (left + 80, y - 12), width=0.4)
        self.put(left + 4, y - 3, mark, 6)
        self.put(left + 8, y, text, 8)

    def save(self, file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.document.save(file, garbage=3, deflate=True, no_new_id=True)  # the same bytes each time
        return file


def simple(file: Path, title: str = "A Small Report", seed: int = 0, pages: int = 1) -> Path:
    """A report of a page or more, with an abstract and two sections; `seed` makes its sentences its own."""
    paper = Paper().page(100)
    paper.put(150, 80, title, 18, BOLD)
    paper.put(200, 104, "Ann Author and Bob Writer", 10)
    paper.y = 130
    paper.heading("Abstract").paragraph(f"We present study number {seed} of how small models learn. {own_text(seed)}")
    for number in range(1, 3):
        paper.heading(f"{number} Part {'one' if number == 1 else 'two'} of study {seed}")
        for part in range(2):
            own = own_text(100 * seed + 10 * number + part + 1)
            paper.paragraph(f"Paragraph {part} of part {number} belongs to study {seed} alone. {own}")
    for number in range(1, pages):
        paper.page().paragraph(f"Page {number} goes on with study {seed}. {own_text(f'{seed}, page {number}')}")
    return paper.save(file)
