"""Classifiers, language models and the adapters of both: each recipe takes its own kind and refuses the other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from recipes import chat, classify, merge_adapter
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.adapters import AdapterArguments, add_adapter, load_base
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers

TEXTS = ["win a prize now", "see you soon", "are you home", "call to claim cash"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base; a classifier; adapters of classifiers with two and three labels, and of a language model."""
    folder = tmp_path_factory.mktemp("kinds")
    tokenizer = to_transformers(BPETokenizer.train(TEXTS * 5, vocab_size=290))
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.2, **ids,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(ScratchGPTForCausalLM(config), tokenizer, folder / "base")
    save_model(ScratchGPTForSequenceClassification(config), tokenizer, folder / "classifier")
    for name, labels, task in (
        ("two", ["ham", "spam"], "SEQ_CLS"),
        ("three", ["ham", "spam", "neither"], "SEQ_CLS"),
        ("chat", [], "CAUSAL_LM"),
    ):
        kind = ScratchGPTForSequenceClassification if labels else ScratchGPTForCausalLM
        base = load_base(folder / "base", kind, **({"id2label": dict(enumerate(labels))} if labels else {}))
        model: Any = add_adapter(base, AdapterArguments(), task_type=task)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.normal_(std=0.2)
        save_model(model, tokenizer, folder / name)
    (folder / "texts.txt").write_text("\n".join(TEXTS))
    return folder


def answers(workplace: Path, model: Path, output: Path) -> list[dict[str, Any]]:
    classify.main([f"--model={model}", f"--data={workplace / 'texts.txt'}", f"--output={output}"])
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize(("name", "labels"), [("two", {"ham", "spam"}), ("three", {"ham", "spam", "neither"})])
def test_a_classifiers_adapter_classifies_and_merges(
    workplace: Path, name: str, labels: set[str], tmp_path: Path
) -> None:
    """It lost its labels, or crashed; merged, it became a language model without the trained head."""
    found = answers(workplace, workplace / name, tmp_path / "adapter.jsonl")
    assert {key for key in found[0] if key.startswith("p(")} == {f"p({label})" for label in labels}
    merge_adapter.main([f"--adapter={workplace / name}", f"--output_dir={tmp_path / 'merged'}"])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert set(model.config.id2label.values()) == labels
    merged = answers(workplace, tmp_path / "merged", tmp_path / "merged.jsonl")
    assert [each["label"] for each in merged] == [each["label"] for each in found]
    probabilities = [[each["probability"] for each in rows] for rows in (merged, found)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        logits = model.eval()(**tokenizer(TEXTS[0], return_tensors="pt")).logits
    assert float(logits.softmax(-1).max()) == pytest.approx(found[0]["probability"], abs=1e-5)


@pytest.mark.parametrize("name", ["base", "chat"])
def test_a_language_model_does_not_classify(workplace: Path, name: str, tmp_path: Path) -> None:
    """It answered from a random head."""
    with pytest.raises(ValueError, match=r"ScratchGPTForSequenceClassification|cannot be used as a classifier"):
        answers(workplace, workplace / name, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["classifier", "two", "three"])
def test_a_classifier_does_not_chat(workplace: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"ScratchGPTForCausalLM|cannot be used as a language model"):
        chat.main([f"--model={workplace / name}", "--prompt=Hello"])
