"""A model directory holds a model and the tokenizer that belongs to it, whole or not at all."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.hub.model_directory import check_finite_weights, check_tokenizer, load_model, save_model
from scratchgpt.hub.seals import SealError, seal
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


@pytest.fixture
def saved(tokenizer, tmp_path):
    save_model(build(len(tokenizer)), tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(directory, change):
    """Changes the weights on the disk, as somebody who also seals the directory again."""
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    seal(directory)


def test_a_flipped_bit_is_noticed_when_the_model_is_loaded(saved):
    assert load_model(ScratchGPTForCausalLM, saved).num_parameters() > 0
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(SealError, match=r"model\.safetensors is damaged.*delete manifest\.json"):
        load_model(ScratchGPTForCausalLM, saved)


def test_missing_weights_are_refused_where_no_head_is_new(saved):
    """`from_pretrained` gives them random values."""
    rewrite(saved, lambda weights: weights.pop("model.norm.weight"))
    for new_head in (False, True):
        with pytest.raises(ValueError, match=r"missing weights \['model.norm.weight'\]"):
            load_model(ScratchGPTForCausalLM, saved, new_head=new_head)


def test_a_model_of_another_kind_is_refused(saved, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"missing weights \['score.weight'\]"):
        load_model(AutoModelForSequenceClassification, saved)
    classifier = load_model(ScratchGPTForSequenceClassification, saved, new_head=True)
    save_model(classifier, tokenizer, tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"unexpected weights \['score.weight'\]"):
        load_model(AutoModelForCausalLM, tmp_path / "classifier")
    load_model(AutoModelForSequenceClassification, tmp_path / "classifier")


def test_weights_that_are_not_finite_are_neither_loaded_nor_saved(saved, tokenizer, tmp_path):
    rewrite(saved, lambda weights: weights["model.embed_tokens.weight"][3, 5:7].fill_(float("nan")))
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight of .*saved is not finite: 2 of its"):
        load_model(ScratchGPTForCausalLM, saved)
    model = build(len(tokenizer))
    model.model.norm.weight.data[0] = float("inf")
    with pytest.raises(ValueError, match=r"model\.norm\.weight of the model is not finite: 1 of its 16 values"):
        save_model(model, tokenizer, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_large_weights_are_finite():
    check_finite_weights({"large": torch.full((9,), 3e38), "ids": torch.tensor([1])}, "the model")
