"""Pieces of the page in HTML. What visitors typed or a model wrote is escaped; colours follow the page's theme."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import torch

CSS = """
.sg-tokens { display: flex; flex-wrap: wrap; gap: 3px; font-family: var(--font-mono); line-height: 1.5; }
.sg-token { border: 1px solid var(--border-color-primary); border-radius: 4px; padding: 2px 4px; min-height: 28px;
  color: var(--body-text-color); overflow-wrap: anywhere; text-align: left; font: inherit;
  background: color-mix(in srgb, var(--sg-hue, #f97316) calc(var(--share, 0) * 65%), transparent); }
button.sg-token { cursor: pointer; }
button.sg-token:hover, button.sg-token:focus-visible, .sg-chosen { outline: 2px solid var(--color-accent); }
.sg-against { --sg-hue: #3b82f6; }
.sg-bars { display: grid; grid-template-columns: fit-content(40%) 1fr max-content; gap: 4px 8px;
  align-items: center; }
.sg-bars .sg-token { --share: 0; }
.sg-bars > :first-child, .sg-bars button { min-width: 5em; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.sg-tokens > *, .sg-grid > * { margin: 0 !important; }
.sg-bar { background: var(--border-color-primary); border-radius: 4px; height: 18px; position: relative; }
.sg-bar span { position: absolute; left: 0; border-radius: 4px; background: #3b82f6; height: 9px; top: 0; }
.sg-bar span + span { top: 9px; background: #f97316; }
.sg-bar span:only-child { height: 18px; }
.sg-number { font-variant-numeric: tabular-nums; text-align: right; font-size: 0.85em; }
.sg-note { color: var(--body-text-color-subdued); margin: 4px 0; }
.sg-quotation { border-left: 3px solid var(--border-color-primary); margin: 4px 0; padding: 2px 12px;
  white-space: pre-line; overflow-wrap: anywhere; color: var(--body-text-color); }
.sg-columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 16px; }
.sg-scroll { overflow-x: auto; }
.sg-table { border-collapse: collapse; }
.sg-table th, .sg-table td { border: 1px solid var(--border-color-primary); padding: 3px 8px; text-align: right; }
.sg-table td { white-space: nowrap; overflow-wrap: normal; }
#report img { max-width: min(100%, 560px); }
.sg-table th:first-child, .sg-table td:first-child { text-align: left; }
.sg-grid { display: grid; gap: 6px; overflow-x: auto; padding: 3px; }
.sg-head { border: 1px solid var(--border-color-primary); border-radius: 4px; padding: 2px; cursor: pointer;
  color: var(--body-text-color); font-size: 12px; }
.sg-head:focus-visible, .sg-head:hover { outline: 2px solid var(--color-accent); }
.sg-map { image-rendering: pixelated; width: 100%; aspect-ratio: 1; display: block; background: white; }
.sg-large { max-width: 360px; border: 1px solid var(--border-color-primary); }
.sg-legend b { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 10px; }
"""
CLICK = """
element.addEventListener('click', event => {
  const chosen = event.target.closest('[data-number]');
  if (chosen) trigger('click', {number: Number(chosen.dataset.number)});
});
"""
"""Of a component with pieces to click: says which one it was."""


def tokens(
    labels: Sequence[str],
    shares: Iterable[float] = (),
    titles: Iterable[str] = (),
    numbers: Iterable[int] = (),
    chosen: int | None = None,
    clickable: bool = True,
) -> str:
    """A text in pieces, coloured by `shares` from -1 to 1; below 0 in the other colour.

    Args:
        numbers: what a click on each says; default: which piece it is.
    """
    numbers = list(numbers) or range(len(labels))
    shares, titles = list(shares) or [0.0] * len(labels), list(titles) or [""] * len(labels)
    kind = "button" if clickable else "span"
    pieces = [
        f'<{kind} class="sg-token{" sg-against" * (share < 0)}{" sg-chosen" * (number == chosen)}" '
        f'data-number="{number}" style="--share:{min(1.0, abs(share)):.3f}" title="{escape(title)}">'
        f"{escape(label)}</{kind}>"
        for number, label, share, title in zip(numbers, labels, shares, titles, strict=True)
    ]
    return f'<div class="sg-tokens">{"".join(pieces)}</div>'


def bars(lines_of: Iterable[tuple[str, Sequence[float]]], numbers: Sequence[int] = ()) -> str:
    """A line for each name, with a bar for each of its values from 0 to 1, and the values as numbers.

    Args:
        numbers: of the lines, which can then be clicked.
    """
    lines = []
    for line, (name, shares) in enumerate(lines_of):
        kind = f'button class="sg-token" data-number="{numbers[line]}"' if numbers else "span"
        spans = "".join(f'<span style="width:{100 * share:.2f}%"></span>' for share in shares)
        lines.append(
            f'<{kind}>{escape(name)}</{kind.partition(" ")[0]}><div class="sg-bar">{spans}</div>'
            f'<span class="sg-number">{" → ".join(f"{share:.1%}" for share in shares)}</span>'
        )
    return f'<div class="sg-bars">{"".join(lines)}</div>'


def legend(blue: str, orange: str) -> str:
    return (
        f'<p class="sg-note sg-legend"><b style="background:#3b82f6"></b>{escape(blue)}'
        f'<b style="background:#f97316"></b>{escape(orange)}</p>'
    )


def note(text: str) -> str:
    return f'<p class="sg-note">{escape(text)}</p>'


def quotation(text: str) -> str:
    return f'<blockquote class="sg-quotation">{escape(text)}</blockquote>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(each)}</th>" for each in header)]
    lines += ["".join(f"<td>{escape(each)}</td>" for each in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="sg-scroll"><table class="sg-table">{body}</table></div>'


def picture(weights: torch.Tensor) -> str:
    """A map of bytes [T, T] as the address of a picture, dark where the weight is high."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((255 - weights).numpy(), "L").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def head_grid(weights: torch.Tensor) -> str:
    """The maps [layers, heads, T, T] side by side, a line for each layer."""
    layers, heads = weights.shape[:2]
    cells = [
        f'<button class="sg-head" data-number="{layer * heads + head}" title="layer {layer}, head {head}">'
        f'<img class="sg-map" alt="attention of layer {layer}, head {head}" src="{picture(weights[layer, head])}">'
        f"{layer}.{head}</button>"
        for layer in range(layers)
        for head in range(heads)
    ]
    return (
        f'<div class="sg-grid" style="grid-template-columns:repeat({heads},minmax(56px,110px))">{"".join(cells)}</div>'
    )


def score_grid(scores: torch.Tensor) -> str:
    """A number for each head [layers, heads], coloured by its size."""
    most = max(float(scores.abs().max()), 1e-9)
    header = ["layer", *(f"head {head}" for head in range(scores.shape[1]))]
    lines = ["".join(f"<th>{each}</th>" for each in header)]
    for layer, row in enumerate(scores.tolist()):
        cells = "".join(
            f'<td class="sg-token{" sg-against" * (value < 0)}" style="--share:{abs(value) / most:.3f}">'
            f"{value:+.3f}</td>"
            for value in row
        )
        lines.append(f"<td>{layer}</td>{cells}")
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="sg-scroll"><table class="sg-table">{body}</table></div>'


def with_pictures(page: Path) -> str:
    """The Markdown of a report, its pictures inside of it; nothing outside of its folder is read."""

    def inside(match: re.Match[str]) -> str:
        file = (page.parent / match["path"]).resolve()
        if file.suffix != ".png" or not file.is_relative_to(page.parent.resolve()) or not file.is_file():
            return match[0]
        return f"![{match['name']}](data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()})"

    text = page.read_text(encoding="utf-8")
    return re.sub(r"!\[(?P<name>[^\]]*)\]\((?P<path>[^)\s]+)\)", inside, text)
