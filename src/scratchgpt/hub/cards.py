"""Cards: the README.md of a model, adapter, tokenizer or data set, made from its files and those of its run.

    write_card(Path("runs/mine/final"))
    check_card(Path("runs/mine/final"))      # what is missing or wrong, without the network

No number in a card is typed. A card that was made here ends in a line with a hash of the rest: while that is right,
the card is made anew whenever there is more to say (`scratchgpt card`); one that somebody has edited stays as it is.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    DatasetCardData,
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)

from .card_facts import BUILD, Facts, private_names, read_json, without_private_paths
from .card_sections import PICTURES, body, measurements
from .markdown import table
from .staging import replaced_file

CARD = "README.md"

PLACEHOLDER = "OWNER/NAME"
"""In the place of a name on the Hub that there is not yet."""

END = "\n\n<!-- Made by scratchgpt from the files beside it. Edit it, and it is not made anew. {} -->\n"

FORM = "[More Information Needed]"
"""In the cards that peft writes, which are forms to fill in."""


def write_card(directory: Path, repo_id: str | None = None) -> Path:
    """Makes README.md, with the pictures that it shows and `.eval_results/` for the Hub. A user's card is left alone.

    A model whose run is no longer beside it keeps the card that it has, which says more.

    Args:
        repo_id: owner/name on the Hub, for the examples; default: a placeholder.

    Returns:
        The card.

    Raises:
        ValueError: for a directory that holds nothing to write a card about, and for files that cannot be read.
    """
    file, facts = directory / CARD, Facts(directory)
    text = card_text(directory, repo_id)
    if file.is_file():
        before = file.read_text(encoding="utf-8")
        if not is_own(before) or ("\n## Training\n" in before and "\n## Training\n" not in text):
            return file
    if facts.kind not in ("tokenizer", "data set"):
        for name in PICTURES:
            if facts.run and (facts.run / name).is_file():
                shutil.copyfile(facts.run / name, directory / name)
        for suite, entry in _entries(facts):
            target = directory / ".eval_results" / f"{suite}.yaml"
            with replaced_file(target) as new:
                new.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry])), encoding="utf-8")
    with replaced_file(file) as new:
        new.write_text(text, encoding="utf-8")
    return file


def keep_card(directory: Path, new: Path) -> None:
    """Copies a user's card from `directory` to `new`, which is about to take its place."""
    file = directory / CARD
    if file.is_file() and not is_own(file.read_text(encoding="utf-8")):
        shutil.copyfile(file, new / CARD)


def card_text(directory: Path, repo_id: str | None = None) -> str:
    """The card as `write_card` writes it. Raises ValueError as `write_card`."""
    facts = Facts(directory)
    if facts.kind == "data set":
        text = _data_set_card(directory)
    else:
        text = f"---\n{metadata(facts).to_yaml()}\n---\n\n{body(facts, repo_id or PLACEHOLDER)}"
    return signed(without_private_paths(text))


def signed(text: str) -> str:
    """A card with the line at its end that says that nobody has edited it."""
    return text + END.format(_hash(text))


def is_own(text: str) -> bool:
    """Whether a card was made here, and nobody has edited it since."""
    beginning, end = END.split("{}")
    start, _, rest = text.rpartition(beginning)
    return bool(start) and rest == _hash(start) + end


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Metadata


def metadata(facts: Facts) -> ModelCardData:
    """What the Hub reads. What is not known is left out."""
    data = facts.data
    of_classifiers: list[str] = ["accuracy", "f1", "matthews_correlation"]
    metrics = {"classifier": of_classifiers, "tokenizer": []}.get(facts.kind, ["perplexity"])
    metrics = ["accuracy"] if facts.is_of_answers else metrics  # the share of pairs or questions that are right
    relation = {"merge": "merge", "import-gpt2": None}.get(facts.made_by, "finetune")
    relation = "adapter" if facts.is_adapter else relation
    relation = "quantized" if facts.weight_bits is not None and facts.run is None else relation
    tasks = {"classifier": "text-classification", "tokenizer": None}
    known: dict[str, Any] = {
        "base_model": facts.base_on_hub,
        "base_model_relation": relation if facts.base_on_hub else None,
        "datasets": [data.hub_name] if data and data.hub_name else None,
        "language": data.language if data else None,
        "library_name": "peft" if facts.is_adapter else "transformers",
        "metrics": metrics if facts.results and metrics else None,
        "pipeline_tag": tasks.get(facts.kind, "text-generation"),
        "tags": ["scratchgpt", facts.kind.replace(" ", "-"), *(["lora"] if facts.is_adapter else [])],
    }
    found = list(_eval_results(facts))
    return ModelCardData(model_name=facts.title, eval_results=found or None, **known)


def _eval_results(facts: Facts) -> Iterator[EvalResult]:
    """For `model-index`."""
    task = "text-classification" if facts.kind == "classifier" else "text-generation"
    split = facts.results.get("evaluated_on") or facts.arguments.get("eval_split") or "validation"
    measured = facts.results.get(facts.results.get("evaluated_on", "final"), {})
    data = facts.data
    names = ("bits_per_byte", "perplexity", "ranked_right", "reward", "right", "loss")
    names = ("accuracy", "f1", "mcc") if facts.kind == "classifier" else names
    scores = {name: measured[name] for name in names if name in measured}
    scores |= {name: facts.responses["tuned"][name] for name in ("rouge_l", "exact_stop_rate") if facts.responses}
    name = data.name if data else facts.title
    for metric, value in scores.items():
        yield EvalResult(
            task_type=task,
            dataset_type=(data.hub_name if data else None) or _slug(name),
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_name=metric.replace("_", " "),
            metric_value=value,
        )
    for evaluation in facts.evaluations:
        for suite, metric, found in measurements(evaluation):
            yield EvalResult(
                task_type=task,
                dataset_type=found.get("dataset") or _slug(suite),
                dataset_name=suite,
                metric_type=metric,
                metric_name=metric.replace("_", " "),
                metric_value=found["value"],
                metric_args={"signature": found["signature"], "count": found["count"]},
            )


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-").lower() or "text"


def _entries(facts: Facts) -> Iterator[tuple[str, EvalResultEntry]]:
    """For `.eval_results/`: the first metric of each suite that is a data set of the Hub."""
    for evaluation in facts.evaluations:
        seen = set()
        for suite, metric, found in measurements(evaluation):
            if found.get("dataset") and suite not in seen:
                seen.add(suite)
                notes = f"{metric}, n = {found['count']:,}; {found['signature']}"
                yield suite, EvalResultEntry(found["dataset"], found["task"], found["value"], notes=notes)


def _data_set_card(directory: Path) -> str:
    """Of a built data set that has lost the card of its builder."""
    build = read_json(directory / BUILD)
    parts = build if "splits" not in build else {"": build}
    data = DatasetCardData(pretty_name=directory.absolute().name, tags=["scratchgpt"])
    rows = [
        [f"{name} {split}".strip(), f"{count['rows']:,}", f"{count['documents']:,}", f"{count['characters']:,}"]
        for name, part in parts.items()
        for split, count in part["splits"].items()
    ]
    hashes = "\n".join(f"- `{part['sha256']}` {name}".rstrip() for name, part in parts.items())
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {directory.absolute().name}\n\nBuilt by `scratchgpt data "
        f"{str(next(iter(parts.values())).get('builder', '…')).replace('_', '-')}`.\n\n## Content\n\n"
        f"{table(['split', 'rows', 'documents', 'characters'], rows)}\n\nSHA-256 of the rows:\n\n{hashes}"
    )


# Checks


def check_card(directory: Path) -> list[str]:
    """What is missing in a card or wrong with it, a line each; empty where it can be published. Offline."""
    file, facts = directory / CARD, Facts(directory)
    if not file.is_file():
        return [f"{CARD} is missing: scratchgpt card {directory} makes one"]
    text = file.read_text(encoding="utf-8")
    wrong = []
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        return [f"the metadata of {CARD} cannot be read: {' '.join(str(error).split())}"]
    wanted = {"data set": ["pretty_name"], "tokenizer": ["library_name"]}
    for name in wanted.get(facts.kind, ["library_name", "pipeline_tag"]):
        if not data.get(name):
            wrong.append(f"{CARD} has no {name} in its metadata")
    if facts.is_adapter and not data.get("base_model"):
        wrong.append(
            f"{CARD} names no base_model: the base {facts.base or ''} has no name on the Hub; publish it, and give "
            "that name as base_model in the metadata"
        )
    if FORM in text:
        wrong.append(f"{CARD} is peft's form, not filled in: delete it, and scratchgpt card {directory} makes a card")
    wrong += [
        f"{CARD} shows {name}, which is not there"
        for name in re.findall(r"!\[[^\]]*\]\(([^):]+)\)", text)
        if not (directory / name).is_file()
    ]
    wrong += [f"{CARD} names {private}, which says whose machine it was" for private in private_names(text)]
    return wrong
