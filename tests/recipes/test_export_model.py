"""Exports as a user makes them: to each target with tokenizer and template, and what is refused."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from recipes import export_model
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.hub.cards import CARD, check_card
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.push_checks import check_before_push, kind_of
from scratchgpt.hub.seals import verify_if_sealed
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
    files = {"Modelfile", "README.md", "arguments.yaml", "model-q8_0.gguf"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files
    assert kind_of(tmp_path / "out") == "export"
    check_before_push(tmp_path / "out")
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


def quantized_command(tmp_path: Path, *options: str) -> list[str]:
    return [f"--model_name_or_path={tmp_path / 'mine'}", f"--output_dir={tmp_path / 'out'}", *options]


KINDS = {8: "Linear8bitLt", 4: "Linear4bit"}


FEW_BITS = [
    ("qwen3", "scratchgpt", {}),
    ("gpt2", "scratchgpt", {"tie_word_embeddings": False}),
    ("qwen3", "qwen3", {"num_key_value_heads": 2, "tie_word_embeddings": False}),
    ("llama", "llama", {"use_bias": True}),
    ("gpt2", "gpt2", {}),
    ("gpt2", "gpt2", {"intermediate_size": 72}),  # which 4 bits have no tile for
]
NARROW = {"hidden_size": 40, "head_dim": 10, "intermediate_size": 72}


@pytest.mark.parametrize(
    ("source", "target", "overrides", "bits"),
    [*[(*case, bits) for case in FEW_BITS for bits in (8, 4)], ("gpt2", "gpt2", NARROW, 8)],
)
@torch.no_grad()
def test_few_bits_stay(tokenizer, tmp_path: Path, source, target, overrides, bits, capsys) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes")
    model = build(tokenizer, source, **{"hidden_size": 64, "head_dim": 16, **overrides})
    save_model(model, tokenizer, tmp_path / "mine")
    export_model.main(quantized_command(tmp_path, f"--weight_bits={bits}", f"--to={target}"))
    said = capsys.readouterr().out
    assert f"({target}): bits per byte " in said
    assert "bytes of text that the model wrote itself; " in said
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    found = {name: layer for name, layer in read.named_modules() if isinstance(layer, torch.nn.Linear | Conv1D)}
    few = {name: layer for name, layer in found.items() if type(layer).__name__ == KINDS[bits]}
    stay = [name for name in found if name not in few and "head" not in name]
    assert bool(stay) == (bits == 4 and "intermediate_size" in overrides)
    assert all("mlp" in name for name in stay)
    assert few
    assert not any("head" in name for name in few)
    assert read.config.model_type == target
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT, return_tensors="pt")
    assert inputs["input_ids"].tolist() == [tokenizer(TEXT)["input_ids"]]
    ours, theirs = model(**inputs).logits, read(**inputs).logits.float()
    assert (ours - theirs).norm() < {8: 0.08, 4: 0.8}[bits] * ours.norm()
    assert read.generate(**inputs, do_sample=False, max_new_tokens=4).shape[1] > inputs["input_ids"].shape[1]
    # What is rounded takes so many bits, and a scale; the rest is 16 bits.
    rounded = sum(layer.in_features * layer.out_features for layer in few.values())
    numbers = sum(parameter.numel() for parameter in model.parameters())
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert size < rounded * (bits + 1) / 8 + (numbers - rounded) * 2 + 30_000
    assert f"{size:,} bytes, {size / (4 * numbers):.1%} of fp32" in said
    card = (tmp_path / "out" / CARD).read_text()
    assert f"rounded to {bits} bits" in card
    assert f"{numbers:,} parameters" in card
    assert not check_card(tmp_path / "out")
    found = json.loads((tmp_path / "out" / "rounding.json").read_text())
    assert f"{found['before']['value']:.4f} before, {found['after']['value']:.4f} after" in card
    verify_if_sealed(tmp_path / "out")


def test_a_model_without_a_layer_for_four_bits(tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes")
    save_model(build(tokenizer, "qwen3", intermediate_size=48), tokenizer, tmp_path / "mine")
    with pytest.raises(ValueError, match="weight_bits=4: no layer of this model has inputs that are a multiple of 64"):
        export_model.main(quantized_command(tmp_path, "--weight_bits=4"))
    assert not (tmp_path / "out").exists()


def test_the_cost_on_a_text_of_ones_own(tokenizer, tmp_path: Path, capsys) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes")
    model = build(tokenizer, "qwen3")
    save_model(model, tokenizer, tmp_path / "mine")
    (tmp_path / "t.txt").write_text("to be or not to be")
    export_model.main(quantized_command(tmp_path, "--weight_bits=8", f"--text={tmp_path / 't.txt'}"))
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("to be or not to be")["input_ids"]]])
    with torch.no_grad():
        bits = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum") / math.log(2)
    assert f"bits per byte {bits / 18:.4f} → " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weight_bits=8", "--to=gguf"], r"--weight_bits 8 is not for --to gguf: give --quantization"),
        (["--to=scratchgpt"], r"--to scratchgpt is what the model is: give --weight_bits 8 or 4"),
        (["--text=a.txt"], r"--text a\.txt measures what --weight_bits costs"),
        (["--weight_bits=8", "--to=llama"], r"Llama cannot express .* qk_norm=True"),
        (["--weight_bits=4", "--text=nowhere.txt"], r"nowhere\.txt"),
    ],
)
def test_what_weight_bits_cannot_be(tokenizer, tmp_path: Path, options: list[str], message: str) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes")
    save_model(build(tokenizer, "qwen3"), tokenizer, tmp_path / "mine")
    with pytest.raises(ValueError, match=message):
        export_model.main(quantized_command(tmp_path, *options))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_is_rounded_is_not_rounded_again(tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes")
    save_model(build(tokenizer, "qwen3"), tokenizer, tmp_path / "mine")
    export_model.main(quantized_command(tmp_path, "--weight_bits=8"))
    for options in (["--weight_bits=4"], ["--to=qwen3"], ["--to=gguf"]):
        command = [f"--model_name_or_path={tmp_path / 'out'}", f"--output_dir={tmp_path / 'again'}", *options]
        with pytest.raises(ValueError, match="out is rounded to few bits already: export what it was made from"):
            export_model.main(command)
    with pytest.raises(ValueError, match="not empty"):
        export_model.main(quantized_command(tmp_path, "--weight_bits=4"))
    (tmp_path / "mine" / "tokenizer.json").unlink()
    (tmp_path / "mine" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json, without which no bits per byte are measured"):
        export_model.main(
            [f"--model_name_or_path={tmp_path / 'mine'}", "--weight_bits=4", f"--output_dir={tmp_path / 'b'}"]
        )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs the package bitsandbytes: pip install "scratchgpt\[quant\]"'):
        export_model.main(quantized_command(tmp_path, "--weight_bits=4", "--overwrite=True"))
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out"}


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_full_disk_leaves_the_earlier_few_bits(tokenizer, tmp_path: Path) -> None:
    import resource

    pytest.importorskip("bitsandbytes", reason="no bitsandbytes")
    save_model(build(tokenizer, "qwen3"), tokenizer, tmp_path / "mine")
    export_model.main(quantized_command(tmp_path, "--weight_bits=8"))
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written: is the disk full"):
            export_model.main(quantized_command(tmp_path, "--weight_bits=4", "--overwrite=True"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out"}
