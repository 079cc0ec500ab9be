"""arguments.py: a YAML file, a command line that wins over it, bounds, and mistakes in one line."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.arguments import (
    RecipeArguments,
    check,
    option,
    parse_arguments,
    required,
    run_recipe,
    to_yaml,
    write_arguments,
)
from scratchgpt.data.builder import BuilderArguments
from scratchgpt.training.arguments import TrainingArguments


@dataclass
class Example:
    name: str
    size: int = 1
    rate: float | None = None
    verbose: bool = False
    words: list[str] = field(default_factory=lambda: ["a"])


@dataclass
class Recipe(RecipeArguments):
    name: str = required("What it is called.")
    size: int = option(1, "How large.", at_least=1)
    rate: float | None = option(None, "How fast.", above=0, at_most=10)
    share: float = option(0.5, "How much.", at_least=0, below=1)
    verbose: bool = option(True, "Say more.")
    colour: Literal["red", "no"] = option("red", "Which.")
    note: str | None = option("x", "Anything.")
    words: list[str] = option(["a"], "Some.")
    overwrite: bool = option(False, "Replace.")


def write(folder: Path, text: str) -> str:
    (folder / "example.yaml").write_text(text, encoding="utf-8")
    return str(folder / "example.yaml")


def test_command_line_wins_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "name: -from yaml\nsize: 2\nrate: 1e-3\nverbose: true\nwords: [x, y]\n")
    assert parse_arguments(Example, [file]) == Example("-from yaml", 2, 1e-3, True, ["x", "y"])
    assert parse_arguments(Example, [file, "--size", "3", "--words", "z"]) == Example(
        "-from yaml", 3, 1e-3, True, ["z"]
    )
    assert parse_arguments(Example, ["--name", "b"]) == Example("b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sise: 2", "unknown option sise: did you mean size?"),
        ("- 1", "name: value"),
        ("a: [", "not YAML"),
        ("", "name: value"),
        ("size: 1\nsize: 2", "has size twice"),
        ("size:", "size has no value"),
        ("size: [1, 2]", "size takes one value"),
        ("words: {a: b}", "words takes one value"),
        ("words: [a, null]", "words has no single value in line 1"),
        ("name: a\nsize: large", "argument --size: invalid int value: 'large'"),
        ("name: a\ncolour: off", "argument --colour: invalid choice: 'off'"),
        ("name: a\nsize: 0", "size=0: it must be at least 1"),
    ],
)
def test_a_bad_yaml_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        parse_arguments(Recipe, [write(tmp_path, content)])


def test_a_missing_file_an_unknown_option_and_half_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        parse_arguments(Example, [str(tmp_path / "none.yaml")])
    with pytest.raises(ValueError, match=r"unknown option --verbos: did you mean verbose\?"):
        parse_arguments(Example, ["--name=a", "--verbos"])  # argparse would take it for --verbose
    with pytest.raises(ValueError, match=r"unknown option --hlep: did you mean help\?"):
        parse_arguments(Example, ["--name=a", "--hlep"])
    with pytest.raises(ValueError, match="--name is missing: What it is called"):
        parse_arguments(Recipe, ["--size=2"])


def test_values_in_yaml_mean_what_they_mean_on_the_command_line(tmp_path: Path) -> None:
    """Through YAML's own types they became False, [] as text, 750, 7 and True."""
    file = write(
        tmp_path, "name: no\ncolour: no\nnote: 12:30\nwords: [Yes, 007, off, ~x, 1.0, 2024-01-01, '']\nverbose: off\n"
    )
    found = parse_arguments(Recipe, [file])
    assert (found.name, found.colour, found.note, found.verbose) == ("no", "no", "12:30", False)
    assert found.words == ["Yes", "007", "off", "~x", "1.0", "2024-01-01", ""]
    empty = parse_arguments(Recipe, [write(tmp_path, "name: '[]'\nwords: []\nnote: null\nrate: ~\nsize: 007")])
    assert (empty.name, empty.words, empty.note, empty.rate, empty.size) == ("[]", [], None, None, 7)


# ~/ in a file is the home directory.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda text: not text.startswith("~/"))
TRICKY = st.sampled_from(["no", "off", "Yes", "[]", "null", "~", "12:30", "007", "1e3", "-x", "--size", " a ", "a: b"])


@given(
    st.builds(
        Recipe,
        name=TEXT.filter(bool) | TRICKY,
        size=st.integers(1),
        rate=st.none() | st.floats(0, 10, exclude_min=True),
        share=st.floats(0, 1, exclude_max=True),
        verbose=st.booleans(),
        colour=st.sampled_from(["red", "no"]),
        note=st.none() | TEXT.filter(bool) | TRICKY,
        words=st.lists(TEXT | TRICKY, max_size=4),
    )
)
def test_what_is_printed_can_be_given_back(tmp_path_factory, arguments: Recipe) -> None:
    file = write(tmp_path_factory.getbasetemp(), to_yaml(arguments))
    assert parse_arguments(Recipe, [file]) == arguments


def test_dry_run_prints_what_the_recipe_takes_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(Recipe, ["--name=no", "--words", "x", "007", "--dry_run"])
    assert not stopped.value.code
    printed = capsys.readouterr().out
    assert parse_arguments(Recipe, [write(tmp_path, printed)]) == Recipe(name="no", words=["x", "007"])


def test_a_run_keeps_its_arguments_but_not_how_it_was_started(tmp_path: Path) -> None:
    arguments = Recipe(name="a", overwrite=True, rate=1e-7)
    write_arguments(arguments, tmp_path)
    assert not {"overwrite", "dry_run"} & yaml.safe_load((tmp_path / "arguments.yaml").read_text()).keys()
    assert parse_arguments(Recipe, [str(tmp_path / "arguments.yaml")]) == Recipe(name="a", rate=1e-7)


def test_what_is_published_names_no_absolute_path(tmp_path: Path) -> None:
    """A disk beside the home directory counts too, and what is written leads there still."""
    write_arguments(Recipe(name=str(tmp_path / "there")), tmp_path, published=True)
    name = yaml.safe_load((tmp_path / "arguments.yaml").read_text())["name"]
    assert not Path(name).is_absolute()
    assert Path(name).resolve() == (tmp_path / "there").resolve()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": float("inf")}, "rate=inf: it must be finite, above 0 and at most 10"),
        ({"rate": float("nan")}, "rate=nan: it must be finite, above 0 and at most 10"),
        ({"rate": 0}, "rate=0: it must be above 0 and at most 10"),
        ({"rate": 1e38}, r"rate=1e\+38: it must be above 0 and at most 10"),
        ({"share": 1}, "share=1: it must be at least 0 and below 1"),
        ({"share": -0.1}, "share=-0.1: it must"),
        ({"name": ""}, "--name is missing"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_range(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"name": "a", **changed})
    check(Recipe(name="a", rate=10, share=0))


def test_help_shows_types_bounds_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(Recipe, ["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "--rate FLOAT How fast. (above 0 and at most 10; default: none)" in printed
    assert "--name TEXT What it is called. (required)" in printed
    assert "--verbose [true|false] Say more. (default: true)" in printed
    assert "--words TEXT [TEXT ...] Some. (default: a)" in printed


def test_what_the_help_leaves_out_is_still_understood() -> None:
    assert parse_arguments(Recipe, ["--name=a", "--no_verbose"]) == Recipe(name="a", verbose=False)
    assert parse_arguments(Recipe, ["--name=a", "--no-verbose"]) == Recipe(name="a", verbose=False)
    assert parse_arguments(BuilderArguments, ["--output-dir", "a"]) == BuilderArguments(output_dir="a")


SCRIPT = """
from scratchgpt.arguments import run_recipe
def main():
    raise {error}
run_recipe(main)
"""


def test_an_empty_text_is_a_mistake() -> None:
    """`--output_dir ""` (a variable that was never set) meant the folder one happened to be in."""
    with pytest.raises(ValueError, match=r"^--output_dir is empty: give a value, or leave it out$"):
        parse_arguments(TrainingArguments, ["--output_dir", ""])


@pytest.mark.parametrize(
    ("error", "flags", "code", "lines"),
    [
        ("ValueError('first\\n  second')", [], 2, "first second"),
        ("FileNotFoundError(2, 'No such file', 'x.txt')", [], 2, "[Errno 2] No such file: 'x.txt'"),
        ("ValueError('x')", ["-X", "dev"], 1, None),
        ("KeyError('x')", [], 1, None),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(error: str, flags: list[str], code: int, lines: str | None) -> None:
    run = subprocess.run(
        [sys.executable, *flags, "-c", SCRIPT.format(error=error)], capture_output=True, text=True, check=False
    )
    assert run.returncode == code
    assert (run.stderr.splitlines() == [f"-c: {lines}"]) if lines else ("Traceback" in run.stderr)


def test_nothing_wrong_is_left_alone() -> None:
    called = []
    run_recipe(lambda: called.append(1))
    assert called == [1]


def test_a_list_given_again_goes_on(tmp_path: Path) -> None:
    """What is given replaces the default, or the file's, once; it kept only the last before."""

    @dataclass
    class Lists:
        words: list[str] = option(["a"], "Some.")

    assert parse_arguments(Lists, [], "").words == ["a"]
    assert parse_arguments(Lists, ["--words", "b", "--words", "c", "d", "--words=e"], "").words == ["b", "c", "d", "e"]
    (tmp_path / "x.yaml").write_text("words: [f, g]")
    assert parse_arguments(Lists, [str(tmp_path / "x.yaml")], "").words == ["f", "g"]
    assert parse_arguments(Lists, [str(tmp_path / "x.yaml"), "--words", "h", "--words", "i"], "").words == ["h", "i"]
    assert parse_arguments(Lists, [], "").words == ["a"]
