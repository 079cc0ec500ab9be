"""What all recipes share: their options, with defaults, help and bounds; a YAML file and the command line; errors.

A recipe's options are a dataclass. `parse_arguments` fills it from `[config.yaml] [--name value …]`, the command line
winning; `run_recipe` turns a user's mistake into one line and exit code 2.

A value in the YAML file means what it would mean on the command line: the option's type decides, not YAML. So `no` is
text where the option holds text and false where it is a switch, and `007` and `12:30` stay as they are.
"""

import difflib
import math
import os
import shlex
import signal
import sys
from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg

Arguments = TypeVar("Arguments")

ARGUMENTS_FILE = "arguments.yaml"

NOT_PART_OF_A_RUN = ("dry_run", "overwrite", "resume_from_checkpoint")
"""Options that say how a run is started. They are not kept in arguments.yaml, from which it could be started again."""

HEADINGS = (
    *("Data", "Teacher", "Filters", "Splits", "Model", "Tokenizer", "Tuning", "Continued pretraining", "Training"),
    *("Optimizer", "Answers", "Speed and memory", "Evaluation", "Output", "Logging"),
)
"""Headings of `--help`, in order. HELP_GROUPS of a dataclass says which option is the first below which of them."""

EXIT_MISTAKE = 2
"""Exit code for a mistake of the user's: arguments, files or data that cannot be used."""


@dataclass(frozen=True)
class Bounds:
    """Which numbers an option can have; never infinity or NaN."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allow(self, value: float) -> bool:
        low = (self.at_least is None or value >= self.at_least) and (self.above is None or value > self.above)
        high = (self.at_most is None or value <= self.at_most) and (self.below is None or value < self.below)
        return math.isfinite(value) and low and high

    def in_words(self) -> str:
        parts = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        return " and ".join(f"{words} {number:,.10g}" for words, number in parts if number is not None)


def option(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a default, the help text of `--help`, and for a number its bounds (see `check`)."""
    bounds = Bounds(at_least, above, at_most, below)
    metadata = {} if bounds == Bounds() else {"bounds": bounds}
    if isinstance(default, list):
        return HfArg(default_factory=lambda: list(default), help=help, metadata=metadata)
    return HfArg(default=default, help=help, metadata=metadata)


def required(help: str) -> Any:
    """A dataclass field of text that has to be given."""
    return option("", help)


def check(arguments: Any) -> None:
    """Checks the options of a dataclass one by one.

    Raises:
        ValueError: for an option declared as `required` that is missing, an empty text, and a number outside of its
            bounds.
    """
    for field in fields(arguments):
        value: Any = vars(arguments)[field.name]
        bounds = field.metadata.get("bounds")
        if field.default == "" and not value:
            raise ValueError(f"--{field.name} is missing: {field.metadata['help']}")
        if value == "":  # a path, mostly, which would be the folder one happens to be in
            raise ValueError(f"--{field.name} is empty: give a value, or leave it out")
        if bounds is not None and value is not None and not bounds.allow(value):
            finite = "" if math.isfinite(value) else "finite, "
            raise ValueError(f"{field.name}={value}: it must be {finite}{bounds.in_words()}")


@dataclass(kw_only=True)
class RecipeArguments:
    """What every recipe's arguments inherit. Raises ValueError as `check`."""

    dry_run: bool = option(False, "Print the arguments as a YAML file that the recipe takes, and stop.")

    def __post_init__(self) -> None:
        check(self)


class _Extend(Action):
    """Of an option with several values: what is given replaces the default, and what is given again is added."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = vars(namespace).get(self.dest)
        setattr(namespace, self.dest, list(values) if before is self.default else [*before, *values])


class _Parser(HfArgumentParser):
    """Its help is the docstring of the recipe, which begins with examples; then the options, each once."""

    def __init__(self, kind: type, description: str | None, prog: str | None = None):
        self.heading_of = headings(kind)
        self.groups: dict[str, Any] = {}
        super().__init__(
            cast(Any, kind),
            prog=prog,
            usage="%(prog)s [config.yaml] [--name value ...]",
            description=description or sys.modules[kind.__module__].__doc__,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(self, *names: str, **kwargs: Any) -> Action:
        """HfArgumentParser calls it with a field's metadata, and a second time for --no_x, which says --x false."""
        if names[0] == "-h":
            return super().add_argument(*names, **kwargs)
        if kwargs.get("action") == "store_false":
            kwargs["help"] = SUPPRESS
        else:
            kwargs["help"] = _help(kwargs.get("help", ""), kwargs.pop("bounds", None), kwargs.get("default"))
            if kwargs.get("nargs") == "+":
                kwargs["action"] = _Extend
            if "choices" not in kwargs:
                kwargs["metavar"] = {int: "INT", float: "FLOAT", str: "TEXT"}.get(kwargs["type"], "true|false")
        self.groups = self.groups or {heading: self.add_argument_group(heading) for heading in HEADINGS}
        heading = self.heading_of.get(names[0].removeprefix("--"))
        action = (
            self.groups[heading].add_argument(*names, **kwargs) if heading else super().add_argument(*names, **kwargs)
        )
        action.option_strings = names[:1]  # the help shows one of the names; all are understood
        return action

    def error(self, message: str) -> NoReturn:
        """Instead of the whole usage, which is longer than a screen."""
        raise ValueError(f"{message} (--help lists all options)")


def headings(kind: Any) -> dict[str, str | None]:
    """Which heading of `--help` each option of a dataclass has; None: that of --help itself."""
    begins: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        begins |= vars(parent).get("HELP_GROUPS", {})
    heading, found = None, {}
    for field in fields(kind):
        heading = found[field.name] = begins.get(field.name, heading)
    return found


def _help(text: str, bounds: Bounds | None, default: Any) -> str:
    """What `--help` says of an option: its text, its bounds and its default."""
    if default in (None, []):
        shown = "" if "default" in text.lower() else "default: none"
    elif isinstance(default, bool):
        shown = f"default: {str(default).lower()}"
    else:
        shown = f"default: {shlex.join(default) if isinstance(default, list) else default}"
    notes = [bounds.in_words() if bounds else "", "required" if default == "" else shown.replace("%", "%%")]
    return f"{text} ({'; '.join(filter(None, notes))})".removesuffix(" ()")


def parse_arguments(
    kind: type[Arguments],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    prog: str | None = None,
) -> Arguments:
    """`[config.yaml] [--name value …]` → an instance of the dataclass `kind`.

    Args:
        argv: by default the command line's. A first argument that does not begin with a dash is the YAML file.
        description: what --help begins with; default: the docstring of the module of `kind`.
        prog: what the usage calls it; default: the name of the script.

    Raises:
        ValueError: for a YAML file that cannot be read, options that `kind` lacks, and values that cannot be.
        SystemExit: after --help, and after --dry_run for a `RecipeArguments`.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(kind, description, prog)
    if given and not given[0].startswith("-"):
        # Values as if typed before the rest of the command line: checked in the same way, and what comes later wins.
        # Lists and nothing (null) as defaults, because an empty list or nothing cannot be typed.
        values, defaults = _read_yaml(Path(given[0]), kind)
        parser.set_defaults(**defaults)
        given = values + given[1:]
    # Looked at before missing options, since a missing one is often misspelt.
    if unknown := parser.parse_known_args(given)[1]:
        raise ValueError(f"unknown option {unknown[0]}{_guess(unknown[0].lstrip('-').partition('=')[0], kind)}")
    (arguments,) = parser.parse_args_into_dataclasses(given, look_for_args_file=False)
    check(arguments)
    if isinstance(arguments, RecipeArguments) and arguments.dry_run:
        print(to_yaml(arguments), end="")
        sys.exit()
    return cast(Any, arguments)


def to_yaml(arguments: Any) -> str:
    """A YAML file from which `parse_arguments` makes the same arguments, but for a dry run."""
    return _dump({name: value for name, value in asdict(arguments).items() if name != "dry_run"})


class _Dumper(yaml.SafeDumper):
    def represent_str(self, data: str) -> yaml.Node:
        """Line breaks that only YAML 1.1 knows would be read back as others, unless they are escaped."""
        style = '"' if set(data) & {"\x85", "\u2028", "\u2029"} else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _dump(values: dict[str, Any]) -> str:
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=119)


def shortened_path(value: Any) -> Any:
    """An absolute path below the working directory relative to it, one below the home directory as ~/…"""
    if not isinstance(value, str) or not os.path.isabs(value):
        return value
    for folder, prefix in ((Path.cwd(), Path()), (Path.home(), Path("~"))):
        if folder != Path(folder.anchor) and Path(value).is_relative_to(folder):
            return (prefix / Path(value).relative_to(folder)).as_posix()
    return value


def write_arguments(arguments: Any, directory: str | os.PathLike[str], published: bool = False) -> None:
    """Writes `arguments.yaml`, from which the recipe does the same again.

    It may be shared with the results: see `shortened_path` for its paths.

    Args:
        published: whether the directory goes to the Hub as it is, where no absolute path may: all are made relative.
    """
    kept = {name: value for name, value in asdict(arguments).items() if name not in NOT_PART_OF_A_RUN}
    values = {name: shortened_path(value) for name, value in kept.items()}
    if published:
        values = {
            name: Path(os.path.relpath(value)).as_posix() if isinstance(value, str) and os.path.isabs(value) else value
            for name, value in values.items()
        }
    text = f"# Given to the recipe again, this reproduces the run.\n{_dump(values)}"
    (Path(directory) / ARGUMENTS_FILE).write_text(text, encoding="utf-8")


def run_recipe(main: Callable[[], object]) -> None:
    """Calls `main`. A mistake of the user's (ValueError, OSError) becomes one line on standard error and exit code 2,
    Ctrl-C (before training, which has its own way) one line and exit code 130.

    In Python's development mode (`python -X dev recipes/…`) the traceback is shown as well.
    """
    try:
        main()
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode:
            raise
        print(f"{Path(sys.argv[0]).name}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _guess(name: str, kind: type) -> str:
    close = difflib.get_close_matches(name, ["help", *(field.name for field in fields(cast(Any, kind)))], n=1)
    return f": did you mean {close[0]}?" if close else " (--help lists all options)"


def _read_yaml(file: Path, kind: type) -> tuple[list[str], dict[str, Any]]:
    """The content of `file`: single values as command line arguments; lists, and None, by their names."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): the first argument is a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{file} must hold `name: value` lines")
    hints, values, defaults = get_type_hints(kind), [], {}
    seen: set[str] = set()
    for key, node in root.value:
        name = str(key.value)
        if name not in hints:
            raise ValueError(f"{file}: unknown option {name}{_guess(name, kind)}")
        if name in seen:
            raise ValueError(f"{file} has {name} twice: leave one out")
        seen.add(name)
        kinds = (hints[name], *get_args(hints[name]))
        if _is_null(node):
            if type(None) not in kinds:
                raise ValueError(f"{file}: {name} has no value: give one, or leave the line out")
            defaults[name] = None
        elif isinstance(node, yaml.ScalarNode):
            values.append(f"--{name}={_bool_or_text(node) if bool in kinds else _expanded(node.value)}")
        elif isinstance(node, yaml.SequenceNode) and list[str] in kinds:
            if wrong := [item for item in node.value if _is_null(item) or not isinstance(item, yaml.ScalarNode)]:
                raise ValueError(f"{file}: {name} has no single value in line {wrong[0].start_mark.line + 1}")
            defaults[name] = [item.value for item in node.value]
        else:
            raise ValueError(f"{file}: {name} takes one value")
    return values, defaults


def _expanded(text: str) -> str:
    """~/ as a shell would read it on the command line."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _bool_or_text(node: yaml.ScalarNode) -> str:
    """Also on and off, which are switches in YAML and not on the command line."""
    is_bool = node.tag == "tag:yaml.org,2002:bool"
    return str(yaml.SafeLoader.bool_values[node.value.lower()]) if is_bool else node.value
