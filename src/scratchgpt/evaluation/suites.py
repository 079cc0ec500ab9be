"""What is measured when a user says quick, full, or names; and where the results of several models go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .benchmark_data import BENCHMARKS, is_local
from .benchmarks import BenchmarkSuite
from .blimp import BlimpSuite, find
from .results import DoesNotFit, Suite
from .text import Text, TextSuite

SUITES = ("text", "answers", "passages", "blimp", *BENCHMARKS)

QUICK_PAIRS = 40
"""Of each paradigm of BLiMP, in the suite quick."""

QUICK_ITEMS = 200
"""Of each other benchmark, in the suite quick."""


def suite_names(given: Sequence[str], text: str | None, data: str | None, benchmarks_dir: str | None) -> list[str]:
    """What to measure: the names that are given, or for quick and full all that there is data for.

    Args:
        given: nothing is quick, but without the benchmarks of the Hub.

    Raises:
        ValueError: for an unknown name, and for data that is not there.
    """
    names = list(dict.fromkeys(given)) or ["quick"]
    if names in (["quick"], ["full"]):
        if benchmarks_dir is not None:
            here = [*(["blimp"] if find(benchmarks_dir) else [])]
            here += [name for name in BENCHMARKS if is_local(name, benchmarks_dir)]
        else:
            here = ["blimp", *BENCHMARKS] if given else []
        names = [*(["text"] if text else []), *(["answers"] if data else []), *here]
        if not names:
            raise ValueError("there is nothing to measure: give --text, --data, --benchmarks_dir, or names to --suite")
    if unknown := [name for name in names if name not in SUITES]:
        raise ValueError(f"--suite {unknown[0]}: give quick or full alone, or names of {', '.join(SUITES)}")
    if "text" in names and not text:
        raise ValueError("the suite text needs --text, what is measured on")
    for name in ("answers", "passages"):
        if name in names and not data:
            raise ValueError(f"the suite {name} needs --data, the questions")
    return names


def build_suites(
    names: Sequence[str], quick: bool, benchmarks_dir: str | None, text: Text | None, train: Text | None,
    stride: int | None,
) -> list[Suite]:  # fmt: skip
    """All suites of `names` but answers and passages, which are each model's own.

    Raises:
        ValueError: for data that is not there or cannot be read.
    """
    suites: list[Suite] = []
    for name in names:
        if name == "text" and text is not None:
            suites.append(TextSuite(text, train, stride))
        elif name == "blimp":
            suites.append(BlimpSuite(benchmarks_dir, QUICK_PAIRS if quick else None))
        elif name in BENCHMARKS:
            suites.append(BenchmarkSuite(name, benchmarks_dir, QUICK_ITEMS if quick else None))
    return suites


def fitting(suites: Sequence[Suite], config: Any, tokenizer: Any, model: str, needed: Sequence[str]) -> list[Suite]:
    """The suites that a model can be measured on. The others are named, and refused where they are `needed`.

    Raises:
        ValueError: as `Suite.check`, naming the model; where none is left.
    """
    found, left_out = list[Suite](), list[str]()
    for suite in suites:
        try:
            suite.check(config, tokenizer)
            found.append(suite)
        except DoesNotFit as error:
            if suite.name in needed:
                raise ValueError(f"{model}: {error}") from error
            left_out.append(str(error))
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from error
    if left_out and not found:
        raise ValueError(f"{model}: there is nothing that it can be measured on: {'; '.join(left_out)}")
    for words in left_out:
        print(f"{model}: left out: {words}", flush=True)
    return found


def directories(models: Sequence[str], output_dir: Path) -> list[Path]:
    """Where each model's results go; of several models into folders named after what is special about their paths.

    Raises:
        ValueError: for a model that is given twice.
    """
    paths = [Path(model).resolve() if Path(model).exists() else Path(model) for model in models]
    if len(set(paths)) < len(paths):
        raise ValueError(f"--model {' '.join(models)}: give each model once")
    if len(models) == 1:
        return [output_dir]
    names: list[str] = []
    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["-".join(part for part in path.parts[-parts:] if part != path.anchor) for path in paths]
        if len(set(names)) == len(names) and "final" not in names:
            break
    return [output_dir / name for name in names]
