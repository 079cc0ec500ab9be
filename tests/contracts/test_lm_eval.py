"""lm-eval's `hf` model on a task of our own, offline; its answers are those the logits give."""

import json
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from scratchgpt import ScratchGPTForCausalLM

QUESTIONS = [
    {"question": "To be, or not to", "choices": [" be", " gold", " dog"], "answer": 0},
    {"question": "The quick brown", "choices": [" single step", " fox", " question"], "answer": 1},
    {"question": "All that glitters is not", "choices": [" lazy", " jumps over", " gold"], "answer": 2},
    {"question": "A journey of a thousand", "choices": [" miles", " the", " often have you"], "answer": 0},
]
TASK = """
task: proverbs
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


@torch.no_grad()
def log_likelihoods(model: ScratchGPTForCausalLM, tokenizer, question: str, choices: list[str]) -> list[float]:
    """Sum of the log-probabilities of a choice's tokens after the question, in nats."""
    scores = []
    for choice in choices:
        ids = tokenizer(question + choice, return_tensors="pt")["input_ids"]
        start = len(tokenizer(question)["input_ids"])
        log_probs = model(ids).logits.log_softmax(-1)[0, start - 1 : -1]
        scores.append(log_probs.gather(-1, ids[0, start:, None]).sum().item())
    return scores


def test_multiple_choice(preset: str, make_config, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(make_config(preset)).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = tmp_path / "proverbs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "proverbs.yaml").write_text(TASK.format(data=data))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tmp_path / "model"), "dtype": "float32"},
        tasks=["proverbs"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        device="cpu",
        batch_size=2,
        bootstrap_iters=0,
        log_samples=True,
    )

    samples = sorted(results["samples"]["proverbs"], key=lambda sample: sample["doc_id"])
    correct = []
    for question, sample in zip(QUESTIONS, samples, strict=True):
        scores = log_likelihoods(model, tokenizer, question["question"], question["choices"])
        found = [float(response[0][0]) for response in sample["resps"]]
        assert found == pytest.approx(scores, abs=1e-3)
        correct.append(scores.index(max(scores)) == question["answer"])
    assert results["results"]["proverbs"]["acc,none"] == pytest.approx(sum(correct) / len(correct))
