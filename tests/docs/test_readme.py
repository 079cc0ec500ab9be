"""The README stays short, and the commands in its tables name scripts and options that exist."""

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_one_screen_before_the_first_command() -> None:
    lines = re.sub(r"<!--.*?-->\n", "", README, flags=re.DOTALL).partition("```bash")[0].splitlines()
    assert len(lines) <= 30


def test_it_is_read_in_three_minutes() -> None:
    prose = re.sub(r"<!--.*?-->|^```.*?^```$|^\|.*$", "", README, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)  # the addresses of links
    assert len(prose.split()) / 220 < 3  # words a minute, a slow reader of English prose


COMMAND = re.compile(r"`python ((?:recipes|data_builders)/\w+\.py)([^`\n]*)`")
INLINE = sorted(
    {
        (script, option)
        for page in PAGES
        for script, rest in COMMAND.findall(page.read_text("utf-8"))
        for option in ["", *re.findall(r"--(\w+)", rest)]
    }
)


@pytest.mark.parametrize("script", sorted({script for script, _ in INLINE}))
def test_inline_commands_have_options_that_exist(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.syspath_prepend(str((ROOT / script).parent))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    options = {option for name, option in INLINE if name == script and option not in ("", "help")}
    assert {option for option in options if f"--{option}" not in printed.getvalue()} == set()


def test_the_run_in_the_readme_is_what_its_commands_print(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "readme_run.py"))
    (tmp_path / "README.md").write_text(
        "```bash\npip install nothing\n```\n```bash\nseq 40\n```\n"
        "```bash\nmkdir -p runs/mine\necho picture > runs/mine/loss.png\n```\n"
        "<!-- run:begin -->\nold\n<!-- run:end -->\nend\n"
    )
    script["main"].__globals__["ROOT"] = tmp_path
    script["main"]()
    text = (tmp_path / "README.md").read_text()
    shown = text.partition("<!-- run:begin -->")[2]
    assert shown.splitlines()[3:7] == ["```text", "$ seq 40", "1", "2"]
    assert "14\n[… 12 lines left out …]\n27\n" in shown
    assert "old" not in text
    assert text.endswith("40\n```\n<!-- run:end -->\nend\n")
    assert (tmp_path / "docs" / "images" / "run.png").read_text() == "picture\n"
