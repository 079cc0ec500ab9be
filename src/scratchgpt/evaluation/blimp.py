"""BLiMP: 67 kinds of minimal pairs of English grammar (Warstadt et al. 2020), on which small models have signal.

A model is right about a pair if the good sentence is likelier than the bad one, as a whole and from the start of a
text on; where they are equally likely it is half right, since lm-eval's `argmax` would give a model full marks that
cannot tell anything apart. The score is the mean of the 67 paradigms, and guessing gives 50 %.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ..data.files import ROWS, is_saved_data_set, read_rows, suffix_of
from .benchmark_data import read_hub, read_local, spread
from .log_likelihoods import Scorer, context_length, prefix_token
from .results import WEIGHTS, DoesNotFit, Measurement, SuiteResult, score_against_chance
from .text import tokenize

HUB, SPLIT = "nyu-mll/blimp", "train"

PUBLISHED = "published_accuracy.jsonl"
"""File beside the pairs with the accuracy of other models: `paradigm`, and a column for each model."""

COLUMNS = {
    "good": ("sentence_good",),
    "bad": ("sentence_bad",),
    "phenomenon": ("phenomenon", "linguistics_term"),
    "paradigm": ("paradigm", "UID"),
}

TIE = 1e-6
"""Relative difference up to which log-likelihoods are equal: that of the same sum in another order, in fp32."""

VERSION = "scratchgpt 1"


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ in one point."""

    good: str
    bad: str
    phenomenon: str
    paradigm: str


def find(benchmarks_dir: str | Path | None) -> list[Path]:
    """The files of pairs in `benchmarks_dir`, or the folder of a saved data set there; none if it has none.

    They are called blimp…, or they are all files of rows in a folder called blimp, but for `PUBLISHED`.
    """
    if benchmarks_dir is None:
        return []
    root = Path(benchmarks_dir)
    if not root.is_dir():
        raise ValueError(f"--benchmarks_dir {root} is no folder")
    folder = next((each for each in sorted(root.iterdir()) if each.is_dir() and each.name.lower() == "blimp"), None)
    if folder is not None and is_saved_data_set(folder):
        return [folder]
    inside = root.glob("*") if folder is None else folder.rglob("*")
    return sorted(
        each
        for each in inside
        if each.is_file()
        and suffix_of(each) in ROWS
        and not each.name.startswith(("published", "."))
        and (folder is not None or each.name.lower().startswith("blimp"))
    )


def read_pairs(benchmarks_dir: str | Path | None) -> list[Pair]:
    """The pairs here, or those of the Hub.

    Raises:
        ValueError: where they are neither here nor on the Hub, or columns are missing.
    """
    found = []
    for where, number, row in _rows(find(benchmarks_dir)):
        names = {part: next((each for each in names if each in row), None) for part, names in COLUMNS.items()}
        if missing := [COLUMNS[part][0] for part, name in names.items() if name is None]:
            raise ValueError(f"{where}, row {number}: blimp needs the column {missing[0]!r}, and it has {list(row)}")
        pair = Pair(**{part: row[name] for part, name in names.items() if name})
        if wrong := [part for part, text in vars(pair).items() if not isinstance(text, str) or not text.strip()]:
            raise ValueError(
                f"{where}, row {number}: {names[wrong[0]]!r} holds no text: repair the row or leave it out"
            )
        found.append(pair)
    if not found:
        raise ValueError(f"{benchmarks_dir} holds no pairs of blimp")
    return found


def _rows(places: list[Path]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for place in places:
        rows = read_rows(place) if place.is_file() else read_local(place, SPLIT)
        yield from ((str(place), number, row) for number, row in enumerate(rows, start=1))
    if not places:
        for config in _hub_configs():
            rows = read_hub("blimp", HUB, config, SPLIT)
            yield from ((f"{HUB}, {config}", number, row) for number, row in enumerate(rows, start=1))


def _hub_configs() -> list[str]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return datasets.get_dataset_config_names(HUB)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"the benchmark blimp is neither here nor to be had from the Hub: put its pairs into a folder blimp of "
            f"--benchmarks_dir, as .jsonl with sentence_good, sentence_bad, phenomenon and paradigm ({error})"
        ) from error


@dataclass
class BlimpSuite:
    """BLiMP.

    Args:
        benchmarks_dir: folder of its files, if they are not to come from the Hub.
        count: pairs of each paradigm, from all over it; default: all.

    Raises:
        ValueError: as `read_pairs`.
    """

    benchmarks_dir: str | Path | None = None
    count: int | None = None
    name: str = "blimp"
    pairs: list[Pair] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        of_paradigm: dict[str, list[Pair]] = {}
        for pair in read_pairs(self.benchmarks_dir):
            of_paradigm.setdefault(pair.paradigm, []).append(pair)
        self.pairs = [pair for pairs in of_paradigm.values() for pair in spread(pairs, self.count)]
        files = [place.parent / PUBLISHED for place in find(self.benchmarks_dir)]
        self.published = {
            row["paradigm"]: {model: value for model, value in row.items() if isinstance(value, float)}
            for file in dict.fromkeys(files)
            if file.is_file()
            for row in read_rows(file)
        }

    def identity(self) -> dict[str, Any]:
        """The pairs, and this module's version."""
        pairs = hashlib.sha256(json.dumps([astuple(pair) for pair in self.pairs]).encode()).hexdigest()
        return {"pairs": pairs, "published": self.published, "version": VERSION}

    def texts(self, tokenizer: Any) -> Iterable[str]:
        """The good sentences."""
        return (pair.good for pair in self.pairs)

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError where a sentence is longer than the context.

        Args:
            config: None for a model without a context, such as an n-gram.
        """
        prefix_token(tokenizer)
        context = context_length(config) if config is not None else None
        for pair in self.pairs:
            for text in (pair.good, pair.bad):
                # Cutting into tokens takes long, and a text has at most as many as bytes.
                if context is not None and len(text.encode()) > context and len(tokenizer.encode(text)) > context:
                    raise DoesNotFit(
                        f"blimp: {text[:60]!r} is longer than the model's context of {context} tokens; leave it out "
                        "for this model"
                    )

    def run(self, model: Scorer, tokenizer: Any) -> SuiteResult:
        start = prefix_token(tokenizer)
        tokens = tokenize(tokenizer, [text for pair in self.pairs for text in (pair.good, pair.bad)])
        found = model.score([([start, *each], len(each)) for each in tokens])
        nats = np.array([each.log_likelihood for each in found]).reshape(-1, 2)
        good, bad = nats[:, 0], nats[:, 1]
        tie = np.abs(good - bad) <= TIE * np.maximum(np.abs(good), np.abs(bad))
        scores = np.where(tie, 0.5, good > bad)
        how = f"whole sentences|start:{tokenizer.convert_ids_to_tokens(start)}|ties:half|version:{VERSION}"
        phenomena, paradigms = (
            np.array([str(vars(p)[part]) for p in self.pairs]) for part in ("phenomenon", "paradigm")
        )
        metrics: dict[str, Measurement] = {}

        def add(name: str, chosen: np.ndarray) -> None:
            kinds = list(dict.fromkeys(paradigms[chosen].tolist()))
            groups = paradigms[chosen].tolist() if len(kinds) > 1 else None
            mean = f"mean of {len(kinds)} paradigms|" if groups else ""
            signature = f"blimp accuracy|{mean}{how}"
            measured = score_against_chance(scores[chosen].tolist(), 0.5, signature, groups)
            details = {**measured.details, "ties": int(tie[chosen].sum())}
            if known := [self.published[kind] for kind in kinds if kind in self.published]:
                details["published"] = {model: fmean(each[model] for each in known) for model in known[0]}
            metrics[name] = Measurement(measured.value, measured.count, measured.interval, signature, details)

        add("accuracy", np.ones(len(scores), dtype=bool))
        for phenomenon in sorted(set(phenomena.tolist())):
            add(f"accuracy/{phenomenon}", phenomena == phenomenon)
        for paradigm in sorted(set(paradigms.tolist())):
            of_it = paradigms == paradigm
            add(f"accuracy/{phenomena[of_it][0]}/{paradigm}", of_it)
        # Each paradigm counts the same, however many pairs it has.
        sizes = Counter(paradigms.tolist())
        weights = [1 / sizes[paradigm] for paradigm in paradigms.tolist()]
        return SuiteResult(metrics, {"accuracy": scores.tolist(), WEIGHTS: weights})
