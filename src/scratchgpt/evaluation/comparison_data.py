"""What was measured of several models, brought together suite by suite, so that it can be compared.

Of each suite one metric is compared, the first of `MAIN` that it has, since each further comparison makes all others
harder to believe. Models whose directories differ only in `seed_1`, `seed_2`, … are runs of one recipe and become one
row: their mean, with Student's interval of a mean over runs.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .comparison import Comparison
from .results import FILE, WEIGHTS, read_numbers, read_results
from .statistics import mean_interval

MAIN = ("accuracy_norm", "accuracy", "bits_per_byte", "rougeL")
"""Metrics, the first of which is compared; of a suite that has none of them, all that have a score for each item."""

LOWER_IS_BETTER = ("bits_per", "loss", "perplexity")
"""Beginnings of metrics' names."""

SEED = re.compile(r"[-_.]?seed[-_.=]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """What was measured of one model."""

    name: str
    directory: Path
    results: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        return self.results["model"]

    def items(self, suite: str) -> dict[str, list[float]]:
        """Raises ValueError where the file is missing or damaged."""
        file = self.directory / "items" / f"{suite}.json"
        if not file.is_file():
            raise ValueError(f"{file} is missing: measure {self.name} again, into a new directory")
        return read_numbers(file)


@dataclass(frozen=True)
class Row:
    """One model, or several runs of one recipe."""

    name: str
    runs: list[Run]

    @property
    def parameters(self) -> int | None:
        model = self.runs[0].model
        return model.get("parameters", _training(model).get("num_parameters"))

    @property
    def tokens(self) -> int | None:
        """That it was trained on, where the run from nothing that made it is still there."""
        return _training(self.runs[0].model).get("num_targets")


@dataclass(frozen=True)
class Score:
    value: float
    interval: tuple[float, float] | None
    verdict: str | None
    """Such as "not above chance"."""


@dataclass(frozen=True)
class Task:
    """One metric of one suite, of all rows that have it."""

    suite: str
    metric: str
    rows: list[Row]
    scores: dict[str, Score]
    """By name of the row."""
    chance: float | None
    comparisons: dict[tuple[str, str], Comparison] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.suite} ({self.metric})"

    @property
    def lower_is_better(self) -> bool:
        return self.metric.startswith(LOWER_IS_BETTER)

    @property
    def percent(self) -> bool:
        return self.chance is not None or self.metric.startswith(("accuracy", "exact"))

    def beats(self, one: str, other: str) -> bool:
        first = (one, other) in self.comparisons
        found = self.comparisons[(one, other) if first else (other, one)]
        return found.different and ((found.difference > 0) == first) != self.lower_is_better

    def show(self, value: float) -> str:
        return f"{value:.1%}".replace("%", " %") if self.percent else f"{value:.4f}"

    def show_difference(self, value: float) -> str:
        return (f"{100 * value:+.1f}" if self.percent else f"{value:+.4f}").replace("-", "−")


def read_rows(directories: Sequence[Path]) -> list[Row]:
    """The rows of a comparison.

    Raises:
        ValueError: for fewer than two directories, one that is given twice or holds no results, and for seeds of one
            recipe that cannot be that.
    """
    return _group([_read_run(each, name) for each, name in zip(directories, _names(directories), strict=True)])


def _read_run(directory: Path, name: str) -> Run:
    """Raises ValueError for a directory without results of an evaluation, and as `read_results`."""
    results = read_results(directory)
    if results is None:
        raise ValueError(f"{directory} holds no results of an evaluation: measure the model with recipes/evaluate.py")
    if "answers" in results:
        results["answers"] |= _judged(directory / "judge" / FILE)
    return Run(name, directory, results)


def _judged(file: Path) -> dict[str, Any]:
    """The score that a judge gave a model's answers, where `recipes/judge.py` wrote it there."""
    found = json.loads(file.read_text(encoding="utf-8"))["judge"] if file.is_file() else {}
    return {"judge": found["score"]} if "score" in found else {}


def _group(runs: Sequence[Run]) -> list[Row]:
    """The runs of one recipe with different seeds in one row.

    Raises:
        ValueError: for fewer than two runs, and for seeds of one recipe that cannot be that.
    """
    if len(runs) < 2:
        raise ValueError("a comparison needs the results of two models or more")
    recipes: dict[str, list[Run]] = {}
    for run in runs:
        recipe = SEED.sub("", run.name).strip("-_.").removesuffix("-final") if SEED.search(run.name) else run.name
        recipes.setdefault(recipe or run.directory.parent.name, []).append(run)
    rows = [Row(name if len(of) > 1 else of[0].name, of) for name, of in recipes.items()]
    for row in rows:
        for one, other in combinations(row.runs, 2):
            if one.model.get("weights") == other.model.get("weights"):
                raise ValueError(f"{one.name} and {other.name} are the same weights, not two seeds: leave one out")
            if one.model.get("parameters") != other.model.get("parameters"):
                raise ValueError(
                    f"{one.name} and {other.name} differ in size, so they are not two seeds of one recipe: rename one"
                )
    return rows


def read_tasks(rows: Sequence[Row]) -> tuple[list[Task], list[str]]:
    """What can be compared, and what cannot, in words.

    Raises:
        ValueError: where the items or the settings of a suite are not the same, or nothing can be compared.
    """
    runs = [run for row in rows for run in row.runs]
    tasks, left_out = list[Task](), list[str]()
    for suite in dict.fromkeys(name for run in runs for name in run.results["identities"]):
        have = [row for row in rows if all(suite in run.results["identities"] for run in row.runs)]
        theirs = [run for row in have for run in row.runs]
        for run in theirs[1:]:
            if run.results["identities"][suite] != theirs[0].results["identities"][suite]:
                raise ValueError(
                    f"{suite}: {theirs[0].name} and {run.name} were measured on different data or with different "
                    "settings, so they cannot be compared: measure both with the same options"
                )
        items = {run.name: run.items(suite) for run in theirs}
        metrics = [name for name in next(iter(items.values()), {}) if all(name in each for each in items.values())]
        metrics = [name for name in MAIN if name in metrics][:1] or [name for name in metrics if name != WEIGHTS]
        counts = {len(each[metric]) for each in items.values() for metric in metrics}
        if len(theirs) < 2 or not metrics:
            left_out.append(f"**{suite}**: not compared, since fewer than two models have scores of single items.")
        elif len(counts) > 1:
            left_out.append(
                f"**{suite}**: not compared, since the models were not measured on the same items (there are "
                f"{min(counts):,} to {max(counts):,}): a shorter context leaves items out."
            )
        elif counts == {1}:
            left_out.append(
                f"**{suite}**: not compared, since one item, or document, cannot tell anything: give more."
            )
        else:
            tasks += [_task(suite, metric, have) for metric in metrics]
    if not tasks:
        raise ValueError(f"there is nothing to compare. {' '.join(left_out)}".replace("*", "").strip())
    return tasks, left_out


def _names(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart.

    Raises:
        ValueError: for a directory that is given twice.
    """
    paths = [directory.resolve() for directory in directories]
    if len(set(paths)) < len(paths):
        raise ValueError("give each directory once")
    for parts in range(1, max(len(path.parts) for path in paths)):
        names = ["-".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [path.as_posix() for path in paths]


def _training(model: dict[str, Any]) -> dict[str, Any]:
    """The results of the run from nothing whose final model this is; empty where that is not known."""
    final = Path(str(model.get("name", ""))).expanduser()
    results, arguments = final.parent / FILE, final.parent / "arguments.yaml"
    if final.name != "final" or not results.is_file() or not arguments.is_file():
        return {}
    given = yaml.safe_load(arguments.read_text(encoding="utf-8"))
    if "preset" not in given or given.get("model_name_or_path") is not None:
        return {}
    return json.loads(results.read_text(encoding="utf-8"))


def _task(suite: str, metric: str, rows: list[Row]) -> Task:
    chance: float | None = rows[0].runs[0].results[suite][metric].get("chance")
    return Task(suite, metric, rows, {row.name: score_of(row, suite, metric, chance) for row in rows}, chance)


def score_of(row: Row, suite: str, metric: str, chance: float | None = None) -> Score:
    found = [run.results[suite][metric] for run in row.runs]
    if len(found) == 1:
        interval = found[0]["interval"]
        return Score(found[0]["value"], interval and tuple(interval), found[0].get("verdict"))
    mean, low, high = mean_interval([each["value"] for each in found])
    verdict = None
    if chance is not None:
        verdict = "above chance" if low > chance else "below chance" if high < chance else "not above chance"
    return Score(mean, (low, high), verdict)


def item_scores(task: Task) -> dict[str, np.ndarray]:
    """[runs, items] of each row, and under no name the weights, [1, items]."""
    items = {row.name: [run.items(task.suite) for run in row.runs] for row in task.rows}
    scores = {name: np.array([run[task.metric] for run in runs], dtype=float) for name, runs in items.items()}
    first = next(iter(items.values()))[0]
    return scores | {"": np.array([first.get(WEIGHTS, [1.0] * len(first[task.metric]))], dtype=float)}
