"""Plots of a comparison: scores with intervals, scores against size and against training, and win rates."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..hub.staging import replaced_file
from .comparison_data import Task


def draw(tasks: Sequence[Task], output_dir: Path) -> list[str]:
    """Draws what can be drawn, removes the other plots of an earlier comparison, and returns the files' names."""
    rows = {row.name: row for task in tasks for row in task.rows}
    colors = {name: f"C{number % 10}" for number, name in enumerate(rows)}
    figures = {
        "scores.png": _bars(tasks, colors),
        "score_by_parameters.png": _scatter(
            tasks, colors, {n: row.parameters for n, row in rows.items()}, "parameters"
        ),
        "score_by_tokens.png": _scatter(tasks, colors, {n: row.tokens for n, row in rows.items()}, "training tokens"),
        "win_rates.png": _win_rates(tasks),
    }
    for name, figure in figures.items():
        if figure is None:
            (output_dir / name).unlink(missing_ok=True)
        else:
            with replaced_file(output_dir / name) as new:
                figure.savefig(new, dpi=150)
    return [name for name, figure in figures.items() if figure is not None]


def _panels(number: int, width: float, height: float, columns: int = 3) -> tuple[Any, list[Any]]:
    """A figure with so many axes, each of this size in inches."""
    from matplotlib.figure import Figure

    columns = min(number, 2 if number == 4 else columns)
    lines = math.ceil(number / columns)
    figure = Figure(figsize=(max(5, width * columns), height * lines + 0.6), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for unused in axes[number:]:
        unused.set_axis_off()
    return figure, axes[:number]


def _scale(task: Task) -> int:
    return 100 if task.percent else 1


def _label(task: Task) -> str:
    arrow = "lower is better" if task.lower_is_better else "higher is better"
    return f"{task.metric.replace('_', ' ')}{' in %' if task.percent else ''} ({arrow})"


def _bars(tasks: Sequence[Task], colors: dict[str, str]) -> Any:
    figure, panels = _panels(len(tasks), 4.6, 0.9 + 0.38 * len(colors))
    for axes, task in zip(panels, tasks, strict=True):
        names, scale = [row.name for row in task.rows], _scale(task)
        for place, name in enumerate(names):
            score = task.scores[name]
            axes.barh(place, score.value * scale, color=colors[name], alpha=0.75)
            if score.interval:
                low, high = score.interval
                axes.plot([low * scale, high * scale], [place, place], color="black", linewidth=1.5, marker="|")
        if task.chance is not None:
            axes.axvline(task.chance * scale, color="black", linestyle="--", linewidth=1)
            axes.set_title(f"{task.suite} (dashed: chance)", size="medium")
        else:
            axes.set_title(task.suite, size="medium")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel=_label(task))
    return figure


def _scatter(tasks: Sequence[Task], colors: dict[str, str], sizes: dict[str, int | None], label: str) -> Any:
    """None where fewer than two different sizes are known."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    known = {name: size for name, size in sizes.items() if size}
    if len(set(known.values())) < 2:
        return None
    tasks = [task for task in tasks if sum(row.name in known for row in task.rows) > 1]
    if not tasks:
        return None
    figure, panels = _panels(len(tasks), 4.2, 3.4)
    shown: dict[str, Any] = {}
    for axes, task in zip(panels, tasks, strict=True):
        scale = _scale(task)
        for row in task.rows:
            if row.name not in known:
                continue
            score = task.scores[row.name]
            low, high = score.interval or (score.value, score.value)
            axes.vlines(known[row.name], low * scale, high * scale, color=colors[row.name])
            (shown[row.name],) = axes.plot(known[row.name], score.value * scale, "o", color=colors[row.name])
        if task.chance is not None:
            axes.axhline(task.chance * scale, color="black", linestyle="--", linewidth=1)
        axes.set_title(task.suite + (" (dashed: chance)" if task.chance is not None else ""), size="medium")
        least, most = min(known.values()), max(known.values())
        axes.set(xscale="log", xlim=(least / 2, most * 2), xlabel=label, ylabel=_label(task))
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if most > 20 * least else (1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(4, len(shown)))
    return figure


def _win_rates(tasks: Sequence[Task]) -> Any:
    """On how many items each of two models has the better score."""
    tasks = [task for task in tasks if task.comparisons]
    if not tasks:
        return None
    most = max(len(task.comparisons) for task in tasks)
    figure, panels = _panels(len(tasks), 6, 0.9 + 0.42 * most, columns=2)
    for axes, task in zip(panels, tasks, strict=True):
        for place, found in enumerate(task.comparisons.values()):
            first, second = found.wins[::-1] if task.lower_is_better else found.wins
            left = 0.0
            for share, color in ((first, "C0"), (max(0.0, 1 - first - second), "lightgrey"), (second, "C1")):
                axes.barh(place, 100 * share, left=100 * left, color=color)
                if share > 0.07:
                    middle = 100 * (left + share / 2)
                    axes.text(middle, place, f"{share:.0%}", ha="center", va="center", size="small")
                left += share
        axes.set_yticks(range(len(task.comparisons)), [f"{one} : {other}" for one, other in task.comparisons])
        axes.invert_yaxis()
        axes.set_title(task.suite, size="medium")
        axes.set(xlim=(0, 100), xlabel="% of items (blue: left is better, orange: right is better)")
    return figure
