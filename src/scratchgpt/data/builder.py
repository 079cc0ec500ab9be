"""What every data builder does: rows → a `datasets.DatasetDict` with a data set card, there whole or not at all.

A built folder holds what `save_to_disk` writes, `README.md` (the card) and `build.json` (how it was built, counts, and
the SHA-256 of the rows). Nothing in it depends on the time, the machine or the path: the same input and arguments
give the same bytes.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset, DatasetDict, DatasetInfo, Features, NamedSplit, Value
from huggingface_hub import DatasetCardData

from ..arguments import option, parse_arguments, required, to_yaml
from ..hub.staging import check_output, staged_directory

MARKER = "build.json"
"""A directory without this file is never replaced."""


@dataclass(kw_only=True)
class BuilderArguments:
    """The options that every builder has; each adds its own."""

    HELP_GROUPS = {"output_dir": "Output"}

    output_dir: str = required("Where the data set goes.")
    seed: int = option(0, "Decides which documents go to which split.", at_least=0)
    overwrite: bool = option(False, "Replace an earlier build in output_dir.")
    dry_run: bool = option(False, "Build without writing: the arguments as a YAML file, and what would be there.")


@dataclass(kw_only=True)
class Built:
    """A data set, ready to be written."""

    title: str
    description: str
    """Markdown for the card: what it is, where it comes from, what was decided."""
    data: DatasetDict
    license: str = "unknown"
    """As in the Hub's list; "unknown" where it is the reader's own text."""
    task: str = "text-generation"
    """As in the Hub's list of task categories."""
    language: str | None = None
    """As a code ("en"); None where the builder cannot know."""
    build: dict[str, Any]
    """What `build.json` says of how it was built: settings that matter, counts of what was left out."""


TEXTS = Features({"text": Value("string"), "source": Value("string")})


def make_dataset(splits: Mapping[str, list[dict[str, Any]]], features: Features = TEXTS) -> DatasetDict:
    """The rows of each split as a data set whose fingerprint is a hash of their content."""
    data = {}
    for split, rows in splits.items():
        table = Dataset.from_list(rows, features=features).data
        digest = hashlib.sha256(repr(features).encode())
        for row in rows:
            digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n")
        info = DatasetInfo(features=features)
        data[split] = Dataset(table, info=info, split=NamedSplit(split), fingerprint=digest.hexdigest())
    return DatasetDict(data)


def fingerprint(data: DatasetDict) -> str:
    """SHA-256 over the rows of all splits, as hexadecimal digits."""
    return hashlib.sha256("".join(f"{name} {data[name]._fingerprint}\n" for name in data).encode()).hexdigest()


def counts(data: DatasetDict) -> dict[str, dict[str, int]]:
    """Of each split: rows, documents (distinct sources) and characters of text."""
    return {
        str(name): {
            "rows": len(split),
            "documents": len(set(split["source"])),
            "characters": sum(_characters(split[name]) for name in CONTENT if name in split.features),
        }
        for name, split in data.items()
    }


CONTENT = ("text", "messages", "prompt", "chosen", "rejected")
"""Columns of text or messages."""


def _characters(texts: Sequence[str | list[dict[str, str]]]) -> int:
    return sum(
        len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text) for text in texts
    )


def table(data: DatasetDict) -> str:
    """`counts` in Markdown."""
    lines = ["| split | rows | documents | characters |", "| --- | ---: | ---: | ---: |"]
    for name, count in counts(data).items():
        lines.append(f"| {name} | {count['rows']:,} | {count['documents']:,} | {count['characters']:,} |")
    return "\n".join(lines)


def card(built: Built) -> str:
    """The data set card: metadata for the Hub, then what a reader wants to know."""
    metadata = DatasetCardData(
        language=built.language,
        license=built.license,
        pretty_name=built.title,
        task_categories=[built.task],
        tags=["scratchgpt"],
    )
    columns = ", ".join(f"`{name}`" for name in next(iter(built.data.values())).column_names)
    return (
        f"---\n{metadata.to_yaml()}\n---\n\n# {built.title}\n\n{built.description.strip()}\n\n"
        f"## Content\n\n{table(built.data)}\n\nColumns: {columns}.\n\n"
        f'```python\nfrom datasets import load_from_disk\n\ndata = load_from_disk("this folder")\n```\n\n'
        f"SHA-256 of the rows: `{fingerprint(built.data)}`\n"
    )


Kind = TypeVar("Kind", bound=BuilderArguments)


def run_builder(
    kind: type[Kind], build: Callable[[Kind], Built | Mapping[str, Built]], argv: Sequence[str] | None
) -> None:
    """The whole of a builder: its arguments, checked; what `build` makes of them; and `finish`."""
    arguments = parse_arguments(kind, argv)
    check_arguments(arguments)
    built = build(arguments)
    finish(arguments, {"": built} if isinstance(built, Built) else built)


def finish(arguments: BuilderArguments, parts: Mapping[str, Built]) -> None:
    """Prints what was built and, unless it is a dry run, writes it.

    In a dry run standard output is a YAML file that the builder takes; the rest is on standard error.

    Args:
        parts: by the name of the subfolder; one data set under the name "" is the output directory itself.

    Raises:
        ValueError: when the output directory is in use (see `hub.staging.check_output`), before anything is written.
    """
    if arguments.dry_run:
        print(to_yaml(arguments), end="")
    else:
        _write(arguments, parts)
    for name, built in parts.items():
        say(arguments, f"\n{built.title}: {Path(arguments.output_dir) / name}\n\n{table(built.data)}")
        say(arguments, f"\nSHA-256 of the rows: {fingerprint(built.data)}")
    if arguments.dry_run:
        say(arguments, "\nA dry run: nothing was written.")


def say(arguments: BuilderArguments, text: str) -> None:
    """Prints `text` for people: on standard error in a dry run, whose standard output is YAML."""
    print(text, file=sys.stderr if arguments.dry_run else sys.stdout)


def _write(arguments: BuilderArguments, parts: Mapping[str, Built]) -> None:
    with staged_directory(arguments.output_dir, arguments.overwrite, MARKER) as folder:
        for name, built in parts.items():
            built.data.save_to_disk(folder / name)
            (folder / name / "README.md").write_text(card(built), encoding="utf-8")
            _write_json(folder / name / MARKER, _record(arguments, built))
        if "" not in parts:
            _write_json(folder / MARKER, {name: _record(arguments, built) for name, built in parts.items()})


def _record(arguments: BuilderArguments, built: Built) -> dict[str, Any]:
    return {"seed": arguments.seed, **built.build, "splits": counts(built.data), "sha256": fingerprint(built.data)}


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_arguments(arguments: BuilderArguments) -> None:
    """Makes sure, before any work, that the result can be written.

    Raises:
        ValueError: as `hub.staging.check_output`.
    """
    if not arguments.dry_run:
        check_output(arguments.output_dir, arguments.overwrite, MARKER)
