"""The lines of a page, put together from what pymupdf finds: text, place, size and style.

pymupdf cuts a printed line where a gap is wide (justified text, two columns, cells of a table) and says nothing of
superscripts in its text. Here the pieces stay apart, each with its box, until the columns are known (`columns.py`).
An exponent is written `^22`; a mark of a footnote after a word is written between two private characters, so that it
can be told from an exponent and removed.

Coordinates are points with the origin at the top left of the page, as in pymupdf.
"""

import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

MARK_START, MARK_END = "\ue000", "\ue001"
"""Around the mark of a footnote."""

MARK = re.compile(f"{MARK_START}[^{MARK_END}]*{MARK_END}")

MATHS_FONT = re.compile(
    r"CMMI|CMSY|CMEX|MSBM|MSAM|txsy|txex|txmia|rtxmi|MathMI|BlackboardBold|Cambria ?Math|STIXMath|XITSMath|"
    r"Symbol|eurm|eusm|rsfs|wasy|LatinModernMath|pxsy|pxex|NewTXMI|LibertineMath|stmary|dsrom|bbm",
    re.I,
)
BOLD_FONT = re.compile(r"bold|black|heavy|medi\b|-medi|demi|SFBX|CMBX|SFSX|-bd|semibold|[Bb]x\d", re.I)
ITALIC_FONT = re.compile(r"ital|obli|SFTI|CMTI|slant|SFSL", re.I)
MONO_FONT = re.compile(r"mono|courier|cmtt|sftt|consol|inconsolata|MonoLt|typewriter|Menlo", re.I)
MATHS_CHARACTERS = frozenset("∑∏∫∂∇∈∉⊂⊆∪∩∀∃√∞≈≡≤≥≠∼∝→←↔⇒⇔×÷±·⋅−=+<>|∥⟨⟩{}[]∗∘⊙⊗⊕θπλμσφψωαβγδεζηκνξρτυχΔΣΠΩΛΓΘΦΨ∣ˆ˜′")

SUPERSCRIPT_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")


@dataclass
class Line:
    """A printed line, or a piece of one."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    baseline: float
    size: float
    """The largest that at least a quarter of its characters have."""
    bold: bool
    italic: bool
    mono: bool
    maths: float
    """Share of its characters that are mathematics."""
    page: int
    gap: float = 0.0
    """The widest space within, in ems; a justified line reaches 1.5, a row of a table more."""
    pieces: int = 1
    lead: int = 0
    """Characters at its start that are bold (or italic) where the rest is not: a heading in the line."""
    column: int = 0
    """-1: across the columns."""
    left: float = 0.0
    right: float = 0.0
    """The edges of its column."""

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def full(self) -> bool:
        """Whether it reaches the right edge of its column."""
        return self.x1 >= self.right - 0.06 * (self.right - self.left)


def clean_characters(text: str) -> str:
    """Ligatures and mathematical alphabets as plain letters; what has no meaning as text is left out."""
    result = []
    for character in text:
        code = ord(character)
        if character in "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻":
            before = result[-1] if result else ""
            raised = character.translate(SUPERSCRIPT_DIGITS)
            result.append(raised if before[:1] == "^" or (len(result) > 1 and result[-2] == "^") else "^" + raised)
        elif 0xFB00 <= code <= 0xFB06 or 0x1D400 <= code <= 0x1D7FF or (0xFF01 <= code <= 0xFF5E and code != 0xFF0C):
            plain = unicodedata.normalize("NFKC", character)
            result.append(plain if code < 0xFF00 or plain.isalnum() else character)
        elif character in "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000\t":
            result.append(" ")
        elif character in "\u2010\u2011":
            result.append("-")
        elif character == "\u00ad":
            result.append("\u00ad")
        elif unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Cs") or character == "\ufffd":
            continue
        else:
            result.append(character)
    return re.sub(r"\(cid:\d+\)", "", "".join(result))


def read_lines(page_dict: dict[str, Any], page: int) -> tuple[list[Line], list[Line]]:
    """The pieces of lines of a page as `page.get_text("dict")` gives them.

    Returns:
        Those that run from left to right, and the rest: stamps at the side, and labels of axes.
    """
    upright, turned = [], []
    for block in page_dict["blocks"]:
        for raw in block.get("lines", ()):
            is_upright = abs(raw["dir"][0] - 1) < 0.02
            for spans in _split(raw["spans"]) if is_upright else [raw["spans"]]:
                if line := _line(spans, page):
                    (upright if is_upright else turned).append(line)
    return upright, turned


def _split(spans: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The spans, apart where the space between two is wider than text would have."""
    parts: list[list[dict[str, Any]]] = []
    for span in spans:
        if not span["text"].strip():
            continue
        if parts and span["bbox"][0] - parts[-1][-1]["bbox"][2] <= 1.5 * span["size"]:
            parts[-1].append(span)
        else:
            parts.append([span])
    return parts


def _line(spans: list[dict[str, Any]], page: int) -> Line | None:
    spans = [span for span in spans if span["text"].strip()]
    if not spans:
        return None
    sizes: Counter[float] = Counter()
    for span in spans:
        sizes[round(span["size"], 1)] += len(span["text"].strip())
    # The largest that a good part has: a line of formulas may have more subscripts than letters.
    rounded: Counter[int] = Counter()
    for each, count in sizes.items():
        rounded[round(each)] += count
    largest = max((each for each in rounded if rounded[each] >= 0.25 * sizes.total()), default=max(rounded))
    size = max((each for each in sizes if round(each) == largest), key=lambda each: (sizes[each], each))
    if all(span["text"] == span["text"].upper() for span in spans) and min(sizes) >= 0.65 * max(sizes):
        size = max(sizes)  # small capitals
    main = [span for span in spans if abs(span["size"] - size) < 0.15] or spans
    baseline = sorted(span["origin"][1] for span in main)[len(main) // 2]
    text, end, gap, maths, letters = "", None, 0.0, 0, 0
    styles: Counter[str] = Counter()
    lead, leading, was_raised = 0, True, False
    for span in spans:
        content = clean_characters(span["text"])
        if not content.strip():
            end = span["bbox"][2]
            continue
        count = len(content.strip())
        letters += count
        is_maths = bool(MATHS_FONT.search(span["font"]))
        maths += count if is_maths else sum(each in MATHS_CHARACTERS for each in content)
        is_bold = bool(span["flags"] & 16) or bool(BOLD_FONT.search(span["font"]))
        is_italic = bool(span["flags"] & 2) or bool(ITALIC_FONT.search(span["font"]))
        is_mono = bool(span["flags"] & 8) or bool(MONO_FONT.search(span["font"]))
        styles.update(
            {"bold": count * is_bold, "italic": count * (is_italic and not is_maths), "mono": count * is_mono}
        )
        rise, small = baseline - span["origin"][1], span["size"] < 0.88 * size
        if end is not None:
            space = (span["bbox"][0] - end) / size
            gap = max(gap, space)
            if space > 0.12 and not text.endswith((" ", "\u00ad")) and not content.startswith(" "):
                text += " "
        if small and rise > 0.15 * size and count <= 12:
            is_more = was_raised and re.search(r"\^\S*$", text)
            text = text.rstrip() + content.strip().replace("−", "-") if is_more else _raise(text, content.strip())
            was_raised = True
        else:
            text += content
            was_raised = False
        if leading and is_bold:
            lead = len(text.strip())
        elif not (small and count <= 2):
            leading = False
        end = span["bbox"][2]
    text = re.sub(r" {2,}", " ", text).strip()
    if not text:
        return None
    boxes = [span["bbox"] for span in spans]
    return Line(
        text=text,
        x0=min(box[0] for box in boxes),
        y0=min(box[1] for box in boxes),
        x1=max(box[2] for box in boxes),
        y1=max(box[3] for box in boxes),
        baseline=baseline,
        size=size,
        bold=styles["bold"] > 0.6 * letters,
        italic=styles["italic"] > 0.6 * letters,
        mono=styles["mono"] > 0.6 * letters,
        maths=maths / max(letters, 1),
        page=page,
        gap=gap,
        lead=0 if leading else lead,
    )


def _raise(text: str, raised: str) -> str:
    """`text` with `raised` as its exponent, its ordinal ending, or the mark of a footnote."""
    raised = raised.replace("−", "-").replace("–", "-").translate(SUPERSCRIPT_DIGITS).replace("^", "")
    before = text.rstrip()
    if re.fullmatch(r"(st|nd|rd|th|TM|®|™)", raised):
        return before + raised
    if re.fullmatch(r"[∗*†‡§¶♠♣♥♦⋆★✉✝#,\s]+", raised):
        return f"{text}{MARK_START}{raised}{MARK_END}"
    exponent = re.search(r"(\d|\b[A-Za-z]|[α-ωΑ-Ω])$", before) and not re.search(r"\b(19|20)\d\d$", before)
    if re.fullmatch(r"\d{1,3}([,-]\d{1,3})*", raised) and not exponent:
        return f"{text}{MARK_START}{raised}{MARK_END}"
    return f"{before}^{raised}" if before else f"{MARK_START}{raised}{MARK_END}"


def merge_pieces(pieces: list[Line]) -> list[Line]:
    """The pieces of one column on one base line, as a line each, from top to bottom."""
    rows: list[list[Line]] = []
    for piece in sorted(pieces, key=lambda each: (each.baseline, each.x0)):
        row = rows[-1] if rows else None
        if row and abs(row[0].baseline - piece.baseline) <= 0.25 * max(piece.size, row[0].size):
            row.append(piece)
        else:
            rows.append([piece])
    return [_join(sorted(row, key=lambda each: each.x0)) for row in rows]


def _join(row: list[Line]) -> Line:
    if len(row) == 1:
        return row[0]
    lengths = [len(piece.text) for piece in row]
    main = row[max(range(len(row)), key=lambda index: lengths[index])]
    text, gap, total = row[0].text, max(piece.gap for piece in row), sum(lengths)
    for before, piece in itertools.pairwise(row):
        space = (piece.x0 - before.x1) / main.size
        gap = max(gap, space)
        text += ("" if space < 0.1 else " ") + piece.text
    lead = row[0].lead
    if row[0].bold and not row[-1].bold:
        lead = len(" ".join(piece.text for piece in row if piece.bold))
    return replace(
        main,
        text=text,
        x0=row[0].x0,
        y0=min(piece.y0 for piece in row),
        x1=max(piece.x1 for piece in row),
        y1=max(piece.y1 for piece in row),
        bold=all(piece.bold for piece in row),
        italic=all(piece.italic for piece in row),
        maths=sum(piece.maths * length for piece, length in zip(row, lengths, strict=True)) / total,
        gap=gap,
        pieces=len(row),
        lead=lead,
    )
