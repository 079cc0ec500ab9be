"""A PDF → a document: the steps in their order.

    pieces of lines → without margins, stamps, tables, pictures → columns in reading order → blocks → sections

Each step says what it removes (`layout.Removed`). No step looks at more than place, font and, for words that a line
end cut in two, the words of the document itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymupdf

from .blocks import Block, split_blocks
from .document import Assembler, Document, Options, find_title, finish_sections, front_matter
from .layout import (
    Page,
    Removed,
    body_style,
    cluster,
    drop_margins,
    drop_pictures,
    drop_tables,
    find_gutters,
    order_lines,
    text_area,
)
from .lines import MARK, read_lines
from .words import count_words, mend_spaces

MAX_BOXES = 4000
"""Drawings of a page that are looked at: a scatter plot has a hundred thousand."""


def read_page(raw: Any, number: int, removed: Removed) -> Page:
    """The pieces of lines of a page, its rules and its pictures."""
    flags = pymupdf.TEXT_PRESERVE_WHITESPACE | pymupdf.TEXT_MEDIABOX_CLIP
    pieces, turned = read_lines(raw.get_text("dict", flags=flags), number)
    removed.add("stamps and turned text", *turned)
    page = Page(number, raw.rect.width, raw.rect.height, pieces)
    boxes, images = [], []
    for kind, box in raw.get_bboxlog()[:MAX_BOXES]:
        width, height = box[2] - box[0], box[3] - box[1]
        if width > 0.95 * page.width and height > 0.95 * page.height:
            continue
        if kind in ("fill-image", "fill-imgmask"):
            images.append(box)
        elif kind in ("fill-path", "stroke-path", "fill-shade"):
            if height <= 3 and width >= 20:
                page.rules.append(box)
            elif height > 3:
                boxes.append(box)
    # A highlighted line is a filled box as high as the line: no picture.
    boxes = [box for box in boxes if box[3] - box[1] > 18 or box[2] - box[0] < 18]
    page.pictures = [box for box in cluster(images + boxes) if box[3] - box[1] > 35 and box[2] - box[0] > 35]
    return page


@dataclass
class Extracted:
    document: Document
    captions: list[str]
    removed: Removed
    raw: str
    """The plain text, before anything was removed."""


def extract(file: Path, options: Options) -> Extracted:
    """The document in `file`, and what was left out of it.

    Raises:
        RuntimeError: by pymupdf, for what it cannot read.
    """
    removed = Removed()
    with pymupdf.open(file) as pdf:
        pages = [read_page(pdf[number], number, removed) for number in range(len(pdf))]
    raw = "\n".join(
        [piece.text for page in pages for piece in page.pieces]
        + [text for each in removed.texts.values() for text in each]
    )
    drop_margins(pages, options.header_threshold, removed)
    size, leading = body_style(pages)
    left, right = text_area(pages, size)
    for page in pages:
        drop_tables(page, size, removed)
        drop_pictures(page, size, removed)
    for page, gutter in zip(pages, find_gutters(pages, left, right), strict=True):
        order_lines(page, left, right, gutter)
    counts = count_words(line.text for page in pages for line in page.lines)
    blocks: list[Block] = []
    title = find_title(pages[0]) if pages else []
    for page in pages:
        blocks += split_blocks(page, size, leading)
    authors, blocks = front_matter(blocks, title)
    named = {id(line) for line in title}
    removed.add("authors", *(line for block in authors for line in block.lines if id(line) not in named))
    assembler = Assembler(options, counts, removed, size)
    for block in blocks:
        assembler.add(block)
    assembler.flush()
    sections = finish_sections(assembler.sections, options, removed)
    name = mend_spaces(MARK.sub("", " ".join(line.text for line in title)))
    return Extracted(Document(name, sections), assembler.captions, removed, raw)
