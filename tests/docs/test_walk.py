"""What docs/from_paper_to_code.md quotes is in the source."""

import re
from pathlib import Path

import scratchgpt

PACKAGE = Path(scratchgpt.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "from_paper_to_code.md"


def test_quoted_lines_are_the_packages_own() -> None:
    quotes = re.findall(r"^```py\n# (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(quotes) >= 7
    for file, lines in quotes:
        source = {line.strip() for line in (PACKAGE / file).read_text(encoding="utf-8").splitlines()}
        assert [line for line in lines.splitlines() if line.strip() not in source] == [], file


def test_ten_stops_have_an_exercise_each() -> None:
    stops = re.split(r"^## \d+\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(stops) == 10
    assert all("*Exercise.*" in stop for stop in stops)
