"""How far two judges agree, or a judge and people: correlations of scores, shares and kappa of verdicts.

Pearson's r asks whether scores rise together in a line, Spearman's rho whether they rank alike, and Cohen's kappa how
much more often two agree than by chance. Every number has a 95 % bootstrap interval over the items.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import open_text, read_rows, suffix_of
from .answers import RESAMPLES, SEED
from .results import Measurement, SuiteResult
from .statistics import percentile_interval

Verdicts = Sequence[float | str | None]
"""Scores, or A, B and tie; None where a judge was not understood."""

CODES = {"A": 2, "tie": 1, "B": 0}

COLUMNS = {"pearson": "Pearson", "spearman": "Spearman", "kappa": "Cohen's kappa", "agreement": "agreement"}


def read_verdicts(file: str | Path, column: str | None = None) -> Verdicts:
    """The verdicts in a file: a JSON list of numbers or letters, or rows with a column `verdict` or `score`.

    Args:
        column: where it has another name.

    Raises:
        ValueError: for a file without them, a score that is no number, a verdict that is not A, B or tie.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"--verdicts {file} is no file")
    values: Any = None
    if suffix_of(path) == ".json":
        try:
            with open_text(path) as text:
                values = json.load(text)
        except ValueError as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(values, list) or any(isinstance(value, dict) for value in values):
        rows = list(read_rows(path))
        columns = dict.fromkeys(name for row in rows for name in row)
        wanted = [column] if column else ["verdict", "score"]
        found = next((name for name in wanted if name in columns), None)
        if found is None:
            raise ValueError(
                f"{file} has no column {' or '.join(map(repr, wanted))}: it has {list(columns)}; name it with "
                "--verdict_column"
            )
        values = [row.get(found) for row in rows]
    verdicts = [_verdict(path, number, value) for number, value in enumerate(values, 1)]
    if len({type(each) for each in verdicts if each is not None}) > 1:
        raise ValueError(f"{file} holds scores and letters: give one kind")
    return verdicts


def _verdict(file: Path, number: int, value: Any) -> float | str | None:
    letters = {"a": "A", "b": "B", "tie": "tie"}
    if isinstance(value, str) and value.lower() in letters:
        return letters[value.lower()]
    if value is None or value == "":
        return None
    try:
        score = float(value) if not isinstance(value, bool) else np.nan
    except (TypeError, ValueError):
        score = np.nan
    if not np.isfinite(score):
        raise ValueError(f"{file}, row {number}: {json.dumps(value)[:40]} is neither a number nor A, B or tie")
    return float(score)


def is_pairwise(verdicts: Verdicts) -> bool:
    """Whether they are letters."""
    return any(isinstance(each, str) for each in verdicts)


def agreement(one: Verdicts, other: Verdicts) -> dict[str, Measurement]:
    """What two say of the same items; items that either left out are left out, and counted.

    Scores are also cut in two, below 50 and from 50 on, for kappa and the share of agreement. What does not exist,
    because one judge says the same of everything, is left out.

    Raises:
        ValueError: for lists of different length or kind, and fewer than two items that both judged.
    """
    if len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} verdicts: both must judge the same items")
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        raise ValueError(f"only {len(pairs)} items have verdicts of both: there is nothing to compare")
    if is_pairwise(one) != is_pairwise(other):
        raise ValueError("one gives scores and the other letters: they cannot be compared")
    details = {"left_out": len(one) - len(pairs)}
    if is_pairwise(one):
        a, b = (np.array([CODES[str(each)] for each in side]) for side in zip(*pairs, strict=True))
        return _measured(_OF_CATEGORIES, a, b, "A, B and tie", details)
    a, b = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    halves = _measured(_OF_CATEGORIES, a >= 50, b >= 50, "below 50, and 50 and more", details)
    return _measured(_OF_SCORES, a, b, "scores", details) | halves


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import pearsonr

    result: Any = pearsonr(a, b)
    return float(result.statistic)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    result: Any = spearmanr(a, b)
    return float(result.statistic)


def _kappa(a: np.ndarray, b: np.ndarray) -> float:
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(a, b))


def _share(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(a == b))


Statistic = Callable[[np.ndarray, np.ndarray], float]
_OF_SCORES: dict[str, tuple[Statistic, str]] = {"pearson": (_pearson, "scipy"), "spearman": (_spearman, "scipy")}
_OF_CATEGORIES: dict[str, tuple[Statistic, str]] = {"kappa": (_kappa, "scikit-learn"), "agreement": (_share, "numpy")}


def _measured(
    statistics: Mapping[str, tuple[Statistic, str]], a: np.ndarray, b: np.ndarray, of: str, details: Mapping[str, int]
) -> dict[str, Measurement]:
    drawn = np.random.default_rng(SEED).integers(0, len(a), size=(RESAMPLES, len(a)))
    found = {}
    for name, (statistic, library) in statistics.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of resamples in which one judge says the same of everything
            value = statistic(a, b)
            draws = np.array([statistic(a[rows], b[rows]) for rows in drawn])
        if np.isfinite(value):
            interval = percentile_interval(draws[np.isfinite(draws)])
            signature = f"{name} of {of}|bootstrap:{RESAMPLES}, seed {SEED}|version:{library} {version(library)}"
            found[name] = Measurement(value, len(a), interval, signature, details)
    return found


@dataclass
class Agreement:
    """The suite that compares every two of several lists of verdicts on the same items.

    Args:
        verdicts: by the name of the judge, person or file.
    """

    verdicts: Mapping[str, Verdicts]
    name: str = "agreement"

    def identity(self) -> dict[str, Any]:
        return {"verdicts": hashlib.sha256(json.dumps(self.verdicts).encode()).hexdigest(), "seed": SEED}

    def check(self, config: Any, tokenizer: Any) -> None:
        """Nothing can be wrong that `run` does not find at once."""

    def measured(self) -> dict[tuple[str, str], dict[str, Measurement]]:
        """Raises ValueError as `agreement`, naming the two."""
        found = {}
        for (one, a), (other, b) in combinations(self.verdicts.items(), 2):
            try:
                found[one, other] = agreement(a, b)
            except ValueError as error:
                raise ValueError(f"{one} and {other}: {error}") from error
        return found

    def run(self, model: Any = None, tokenizer: Any = None) -> SuiteResult:
        """Metrics are named after both and the statistic: `a.json and b.json: kappa`."""
        measured = self.measured().items()
        return SuiteResult({f"{a} and {b}: {name}": each for (a, b), of in measured for name, each in of.items()})

    def table(self) -> str:
        """Of every two a row, in Markdown."""
        lines = [["", "items", *COLUMNS.values()], ["---", *["---:"] * (1 + len(COLUMNS))]]
        for names, found in self.measured().items():
            cells = []
            for column in COLUMNS:
                low, high = (found[column].interval or (np.nan, np.nan)) if column in found else (np.nan, np.nan)
                cells.append(f"{found[column].value:.2f} ({low:.2f} to {high:.2f})" if column in found else "–")
            lines.append([" and ".join(names), str(max(each.count for each in found.values())), *cells])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
