"""What cleaning did: characters and tokens before and after, and the share of each step, as a table and a plot."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchgpt.tokenizers import GPT2_PATTERN, BPETokenizer, to_rust

VOCAB_SIZE = 4096
WORD = re.compile(r"\w+|[^\w\s]")


@dataclass
class Cleaned:
    """A document before and after."""

    source: str
    raw: str
    text: str
    removed: dict[str, int]
    """Characters by step."""


def measure(documents: list[Cleaned]) -> list[dict[str, Any]]:
    """Of each document: characters, words and tokens before and after, and characters that each step removed.

    Words are those of a regular expression, with punctuation; tokens those of a byte-level BPE of 4,096 that is
    trained on the cleaned texts.
    """
    tokenizer = to_rust(BPETokenizer.train([each.text for each in documents], VOCAB_SIZE, GPT2_PATTERN))

    def count(text: str) -> dict[str, int]:
        return {
            "characters": len(text),
            "words": len(WORD.findall(text)),
            "tokens": len(tokenizer.encode(text, add_special_tokens=False).ids),
        }

    return [
        {"source": each.source, "before": count(each.raw), "after": count(each.text), "removed": each.removed}
        for each in documents
    ]


def steps(rows: list[dict[str, Any]]) -> list[str]:
    """All steps that removed something, the largest first."""
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update(row["removed"])
    return sorted((step for step in totals if totals[step]), key=lambda step: (-totals[step], step))


def table(rows: list[dict[str, Any]]) -> str:
    """A row for each document, in Markdown: sizes before and after, and the share of the characters by step."""
    names = steps(rows)
    head = ["document", "characters", "kept", "words", "kept", "tokens", "kept", *names]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        before, after = row["before"], row["after"]
        cells = [row["source"]]
        for unit in ("characters", "words", "tokens"):
            cells += [f"{before[unit]:,}", f"{after[unit] / max(1, before[unit]):.0%}"]
        cells += [f"{row['removed'].get(name, 0) / max(1, before['characters']):.1%}" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """A bar for each document: what was kept, and what each step took."""
    from matplotlib.figure import Figure

    names = steps(rows)
    figure = Figure(figsize=(9, 1.6 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    labels = [row["source"][-40:] for row in rows]
    left = [0.0] * len(rows)
    for name in ["kept", *names]:
        values = [
            (row["after"]["characters"] if name == "kept" else row["removed"].get(name, 0))
            / max(1, row["before"]["characters"])
            for row in rows
        ]
        axes.barh(labels, values, left=left, label=name)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("share of the characters")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(file, dpi=120, metadata={"Software": None})
