"""The stages of `make reports`: its own configurations one after the other, on PDFs drawn here, for a few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_from_disk
from transformers import GPT2Config, GPT2LMHeadModel

from data_builders import instructions, pdf_reports
from recipes import evaluate, finetune_instruct, import_gpt2, pretrain, train_tokenizer
from scratchgpt.evaluation.contamination import check_overlap
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.data_builders.pdfs import simple
from tests.runs import ROOT

CONFIGS = ROOT / "recipes" / "configs"
RUN = Path("runs/reports")
FEW = ["--compile=false", "--mixed_precision=no", "--max_steps=2", "--warmup_steps=0", "--eval_steps=2"]
TINY = ["--hidden_size=32", "--num_hidden_layers=1", "--num_attention_heads=2", "--context_length=512", "--stride=512"]


def config(recipe: str, name: str = "reports") -> str:
    return str(CONFIGS / recipe / f"{name}.yaml")


def draw_reports(folder: Path) -> Path:
    for number in range(6):
        simple(folder / f"{number}.pdf", f"Report Number {number}", seed=number, pages=2)
    return folder


def save_gpt2(folder: Path) -> Path:
    """One that has learned nothing, as transformers writes it."""
    tokenizer = to_transformers(BPETokenizer.train(["We present a study of how small models learn."] * 9, 300))
    tokenizer.save_pretrained(folder, plain=True)
    end = tokenizer.eos_token_id
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 1024, "bos_token_id": end, "eos_token_id": end}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    return folder


@pytest.mark.timeout(600)
def test_from_pdfs_to_a_table_of_three_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the configurations name runs/reports/…
    pdf_reports.main([f"--source={draw_reports(tmp_path / 'pdfs')}", f"--output_dir={RUN / 'data'}"])
    instructions.main([f"--source={RUN / 'data'}", f"--output_dir={RUN / 'chats'}"])
    for model in ("words", "bpe"):
        here = RUN / model
        train_tokenizer.main([config("train_tokenizer", f"reports_{model}"), "--vocab_size=320"])
        pretrain.main(
            [config("pretrain"), *FEW, *TINY, f"--tokenizer={here / 'tokenizer'}", f"--output_dir={here / 'base'}"]
        )
        finetune_instruct.main(
            [config("finetune_instruct"), *FEW, f"--model_name_or_path={here}/base/final",
             f"--output_dir={here / 'chat'}"]
        )  # fmt: skip
    import_gpt2.main(
        [f"--model_name_or_path={save_gpt2(tmp_path / 'gpt2')}", f"--output_dir={RUN / 'gpt2/base/final'}"]
    )
    finetune_instruct.main([config("finetune_instruct", "reports_gpt2"), *FEW, "--context_length=512"])
    models = sorted([*RUN.glob("*/base/final"), *RUN.glob("*/chat/final")])
    evaluate.main(
        [*(f"--model={model}" for model in models), "--suite=answers", f"--data={RUN / 'chats'}", "--split=test",
         "--max_new_tokens=4", f"--output_dir={RUN / 'evaluation'}"]
    )  # fmt: skip

    page = (RUN / "evaluation" / "comparison.md").read_text(encoding="utf-8")
    names = [f"{model}-{stage}-final" for model in ("bpe", "gpt2", "words") for stage in ("base", "chat")]
    assert f"|  | {' | '.join(names)} |" in page
    for score in ("bleu", "bleu_p1", "bleu_p4", "rouge1", "rougeL", "meteor", "token_f1", "exact_stop_rate"):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {score} |")]
        assert line.count(" to ") == len(names), "each with an interval"
    assert "words-base-final − words-chat-final" in page

    held_out = load_from_disk(str(RUN / "data" / "documents"))["test"]
    pairs = load_from_disk(str(RUN / "chats"))
    assert set(pairs["test"]["source"]) == set(held_out["source"])
    assert not set(pairs["test"]["source"]) & {*pairs["train"]["source"], *pairs["validation"]["source"]}
    for model in models:
        assert not check_overlap(held_out["text"], model).seen.any(), model
        results = json.loads((RUN / "evaluation" / "-".join(model.parts[-3:]) / "results.json").read_text())
        guard: dict[str, Any] = results["overlap"]["answers"]
        assert guard["checked"] == (model.parts[-3:-1] != ("gpt2", "base"))  # nobody knows what a GPT-2 has read
        assert not guard.get("seen")
    training = load_from_disk(str(RUN / "data" / "documents"))["train"]["text"]
    assert check_overlap(training, RUN / "bpe/base/final").seen.all()


def make(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """`make reports` in a folder of its own, with this Python in place of the one that it would install."""
    for name in ("recipes", "data_builders", "Makefile", "constraints.txt"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    command = ["make", "--no-print-directory", "-o", ".venv/reports.stamp", f"BIN={Path(sys.executable).parent}"]
    # Not as a part of the `make test` that may have started this.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        [*command, "reports", *words], cwd=folder, env=alone, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["REPORTS=nowhere"], "nowhere does not exist: give a folder, .pdf files or a manifest as --source"),
        (["REPORTS=empty"], "empty holds no .pdf: give a folder that does"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    done = make(tmp_path, *words)
    said, (stopped,) = done.stderr.splitlines()[:-1], done.stderr.splitlines()[-1:]
    assert said == [f"pdf_reports.py: {message}"]
    assert done.returncode == 2
    assert stopped.startswith("make: ***")
    assert not (tmp_path / "runs").exists()


def test_another_folder_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "asked").write_text("mine \n")
    done = make(tmp_path, "REPORTS=theirs")
    assert done.returncode == 2
    assert done.stdout == "runs/reports is of REPORTS, SIZE = mine : rm -r runs/reports starts anew\n"


def test_the_makefile_runs_these_configurations() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    files = sorted(CONFIGS.glob("*/reports*.yaml"))
    assert len(files) > 5
    for file in files:
        assert f"recipes/{file.parent.name}.py" in makefile
        kind = file.stem.removeprefix("reports").strip("_")
        form = {"words": "_$$model", "bpe": "_$$model", "gpt2": "_gpt2"}.get(kind, "$(SIZE:%=_%)")
        assert f"recipes/configs/{file.parent.name}/reports{form}.yaml" in makefile, file
        output = yaml.safe_load(file.read_text(encoding="utf-8"))["output_dir"]
        assert output.startswith("runs/reports/"), file


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command(tmp_path: Path) -> None:
    """With fewer steps, and no more than that. Called again it has nothing to do but the table."""
    (tmp_path / "recipes").mkdir()
    for file in (ROOT / "recipes").rglob("*"):
        if file.suffix in (".py", ".yaml"):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    for file in (tmp_path / "recipes" / "configs").glob("*/reports*.yaml"):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        if "max_steps" in values:
            values |= {"max_steps": 2, "warmup_steps": 0, "eval_steps": 2, "compile": False}
            file.write_text(yaml.safe_dump(values), encoding="utf-8")
    draw_reports(tmp_path / "pdfs")
    first = make(tmp_path, "REPORTS=pdfs", "GPT2=nowhere")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "The table is without GPT-2" in first.stdout
    page = tmp_path / RUN / "evaluation" / "comparison.md"
    before = page.read_text(encoding="utf-8")
    assert "words-chat-final" in before
    second = make(tmp_path, "REPORTS=pdfs", "GPT2=nowhere")
    assert second.stdout.count("has the results already") == 4
    assert page.read_text(encoding="utf-8") == before
