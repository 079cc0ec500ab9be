"""The pretraining recipe as a user runs it: on one process, on two, and with bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import scratchgpt  # noqa: F401 - registers the classes
from recipes import pretrain
from scratchgpt.tokenizers import BPETokenizer, to_transformers

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "To be, or not to be, that is the question.", "Gold!"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    lines = [json.dumps({"text": SENTENCES[i % 3] * (i % 5 + 1)}) for i in range(60)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    to_transformers(BPETokenizer.train(SENTENCES * 9, vocab_size=300)).save_pretrained(folder / "tokenizer")
    return folder


def options(workplace: Path, output: str, **changed: object) -> list[str]:
    defaults = {
        "data": workplace / "text.jsonl",
        "eval_data": workplace / "text.jsonl",
        "eval_split": "train",
        "tokenizer": workplace / "tokenizer",
        "cache_dir": workplace / "cache",
        "output_dir": workplace / output,
        "context_length": 32,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "eval_steps": 6,
        "save_steps": 12,
        "max_steps": 12,
        "compile": False,
        "mixed_precision": "no",
    }
    return [f"--{name}={value}" for name, value in {**defaults, **changed}.items()]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    """A run on one process."""
    pretrain.main([*options(workplace, "one"), "--sample_prompts", "The quick", "To be"])
    return workplace / "one"


def test_a_run_learns_and_leaves_a_model_that_the_auto_classes_load(finished: Path) -> None:
    found = losses(finished)
    assert len(found) == 12
    assert found[-1] < found[0] - 1
    results = json.loads((finished / "results.json").read_text())
    assert results["final"]["num_tokens"] > 1000
    assert results["final"]["loss"] < found[0] - 1
    for folder in (finished / "final", finished / "checkpoint-12"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert model(**tokenizer("The quick brown", return_tensors="pt")).logits.isfinite().all()
    for plot in ("loss.png", "throughput.png"):
        assert (finished / plot).read_bytes().startswith(b"\x89PNG")
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert [text[:5] for text in last["samples"]] == ["The q", "To be"]


def test_bits_per_byte_are_of_the_text(finished: Path, workplace: Path) -> None:
    """Counted by hand: the bits of all tokens but end-of-text, over the UTF-8 bytes they spell."""
    results = json.loads((finished / "results.json").read_text())["final"]
    text_bytes = sum(len(json.loads(line)["text"]) for line in (workplace / "text.jsonl").read_text().splitlines())
    first_token = len("The")  # the very first token is no target
    assert text_bytes - first_token - 8 <= results["num_bytes"] < text_bytes


@pytest.mark.parametrize("processes", [2])
def test_two_processes_do_what_one_does(finished: Path, workplace: Path, processes: int) -> None:
    """Same rows, same loss curve for an equal global batch; the world size is asserted, not assumed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    recipe = [str(ROOT / "recipes" / "pretrain.py")]
    run = subprocess.run(
        [*launcher, *recipe, *options(workplace, "two", per_device_train_batch_size=4 // processes)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert json.loads((workplace / "two" / "results.json").read_text())["identity"]["world_size"] == processes
    assert losses(workplace / "two") == pytest.approx(losses(finished), abs=1e-5)
    one, two = (AutoModelForCausalLM.from_pretrained(f / "final") for f in (finished, workplace / "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_gradient_accumulation_does_what_one_batch_does(finished: Path, workplace: Path) -> None:
    changed = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    pretrain.main(options(workplace, "accumulated", **changed))
    assert losses(workplace / "accumulated") == pytest.approx(losses(finished), abs=1e-5)


def test_going_on_with_a_model(finished: Path, workplace: Path) -> None:
    pretrain.main(options(workplace, "more", model_name_or_path=finished / "final", max_steps=2))
    assert losses(workplace / "more")[0] < losses(finished)[-1] + 0.3


def test_early_stopping(workplace: Path) -> None:
    """A learning rate far too high: the loss gets worse from the first evaluation on."""
    changed = {"learning_rate": 10.0, "eval_steps": 1, "early_stopping_patience": 2}
    pretrain.main(options(workplace, "early", **changed))
    assert len(losses(workplace / "early")) < 12


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(workplace: Path, monkeypatch) -> None:
    from scratchgpt.training import loop

    plain = loop._Run._loss
    calls = 0

    def poisoned(self, batch, num_targets):
        nonlocal calls
        calls += 1
        return plain(self, batch, num_targets) * (float("nan") if calls == 5 else 1)

    monkeypatch.setattr(loop._Run, "_loss", poisoned)
    with pytest.raises(ValueError, match=r"loss is nan in step 4 \(rows \[.*weights are unchanged"):
        pretrain.main(options(workplace, "poisoned", save_steps=1, save_total_limit=9))
    model = AutoModelForCausalLM.from_pretrained(workplace / "poisoned" / "checkpoint-4")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not (workplace / "poisoned" / "checkpoint-5").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": ""}, "--data is missing"),
        ({"preset": "gpt5"}, "Unknown preset 'gpt5'"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"ema_decay": 2}, "ema_decay=2"),
        ({"lr_schedule": "wsd"}, "decay_steps=0"),
        ({"data": "no/such/place"}, "no/such/place"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(workplace: Path, changed, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain.main(options(workplace, "refused", **changed))
    assert not (workplace / "refused").exists()
