"""recipes/pretrain.py with nothing but a text: what it holds out, trains, measures, plans and says."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes import pretrain
from scratchgpt.training import pretraining
from tests.runs import SENTENCES, command, make_workplace, metrics, results, run

MINUTES = "--minutes=0.1"


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, str]:
    """A run as a command, and what it printed."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "my.txt").write_text("\n".join(SENTENCES[i % 3] * (i % 5 + 1) for i in range(300)) + "\n")
    start = command(folder, "mine")[:2]
    text = run([*start, f"--data={folder / 'my.txt'}", f"--output_dir={folder / 'mine'}",
                f"--cache_dir={folder / 'cache'}", MINUTES])  # fmt: skip
    return folder, text


def test_it_trains_a_model_and_says_what_it_does(alone: tuple[Path, str]) -> None:
    folder, text = alone
    final = folder / "mine" / "final"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    assert model(**tokenizer("The quick brown", return_tensors="pt")).logits.isfinite().all()
    lines = text.splitlines()
    beginnings = ["Held out for validation: the end of the text (", "Tokenizer: a byte-level BPE", "Measuring this",
                  "Plan: 0.", "Other choices: --minutes 30", "It took ", "Validation: ", "The model: "]  # fmt: skip
    places = [next(i for i, line in enumerate(lines) if line.startswith(each)) for each in beginnings]
    assert places == sorted(places)
    assert "token frequencies alone" in text


def test_what_validates_was_not_trained_on(alone: tuple[Path, str]) -> None:
    folder, _ = alone
    data = load_from_disk(str(folder / "mine" / "data"))
    parts = ["".join(data[name]["text"]) for name in ("train", "validation")]
    assert "".join(parts) == (folder / "my.txt").read_text()
    tokenizer = AutoTokenizer.from_pretrained(folder / "mine" / "tokenizer")
    assert results(folder / "mine")["final"]["num_tokens"] == len(tokenizer(parts[1])["input_ids"])


def test_the_plan_is_kept_in_the_arguments(alone: tuple[Path, str]) -> None:
    folder, _ = alone
    plan = json.loads((folder / "mine" / "plan.json").read_text())
    arguments = yaml.safe_load((folder / "mine" / "arguments.yaml").read_text())
    assert {name: arguments[name] for name in plan["values"]} == plan["values"]
    assert metrics(folder / "mine")[-1]["step"] == plan["values"]["max_steps"]
    assert plan["predicted"]["memory_mb"] == pytest.approx(metrics(folder / "mine")[-1]["peak_memory_mb"], rel=0.25)


def test_resuming_takes_the_plan_that_there_is(alone: tuple[Path, str], tmp_path: Path, monkeypatch, capsys) -> None:
    """Measured anew it would be another run; another text is."""
    folder, _ = alone
    shutil.copytree(folder / "mine", tmp_path / "mine")
    monkeypatch.setattr(pretraining, "measure", lambda *_: pytest.fail("measured"))
    again = [f"--data={folder / 'my.txt'}", f"--output_dir={tmp_path / 'mine'}", f"--cache_dir={folder / 'cache'}",
             MINUTES, "--resume_from_checkpoint=true"]  # fmt: skip
    pretrain.main(again)
    assert "(exact)" in capsys.readouterr().out
    (tmp_path / "other.txt").write_text("Other words.\n" * 500)
    with pytest.raises(pytest.fail.Exception, match="measured"):
        pretrain.main([f"--data={tmp_path / 'other.txt'}", *again[1:]])


def test_what_is_given_wins(tmp_path: Path) -> None:
    make_workplace(tmp_path)
    pretrain.main(
        [f"--data={tmp_path / 'text.jsonl'}", f"--output_dir={tmp_path / 'mine'}", f"--cache_dir={tmp_path / 'cache'}",
         f"--tokenizer={tmp_path / 'tokenizer'}", "--optimizer=adamw", "--context_length=16", "--compile=false",
         "--eval_steps=3", "--mixed_precision=no", MINUTES]
    )  # fmt: skip
    arguments = yaml.safe_load((tmp_path / "mine" / "arguments.yaml").read_text())
    expected = {"optimizer": "adamw", "context_length": 16, "eval_steps": 3, "compile": False, "hidden_size": 64}
    assert {name: arguments[name] for name in expected} == expected
    assert not (tmp_path / "mine" / "tokenizer").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes=5", "--max_steps=9"], "leave it out, or max_steps"),
        (["--minutes=5", "--preset=gpt2"], "leave it out, or preset"),
        (["--minutes=0"], "minutes=0.0: it must be above 0"),
        (["--streaming=true"], "reads the text once: give --tokenizer"),
        (["--streaming=true", "--tokenizer=tokenizer"], "needs --eval_data"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, monkeypatch, options: list[str], message: str) -> None:
    make_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        pretrain.main(["--data=text.jsonl", "--output_dir=mine", *options])
    assert not Path("mine").exists()
