"""What the figures have in common: panels, tokens along an axis, and texts in colours."""

import math
from collections.abc import Sequence
from typing import Any

MOST_LABELS = 60
"""Tokens along an axis; of more, every second, third, … is named."""


def panels(number: int, width: float, height: float, columns: int) -> tuple[Any, list[Any]]:
    """A figure with so many axes, each of this size in inches."""
    from matplotlib.figure import Figure

    columns = min(number, columns)
    lines = math.ceil(number / columns)
    figure = Figure(figsize=(max(4, width * columns), max(2, height * lines)), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for unused in axes[number:]:
        unused.set_axis_off()
    return figure, axes[:number]


def grid_size(length: int) -> float:
    """Inches for so many tokens."""
    return min(9, 1.6 + 0.14 * length)


def plain(label: str) -> str:
    """For matplotlib, which takes dollar signs for mathematics."""
    return label.replace("$", r"\$")


def set_tokens(axis: Any, labels: Sequence[str], axes: str) -> None:
    """Names the tokens along the axes, `x`, `y` or both."""
    places = range(0, len(labels), math.ceil(len(labels) / MOST_LABELS))
    names = [plain(labels[place]) for place in places]
    size = 7 if len(labels) <= 30 else 5
    if "x" in axes:
        axis.set_xticks(places, names, rotation=90, fontsize=size)
    if "y" in axes:
        axis.set_yticks(places, names, fontsize=size)


def coloured_lines(blocks: Sequence[tuple[str, Sequence[tuple[str, Any]]]], width: int = 88) -> Any:
    """Blocks of text, each with a title, whose pieces stand on a colour; lines break after `width` characters."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    placed: list[tuple[float, int, str, Any]] = []
    line = 0
    for title, pieces in blocks:
        placed.append((0, line, title, None))
        line, column = line + 1, 0.0
        for label, colour in pieces:
            length = max(1, len(label)) + 0.3
            if column and column + length > width:
                line, column = line + 1, 0.0
            placed.append((column, line, label, colour))
            column += length
        line += 2
    figure = Figure(figsize=(width * 0.105 + 0.3, line * 0.27 + 0.2))
    axis = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axis.set(xlim=(0, width + 2), ylim=(line - 0.5, -0.8))
    axis.set_axis_off()
    for column, row, label, colour in placed:
        if colour is None:
            axis.text(column, row, plain(label), fontsize=9, weight="bold", va="center")
            continue
        length = max(1, len(label)) + 0.2
        axis.add_patch(Rectangle((column, row - 0.42), length, 0.84, facecolor=colour, edgecolor="none"))
        axis.text(column + length / 2, row, plain(label), fontsize=8.5, family="monospace", va="center", ha="center")
    return figure
