"""A model directory holds a model and the tokenizer that belongs to it, whole or not at all."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import check_tokenizer, save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(["to be or not to be"] * 2, 270))


def build(vocab_size, **overrides):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    return ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=vocab_size, **shape, **overrides)).eval()


def test_saved_together_loaded_by_the_auto_classes(tokenizer, tmp_path):
    model = build(len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    save_model(model, tokenizer, tmp_path / "model")
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")("to be", return_tensors="pt")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(again(**ids).logits, model(**ids).logits)
    with pytest.raises(ValueError, match="not empty"):
        save_model(model, tokenizer, tmp_path / "model")
    save_model(model, tokenizer, tmp_path / "model", overwrite=True)


def test_another_vocabulary_is_refused_before_anything_is_written(tokenizer, tmp_path):
    for vocab_size in (len(tokenizer) - 1, len(tokenizer) + 5000):
        with pytest.raises(ValueError, match=rf"{len(tokenizer)} ids.*vocab_size is {vocab_size}"):
            save_model(build(vocab_size), tokenizer, tmp_path / "model")
    with pytest.raises(ValueError, match=r"eos_token_id is \d+, the model's is 3"):
        save_model(build(len(tokenizer), eos_token_id=3), tokenizer, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_rounded_up_is_the_same(tokenizer):
    check_tokenizer(build(len(tokenizer) + 50, eos_token_id=[tokenizer.eos_token_id, 1]), tokenizer)
