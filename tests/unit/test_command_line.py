"""`scratchgpt <command>` in this process, from the repository; tests/contracts/test_wheel.py has the installed one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scratchgpt_cli.commands import TOOLS, as_typed_here, command_name, configurations, docstring, main, scripts
from tests.runs import ROOT

RECIPES, BUILDERS = scripts("recipes"), scripts("data_builders")


def mistake(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that `argv` ends in, with exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert captured.out == ""
    return line


def test_every_script_is_a_command() -> None:
    files = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    assert {path.stem for path in RECIPES.values()} == files
    assert {"train-tokenizer", "pretrain", "import-gpt2", "export", "merge", "chat", "results-page"} <= set(RECIPES)
    assert not set(RECIPES) & set(TOOLS)
    ran = {path.stem for path in (ROOT / "data_builders").glob("*.py") if "run_recipe(" in path.read_text("utf-8")}
    assert {path.stem for path in BUILDERS.values()} == ran
    assert "docstrings" not in BUILDERS  # what a builder imports


def test_help_is_one_screen_and_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for name in (*RECIPES, *TOOLS):
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name
    main(["data"])
    shown = capsys.readouterr().out
    assert [name for name in BUILDERS if not re.search(rf"^  {name} +\S", shown, re.MULTILINE)] == []
    for name in configurations():
        main(["configs"])
        assert f"  {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["--help"], ["data"], ["configs"], ["--version"], ["pretrian"], ["compare", "--help"]]
)
def test_what_needs_no_torch_does_not_import_it(argv: list[str]) -> None:
    code = (
        f"import sys\nfrom scratchgpt_cli.commands import main\ntry:\n    main({argv})\nexcept SystemExit: pass\n"
        "print(sorted({'scratchgpt', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pretrian"], "scratchgpt: unknown command pretrian: did you mean pretrain?"),
        (["qqq"], "scratchgpt: unknown command qqq: --help lists them"),
        (["data", "shakespear"], "scratchgpt data: unknown builder shakespear: did you mean shakespeare?"),
        (["pretrain", "demmo"], "pretrain comes with demo, gpt2_124m"),
        (["chat", "demo"], "scratchgpt chat: demo is neither a YAML file here nor a configuration that comes along"),
        (["pretrain", "--dota", "x"], "scratchgpt pretrain: unknown option --dota: did you mean data?"),
        (["pretrain", "demo", "--data", ""], "scratchgpt pretrain: --data is missing"),
        (["data", "shakespeare"], "scratchgpt data shakespeare: --output_dir is missing"),
        (["configs", "copy", "pretrain/dem"], "scratchgpt configs: unknown configuration pretrain/dem: did you mean"),
        (["configs", "rm"], "scratchgpt configs: give nothing, or: copy NAME [DIR]"),
        (["launch", "pretrian"], "scratchgpt launch: unknown recipe pretrian: did you mean pretrain?"),
        (["launch", "--config_file", "dpp", "pretrain"], "accelerate/dpp: did you mean accelerate/ddp?"),
        (["launch"], "scratchgpt launch: the following arguments are required: training_script"),
        (["launch", "--nope", "pretrain"], "scratchgpt launch: unrecognized arguments: --nope"),
        (["info"], "scratchgpt info: the following arguments are required: directory"),
        (["info", "nowhere"], "scratchgpt info: nowhere is no directory"),
        (["verify", "nowhere"], "scratchgpt verify: nowhere is no directory"),
        (["compare", "nowhere"], "scratchgpt compare: nowhere is no training run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in mistake(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train-tokenizer", "train_tokenizer"])
def test_usage_has_the_name_that_was_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.argv, sys.modules["__main__"], list(sys.path)
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: scratchgpt train-tokenizer [")
    assert (sys.argv, sys.modules["__main__"], list(sys.path)) == before


def test_the_script_keeps_its_own_name() -> None:
    done = subprocess.run(
        [sys.executable, str(RECIPES["train-tokenizer"]), "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: train_tokenizer.py [")


def test_a_configuration_comes_along_unless_there_is_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def dry_run(config: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["train-tokenizer", config, "--dry_run", "true"])
        assert not end.value.code
        return capsys.readouterr().out

    whole = dry_run(str(ROOT / "recipes" / "configs" / "train_tokenizer" / "demo.yaml"))
    assert "output_dir: runs/demo/tokenizer" in whole
    assert dry_run("demo") == dry_run("demo.yaml") == whole
    main(["configs", "copy", "train_tokenizer/demo"])
    assert capsys.readouterr().out == "demo.yaml\n"
    Path("demo.yaml").write_text(Path("demo.yaml").read_text("utf-8").replace("runs/demo/", "mine/"), "utf-8")
    assert "output_dir: mine/tokenizer" in dry_run("demo.yaml")
    assert dry_run("demo") == whole
    assert "demo.yaml exists" in mistake(capsys, "configs", "copy", "pretrain/demo")
    main(["configs", "copy", "pretrain/demo", "new/folder"])
    assert Path("new/folder/demo.yaml").read_bytes() == configurations()["pretrain/demo"].read_bytes()


def test_examples_are_shown_as_commands() -> None:
    for file in (*RECIPES.values(), *BUILDERS.values()):
        text = as_typed_here(docstring(file))
        assert "python recipes/" not in text, file
        assert "python data_builders/" not in text, file
        assert "accelerate launch" not in text, file
        for data, name in re.findall(r"^ +scratchgpt (data )?([\w-]+)", text, re.MULTILINE):
            assert name in (BUILDERS if data else {**RECIPES, **TOOLS}), text
    text = "accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/export_model.py x.yaml"
    assert as_typed_here(text) == "scratchgpt launch --config_file ddp export x.yaml"
    text = "python recipes/pretrain.py recipes/configs/pretrain/demo.yaml"
    assert as_typed_here(text) == "scratchgpt pretrain demo"


def test_names() -> None:
    assert [*map(command_name, ("push_to_hub", "export_model", "merge-adapter", "import_gpt2", "python_docs"))] == [
        "push", "export", "merge", "import-gpt2", "python-docs",
    ]  # fmt: skip


def test_a_reader_that_has_enough_is_no_mistake() -> None:
    command = f"{sys.executable} -m scratchgpt_cli configs | head -n 1"
    for _ in range(5):  # it depends on who is faster
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_completion_in_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out, encoding="utf-8")

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in ("scratchgpt", *words))
        command = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _scratchgpt; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return set(done.stdout.split())

    assert completed("") == {*RECIPES, *TOOLS}
    assert completed("pretr") == {"pretrain"}
    assert completed("data", "s") == {"sentiment", "shakespeare", "sms-spam"}
    assert completed("data", "shakespeare", "--s") == {"--source", "--seed"}
    assert completed("pretrain", "--max") == {"--max_grad_norm", "--max_steps"}
    assert completed("pretrain", "modern") == {"modern_124m", "modern_16m"}
    assert "pretrain" in completed("launch", "--num_processes", "8", "")
    assert completed("launch", "--num_processes", "8", "pretrain", "--max") == {"--max_grad_norm", "--max_steps"}
    assert completed("launch", "--num_proc") == {"--num_processes"}
    assert completed("configs", "accelerate/d") == {"accelerate/ddp"}
    assert completed("results-page", "--num") == set()  # named in the text of the help, but no option
    assert completed("chat", "--prompt", "some word") == set()  # then bash offers files
