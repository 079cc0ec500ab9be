"""recipes/evaluate.py: finished answers, and a model's."""

import json
from pathlib import Path

import pytest
import torch

from recipes import evaluate
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers

ROWS = [
    {"Instruction": "What is a cat?", "Input": "", "Response": "An animal.", "model_response": "A small animal."},
    {"Instruction": "What is a bus?", "Input": "", "Response": "A vehicle.", "model_response": "A vehicle."},
    {"Instruction": "What is a key?", "Input": "", "Response": "It opens doors.", "model_response": ""},
]
LIBRARIES = {"bleu": "sacrebleu", "rougeL": "rouge_score", "meteor": "nltk"}


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_finished_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every number has its count, interval and signature; the second run has nothing to do; new answers are scored."""
    (tmp_path / "answers.json").write_text(json.dumps(ROWS))
    argv = [f"--answers={tmp_path / 'answers.json'}", f"--output_dir={tmp_path / 'scores'}"]
    evaluate.main(argv)
    found = results(tmp_path / "scores")["answers"]
    assert found["exact_match"]["value"] == pytest.approx(1 / 3)
    for values in found.values():
        assert {"value", "count", "interval", "signature"} <= set(values)
    for name, library in LIBRARIES.items():
        assert library in found[name]["signature"]
    assert found["token_f1"]["interval"][0] <= found["token_f1"]["value"] <= found["token_f1"]["interval"][1]
    assert "token_f1" in capsys.readouterr().out
    evaluate.main(argv)
    assert "has the results already" in capsys.readouterr().out
    (tmp_path / "answers.json").write_text(json.dumps(ROWS[:2]))
    evaluate.main(argv)
    assert "already" not in capsys.readouterr().out
    assert results(tmp_path / "scores")["answers"]["exact_match"]["value"] == 0.5


def test_a_models_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are kept as a file that is scored alike."""
    tokenizer = to_transformers(BPETokenizer.train(["What is a cat? An animal."] * 9, vocab_size=300))
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(ScratchGPTForCausalLM(config), tokenizer, tmp_path / "model")
    rows = [{"instruction": row["Instruction"], "output": row["Response"]} for row in ROWS]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate.main([
        f"--model={tmp_path / 'model'}", f"--data={tmp_path / 'chats.jsonl'}", "--split=train", "--dtype=float32",
        f"--output_dir={tmp_path / 'scores'}", "--max_new_tokens=8",
    ])  # fmt: skip
    found = results(tmp_path / "scores")
    assert found["model"]["dtype"] == "float32"
    assert len(found["model"]["weights"]) >= 16
    assert found["answers"]["exact_stop_rate"]["count"] == 3
    lines = (tmp_path / "scores" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == [row["Instruction"] for row in ROWS]
    evaluate.main([f"--answers={tmp_path / 'scores' / 'answers.jsonl'}", f"--output_dir={tmp_path / 'again'}"])
    again = results(tmp_path / "again")["answers"]
    assert {name: values["value"] for name, values in again.items()} == {
        name: values["value"] for name, values in found["answers"].items()
    }
    assert "bleu" in capsys.readouterr().out
