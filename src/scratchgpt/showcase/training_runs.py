"""What the tab for runs shows: the curves of several runs, and what each score cost."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..arguments import ARGUMENTS_FILE

CURVES = {
    "training loss": "loss",
    "validation loss": "eval_loss",
    "tokens per second": "tokens_per_second",
    "learning rate": "learning_rate",
}
"""What is plotted, and how metrics.jsonl calls it."""

Read = Callable[[Path], list[dict[str, Any]]]


def curves(runs: Mapping[str, Path], names: Sequence[str], shown: str, read: Read) -> dict[str, list[Any]]:
    """Columns `run`, `step` and `value`, read from the files as they are now: a run may still go on.

    Args:
        read: lines of a metrics.jsonl.

    Raises:
        ValueError: where none of them logged what is shown.
    """
    key = CURVES[shown]
    points = [
        (name, line["step"], line[key])
        for name in names
        for line in read(runs[name] / "metrics.jsonl")
        if isinstance(line.get(key), int | float)
    ]
    if not points:
        raise ValueError(f"none of these runs has logged its {shown}")
    columns = zip(*points, strict=True)
    return {title: list(column) for title, column in zip(("run", "step", "value"), columns, strict=True)}


def costs(runs: Mapping[str, Path], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each finished run: parameters that were trained, seconds, and its score with the interval, if it has one."""
    found = []
    for name in names:
        file = runs[name] / "results.json"
        if not file.is_file():
            continue
        results = json.loads(file.read_text(encoding="utf-8"))
        arguments = file.with_name(ARGUMENTS_FILE)
        given = (yaml.safe_load(arguments.read_text(encoding="utf-8")) or {}) if arguments.is_file() else {}
        tuning = results.get("tuning", given.get("tuning", "full"))
        measured = results.get(results.get("evaluated_on", "final"), {})
        row = {
            "run": name,
            "tuning": tuning,
            "trained parameters": results.get(
                "num_trained_parameters", results.get("num_parameters") if tuning == "full" else None
            ),
            "seconds": results.get("seconds"),
            "loss": measured.get("loss"),
            "accuracy": measured.get("accuracy"),
            "interval": measured.get("accuracy_interval"),
        }
        found.append(row)
    return found


def in_words(row: Mapping[str, Any], column: str) -> str:
    """A cell of the table of `costs`."""
    value = row[column]
    if value is None:
        return "–"
    if column == "accuracy":
        low, high = row["interval"]
        return f"{value:.1%} ({low:.1%} to {high:.1%})"
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if column == "loss" else f"{value:,.0f}"


def draw_costs(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Accuracy over trained parameters, and over seconds, with 95 % intervals; None where nothing has both."""
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row["accuracy"] is not None and row["trained parameters"] and row["seconds"]]
    if not drawn:
        return None
    ink = "#808080"  # to be read on white and on black
    figure = Figure(figsize=(6, 5.6), layout="constrained", facecolor="none")
    for axis, column in zip(figure.subplots(2, 1, sharey=True), ("trained parameters", "seconds"), strict=True):
        axis.set_facecolor("none")
        for number, row in enumerate(drawn):
            low, high = row["interval"]
            spread = [[row["accuracy"] - low], [high - row["accuracy"]]]
            axis.errorbar(
                row[column], row["accuracy"], spread, fmt="o", capsize=4, color=f"C{number}", label=row["run"]
            )
        axis.set_xscale("log")
        axis.set_xlabel(column, color=ink)
        axis.tick_params(colors=ink, which="both")
        axis.grid(alpha=0.3)
        for spine in axis.spines.values():
            spine.set_color(ink)
        axis.set_ylabel("accuracy", color=ink)
    figure.axes[0].legend(fontsize="small", frameon=False, labelcolor=ink)
    return figure
