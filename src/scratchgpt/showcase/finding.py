"""Which models, tokenizers, runs and reports there are in the folders that a page is to show.

Files are read as they are: what is missing is told before torch, which the rooms for models import, is there.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..arguments import ARGUMENTS_FILE
from ..hub.names import local_copy

REPORTS = ("RESULTS.md", "comparison.md", "results.md", "report.md")
"""Pages about runs that recipes write."""


@dataclass(frozen=True)
class Model:
    directory: Path
    kind: Literal["chat", "language model", "classifier"]
    size: int
    """Bytes of its weights, and of its base's for an adapter."""


@dataclass(frozen=True)
class Found:
    """By the names that the page calls them."""

    models: Mapping[str, Model]
    tokenizers: Mapping[str, Path]
    """One of each kind: models of one family share theirs."""
    runs: Mapping[str, Path]
    reports: Mapping[str, Path]

    def names(self, *kinds: str) -> list[str]:
        """Of the models of these kinds, in the order of the kinds."""
        return [name for kind in kinds for name, model in self.models.items() if model.kind == kind]


def find(places: Sequence[str]) -> Found:
    """
    Args:
        places: runs, folders of runs, model directories, tokenizers or names on the Hub.

    Raises:
        ValueError: as `local_copy`; for a place where nothing of all this is, and for damaged configurations.
    """
    models: dict[Path, Model] = {}
    tokenizers: dict[bytes, Path] = {}
    runs: list[Path] = []
    reports: list[Path] = []
    for place in places:
        before = len(models) + len(tokenizers) + len(runs) + len(reports)
        seen_tokenizer = False
        for folder in _folders(Path(local_copy(place))):
            if folder not in models and (model := _model_in(folder)):
                models[folder] = model
            if (file := folder / "tokenizer.json").is_file():
                seen_tokenizer = True
                tokenizers.setdefault(_recognised(file), folder)
            if (folder / "metrics.jsonl").is_file() and folder not in runs:
                runs.append(folder)
            reports += [file for name in REPORTS if (file := folder / name).is_file() and file not in reports]
        if len(models) + len(tokenizers) + len(runs) + len(reports) == before and not seen_tokenizer:
            raise ValueError(
                f"{place} holds no run, model, tokenizer or report, and neither does a folder right below it"
            )
    names = _names([*models, *tokenizers.values(), *runs, *reports])
    return Found(
        {names[folder]: model for folder, model in models.items()},
        {names[folder]: folder for folder in tokenizers.values()},
        {names[run]: run for run in runs},
        {names[report]: report for report in reports},
    )


def _folders(place: Path) -> Iterator[Path]:
    """The place, what is right below it, and what these runs ended with."""
    below = sorted(each for each in place.iterdir() if each.is_dir()) if place.is_dir() else []
    for folder in (place, *below):
        if not folder.name.startswith((".", "checkpoint-")) and (folder.name != "final" or folder == place):
            yield folder
            if (folder / "final").is_dir():
                yield folder / "final"


def _model_in(folder: Path) -> Model | None:
    weights = list(folder.glob("*model*.safetensors"))
    if not weights:
        return None
    size = sum(file.stat().st_size for file in weights)
    if (folder / "adapter_config.json").is_file():
        is_classifier = _read(folder / "adapter_config.json").get("task_type") == "SEQ_CLS"
        if base := base_of(folder):
            size += sum(file.stat().st_size for file in base.glob("model*.safetensors"))
    else:
        names = _read(folder / "config.json").get("architectures") or [""]
        is_classifier = names[0].endswith("ForSequenceClassification")
    if is_classifier:
        return Model(folder, "classifier", size)
    return Model(folder, "chat" if _was_tuned_to_chat(folder) else "language model", size)


def base_of(adapter: Path) -> Path | None:
    """The folder of an adapter's base, if it is here."""
    file = adapter / "base.json"
    base = adapter / _read(file).get("base", "") if file.is_file() else None
    return base.resolve() if base and base.is_dir() else None


def _was_tuned_to_chat(folder: Path) -> bool:
    """As the arguments of its run say. Any other model with a chat template may be asked too."""
    for file in (folder / ARGUMENTS_FILE, folder.parent / ARGUMENTS_FILE):
        if file.is_file():
            return "chat_template" in (yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return False


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _recognised(file: Path) -> bytes:
    """What tokenizers that cut alike have in common: pieces and merges, but not the role tokens that tuning added."""
    return json.dumps(_read(file).get("model"), sort_keys=True).encode()


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Short names: without the folder that all are in, and without `final`."""
    plain = {path: path.parent if path.name == "final" and path.parent.name else path for path in paths}
    parts = {path: each.absolute().parts for path, each in plain.items()}
    if len({*parts.values()}) == 1:
        return {path: plain[path].name or str(path) for path in paths}
    shared = len(Path(os.path.commonpath([os.path.join(*each) for each in parts.values()])).parts)
    return {path: "/".join(each[shared:]) or each[-1] for path, each in parts.items()}
