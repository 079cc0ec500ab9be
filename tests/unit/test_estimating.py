"""`scratchgpt plan`: what it prints, for this machine and for others, and what is a mistake."""

import re
from pathlib import Path
from typing import Any

import pytest

from scratchgpt.training import estimates
from scratchgpt_cli.commands import main

SMALL = [
    *("--hidden_size", "64", "--num_hidden_layers", "2", "--num_attention_heads", "2", "--vocab_size", "512"),
    *("--context_length", "32", "--compile", "false", "--mixed_precision", "no"),
]


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    main(["plan", *argv])
    return capsys.readouterr().out


def number(text: str, pattern: str) -> float:
    """The group of `pattern` in `text`."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, f"{pattern} is not in\n{text}"
    return float(found[1].replace(",", ""))


def test_a_known_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers follow from each other as the text says."""
    text = printed(capsys, "gpt2_124m", "--tokens", "2e9", "--machine", "h100x8")
    assert text.startswith("An estimate: ")
    assert max(map(len, text.splitlines())) <= 140
    weights = number(text, r"^Parameters .*: ([\d,]+)$")
    positions = number(text, r"positions: +([\d,]+)")
    flops = number(text, r"FLOPs per token, forward and backward: ([\d,.]+) million")
    assert flops == pytest.approx((6 * (weights - positions) + 6 * 12 * 12 * 64 * 1024) / 1e6, abs=0.1)
    rate = number(text, r"= ([\d,]+) tokens/s$")
    assert rate == pytest.approx(8 * 989.4e12 * estimates.ASSUMED_MFU / (flops * 1e6), rel=1e-3)
    assert number(text, r"= ([\d.]+) minutes, evaluations") == pytest.approx(2e9 / rate / 60, abs=0.1)
    assert number(text, r"2,000,000,000 tokens ÷ ([\d,]+) a step") == 32 * 15 * 1024 * 8
    header = next(line for line in text.splitlines() if "FSDP" in line)
    assert re.split(r"  +", header.strip()) == ["as it is", "checkpointed", "FSDP, as it is", "FSDP, checkpointed"]
    rows = [int(word.replace(",", "")) for word in re.findall(r"[\d,]+", text.partition("largest batch")[2])[:4]]
    assert rows[0] < rows[2] < rows[1] < rows[3]


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *SMALL, "--max_steps", "10", "--gradient_accumulation_steps", "2")
    assert number(text, r"^([\d,]+) tokens ÷ ") == 10 * 8 * 2 * 32
    assert "a few steps were timed (all of 2 layers, 8 × 32 tokens)" in text
    assert number(text, r"= ([\d,]+) tokens/s") > 0
    assert "FSDP" not in text
    assert "checkpointed" in text


def test_a_file_and_a_checkpointed_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A YAML file of pretrain's does; the command line wins; nothing is written."""
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("preset: gpt2\ncontext_length: 128\ndata: nowhere\ngradient_checkpointing: true\n")
    text = printed(capsys, "my.yaml", "--context_length", "256", "--machine", "a100")
    assert "8 × 256 tokens" in text
    assert "vocabulary 50,304" in text  # GPT-2's, rounded up as pretrain does it
    assert "as it is" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--machine", "h100x0"], "--machine h100x0: give this, or one of h100, h200"),
        (["--machine", "h1000"], "--machine h1000: give this, or one of h100, h200"),
        (["--machine", "h100", "--mixed_precision", "no"], "the table of machines is for bf16"),
        (["--tokens", "0"], "tokens=0.0: it must be at least 1"),
        (["--hiden_size", "8"], "unknown option --hiden_size: did you mean hidden_size?"),
        (["--hidden_size", "7", "--machine", "h100"], "hidden_size=7 is not a multiple"),
        (["--preset", "gpt5", "--machine", "h100"], "Unknown preset 'gpt5'"),
        (["nowhere"], "nowhere is neither a YAML file here nor a configuration that comes along"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(argv: list[str], said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", *argv])
    assert end.value.code == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith("scratchgpt plan: ")
    assert said in line
    assert captured.out == ""


def test_help(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: scratchgpt plan [")
    assert "--machine" in shown
