"""docs/dependencies.md names what there is: every dependency, and tests that exist."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]]
    assert [name for name in names if not re.search(rf"^\| .*\b{name}\b", PAGE, re.MULTILINE)] == []
    extras = project["optional-dependencies"]
    assert [name for name in extras if f"| `{name}` |" not in PAGE] == []


def test_the_tests_that_it_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", PAGE)
    assert len(named) > 15
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {test}" in text, f"{file} has no {test}"
