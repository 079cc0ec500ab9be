"""Every command and every Python block of README.md and docs/ is run, in order, from an empty folder for each page.

The folder has nothing but links to the repository's scripts, so that no command can rely on what another page made.
What is not run as it is printed says so in the page, in HTML comments:

    <!-- test: skip REASON -->             the next block is not run
    <!-- test: before COMMAND -->          run this first: it stands in for something that the reader already has
    <!-- test: pretrain.py --max_steps 2 -->   from here on, the commands of this script get these options as well

Commands of the form `python recipes/…` and `scratchgpt …` run in this process, each as `__main__` with its own command
line, which saves the seconds that importing torch takes; everything else is run by bash.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scratchgpt_cli.commands import main as scratchgpt
from scratchgpt_cli.commands import scripts

ROOT = Path(__file__).resolve().parents[2]
LOGS = {"experiments.md", "results.md", "versions.md"}  # generated or dated: nothing in them is an instruction
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in LOGS)]
PART = re.compile(r"<!-- test: (?P<note>.*?) -->|^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPES, BUILDERS = scripts("recipes"), scripts("data_builders")
LINKED = ("recipes", "data_builders", "benchmarks", "constraints.txt", "Makefile")


@dataclass
class Page:
    """What is known while a page runs, from one block to the next."""

    more: dict[str, list[str]] = field(default_factory=dict)
    variables: dict[str, object] = field(default_factory=lambda: {"__name__": "__main__"})
    num_run: int = 0

    def run(self, text: str) -> None:
        skip = ""
        for part in PART.finditer(text):
            if note := part["note"]:
                kind, _, rest = note.partition(" ")
                if kind == "skip":
                    assert rest, "say why the block is not run"
                    skip = rest
                elif kind == "before":
                    self.run_shell(rest)
                else:
                    assert (ROOT / "recipes" / kind).exists() or (ROOT / "data_builders" / kind).exists(), kind
                    self.more[kind] = shlex.split(rest)
                continue
            if part["language"] in ("bash", "python") and not skip:
                (self.run_shell if part["language"] == "bash" else self.run_python)(part["code"])
                self.num_run += 1
            skip = ""

    def run_python(self, code: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, "<a Python block>", "exec"), self.variables)

    def run_shell(self, code: str) -> None:
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                self.run_command(line, words)

    def run_command(self, line: str, words: list[str]) -> None:
        output = None
        if ">" in words[-2:-1]:
            words, output = words[:-2], words[-1]
        script = words[1] if words[0] == "python" and len(words) > 1 else ""
        if words[0] == "scratchgpt":
            known, name = (RECIPES, words[1]) if words[1] != "data" else (BUILDERS, words[2])
            script = os.fspath(known[name].relative_to(ROOT)) if name in known else "scratchgpt"
        here = ("recipes/", "data_builders/", "scratchgpt")
        if not script.startswith(here) or set(words) & {"|", "<", ">", "&&", "&", ";"}:
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", line],
                env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
                capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\nended with {done.returncode}\n{done.stderr[-2000:]}"
            return
        printed, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            argv = [*words[1:], *self.more.get(Path(script).name, [])]
            code: object = 0
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
                try:
                    if words[0] == "scratchgpt":
                        scratchgpt(argv)
                    else:
                        patch.setattr(sys, "argv", argv)
                        patch.syspath_prepend(str(Path(script).parent.resolve()))
                        runpy.run_path(script, run_name="__main__")
                except SystemExit as end:
                    code = end.code
        assert code in (None, 0), f"{line}\nended with {code}\n{printed.getvalue()}{errors.getvalue()[-2000:]}"
        if output is not None:
            Path(output).write_text(printed.getvalue(), encoding="utf-8")


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page: Path) -> None:
    Page().run(page.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    "text",
    [
        "```bash\npython recipes/pretrain.py --data nowhere.txt --tokenizer nowhere --output_dir runs/x\n```\n",
        "```bash\npython recipes/pretrain.py --dota my.txt\n```\n",
        "```bash\nscratchgpt pretrain --dota my.txt\n```\n",
        "```bash\nscratchgpt pretrian\n```\n",
        "```bash\ncat not_made_by_this_page.txt\n```\n",
        '```python\nopen("runs/base/final/config.json")\n```\n',
    ],
)
def test_a_block_that_does_not_work_fails(text: str) -> None:
    with pytest.raises((AssertionError, OSError)):
        Page().run(text)


@pytest.mark.usefixtures("empty_folder")
def test_notes_are_obeyed() -> None:
    page = Page()
    page.run(
        "<!-- test: skip needs a GPU -->\n```bash\nfalse\n```\n"
        "<!-- test: before printf 'a b' > it -->\n```bash\ncat it  # a comment\n```\n"
        "<!-- test: train_tokenizer.py --vocab_size 270 --data it.txt -->\n"
        "```bash\nprintf 'abc abc' > it.txt\n"
        "python recipes/train_tokenizer.py \\\n    --output_dir runs/t > report\n```\n"
    )
    assert page.num_run == 2
    assert "| vocab_size |" in Path("report").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / "docs" / name for name in sorted(LOGS))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    if not page.exists():
        pytest.skip("make test-versions has not written it yet")
    text = page.read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text), *re.findall(r'src="([^"]+)"', text)]
    ours = [link for link in links if "://" not in link and Path(link).name != "versions.md"]  # see above
    assert [link for link in ours if not (page.parent / link).exists()] == []
