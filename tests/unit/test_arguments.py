"""arguments.py: a YAML file, and a command line that wins over it."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scratchgpt.arguments import parse_arguments


@dataclass
class Example:
    name: str
    size: int = 1
    rate: float | None = None
    verbose: bool = False
    words: list[str] = field(default_factory=lambda: ["a"])


def test_command_line_wins_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text("name: -from yaml\nsize: 2\nrate: 1e-3\nverbose: true\nwords: [x, y]\n")
    assert parse_arguments(Example, [str(file)]) == Example("-from yaml", 2, 1e-3, True, ["x", "y"])
    assert parse_arguments(Example, [str(file), "--size", "3", "--words", "z"]) == Example(
        "-from yaml", 3, 1e-3, True, ["z"]
    )
    assert parse_arguments(Example, ["--name", "b"]) == Example("b")


@pytest.mark.parametrize(
    ("content", "message"),
    [("sise: 2", "unknown names.*sise.*known are.*size"), ("- 1", "name: value"), ("a: [", "not YAML")],
)
def test_bad_yaml_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        parse_arguments(Example, [str(file)])


def test_values_of_the_wrong_type_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "example.yaml").write_text("name: a\nsize: large\n")
    with pytest.raises(SystemExit):
        parse_arguments(Example, [str(tmp_path / "example.yaml")])
    assert "size" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cannot be read"):
        parse_arguments(Example, [str(tmp_path / "none.yaml")])
