"""A model on a text in one call."""

import json
from pathlib import Path

import pytest
from datasets import load_from_disk
from transformers import AutoModelForCausalLM

from scratchgpt.training.on_text import train_on_text

TEXT = "To be, or not to be, that is the question. " * 200
TINY = {
    "vocab_size": 280, "context_length": 32, "hidden_size": 32, "num_hidden_layers": 1, "max_steps": 12,
    "compile": False, "mixed_precision": "no", "learning_rate": 0.01,
}  # fmt: skip


def test_it_learns_and_what_it_returns_is_what_it_saved(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text(TEXT)
    model, tokenizer = train_on_text(tmp_path / "my.txt", tmp_path / "run", **TINY)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["eval_loss"] < 4  # by chance it would be log(320), 5.8
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final")
    assert all((saved.state_dict()[name] == value).all() for name, value in model.state_dict().items())
    assert tokenizer.decode(tokenizer("To be")["input_ids"]) == "To be"
    held_out = "".join(load_from_disk(str(tmp_path / "run" / "data"))["validation"]["text"])
    assert held_out == TEXT[-len(held_out) :]
    assert len(held_out) == pytest.approx(len(TEXT) / 10, rel=0.1)


def test_a_name_in_place_of_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'my\.txt'.*Path"):
        train_on_text("my.txt", tmp_path / "run")
    assert not (tmp_path / "run").exists()
