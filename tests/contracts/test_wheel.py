"""The wheel, installed into an environment of its own and used from an empty folder, without the repository.

The environment sees the libraries of the one that runs the tests (a line in a .pth file): only scratchgpt itself is
installed. Its commands run one after the other in one process, which saves the seconds that torch takes.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.test_demo import write_data
from tests.runs import ROOT

COMMANDS = """
import contextlib, io, json, sys
from scratchgpt_cli.commands import main
results = []
for argv in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(argv)
        except SystemExit as end:
            code = end.code or 0
    results.append([code, out.getvalue(), err.getvalue()])
    if code and argv[-1] != "--help":
        break
files = {str(vars(module).get("__file__")) for module in list(sys.modules.values())}
print(json.dumps({"results": results, "files": sorted(file for file in files if "scratchgpt" in file)}))
"""

FEW = ["--compile=False", "--mixed_precision=no", "--logging_steps=1", "--eval_steps=2", "--save_steps=2"]
DEMO = [
    ["train-tokenizer", "demo", "--vocab_size=320"],
    ["pretrain", "demo", *FEW, "--max_steps=2", "--decay_steps=1", "--warmup_steps=1", "--hidden_size=32",
     "--num_hidden_layers=2", "--num_attention_heads=2", "--per_device_train_batch_size=2"],
    ["finetune-classifier", "demo", *FEW, "--num_train_epochs=1", "--warmup_steps=1"],
    ["finetune-instruct", "demo", *FEW, "--tuning=lora", "--optimizer=adamw", "--max_steps=2",
     "--decay_steps=1", "--warmup_steps=1", "--num_responses=2", "--response_tokens=8"],
    ["results-page", "--run_dir=runs/demo/base", "--classifier_dir=runs/demo/classifier",
     "--chat_dir=runs/demo/chat", "--output=runs/demo/RESULTS.md"],
    ["chat", "--model=runs/demo/chat/final", "--prompt=What is a list?", "--max_new_tokens=4"],
    ["merge", "--adapter=runs/demo/chat/final", "--output_dir=merged"],
    ["export", "--model_name_or_path=merged", "--output_dir=exported"],
    ["info", "runs/demo/base", "runs/demo/chat/final", "exported"],
    ["verify", "runs/demo", "merged"],
    ["compare", "runs/demo/base", "runs/demo/chat"],
]  # fmt: skip


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of an environment are that has the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    [wheel] = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, symlinks=os.name != "nt")
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(commands / "python"), "--disable-pip-version-check", "install",
         "--quiet", "--no-index", "--no-deps", str(wheel)],
        check=True, env=clean(),
    )  # fmt: skip
    site = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return commands


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(bin_folder: Path, folder: Path, commands: list[list[str]]) -> dict[str, Any]:
    done = subprocess.run(
        [bin_folder / "python", "-c", COMMANDS, json.dumps(commands)],
        cwd=folder, env={**clean(), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    inside = str(bin_folder.parent)
    assert [file for file in result["files"] if not file.startswith(inside)] == []
    return result


def scratchgpt(bin_folder: Path, folder: Path, *argv: str, code: int = 0) -> tuple[str, str]:
    """The command itself; what it printed."""
    done = subprocess.run(
        [bin_folder / "scratchgpt", *argv], cwd=folder, env=clean(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


def test_every_command_has_its_help(bin_folder: Path, tmp_path: Path) -> None:
    names = {"recipes": [], "data_builders": []}
    for folder, found in names.items():
        files = sorted((ROOT / folder).glob("*.py"))
        found += [file.stem for file in files if "run_recipe(" in file.read_text(encoding="utf-8")]
    commands = [[name.replace("_", "-")] for name in names["recipes"]]
    commands += [["data", name] for name in names["data_builders"]]
    commands += [[name] for name in ("configs", "doctor", "plan", "info", "verify", "compare", "launch", "completion")]
    shown = run(bin_folder, tmp_path, [[*command, "--help"] for command in commands])["results"]
    assert len(shown) == len(commands) > 20
    for command, (code, out, err) in zip(commands, shown, strict=True):
        assert code == 0, err
        assert out.startswith("usage: scratchgpt"), (command, out[:200])
        assert len(out.splitlines()) > 3, command
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(300)
def test_the_demo_as_commands(bin_folder: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "runs" / "demo" / "data")
    shown = run(bin_folder, tmp_path, DEMO)["results"]
    code, _, err = shown[-1]
    assert code == 0, err[-3000:]
    assert len(shown) == len(DEMO)
    assert (tmp_path / "runs" / "demo" / "RESULTS.md").read_text(encoding="utf-8").count("## ") == 3
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert "Chat with it: " in shown[4][1]
    assert f"{bin_folder / 'scratchgpt'} chat --model runs/demo/chat/final" in shown[4][1]
    info, verified = shown[8][1], shown[9][1]
    for words in ("finished after 2 steps", "runs/demo/chat/final: an adapter", "Qwen3ForCausalLM (qwen3)"):
        assert words in info
    assert {"runs/demo/base/final", "runs/demo/classifier/final", "runs/demo/chat/final", "merged"} <= {
        line.removeprefix("whole    ") for line in verified.splitlines()
    }


def test_the_console_script(bin_folder: Path, tmp_path: Path) -> None:
    out, _ = scratchgpt(bin_folder, tmp_path)
    first = [line.split()[1:] for line in out.splitlines() if line.startswith("  scratchgpt ")]
    assert [command[0] for command in first] == ["data", "train-tokenizer", "pretrain", "pretrain"]
    out, err = scratchgpt(bin_folder, tmp_path, "pretrian", code=2)
    assert (out, err) == ("", "scratchgpt: unknown command pretrian: did you mean pretrain?\n")
    out, _ = scratchgpt(bin_folder, tmp_path, "configs", "copy", "accelerate/ddp")
    assert out == "ddp.yaml\n"
    assert (tmp_path / "ddp.yaml").read_bytes() == (ROOT / "recipes" / "accelerate" / "ddp.yaml").read_bytes()
    (tmp_path / "my.txt").write_text("To be, or not to be.\n" * 200, encoding="utf-8")
    scratchgpt(bin_folder, tmp_path, "data", "shakespeare", "--source", "my.txt", "--output_dir", "mine")
    assert (tmp_path / "mine" / "build.json").is_file()


def test_launch_hands_on_what_the_recipe_says(bin_folder: Path, tmp_path: Path) -> None:
    """With accelerate's configuration and the recipe from the wheel, and the recipe's exit code and message alone."""
    out, err = scratchgpt(
        bin_folder, tmp_path, "launch", "--config_file", "cpu", "pretrain", "demo", "--max_step", "3", code=2
    )
    assert out == ""
    [line] = [line for line in err.splitlines() if "kernels-community" not in line]  # bitsandbytes says so on import
    assert line == "scratchgpt pretrain: unknown option --max_step: did you mean max_steps?"


@pytest.mark.slow
def test_launch_in_two_processes(bin_folder: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "runs" / "demo" / "data")
    run(bin_folder, tmp_path, DEMO[:1])
    _, err = scratchgpt(bin_folder, tmp_path, "launch", "--config_file", "ddp", *DEMO[1])
    results = json.loads((tmp_path / "runs" / "demo" / "base" / "results.json").read_text(encoding="utf-8"))
    assert results["identity"]["world_size"] == 2, err


def test_an_editable_install_runs_the_repository_itself(tmp_path: Path) -> None:
    """Only a path goes into the environment: a copy of the recipes there would be an old one soon."""
    from hatchling.builders.wheel import WheelBuilder

    [built] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"])
    shutil.unpack_archive(built, tmp_path / "unpacked", "zip")
    found = {file.relative_to(tmp_path / "unpacked").parts[0] for file in (tmp_path / "unpacked").rglob("*.*")}
    assert found == {"_scratchgpt.pth", next(name for name in found if name.endswith(".dist-info"))}
    assert (tmp_path / "unpacked" / "_scratchgpt.pth").read_text(encoding="utf-8").strip() == str(ROOT / "src")


def test_import_warns_of_nothing_and_loads_little(bin_folder: Path, tmp_path: Path) -> None:
    """Beside what transformers needs for any model, only the files of the model and the tokenizer."""
    code = (
        "import sys, transformers.masking_utils, transformers.modeling_layers, transformers.modeling_rope_utils\n"
        "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationMixin, PreTrainedModel\n"
        "before = set(sys.modules)\nimport scratchgpt\n"
        "print(scratchgpt.__file__, *sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [bin_folder / "python", "-W", "error", "-c", code], cwd=tmp_path, env=clean(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    file, *loaded = done.stdout.split()
    assert file.startswith(str(bin_folder.parent))
    parts = ("configuration", "loss", "modeling", "tokenization")
    assert loaded == ["scratchgpt", *(f"scratchgpt.{part}_scratchgpt" for part in parts)]
