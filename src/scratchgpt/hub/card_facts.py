"""What the files of a model, adapter, tokenizer or data set say about it, and those of the run that made it.

Nothing is loaded and nothing is fetched: a card is made from small files, and from the headers of the weights.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import DatasetCard
from safetensors import safe_open

from .fingerprints import hash_weight_files
from .names import is_hub_name
from .training_texts import Sketch, TrainingTexts

ARGUMENTS, RESULTS, BUILD, ROUNDING = "arguments.yaml", "results.json", "build.json", "rounding.json"

PAGE = "model/page.json"
"""What a page for the browser has, as `export --to web` writes it."""

Kind = Literal["base model", "chat model", "classifier", "tokenizer", "data set"]

MADE_BY = {
    "adapter": "merge",
    "to": "export",
    "activation_function": "import-gpt2",
    "special_tokens": "train-tokenizer",
}
"""The command that wrote a directory, by an option that only it has."""

TRAINED_BY = {
    "base model": "pretrain",
    "chat model": "finetune-instruct",
    "classifier": "finetune-classifier",
    "tokenizer": "train-tokenizer",
}


@dataclass(frozen=True)
class Data:
    """What a model was trained on."""

    name: str
    hub_name: str | None
    license: str | None = None
    language: str | None = None
    build: Mapping[str, Any] | None = None
    """What its builder recorded: splits with counts, and the SHA-256 of the rows."""


@dataclass(frozen=True)
class Facts:
    """
    Args:
        directory: of the model, adapter, tokenizer or data set.

    Raises:
        ValueError: for a directory that holds none of those, and for files that cannot be read.
    """

    directory: Path

    @cached_property
    def is_adapter(self) -> bool:
        return (self.directory / "adapter_config.json").is_file()

    @cached_property
    def kind(self) -> Kind:
        if is_export(self.directory):
            raise ValueError(f"{self.directory} is for other engines: its card was made with it, at the export")
        has = {name for name in ("config.json", "tokenizer.json", BUILD) if (self.directory / name).is_file()}
        if self.is_adapter and self.adapter.get("task_type") == "SEQ_CLS":
            return "classifier"
        if self.is_adapter or "config.json" in has:
            if (self.config.get("architectures") or [""])[0].endswith("ForSequenceClassification"):
                return "classifier"
            return "chat model" if "chat_template" in self.arguments or self.is_of_answers else "base model"
        if "tokenizer.json" in has:
            return "tokenizer"
        if BUILD in has:
            return "data set"
        raise ValueError(
            f"{self.directory} holds no model, adapter, tokenizer or built data set: there is no card to it"
        )

    @cached_property
    def is_of_pairs(self) -> bool:
        """Whether it learned from pairs of answers."""
        return "nll_weight" in self.arguments

    @cached_property
    def is_of_rewards(self) -> bool:
        """Whether it learned from answers of its own and a checker."""
        return "steps_per_sampling" in self.arguments

    @property
    def is_of_answers(self) -> bool:
        """Whether it was an assistant before."""
        return self.is_of_pairs or self.is_of_rewards

    @property
    def unit(self) -> str:
        """What it was trained on, in the plural."""
        if self.is_of_answers:
            return "pairs" if self.is_of_pairs else "questions"
        return "conversations" if self.kind == "chat model" else "texts"

    @cached_property
    def trained_by(self) -> str:
        """The command that trains such a model."""
        if self.is_of_rewards:
            return "reinforce"
        return "finetune-preference" if self.is_of_pairs else TRAINED_BY[self.kind]

    @cached_property
    def made_with(self) -> dict[str, Any]:
        """The arguments of the command that wrote this directory alone: an import, export, merge or tokenizer."""
        return read_yaml(self.directory / ARGUMENTS)

    @cached_property
    def made_by(self) -> str:
        """Its name; empty for what a training run wrote."""
        if self.directory.name == "merged" and self.run is not None:
            return "merge"
        return next((command for option, command in MADE_BY.items() if option in self.made_with), "")

    @cached_property
    def run(self) -> Path | None:
        """The directory of the run that trained the weights, if it is there."""
        here = self.directory
        for _ in range(4):  # an export of a merged adapter of …
            made_with = read_yaml(here / ARGUMENTS)
            source = made_with.get("adapter") or ("to" in made_with and made_with["model_name_or_path"])
            if not made_with and here.name in ("final", "merged") and (here.parent / RESULTS).is_file():
                return here.parent
            if not source or not (there := Path(str(source)).expanduser()).is_dir():
                return None
            here = there.absolute()
        return None

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Of the run; of a directory that no run made, its own."""
        return read_yaml(self.run / ARGUMENTS) if self.run else self.made_with

    @cached_property
    def results(self) -> dict[str, Any]:
        return read_json(self.run / RESULTS) if self.run else {}

    @cached_property
    def identity(self) -> dict[str, Any]:
        return self.results.get("identity", {})

    @cached_property
    def eval_split(self) -> str:
        """The split that the results during training are of."""
        return str(self.arguments.get("eval_split") or "validation")

    @cached_property
    def evaluated_on_its_training_rows(self) -> bool:
        """Whether the arguments name the same data and split for both."""
        data, other = self.arguments.get("data"), self.arguments.get("eval_data")
        return data is not None and other in (None, data) and self.arguments.get("train_split") == self.eval_split

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        file = self.run / "metrics.jsonl" if self.run else None
        if file is None or not file.is_file():
            return []
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]

    @cached_property
    def responses(self) -> dict[str, Any]:
        """Scores of the answers to questions of the validation split, of the base and of the tuned model."""
        return read_json(self.run / "responses.json") if self.run else {}

    @cached_property
    def tokenizer_report(self) -> dict[str, Any]:
        return read_json(self.directory / "report.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's configuration; under an adapter, the base's."""
        return read_json(self.directory / "config.json") or self.identity.get("model", {})

    @cached_property
    def adapter(self) -> dict[str, Any]:
        return read_json(self.directory / "adapter_config.json")

    @cached_property
    def title(self) -> str:
        path = Path(str(self.made_with.get("output_dir") or self.directory.absolute()))  # while staged, it has another
        return path.parent.name if path.name == "final" or path.parent == self.run else path.name

    @cached_property
    def labels(self) -> list[str]:
        """Of a classifier."""
        names = self.config.get("id2label", {})
        return [str(names[number]) for number in sorted(names, key=int)]

    @cached_property
    def size(self) -> tuple[int, list[str], int]:
        """Parameters in the weights here, their types, and bytes."""
        return weights_size(self.directory)

    @cached_property
    def weight_bits(self) -> int | None:
        """Of the linear layers of an export that is rounded."""
        return self.made_with.get("weight_bits")

    @cached_property
    def rounding(self) -> dict[str, Any]:
        """What that costs."""
        return read_json(self.directory / ROUNDING)

    @cached_property
    def num_parameters(self) -> int:
        """Of the whole model: under an adapter, with its base."""
        return self.results.get("num_parameters", 0) if self.is_adapter else self.size[0]

    @cached_property
    def sketch(self) -> Sketch | None:
        """Of the training texts of the run."""
        texts = TrainingTexts.read(self.run / "final") if self.run else None
        return texts.sketches[-1] if texts is not None and texts.sketches else None

    @cached_property
    def num_texts(self) -> int:
        """Documents, conversations or pairs that the run trained on; 0 where that is not known."""
        documents = self.sketch.num_documents if self.sketch is not None else 0
        return documents // 2 if self.is_of_pairs else documents  # a pair is two conversations

    @cached_property
    def data(self) -> Data | None:
        """What it was trained on, with what the data's own card says."""
        source = self.arguments.get("data")
        if not source:
            return None
        name, folder = shown(str(source)), Path(str(source)).expanduser()
        hub_name = name if is_hub_name(name, self.directory) else None
        if not folder.is_dir():
            return Data(name, hub_name)
        told = card_data(folder / "README.md")
        license = told.get("license") if told.get("license") != "unknown" else None
        return Data(name, hub_name, license, told.get("language"), read_json(folder / BUILD) or None)

    @cached_property
    def base(self) -> str | None:
        """What it was tuned from, imported from or made of, as it may be shown."""
        names = [self.arguments.get("model_name_or_path")]
        if self.is_adapter:
            names.append(read_json(self.directory / "base.json").get("base"))
        return next((shown(str(name)) for name in names if name), None)

    @cached_property
    def base_on_hub(self) -> str | None:
        """The base's name on the Hub, without a revision, if it has one."""
        # Of an adapter it is the very directory that it was trained on: a copy with new tokens is not on the Hub.
        base = read_json(self.directory / "base.json").get("base") if self.is_adapter else self.base
        name = str(base or "").partition("@")[0]
        return name if is_hub_name(name, self.directory) else None

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """What recipes/evaluate.py measured on these weights, beside or below the directory or its run."""
        folders = {folder.resolve() for folder in (self.directory, self.run) if folder}
        files = {
            file.resolve()
            for folder in folders | {folder.parent for folder in folders}
            for pattern in (RESULTS, f"*/{RESULTS}", f"*/*/{RESULTS}")
            for file in folder.glob(pattern)
        }
        measured = [values for file in sorted(files) if "identities" in (values := read_json(file))]
        own = hash_weight_files(self.directory) if measured else None
        return [
            {name: each for name, each in values.items() if name not in ("model", "identities")}
            for values in measured
            if own is not None and values["model"].get("files") == own
        ]


def is_export(directory: Path) -> bool:
    """Whether `scratchgpt export` wrote it for other engines: a GGUF file, ONNX graphs, or a page for the browser."""
    if (directory / PAGE).is_file():
        return True
    has_weights = any(directory.glob("*.safetensors"))
    return not has_weights and (any(directory.glob("*.gguf")) or (directory / "onnx" / "model.onnx").is_file())


def weights_size(directory: Path) -> tuple[int, list[str], int]:
    """Numbers in the safetensors of a directory, their types, and the bytes of the files; from the headers alone.

    Of layers that bitsandbytes rounded to 4 bits a byte holds two, and what else it keeps of them are no weights.
    """
    files = [file for file in sorted(directory.glob("*model*.safetensors")) if file.is_file()]
    number, types = 0, set()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            names = set(tensors.keys())
            for name in sorted(names):
                if name.endswith((".SCB", ".weight_format")) or ".weight." in name:
                    continue
                tensor = tensors.get_slice(name)
                in_a_byte = 2 if f"{name}.absmax" in names else 1
                number += in_a_byte * math.prod(tensor.get_shape())
                types.add("4 bits" if in_a_byte == 2 else tensor.get_dtype())
    return number, sorted(types), sum(file.stat().st_size for file in files)


def shown(path: str) -> str:
    """A path as a stranger may see it: of an absolute one, or one of a home directory, its end alone.

    Names on the Hub and relative paths stay; so does other text.
    """
    if "\n" in path or not re.match(r"(/|~|\.\./|[A-Za-z]:[\\/])", path):
        return path
    parts = re.split(r"[\\/]", path.rstrip("\\/"))
    return "/".join(parts[-2:] if parts[-1] in ("final", "merged") else parts[-1:]) or path


def without_private_paths(text: str) -> str:
    """`text` with the home and the working directory of who runs this left out."""
    for folder, name in ((Path.cwd(), "."), (Path.home(), "~")):
        if folder != Path(folder.anchor):
            text = re.sub(rf"{re.escape(str(folder))}(?![\w.-])", name, text)
    return text


def private_names(text: str) -> Iterator[str]:
    """What in `text` tells whose machine it was made on: absolute paths to the home or the working directory."""
    for folder in {Path.home(), Path.cwd()}:
        if folder != Path(folder.anchor) and re.search(rf"{re.escape(str(folder))}(?![\w.-])", text):
            yield str(folder)
    user = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    if user and re.search(rf"[/\\](home|Users)[/\\]{re.escape(user)}\b", text):
        yield f"a home directory of {user}"


def card_data(file: Path) -> dict[str, Any]:
    """The metadata of a card; empty where there is none that can be read."""
    try:
        return DatasetCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def read_json(file: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises ValueError where it cannot be read."""
    try:
        values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return values if isinstance(values, dict) else {}


def read_yaml(file: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises ValueError where it cannot be read."""
    try:
        return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.is_file() else {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
