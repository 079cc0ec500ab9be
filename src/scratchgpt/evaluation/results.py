"""What an evaluation measured, as `results.json` keeps it: one file a model, used again only where it is still valid.

    {"model": {…}, "blimp": {"accuracy": {"value": 0.71, "count": 53600, "interval": [0.70, 0.72], "signature": "…"}}}

Beside it `items/<suite>.json` holds the score of every item, so that two models can be compared item by item.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..hub.staging import replaced_file
from .contamination import Overlap
from .statistics import wilson_interval

FILE = "results.json"

WEIGHTS = "weights"
"""Among the items' scores: what each item counts for in the mean that is the value; default: the same."""

Z, Z_POWER = 1.959964, 0.841621
"""Of the normal distribution the 97.5th and the 80th percentile."""


@dataclass(frozen=True)
class Measurement:
    """One number, with what a reader needs to believe it."""

    value: float
    count: int
    """Of the items, tokens or bytes that it was computed on."""
    interval: tuple[float, float] | None
    """95 % confidence interval, or None where there is none."""
    signature: str
    """The metric's name, its settings, and the version of the library that computed it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else belongs to the number: chance, standard_error, smallest_difference, …"""

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return values | values.pop("details")


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found out about a model."""

    metrics: Mapping[str, Measurement]
    items: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of some metrics the score of each item, in the order of the items, for paired comparisons; and `WEIGHTS`."""


class Named(Protocol):
    """Something whose result is recorded, and is valid for as long as its identity stays."""

    name: str

    def identity(self) -> dict[str, Any]:
        """Whatever the result depends on beside the model: fingerprint of the data, settings, library versions."""
        ...


class Suite(Named, Protocol):
    """Something that is measured on a model."""

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError, with a remedy, where the suite cannot be run. Called before any work."""
        ...

    def texts(self, tokenizer: Any) -> Iterable[str]:
        """The texts of the items that are scored, as a model with this tokenizer could have seen them in training."""
        ...

    def run(self, model: Any, tokenizer: Any) -> SuiteResult: ...


class DoesNotFit(ValueError):
    """A suite cannot be run on this model, though both are as they should be."""


def score_against_chance(
    scores: Sequence[float], chance: float, signature: str, groups: Sequence[str] | None = None
) -> Measurement:
    """The mean score of many items, with what is needed to tell whether it means anything.

    Its details: `standard_error` of the mean; `chance` and `centred`, (score - chance) / (1 - chance);
    `smallest_difference`, from which on two models with different items of this number would be told apart in 80 %
    of all cases at the 5 % level (on the same items less is enough); `verdict`, in words.

    Args:
        scores: between 0 and 1.
        chance: the expected score of who guesses.
        groups: of the items, if the mean is that of the groups' means.
    """
    values = np.asarray(scores, dtype=float)
    names = np.zeros(len(values)) if groups is None else np.asarray(groups)
    parts = [values[names == name] for name in np.unique(names)]
    value = float(np.mean([part.mean() for part in parts]))
    variances = [part.var(ddof=1) / len(part) if len(part) > 1 else 0.25 for part in parts]
    error = math.sqrt(sum(variances)) / len(parts)
    if groups is None and set(values) <= {0.0, 1.0}:
        interval = wilson_interval(int(values.sum()), len(values))
    else:
        interval = (max(0.0, value - Z * error), min(1.0, value + Z * error))
    above = interval[0] > chance
    # Where all items are right, or none is, the items show no variance; then as if two more were right and two wrong.
    rate = (values.sum() + 2) / (len(values) + 4)
    larger = error or math.sqrt(rate * (1 - rate) / (len(values) + 4))
    details = {
        "standard_error": error,
        "chance": chance,
        "centred": (value - chance) / (1 - chance),
        "smallest_difference": (Z + Z_POWER) * math.sqrt(2) * larger,
        "verdict": "above chance" if above else "below chance" if interval[1] < chance else "not above chance",
    }
    return Measurement(value, len(values), interval, signature, details)


def read_numbers(file: Path) -> dict[str, Any]:
    """An object of a JSON file that was written here.

    Raises:
        ValueError: for a file that is something else, such as a damaged one, or holds NaN or infinity.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and measure again") from error
    return found


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def read_results(directory: Path) -> dict[str, Any] | None:
    """The results of an evaluation in a directory; None where there are none.

    Raises:
        ValueError: as `read_numbers`; for a results.json of something else, such as a training run's.
    """
    file = directory / FILE
    if not file.is_file():
        return None
    found = read_numbers(file)
    if not isinstance(found.get("model"), dict) or not isinstance(found.get("identities"), dict):
        raise ValueError(f"{file} holds no results of an evaluation: give another directory")
    for suite in found["identities"]:
        metrics = found.get(suite)
        if not isinstance(metrics, dict) or not all(
            isinstance(each, dict) and {"value", "count", "interval"} <= set(each) for each in metrics.values()
        ):
            raise ValueError(f"{file} is damaged (values of {suite} are missing): delete it, and measure again")
    return found


def check_directory(directory: Path, model: str | None) -> None:
    """Makes sure that results can go into a directory without destroying others.

    Args:
        model: name of the model, None for finished answers. Results of the same one may be replaced: it may have been
            trained further.

    Raises:
        ValueError: for a directory of something else, or of another model; and as `read_results`.
    """
    known = read_results(directory)
    if known is None and directory.is_dir() and any(directory.iterdir()) and not (directory / "journal").exists():
        raise ValueError(f"{directory} is not empty and holds no {FILE}: give another --output_dir")
    if known is not None and known["model"].get("name") != model:
        whose = known["model"].get("name") or "finished answers"
        raise ValueError(f"{directory / FILE} holds the results of {whose}: give another --output_dir")


class Results:
    """The results of one model in one directory.

    Args:
        model: what identifies the model: weights, tokenizer, dtype, … Results of another model are not used.

    Raises:
        ValueError: as `read_results`.
    """

    def __init__(self, directory: Path, model: Mapping[str, Any]) -> None:
        self.directory = directory
        self.values: dict[str, Any] = {"model": dict(model), "identities": {}}
        stored = read_results(directory)
        if stored is not None and stored["model"] == self.values["model"]:
            self.values = stored

    def has(self, suite: Named) -> bool:
        """Whether the suite was run on this model as it would be today, and the items are there too."""
        is_known = self.values["identities"].get(suite.name) == _hash(suite.identity())
        return is_known and (self.directory / "items" / f"{suite.name}.json").is_file()

    def record(self, suite: Named, result: SuiteResult, overlap: Overlap | None = None) -> None:
        """Writes what was found, and the items first: results.json never names items that are not there.

        Args:
            overlap: of the suite's texts with the model's training text. Where there is some, the means of the items
                that were seen, of those that were not, and of those that were looked for as whole documents only are
                recorded apart.
        """
        (self.directory / "items").mkdir(parents=True, exist_ok=True)
        _write(self.directory / "items" / f"{suite.name}.json", {name: list(of) for name, of in result.items.items()})
        self.values[suite.name] = {name: found.as_dict() for name, found in result.metrics.items()}
        self.values["identities"][suite.name] = _hash(suite.identity())
        if overlap is not None:
            weights = result.items.get(WEIGHTS)
            parts = {"clean": overlap.clean, "seen": overlap.seen, "only_whole": overlap.only_whole}
            halves = {
                name: {part: _mean(of, which, weights) for part, which in parts.items()}
                for name, of in result.items.items()
                if overlap.seen.any() and len(of) == len(overlap.seen) and name != WEIGHTS
            }
            self.values.setdefault("overlap", {})[suite.name] = overlap.as_dict() | halves
        _write(self.directory / FILE, self.values)

    def table(self, suite: str) -> str:
        """The results of a suite, one a line; parts of another, such as `accuracy/ellipsis`, are left out."""
        lines = []
        for name, found in self.values[suite].items():
            if "/" in name:
                continue
            low, high = found["interval"] or (None, None)
            interval = "" if low is None else f"  (95 %: {low:.4f} to {high:.4f})"
            verdict = "".join(f"  {found[key]}" for key in ("verdict", "note") if key in found)
            title = name if suite == "answers" else f"{suite} {name}"
            lines.append(f"{title:<28} {found['value']:>9.4f}  n = {found['count']:,}{interval}{verdict}")
        return "\n".join(lines)


def _mean(items: Sequence[float], which: np.ndarray, weights: Sequence[float] | None) -> float | None:
    if not which.any():
        return None
    return float(np.average(np.asarray(items)[which], weights=None if weights is None else np.asarray(weights)[which]))


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _write(file: Path, values: Any) -> None:
    with replaced_file(file) as new:
        new.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
