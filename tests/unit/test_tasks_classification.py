"""training/tasks/classification.py: the loss, freezing, adapters; answers depend on neither batch nor padding."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import pipeline

from scratchgpt import ScratchGPTConfig, ScratchGPTForSequenceClassification
from scratchgpt.adapters import AdapterArguments, add_adapter, load_adapter, merge_adapter
from scratchgpt.data.labelled_texts import LabelledTexts
from scratchgpt.data.text_rows import TextRows
from scratchgpt.evaluation.classification import predict
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training.tasks.classification import TextClassification, balanced_weights, freeze

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "then", "it", "sleeps"]
TEXTS = [" ".join(WORDS[: 1 + i % 12]) + f" {i}" for i in range(90)]
DATA = LabelledTexts(TEXTS, [int(i % 3 == 0) for i in range(90)], ["ham", "spam"])


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(TEXTS, vocab_size=320))


def make_model(tokenizer, preset: str = "modern", **changed) -> ScratchGPTForSequenceClassification:
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        preset,
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "initializer_range": 0.2,  # so that answers differ
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "id2label": {0: "ham", 1: "spam"},
            "label2id": {"ham": 0, "spam": 1},
            **changed,
        },
    )
    return ScratchGPTForSequenceClassification(config).eval()


def test_the_loss_is_that_of_the_global_batch_with_weights(tokenizer) -> None:
    rows, model = TextRows(DATA, tokenizer, 32), make_model(tokenizer)
    weights = balanced_weights(DATA)
    assert weights.tolist() == pytest.approx([90 / (2 * 60), 90 / (2 * 30)])
    task = TextClassification(rows, rows, 16, weights)
    first, second = rows.batch(np.arange(10)), rows.batch(np.arange(10, 16))
    count = task.num_targets(first) + task.num_targets(second)
    parts = task.loss(model, first, count) + task.loss(model, second, count)
    both = rows.batch(np.arange(16))
    logits = model(input_ids=both["input_ids"], attention_mask=both["attention_mask"]).logits
    losses = torch.nn.functional.cross_entropy(logits, both["labels"], reduction="none")
    torch.testing.assert_close(parts, (losses * weights[both["labels"]]).sum() / 16)


def test_r_drop_adds_the_divergence_of_two_passes(tokenizer) -> None:
    rows, weights = TextRows(DATA, tokenizer, 32), balanced_weights(DATA)
    batch = rows.batch(np.arange(16))
    count, still = torch.tensor(16), make_model(tokenizer)
    plain = TextClassification(rows, rows, 16, weights).loss(still, batch, count)
    task = TextClassification(rows, rows, 16, weights, r_drop=0.7)
    torch.testing.assert_close(task.loss(still, batch, count), plain)  # without dropout both passes agree

    model = make_model(tokenizer, hidden_dropout=0.3).train()
    torch.manual_seed(1)
    found = task.loss(model, batch, count)
    torch.manual_seed(1)
    twice = {name: tensor.repeat(2, 1) for name, tensor in batch.items() if name != "labels"}
    one, other = model(**twice).logits.double().softmax(-1).chunk(2)
    assert not torch.allclose(one, other)
    divergence = ((one - other) * (one.log() - other.log())).sum() / 2  # both ways of Kullback and Leibler, averaged
    rows_of = torch.arange(16)
    nats = [-each[rows_of, batch["labels"]].log() * weights[batch["labels"]] for each in (one, other)]
    expected = ((nats[0] + nats[1]).sum() / 2 + 0.7 * divergence) / 16
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_evaluation_is_in_the_order_of_the_rows(tokenizer) -> None:
    rows, model = TextRows(DATA, tokenizer, 32), make_model(tokenizer)
    logits = predict(model, rows, 2, 7)
    one_by_one = torch.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].detach() for text in TEXTS])
    torch.testing.assert_close(logits, one_by_one, rtol=1e-4, atol=1e-5)
    assert logits.argmax(-1).unique().numel() == 2
    result = TextClassification(rows, rows, 7).evaluate(model, Accelerator(cpu=True))
    assert result.accuracy == (one_by_one.argmax(-1) == torch.tensor(DATA.labels)).double().mean()


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_the_same_text_has_the_same_probabilities_everywhere(tokenizer, preset: str, tmp_path: Path) -> None:
    """Alone, in a batch, padded on either side, and through `pipeline`; also with an end-of-text inside."""
    texts = [*TEXTS[:12], "the fox<|endoftext|>jumps", "<|endoftext|>the dog<|endoftext|>"]
    model = make_model(tokenizer, preset)
    alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1) for text in texts]).detach()
    assert tokenizer.eos_token_id in tokenizer(texts[-1])["input_ids"]
    save_model(model, tokenizer, tmp_path / "model")
    for side in ("left", "right"):
        batch = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        torch.testing.assert_close(model(**batch).logits.softmax(-1), alone, rtol=1e-4, atol=1e-5)
    classify = pipeline("text-classification", str(tmp_path / "model"), device="cpu")
    for batch_size in (1, 5):
        answers = classify(texts, top_k=None, batch_size=batch_size)
        found = [{each["label"]: each["score"] for each in answer} for answer in answers]
        piped = torch.tensor([[each["ham"], each["spam"]] for each in found])
        torch.testing.assert_close(piped, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("last_layers", "layers"), [(0, set()), (1, {"1"}), (2, {"0", "1"})])
def test_freezing(tokenizer, last_layers: int, layers: set[str]) -> None:
    model = make_model(tokenizer)
    freeze(model, last_layers)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[2] for name in trained if name.startswith("model.layers.")} == layers
    assert trained >= {"score.weight"}
    assert ("model.norm.weight" in trained) == bool(last_layers)
    assert not any("embed" in name for name in trained)
    with pytest.raises(ValueError, match="last_layers=3: the model has 2 layers"):
        freeze(model, 3)


def test_lora_saves_reloads_and_merges_with_a_frozen_base(tokenizer, tmp_path: Path) -> None:
    make = {"num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    save_model(make_model(tokenizer, **make), tokenizer, tmp_path / "base")
    base = ScratchGPTForSequenceClassification.from_pretrained(tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    model = add_adapter(base, AdapterArguments(tuning="lora", lora_r=4), task_type="SEQ_CLS")
    batch = tokenizer(TEXTS[:8], padding=True, return_tensors="pt")
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model.train()(**batch).logits, torch.arange(8) % 3)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = model.eval()(**batch).logits.detach()
    untouched = {
        name.replace("base_layer.", ""): tensor
        for name, tensor in base.model.state_dict().items()
        if "lora_" not in name
    }
    assert untouched.keys() == before.keys()
    assert all(torch.equal(untouched[name], tensor) for name, tensor in before.items())  # bit for bit
    save_model(model, tokenizer, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size > 1000
    labels = {name: make[name] for name in ("id2label", "label2id")}
    again, _ = load_adapter(tmp_path / "adapter", task_type="SEQ_CLS", **labels)
    assert torch.equal(again(**batch).logits, trained)
    torch.testing.assert_close(merge_adapter(again)(**batch).logits, trained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_the_default_adapter_is_below_one_percent_of_a_124m_model(preset: str) -> None:
    from recipes.finetune_classifier import ClassifierArguments

    with torch.device("meta"):
        model = ScratchGPTForSequenceClassification(ScratchGPTConfig.from_preset(preset))
    arguments = ClassifierArguments(data="x", model_name_or_path="y", tuning="lora")
    adapted = add_adapter(model, arguments, task_type="SEQ_CLS")
    trained, total = adapted.get_nb_trainable_parameters()
    assert total > 120e6
    assert 0.002 < trained / total < 0.01


@pytest.mark.parametrize("num_texts", [1, 17, 32])
def test_every_process_runs_as_many_batches(tokenizer, num_texts: int) -> None:
    """With 17 texts on 2 processes one had a batch more, and under FSDP2 waited for the other for ever."""
    rows, model = TextRows(DATA.select(range(num_texts)), tokenizer, 32), make_model(tokenizer)
    expected = predict(model, rows, 2, 8)
    passes, shares = [], []
    model.register_forward_hook(lambda *_: passes.append(1))
    for rank in range(2):
        passes.clear()
        done: list[int] = []
        processes: Any = SimpleNamespace(process_index=rank, num_processes=2, reduce=lambda part, _: part)
        shares.append((predict(model, rows, 2, 8, processes, done.append), len(passes), sum(done)))
    assert shares[0][1] == shares[1][1]
    assert shares[0][2] + shares[1][2] == num_texts
    assert torch.allclose(shares[0][0] + shares[1][0], expected, atol=1e-6)
