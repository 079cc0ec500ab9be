"""`scratchgpt info`, `verify`, `compare` and `doctor`, on a run that was stopped and one that was finished."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from scratchgpt_cli import machine
from scratchgpt_cli.commands import main
from tests.runs import make_workplace, run_here


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workplace(tmp_path_factory.mktemp("directories"))
    run_here(folder, "run", save_steps=6)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> tuple[str, str]:
    """Standard output and error."""
    try:
        main(argv)
        ended = 0
    except SystemExit as end:
        ended = end.code or 0
    assert ended == code
    shown = capsys.readouterr()
    return shown.out, shown.err


@pytest.mark.usefixtures("here")
def test_info_of_a_run_and_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "info", "run")
    results = json.loads(Path("run/results.json").read_text("utf-8"))
    for words in (
        "run: a run",
        "finished after 12 steps",
        "checkpoints: 6, 12",
        f"trained:     {results['num_targets']:,} tokens, seed 0",
        f"loss {results['final']['loss']:.4f}, perplexity",
        "num_tokens 2,519",
        "run/final: a model",
        "ScratchGPTForCausalLM (scratchgpt)",
        "2 layers, width 32, 4 heads (4 of keys and values), context 32, vocabulary 320",
        "rotary positions, rmsnorm, gated silu, QK-norm, head tied to the embeddings",
        f"{results['num_parameters']:,} (F32;",
        "BPE, 300 ids, text ends with <|endoftext|>, a chat template",
        "text.jsonl, tokenizer ",
    ):
        assert words in out, words
    out, _ = said(capsys, "info", "tokenizer", "run/checkpoint-6")
    assert "tokenizer: a tokenizer" in out
    assert "run/checkpoint-6: a model" in out


@pytest.mark.usefixtures("here")
def test_info_of_a_run_that_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("run/final")
    Path("run/results.json").unlink()
    metrics = Path("run/metrics.jsonl")
    metrics.write_text("\n".join(metrics.read_text("utf-8").splitlines()[:7]), "utf-8")
    out, _ = said(capsys, "info", "run")
    assert "not finished: 7 of 12 steps (running, or stopped: --resume_from_checkpoint true)" in out


@pytest.mark.usefixtures("here")
def test_info_of_others_and_of_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained("gpt2")
    out, _ = said(capsys, "info", "gpt2")
    assert "GPT2LMHeadModel (gpt2)" in out
    assert "1 layers, width 32, 2 heads (2 of keys and values), context 64, vocabulary 300" in out
    assert "tokenizer:    none" in out
    Path("empty").mkdir()
    for path, content, words in (
        ("empty", None, "empty holds no run, model, adapter, tokenizer or built data set"),
        ("run/final", "model.safetensors", "model.safetensors cannot be read"),
        ("run/final", "tokenizer.json", "tokenizer.json cannot be read"),
        ("run/final", "config.json", "config.json cannot be read"),
    ):
        if content:
            before = (Path(path) / content).read_bytes()
            (Path(path) / content).write_bytes(b"{")
        _, error = said(capsys, "info", path, code=2)
        assert words in error
        assert len(error.splitlines()) == 1
        if content:
            (Path(path) / content).write_bytes(before)


@pytest.mark.usefixtures("here")
def test_info_of_built_data(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.txt").write_text("To be, or not to be.\n" * 50, "utf-8")
    main(["data", "shakespeare", "--source", "my.txt", "--output_dir", "data/mine", "--block_characters", "100"])
    capsys.readouterr()
    out, _ = said(capsys, "info", "data/mine")
    digest = json.loads(Path("data/mine/build.json").read_text("utf-8"))["sha256"]
    assert f"train 10, validation 2 (SHA-256 {digest[:12]}…)" in out
    assert "shakespeare, seed 0" in out
    Path("data/build.json").write_text(json.dumps({"text": json.loads(Path("data/mine/build.json").read_text())}))
    assert "rows text: train 10, validation 2" in said(capsys, "info", "data")[0]


@pytest.mark.usefixtures("here")
def test_verify(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "verify", ".")
    cache = next(Path("cache").glob("*/manifest.json")).parent
    assert {line.split()[1] for line in out.splitlines()} == {
        "run/checkpoint-6", "run/checkpoint-12", "run/final", str(cache),
    }  # fmt: skip
    weights = Path("run/final/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    Path("run/checkpoint-6/manifest.json").unlink()  # else nothing would be compared there
    out, error = said(capsys, "verify", "run", code=1)
    assert out == "whole    run/checkpoint-12\n"
    damaged = error.splitlines()
    assert len(damaged) == 2
    assert any("run/final/model.safetensors is damaged" in line for line in damaged)
    assert any("run/checkpoint-6/manifest.json cannot be read" in line for line in damaged)
    _, error = said(capsys, "verify", "tokenizer", code=2)
    assert "tokenizer holds nothing that was sealed" in error
    Path("built").mkdir()
    Path("built/manifest.json").write_text("[]", "utf-8")  # as data_builders/pdf_reports.py lists its files
    said(capsys, "verify", "built", code=2)


@pytest.mark.usefixtures("here")
def test_compare(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    run_here(here, "other", learning_rate=0.001)
    capsys.readouterr()
    out, _ = said(capsys, "compare", "run", "other")
    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in out.splitlines() if "|" in line
    }
    assert rows["steps"] == ["12", "12"]
    assert rows["learning_rate"] == ["0.01", "0.001"]
    assert rows["save_steps"] == ["6", "12"]
    assert not {"output_dir", "hidden_size"} & rows.keys()
    last = [json.loads(Path(run, "metrics.jsonl").read_text("utf-8").splitlines()[-1]) for run in ("run", "other")]
    assert rows["last training loss"] == [f"{line['loss']:.4f}" for line in last]
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")
    _, error = said(capsys, "compare", "run", "tokenizer", "--output", "x.png", code=2)
    assert "tokenizer is no training run" in error
    assert not Path("x.png").exists()
    _, error = said(capsys, "compare", "run", "--output", "x.txt", code=2)
    assert "ends in .png" in error


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine.installed
    monkeypatch.setattr(
        machine, "installed", lambda name: {"uvicorn": "not installed", "fastapi": "0.1"}.get(name) or there(name)
    )
    precision = torch.get_float32_matmul_precision()
    try:
        out, _ = said(capsys, "doctor")
    finally:
        torch.set_float32_matmul_precision(precision)
    for words in (
        "cores:",
        "instructions:",
        "memory:",
        "disk here:",
        "GPU:",
        "torch:",
        "matmul precision:",
        "autocast:",
    ):
        assert words in out, words
    assert 'missing fastapi >=0.115 (here: 0.1), uvicorn: pip install "scratchgpt[serve]"' in out
    assert "dev:" not in out
