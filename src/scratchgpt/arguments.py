"""What all recipes share: dataclass arguments from a YAML file and the command line, the command line winning."""

import sys
from collections.abc import Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from transformers import HfArgumentParser

Arguments = TypeVar("Arguments")


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default and the help text of `--help`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def parse_arguments(kind: type[Arguments], argv: Sequence[str] | None = None) -> Arguments:
    """`[config.yaml] [--name value …]` → an instance of the dataclass `kind`.

    Args:
        argv: by default the command line's. A first argument that does not begin with a dash is the YAML file.

    Raises:
        ValueError: for a YAML file that is missing, no mapping, or has names that `kind` lacks.
        SystemExit: as argparse does, for a command line that cannot be understood, and after --help.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(cast(Any, kind))
    if arguments and not arguments[0].startswith("-"):
        # As if typed before the rest of the command line: checked in the same way, and what comes later wins.
        arguments = _read_yaml(Path(arguments[0]), kind) + arguments[1:]
    return parser.parse_args_into_dataclasses(arguments, look_for_args_file=False)[0]


def _read_yaml(file: Path, kind: type) -> list[str]:
    """The content of `file` as command line arguments."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): the first argument is a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold `name: value` lines")
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(map(str, values)) - set(known)):
        raise ValueError(f"{file} has unknown names {unknown}; known are {known}")
    arguments: list[str] = []
    for name, value in values.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        elif value is not None:
            arguments.append(f"--{name}={value}")
    return arguments
