"""The layout of pages: what stands outside the text goes, and the rest is put in the order in which it is read.

Decided by place, never by words:

- what repeats at one height near the top or the bottom of many pages is a header, a footer or a page number;
- what runs upwards or downwards is a stamp or the label of an axis;
- what lies between horizontal rules of one width is a table, unless it is running text;
- small print within a picture or a drawing is part of it;
- a page has two columns where wide lines stand on both sides of a gutter that few lines cross. Lines that cross it
  divide the page; between two of them the left column is read before the right.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .lines import Line, merge_pieces

Box = tuple[float, float, float, float]

MARGIN = 0.12
"""Share of the height, at the top and at the bottom, where headers and footers stand."""


PAGE_NUMBERS = frozenset({"#", "- # -", "– # –", "page #", "page # of #", "# / #", "#/#", "# of #"})
"""As they are once every number is written as #."""


@dataclass
class Page:
    number: int
    width: float
    height: float
    pieces: list[Line]
    rules: list[Box] = field(default_factory=list)
    """Horizontal lines."""
    pictures: list[Box] = field(default_factory=list)
    """Images and clusters of drawings."""
    lines: list[Line] = field(default_factory=list)
    """In reading order, once `order_lines` has been there."""


class Removed:
    """What was left out: characters by reason, and the texts for whoever wants to look."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, *lines: Line | str) -> None:
        self.texts[reason] += [line if isinstance(line, str) else line.text for line in lines]

    def characters(self) -> dict[str, int]:
        return {reason: sum(map(len, texts)) for reason, texts in self.texts.items()}


def body_style(pages: Iterable[Page]) -> tuple[float, float]:
    """Size and leading (distance of base lines) of most of the text, in points."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for piece in page.pieces:
            if len(piece.text) > 25 and piece.maths < 0.3 and not piece.mono:
                sizes[round(piece.size * 2) / 2] += len(piece.text)
    if not sizes:
        return 10.0, 12.0
    size = sizes.most_common(1)[0][0]
    steps: Counter[float] = Counter()
    for page in pages:
        body = [piece for piece in page.pieces if abs(piece.size - size) <= 0.5 and len(piece.text) > 25]
        for above, below in itertools.pairwise(body):
            step = below.baseline - above.baseline
            if 0.9 * size < step < 2.5 * size and abs(below.x0 - above.x0) < 3 * size:
                steps[round(step * 2) / 2] += 1
    return size, steps.most_common(1)[0][0] if steps else 1.2 * size


def drop_margins(pages: Sequence[Page], threshold: float, removed: Removed) -> None:
    """Takes headers, footers and page numbers out of `pages`, and the rules that belong to them.

    Args:
        threshold: share of the pages on which a line must stand to be one (at least on three pages).
    """

    def spot(page: Page, line: Line) -> tuple[str, int] | None:
        middle = (line.y0 + line.y1) / 2 / page.height
        if MARGIN < middle < 1 - MARGIN:
            return None
        return re.sub(r"\d+|\b[ivxlc]+\b", "#", line.text.casefold()).strip(), round(middle * 100)

    seen: dict[tuple[str, int], set[int]] = defaultdict(set)
    heights: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for page in pages:
        for piece in page.pieces:
            if place := spot(page, piece):
                for near in (-1, 0, 1):
                    seen[place[0], place[1] + near].add(page.number)
        for rule in page.rules:
            heights[_rounded(rule)].add(page.number)
    least = max(3, threshold * len(pages))
    for page in pages:
        kept, numbers = [], []
        for piece in page.pieces:
            place = spot(page, piece)
            if place and place[0] in PAGE_NUMBERS and len(seen[place]) >= min(3, len(pages)):
                numbers.append(piece)
            elif place and len(seen[place]) >= least:
                removed.add("headers, footers and page numbers", piece)
            else:
                kept.append(piece)
        for number in numbers:  # a number with text beside it is that of a heading
            if any(abs(piece.baseline - number.baseline) < 3 for piece in kept):
                kept.append(number)
            else:
                removed.add("headers, footers and page numbers", number)
        page.pieces = kept
        page.rules = [
            rule
            for rule in page.rules
            if len(heights[_rounded(rule)]) < least or MARGIN < rule[1] / page.height < 1 - MARGIN
        ]
    # A lone number at the foot is a page number, even in a document of two pages.
    for page in pages:
        for piece in list(page.pieces):
            below = [other for other in page.pieces if other.baseline > piece.baseline + 2]
            if re.fullmatch(r"\d{1,4}", piece.text) and piece.y0 > 0.88 * page.height and not below:
                page.pieces.remove(piece)
                removed.add("headers, footers and page numbers", piece)


def _rounded(box: Box) -> tuple[int, ...]:
    return tuple(round(each / 3) for each in box)


def is_running(line: Line, left: float, right: float, size: float) -> bool:
    """Whether a line reads as prose that fills the space from `left` to `right`."""
    words = line.text.split()
    letters = sum(character.isalpha() for character in line.text)
    wide_enough = line.width >= 0.8 * (right - left)
    is_cjk = sum("\u3400" <= character <= "\u9fff" for character in line.text) > 8
    return (
        wide_enough
        and (len(words) >= 6 or is_cjk or (len(words) >= 4 and right - left < 25 * size))
        and letters >= 0.62 * len(line.text)
        and line.gap < 2.2
        and sum(word[0].islower() for word in words if word) >= 0.3 * len(words)
    )


def drop_tables(page: Page, size: float, removed: Removed) -> None:
    """Takes out what stands between horizontal rules of one width, unless it is running text."""
    groups: list[list[Box]] = []
    for rule in sorted(page.rules, key=lambda each: (each[1], each[0])):
        for group in groups:
            if abs(group[-1][0] - rule[0]) <= 4 and abs(group[-1][2] - rule[2]) <= 4:
                if rule[1] - group[-1][1] > 2:
                    group.append(rule)
                break
        else:
            groups.append([rule])
    drop: set[int] = set()
    for group in groups:
        regions = [_region(page, *pair, size) for pair in itertools.pairwise(group)]
        tables = [is_table for is_table, _ in regions]
        for index, (is_table, inside) in enumerate(regions):
            # The header of a table may read like a sentence: a row or two, with the rest of the table beside it.
            height = group[index + 1][1] - group[index][1]
            is_header = height < 3 * size and any(tables[max(0, index - 1) : index + 2])
            if is_table or is_header:
                drop |= {id(piece) for piece in inside}
    removed.add("tables", *(piece for piece in page.pieces if id(piece) in drop))
    page.pieces = [piece for piece in page.pieces if id(piece) not in drop]


def _region(page: Page, above: Box, below: Box, size: float) -> tuple[bool, list[Line]]:
    """Whether a table is between two rules, and the pieces there."""
    if below[2] - below[0] < 8 * size:
        return False, []
    inside = [
        piece
        for piece in page.pieces
        if above[1] - 1 <= (piece.y0 + piece.y1) / 2 <= below[1] + 1
        and above[0] - 8 <= piece.x0
        and piece.x1 <= below[2] + 8
    ]
    lines = merge_pieces(inside)
    running = [is_running(line, above[0], above[2], size) for line in lines]
    is_text = sum(running) > 0.4 * len(lines) or "1111" in "".join("01"[each] for each in running)
    if below[1] - above[1] < 0.5 * page.height and _beside_caption(page, above, below, size):
        is_text = False
    has_title = page.number == 0 and any(line.size >= 1.25 * size for line in lines)
    return bool(lines) and not is_text and not has_title, inside


def _beside_caption(page: Page, above: Box, below: Box, size: float) -> bool:
    """Whether the caption of a table stands just over `above` or just under `below`."""
    return any(
        re.match(r"Table\s+[A-Z]?\d+(\.\d+)?\s*[:.|]", piece.text)
        and above[0] - 20 <= piece.x0 <= below[2]
        and (0 <= piece.y0 - below[1] < 2.5 * size)
        for piece in page.pieces
    )


def drop_pictures(page: Page, size: float, removed: Removed) -> None:
    """Takes out the print within pictures and drawings: labels, legends, ticks."""
    kept = []
    for piece in page.pieces:
        x, y = (piece.x0 + piece.x1) / 2, (piece.y0 + piece.y1) / 2
        within = [box for box in page.pictures if box[0] - 2 <= x <= box[2] + 2 and box[1] - 2 <= y <= box[3] + 2]
        text_like = piece.size >= 0.75 * size and (len(piece.text.split()) >= 6 or piece.width > 150)
        body_like = abs(piece.size - size) <= 0.06 * size
        if within and not text_like and not (body_like and _beside_text(piece, page.pieces)):
            removed.add("figures", piece)
        else:
            kept.append(piece)
    page.pieces = kept


def _beside_text(piece: Line, others: list[Line]) -> bool:
    """Whether a short piece belongs to a line or a paragraph of text: its end, or a word of a justified line."""
    return any(
        other is not piece
        and abs(other.size - piece.size) < 0.6
        and len(other.text.split()) >= 6
        and 0 <= piece.baseline - other.baseline <= 1.5 * piece.size
        and other.x0 - 3 * piece.size <= piece.x0 <= other.x1 + 2 * piece.size
        for other in others
    )


def text_area(pages: Sequence[Page], size: float) -> tuple[float, float]:
    """The left and the right edge of the text of most pages."""
    body = [piece for page in pages for piece in page.pieces if abs(piece.size - size) <= 0.6 and piece.width > 100]
    if not body:
        return 0.1 * pages[0].width, 0.9 * pages[0].width
    lefts = sorted(piece.x0 for piece in body)
    rights = sorted(piece.x1 for piece in body)
    return lefts[len(lefts) // 50], rights[-1 - len(rights) // 50]


def find_gutter(page: Page, left: float, right: float) -> float | None:
    """Where the gap between two columns is, if there are two."""
    width = right - left
    wide = [piece for piece in page.pieces if piece.width > 0.2 * width and len(piece.text) >= 12]
    best, fewest = None, 1e9
    for step in range(-8, 9):
        gutter = left + width * (0.5 + step / 80)
        before = [piece for piece in wide if piece.x1 <= gutter + 1]
        after = [piece for piece in wide if piece.x0 >= gutter - 1]
        crossing = sum(piece.x0 < gutter - 4 and piece.x1 > gutter + 4 for piece in page.pieces)
        # Both sides hold text that begins at one edge: the second column is not a row of cells.
        starts = Counter(round(piece.x0 / 3) for piece in after)
        aligned = starts.most_common(1)[0][1] if starts else 0
        enough = len(before) >= 4 and len(after) >= 4 and aligned >= 0.4 * len(after)
        if enough and crossing < fewest and crossing <= 0.6 * (len(before) + len(after)):
            best, fewest = gutter, crossing
    if best is None:
        return None
    return min(piece.x0 for piece in page.pieces if piece.x0 >= best - 1) - 4.0


def find_gutters(pages: Sequence[Page], left: float, right: float) -> list[float | None]:
    """The gutter of each page. A page with too few lines to tell has the one of the others, if that cuts nothing."""
    gutters = [find_gutter(page, left, right) for page in pages]
    found = sorted(gutter for gutter in gutters if gutter is not None)
    if len(found) < 0.4 * len(pages):
        return gutters
    usual = found[len(found) // 2]
    for index, page in enumerate(pages):
        wide = [piece for piece in page.pieces if piece.width > 0.35 * (right - left)]
        beyond = [piece for piece in wide if abs(piece.x0 - usual - 4) < 12 or piece.x1 < usual + 4]
        crossing = [piece for piece in page.pieces if piece.x0 < usual - 12 and piece.x1 > usual + 12]
        if gutters[index] is None and len(beyond) >= 2 and len(crossing) <= 0.3 * len(page.pieces):
            gutters[index] = usual
    return gutters


def order_lines(page: Page, left: float, right: float, gutter: float | None) -> None:
    """Fills `page.lines`: the pieces as whole lines in reading order, each with the edges of its column."""
    left = min([piece.x0 for piece in page.pieces if piece.width > 150] + [left]) if page.pieces else left
    if gutter is None:
        for piece in page.pieces:
            piece.column, piece.left, piece.right = 0, left, right
        page.lines = merge_pieces(page.pieces)
        return
    reach = 0.06 * (right - left)
    sides: dict[int, list[Line]] = {-1: [], 0: [], 1: []}
    for piece in page.pieces:
        if piece.x0 < gutter - reach and piece.x1 > gutter + 4 + reach:
            piece.column, piece.left, piece.right = -1, left, right
        elif (piece.x0 + piece.x1) / 2 < gutter:
            piece.column, piece.left, piece.right = 0, left, gutter - 6
        else:
            piece.column, piece.left, piece.right = 1, gutter + 4, right
        sides[piece.column].append(piece)
    # A piece in line with one that crosses the gutter belongs to it: the last word of a title, a part of a heading.
    for piece in sides[0] + sides[1]:
        if any(
            abs(each.baseline - piece.baseline) < 0.2 * piece.size
            and max(each.x0 - piece.x1, piece.x0 - each.x1) < 1.5 * piece.size
            for each in sides[-1]
        ):
            sides[piece.column].remove(piece)
            piece.column, piece.left, piece.right = -1, left, right
            sides[-1].append(piece)
    crossing = merge_pieces(sides[-1])
    columns = [merge_pieces(sides[0]), merge_pieces(sides[1])]
    page.lines = []
    for divider in [*crossing, None]:
        for column in columns:
            while column and (divider is None or column[0].baseline < divider.baseline):
                page.lines.append(column.pop(0))
        if divider:
            page.lines.append(divider)


def cluster(boxes: list[Box], reach: float = 6.0) -> list[Box]:
    """Boxes that touch or nearly touch, as one box each."""
    clusters: list[Box] = []
    for box in boxes:
        while other := next((each for each in clusters if _touch(box, each, reach)), None):
            clusters.remove(other)
            box = (min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3]))
        clusters.append(box)
    return clusters


def _touch(one: Box, other: Box, reach: float) -> bool:
    across = one[0] - reach <= other[2] and other[0] - reach <= one[2]
    return across and one[1] - reach <= other[3] and other[1] - reach <= one[3]
