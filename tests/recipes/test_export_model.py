"""Exports as a user makes them: to each target with tokenizer and template, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes import export_model
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.hub.cards import CARD
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


@pytest.fixture
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf", reason="no gguf")
    monkeypatch.delenv("SCRATCHGPT_LLAMA_CPP", raising=False)


def gguf_command(tmp_path: Path, *options: str) -> list[str]:
    return [f"--model_name_or_path={tmp_path / 'mine'}", "--to=gguf", f"--output_dir={tmp_path / 'out'}", *options]


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.parametrize(("preset", "architecture"), [("gpt2", "gpt2"), ("qwen3", "qwen3"), ("llama", "llama")])
def test_one_file_for_llama_cpp(tokenizer, tmp_path: Path, preset: str, architecture: str, capsys) -> None:
    from gguf import GGUFReader

    save_model(build(tokenizer, preset), tokenizer, tmp_path / "mine")
    (tmp_path / "mine" / CARD).write_text("---\nlicense: mit\ntags: [chat-model]\n---\nMine.\n")
    (tmp_path / "mine" / "manifest.json").unlink()
    export_model.main(gguf_command(tmp_path, "--quantization=q8_0"))
    said = capsys.readouterr().out
    assert "read by transformers: logits of" in said
    assert "q8_0 changes log-probabilities by up to" in said
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"Modelfile", "arguments.yaml", "model-q8_0.gguf"}
    found = {name: field.contents() for name, field in GGUFReader(tmp_path / "out" / "model-q8_0.gguf").fields.items()}
    names = ("general.architecture", "general.name", "general.license", "tokenizer.chat_template")
    assert [found[name] for name in names] == [architecture, "mine", "mit", tokenizer.chat_template]
    assert "{{ .Role }}" in (tmp_path / "out" / "Modelfile").read_text()
    with pytest.raises(ValueError, match="not empty"):
        export_model.main(gguf_command(tmp_path))
    export_model.main(gguf_command(tmp_path, "--overwrite=True"))
    assert (tmp_path / "out" / "model-f16.gguf").is_file()


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_full_disk_leaves_nothing(tokenizer, tmp_path: Path) -> None:
    """The largest size that the kernel lets a file have stands in for it."""
    import resource

    save_model(build(tokenizer, "qwen3"), tokenizer, tmp_path / "mine")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"model-f16\.gguf could not be written: is the disk full\?"):
            export_model.main(gguf_command(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_the_package(tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(build(tokenizer, "qwen3"), tokenizer, tmp_path / "mine")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r'GGUF needs the package gguf: pip install "scratchgpt\[gguf\]"'):
        export_model.main(gguf_command(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
