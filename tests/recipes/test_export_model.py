"""Exports as a user makes them: to each target with tokenizer and template, and what is refused."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes import export_model
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.hub.model_directory import save_model
from scratchgpt.interop import to_gpt2, to_llama, to_qwen3
from scratchgpt.tokenizers import BPETokenizer, to_transformers

TEXT = "To be, or not to be: <|user|>gold<|end|>"
PRESETS = {"gpt2": "gpt2", "qwen3": "modern", "llama": "modern"}


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(["to be or not to be, gold"] * 2, 270), model_max_length=64)


def build(tokenizer, target: str, kind=ScratchGPTForCausalLM, **overrides):
    shape = {
        "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "head_dim": 8,
    }  # fmt: skip
    switches = {"qk_norm": target == "qwen3"}
    torch.manual_seed(0)
    model = kind(ScratchGPTConfig.from_preset(PRESETS[target], **{**shape, **switches, **overrides})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.05
    return model


VARIANTS = [
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False, "intermediate_size": 48, "hidden_act": "gelu"}),
    ("gpt2", {"use_bias": False}),
    *[
        (target, {"num_key_value_heads": heads, "tie_word_embeddings": tied})
        for target in ("qwen3", "llama")
        for heads in (4, 2, 1)
        for tied in (True, False)
    ],
    ("qwen3", {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    ("qwen3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    ("llama", {"use_bias": True, "num_key_value_heads": 2}),
]


@pytest.mark.parametrize(("target", "overrides"), VARIANTS)
@torch.no_grad()
def test_same_logits_and_ids(tokenizer, tmp_path, target, overrides, capsys):
    model = build(tokenizer, target, **overrides)
    save_model(model, tokenizer, tmp_path / "model")
    command = ["--model_name_or_path", str(tmp_path / "model"), "--to", target, "--output_dir", str(tmp_path / "out")]
    export_model.main(command)
    assert "largest difference" in capsys.readouterr().out
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(theirs).__module__.startswith(f"transformers.models.{target}.")
    read = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert read.chat_template == tokenizer.chat_template
    inputs = read(TEXT, return_tensors="pt")
    assert inputs["input_ids"].tolist() == [tokenizer(TEXT)["input_ids"]]
    torch.testing.assert_close(theirs(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5)
    for beams in (1, 3):
        how = {"do_sample": False, "max_new_tokens": 8, "num_beams": beams}
        assert torch.equal(theirs.generate(**inputs, **how), model.generate(**inputs, **how))
    assert not list((tmp_path / "out").glob("*.py"))


def test_in_python_it_is_a_copy(tokenizer):
    for target, export in (("gpt2", to_gpt2), ("qwen3", to_qwen3), ("llama", to_llama)):
        model = build(tokenizer, target)
        exported = export(model)
        before = exported.get_input_embeddings().weight.clone()
        with torch.no_grad():
            model.get_input_embeddings().weight.zero_()
        assert torch.equal(exported.get_input_embeddings().weight, before), target


@pytest.mark.parametrize(
    ("source", "overrides", "target", "message"),
    [
        ("gpt2", {}, "qwen3", "position_embedding_type=learned.*norm_type=layernorm.*gated_mlp=False.*qk_norm=False"),
        ("qwen3", {}, "llama", r"Llama cannot .* because of qk_norm=True \(must be False\)"),
        ("llama", {}, "qwen3", "qk_norm=False"),
        ("qwen3", {"use_bias": True}, "qwen3", "use_bias=True"),
        ("qwen3", {"num_key_value_heads": 2}, "gpt2", "num_key_value_heads=2"),
        ("gpt2", {"head_dim": 16}, "gpt2", "head_dim=16"),
    ],
)
def test_what_a_target_cannot_express_is_listed(tokenizer, tmp_path, source, overrides, target, message):
    save_model(build(tokenizer, source, **overrides), tokenizer, tmp_path / "model")
    command = ["--model_name_or_path", str(tmp_path / "model"), "--to", target, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        export_model.main(command)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_no_language_model_of_ours_is_refused(tokenizer, tmp_path: Path) -> None:
    save_model(build(tokenizer, "gpt2"), tokenizer, tmp_path / "model")
    command = ["--to", "gpt2", "--output_dir", str(tmp_path / "out")]
    export_model.main(["--model_name_or_path", str(tmp_path / "model"), *command])
    with pytest.raises(ValueError, match="not empty"):
        export_model.main(["--model_name_or_path", str(tmp_path / "model"), *command])
    with pytest.raises(ValueError, match="is a gpt2 model"):
        export_model.main(["--model_name_or_path", str(tmp_path / "out"), "--output_dir", str(tmp_path / "again")])
    classifier = build(tokenizer, "gpt2", ScratchGPTForSequenceClassification, tie_word_embeddings=False)
    save_model(classifier, tokenizer, tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"missing weights \['lm_head.weight'\]"):
        export_model.main(["--model_name_or_path", str(tmp_path / "classifier"), *command, "--overwrite", "True"])


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export_model.main(["--model_name_or_path", "m", "--output_dir", str(tmp_path), "--dry_run", "True"])
    assert yaml.safe_load(capsys.readouterr().out)["to"] == "qwen3"
