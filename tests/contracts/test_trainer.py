"""transformers' Trainer evaluates every head, alone and under a peft adapter, and accumulates gradients exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import EvalPrediction, Trainer, TrainingArguments

from scratchgpt import (
    ScratchGPTConfig,
    ScratchGPTForCausalLM,
    ScratchGPTForSequenceClassification,
    ScratchGPTForTokenClassification,
)

VOCABULARY, LENGTH, LABELS = 61, 12, 3
HEADS = {
    ScratchGPTForCausalLM: TaskType.CAUSAL_LM,
    ScratchGPTForSequenceClassification: TaskType.SEQ_CLS,
    ScratchGPTForTokenClassification: TaskType.TOKEN_CLS,
}


def build(head: Any, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return head(
        ScratchGPTConfig.from_preset(
            "modern", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=32, num_labels=LABELS, initializer_range=0.2, **overrides,
        )
    )  # fmt: skip


def rows(head: Any, number: int = 12, problem: str = "single_label_classification") -> list[dict[str, torch.Tensor]]:
    """Texts of one length, with labels of unequal number where a text has many."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for row in range(number):
        ids = torch.randint(VOCABULARY, (LENGTH,), generator=generator)
        labels = ids.clone() if head is ScratchGPTForCausalLM else ids % LABELS
        labels[: 1 + row % (LENGTH - 1)] = -100  # the first: some Trainers count it among a language model's targets
        if head is ScratchGPTForSequenceClassification:
            labels = ids[0] % LABELS
            if problem != "single_label_classification":
                labels = torch.rand(LABELS, generator=generator).round(decimals=2 if problem == "regression" else 0)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found


def arguments(output_dir: Path, **overrides: Any) -> TrainingArguments:
    settings = {
        "output_dir": str(output_dir), "max_steps": 2, "learning_rate": 1e-2, "optim": "sgd", "max_grad_norm": 0.0,
        "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 0,
    }  # fmt: skip
    return TrainingArguments(**{**settings, **overrides})


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = prediction.predictions
    assert isinstance(logits, np.ndarray)  # the logits alone, no cache beside them
    assert logits.shape[:-1] == np.shape(prediction.label_ids)
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_trainer_evaluates(head: Any, adapted: bool, tmp_path: Path) -> None:
    """`eval_loss` is the model's own; metrics are computed; the best checkpoint is found and loaded at the end."""
    model: Any = build(head)
    if adapted:
        model = get_peft_model(model, LoraConfig(task_type=HEADS[head]))
    data: Any = rows(head)
    settings = arguments(
        tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", per_device_eval_batch_size=len(data),
    )  # fmt: skip
    trainer = Trainer(model, settings, train_dataset=data, eval_dataset=data, compute_metrics=accuracy)
    assert trainer.label_names == ["labels"]
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2
    assert trainer.state.best_metric == min(losses)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(min(losses), abs=1e-5)
    assert 0 <= found["eval_accuracy"] <= 1
    batch = {name: torch.stack([row[name] for row in data]) for name in data[0]}
    with torch.no_grad():
        assert found["eval_loss"] == pytest.approx(float(trainer.model.eval()(**batch).loss), abs=1e-5)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(
    ("head", "problem"),
    [
        *((head, "single_label_classification") for head in HEADS),
        (ScratchGPTForSequenceClassification, "multi_label_classification"),
        (ScratchGPTForSequenceClassification, "regression"),
    ],
)
def test_four_micro_batches_are_one_batch(head: Any, problem: str, adapted: bool, tmp_path: Path) -> None:
    data: Any = rows(head, problem=problem)
    runs = []
    for batch_size, accumulation in ((4, 1), (1, 4)):
        model: Any = build(head, problem_type=problem)
        before = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        if adapted:
            model = get_peft_model(model, LoraConfig(task_type=HEADS[head]))
        settings = arguments(
            tmp_path, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation
        )
        trainer = Trainer(model, settings, train_dataset=data)
        trainer.train()
        if adapted:
            model = model.merge_and_unload()
        weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        assert not torch.equal(weights, before)
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        runs.append((weights, torch.tensor(logged)))
    for whole, accumulated in zip(*runs, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-5, atol=1e-6)
