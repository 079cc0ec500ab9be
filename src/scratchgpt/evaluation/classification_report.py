"""What a finished classifier leaves beside its weights: results with baselines, plots, cards and a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.text_rows import TextRows
from ..hub.cards import write_card
from ..hub.markdown import classifier_table
from .baselines import linear_baseline, majority_baseline
from .classification import measure
from .contamination import check_overlap
from .plots import plot_classification


def write_report(
    logits: torch.Tensor,
    rows: Mapping[str, TextRows],
    split: str,
    analyzers: Sequence[str],
    facts: Mapping[str, Any],
    output_dir: Path,
) -> None:
    """Adds the results to `results.json`, draws the plots, writes a card into every model directory, prints a table.

    Args:
        logits: of the texts of `rows[split]`, [N, labels].
        rows: of the splits train, validation and perhaps test.
        analyzers: of the TF-IDF baselines, as for `linear_baseline`.
        facts: about the training, for `results.json` and the cards.
    """
    data = {name: each.data for name, each in rows.items()}
    names = data["train"].names
    baselines = {"majority": majority_baseline(data["train"], data[split]).as_dict()}
    for analyzer in analyzers:
        linear, strength = linear_baseline(data["train"], data["validation"], data[split], analyzer)
        baselines[f"TF-IDF logistic regression ({analyzer})"] = {"C": strength, **linear.as_dict()}
    overlap = check_overlap(data[split].texts, output_dir / "final")
    if overlap.seen.any():
        print(f"{split}: {overlap}: the results are too good by that")
    file = output_dir / "results.json"
    results = {
        **json.loads(file.read_text(encoding="utf-8")),
        split: measure(logits, rows[split].labels, names).as_dict(),
        "evaluated_on": split,
        "baselines": baselines,
        "overlap": overlap.as_dict(),
        "labels": {name: each.counts() for name, each in data.items()},
        "truncated": {name: each.num_truncated for name, each in rows.items()},
        **facts,
    }
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    plot_classification(logits, rows[split].labels, names, output_dir)
    for folder in ("final", "merged"):
        if (output_dir / folder).is_dir():
            write_card(output_dir / folder)
    print(classifier_table(results))
