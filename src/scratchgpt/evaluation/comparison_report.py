"""A page that compares models which `recipes/evaluate.py` has measured: comparison.md, comparison.json and plots."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

from ..hub.markdown import table
from ..hub.staging import replaced_file
from .comparison import Pair, compare
from .comparison_data import Row, Task, item_scores, read_rows, read_tasks, score_of
from .comparison_plots import draw

PAGE = "comparison.md"
MARK = "<!-- scratchgpt: models compared -->"
"""Its first line: a page without it is somebody else's and is not replaced."""


def write_report(directories: Sequence[Path], output_dir: Path) -> str:
    """Compares what was measured of several models.

    Args:
        directories: one of each model, as `Results` writes them.
        output_dir: gets the page, comparison.json with all numbers, and the plots.

    Returns:
        The page's summary.

    Raises:
        ValueError: for fewer than two directories, one without results, and results that were measured on other items
            or with other settings, and where another page is in the way; before anything is written.
    """
    page = output_dir / PAGE
    if page.exists() and not page.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise ValueError(f"{page} is not the page of a comparison: give another directory, or move it")
    rows = read_rows(directories)
    tasks, left_out = read_tasks(rows)
    pairs = [(task, pair) for task in tasks for pair in combinations([row.name for row in task.rows], 2)]
    scores = {id(task): item_scores(task) for task in tasks}
    found = compare([Pair(*(scores[id(t)][name] for name in pair), weights=scores[id(t)][""][0]) for t, pair in pairs])
    for (task, pair), comparison in zip(pairs, found, strict=True):
        task.comparisons[pair] = comparison
    summary = "\n".join(f"- {line}" for line in [*map(summarize, tasks), *left_out])
    plots = draw(tasks, output_dir)
    everything = [
        {
            "suite": task.suite, "metric": task.metric, "first": pair[0], "second": pair[1],
            **asdict(each), "different": each.different, "verdict": each.in_words(*pair, task.lower_is_better),
        }
        for task in tasks for pair, each in task.comparisons.items()
    ]  # fmt: skip
    for file, text in (
        ("comparison.json", json.dumps(everything, indent=2, ensure_ascii=False)),
        (PAGE, "\n\n".join(_page(rows, tasks, summary, plots))),
    ):
        with replaced_file(output_dir / file) as new:
            new.write_text(text + "\n", encoding="utf-8")
    return summary


def summarize(task: Task) -> str:
    """What a reader should know of a task, in a line."""
    order = sorted(task.scores, key=lambda name: task.scores[name].value, reverse=not task.lower_is_better)
    shown = {name: f"{name} ({task.show(task.scores[name].value)})" for name in order}
    better = {name: [other for other in order if other != name and task.beats(name, other)] for name in order}
    unclear = [(a, b) for a, b in combinations(order, 2) if b not in better[a] and a not in better[b]]
    if len(order) == 1:
        parts = [f"{shown[order[0]]}; there is nothing to compare it with"]
    elif not any(better.values()):
        parts = [f"you cannot tell {_listed([shown[name] for name in order])} apart"]
    elif not unclear and len(order) > 2:
        parts = [f"from best to worst, each different from all others: {', '.join(shown.values())}"]
    else:
        parts = [
            f"{shown[name]} is better than "
            + ("all others" if len(worse) == len(order) - 1 > 1 else _listed([shown[each] for each in worse]))
            for name, worse in better.items()
            if worse
        ]
        if unclear:
            parts.append(f"you cannot tell {_listed([f'{one} from {other}' for one, other in unclear])}")
    weak = [name for name in order if task.scores[name].verdict in ("not above chance", "below chance")]
    if weak and task.chance is not None:
        who = f"{_listed(weak)} {'is' if len(weak) == 1 else 'are'} not"
        parts.append(f"{'none is' if len(weak) == len(order) > 1 else who} above chance ({task.show(task.chance)})")
    for row in task.rows:
        overlaps = [run.results.get("overlap", {}).get(task.suite, {}) for run in row.runs]
        if seen := max(each.get("seen", 0) / max(each.get("count", 1), 1) for each in overlaps):
            parts.append(f"{row.name} has read {seen:.1%} of these items in training")
    return f"**{task.title}**: {'; '.join(parts)}."


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _page(rows: Sequence[Row], tasks: Sequence[Task], summary: str, plots: Sequence[str]) -> list[str]:
    number = sum(len(task.comparisons) for task in tasks)
    facts = {
        row.name: [f"{each:,}" if each else "not known" for each in (len(row.runs), row.parameters, row.tokens)]
        for row in rows
    }
    page = [
        MARK,
        f"# {len(rows)} models compared",
        summary,
        f"\"Better\" is said only where accident is ruled out, for all {number} comparisons together: of reports on "
        "equal models, at most one in twenty calls any two different. \"Cannot tell\" does not mean equal: there may "
        "be a difference below the smallest that would have been found.",
        "## Scores",
        "With 95 % intervals; of several seeds, the mean and the interval of that mean over seeds.",
        table(
            ["", *(task.title for task in tasks)],
            [[row.name, *(_cell(row, task) for task in tasks)] for row in rows],
        ),
        *_published(tasks),
        *_all_scores(rows, tasks),
        "## Pair by pair",
        "Difference: the first minus the second, on the same items, with its interval corrected for "
        f"{number} comparisons; of percentages in points. p-value: corrected too. Smallest difference: what would "
        "have been found in 80 % of all cases.",
        table(
            ["", "first − second", "difference", "interval", "p-value", "smallest difference", "verdict"],
            [_pair(task, pair) for task in tasks for pair in task.comparisons],
        ),
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in plots),
        *_parts(rows, tasks),
        "## What was compared",
        table(
            ["", "runs", "parameters", "training tokens", "weights"],
            [
                [row.name, *facts[row.name], ", ".join(str(run.model.get("weights", "–"))[:12] for run in row.runs)]
                for row in rows
            ],
        ),
        table(
            ["", "items", "data and settings", "signature"],
            [
                [task.title, f"{_count(task):,}", task.rows[0].runs[0].results["identities"][task.suite],
                 task.rows[0].runs[0].results[task.suite][task.metric]["signature"].replace("|", "\\|")]
                for task in tasks
            ],
        ),
        "McNemar's exact test where items are right or wrong, a test of random signs elsewhere, and Student's t with "
        "the errors of items and of runs where there are several seeds; Holm's correction; intervals by bootstrap "
        "over items. All numbers: comparison.json, and results.json of each model.",
    ]  # fmt: skip
    return page


def _count(task: Task) -> int:
    return next((each.count for each in task.comparisons.values()), 0)


def _cell(row: Row, task: Task) -> str:
    score = task.scores.get(row.name)
    if score is None:
        return "–"
    verdict = f", {score.verdict}" if score.verdict not in (None, "above chance") else ""
    interval = f" ({_interval(task, score.interval)})" if score.interval else ""
    return f"{task.show(score.value)}{interval}{verdict}"


def _any_cell(row: Row, suite: str, metric: str, chance: float | None = None) -> str:
    """Of a metric that is not compared."""
    return _cell(row, Task(suite, metric, [row], {row.name: score_of(row, suite, metric)}, chance))


def _interval(task: Task, interval: tuple[float, float]) -> str:
    return " to ".join(task.show(end).removesuffix(" %") for end in interval)


def _pair(task: Task, pair: tuple[str, str]) -> list[str]:
    found = task.comparisons[pair]
    p_value = "< 0.0001" if found.p_value < 1e-4 else f"{found.p_value:.2g}"
    smallest = "–" if found.smallest_difference is None else task.show_difference(found.smallest_difference)[1:]
    return [
        task.title, " − ".join(pair), task.show_difference(found.difference),
        " to ".join(task.show_difference(end) for end in found.interval), p_value, smallest,
        found.in_words(*pair, task.lower_is_better) if found.different else "cannot tell",
    ]  # fmt: skip


def _published(tasks: Sequence[Task]) -> list[str]:
    lines = []
    for task in tasks:
        known = task.rows[0].runs[0].results[task.suite][task.metric].get("published", {})
        if known:
            shown = ", ".join(f"{model} {task.show(value)}" for model, value in known.items())
            lines.append(f"Published for {task.suite}: {shown}.")
    return lines


def _all_scores(rows: Sequence[Row], tasks: Sequence[Task]) -> list[str]:
    """Of a suite with more metrics than those that are compared, all of them, and a judge's score of its answers."""
    page = []
    for suite in dict.fromkeys(task.suite for task in tasks):
        have = next(task.rows for task in tasks if task.suite == suite)
        found = [run.results[suite] for row in have for run in row.runs]
        names = [name for name in found[0] if "/" not in name and all(name in each for each in found)]
        if len(names) > sum(task.suite == suite for task in tasks):
            lines = [[name, *(_any_cell(row, suite, name) for row in have)] for name in names]
            page += [
                f"## All scores of {suite}",
                "Not tested for differences, with 95 % intervals.",
                table(["", *(row.name for row in have)], lines),
            ]
    return page


def _parts(rows: Sequence[Row], tasks: Sequence[Task]) -> list[str]:
    """Of a metric that has parts, such as the phenomena of BLiMP, their scores."""
    page = []
    for task in tasks:
        first = task.rows[0].runs[0].results[task.suite]
        parts = [name for name in first if name.startswith(f"{task.metric}/") and name.count("/") == 1]
        have = [row for row in task.rows if all(set(parts) <= set(run.results[task.suite]) for run in row.runs)]
        if parts and have:
            lines = [
                [
                    part.partition("/")[2].replace("_", " "),
                    *(_any_cell(row, task.suite, part, task.chance) for row in have),
                ]
                for part in parts
            ]
            page += [
                f"## Parts of {task.title}",
                "Not tested for differences: among so many, some differ by accident.",
                table(["", *(row.name for row in have)], lines),
            ]
    return page
