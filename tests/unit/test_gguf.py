"""GGUF files: what they say, what is refused, and that the check notices a file that says something else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import GenerationConfig

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.interop import gguf_checks, llama_cpp
from scratchgpt.interop.checks import AWKWARD
from scratchgpt.interop.gguf import QUANTIZATIONS, read_tokenizer, to_llama_cpp, write_gguf
from scratchgpt.interop.gguf_checks import check_gguf_file
from scratchgpt.interop.gguf_tokenizer import CONTROL, NORMAL, UNUSED, USER_DEFINED, GGUFTokenizer, check_whole_tokens
from scratchgpt.interop.ollama import modelfile
from scratchgpt.tokenizers import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    WORD_PATTERN,
    BPETokenizer,
    CharTokenizer,
    RegexTokenizer,
    to_transformers,
)

gguf = pytest.importorskip("gguf", reason="no gguf")

TEXTS = ["To be, or not to be: that's the question, isn't it?\n\n  12345 gold"] * 4


@pytest.fixture(autouse=True)
def _no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(llama_cpp.VARIABLE, raising=False)


@pytest.fixture(scope="module", params=[GPT2_PATTERN, GPT4_PATTERN], ids=["gpt2", "gpt4"])
def any_tokenizer(request) -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train(TEXTS, 290, pattern=request.param), model_max_length=64)


@pytest.fixture(scope="module")
def tokenizer() -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train(TEXTS, 290), model_max_length=64)


def build(tokenizer, preset: str, **overrides) -> ScratchGPTForCausalLM:
    shape = {
        "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(ScratchGPTConfig.from_preset(preset, **{**shape, **overrides})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.05
    return model


FAMILIES = {
    "gpt2": ("gpt2", {"intermediate_size": 96}),
    "gpt2 untied, without biases": ("gpt2", {"tie_word_embeddings": False, "use_bias": False}),
    "qwen3": ("modern", {"num_key_value_heads": 2, "head_dim": 32, "rope_parameters": {"rope_theta": 5e5}}),
    "qwen3 untied": ("modern", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    "llama": ("modern", {"qk_norm": False, "num_key_value_heads": 2}),
    "llama with biases": ("modern", {"qk_norm": False, "use_bias": True}),
}


@pytest.mark.parametrize("quantization", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize(("preset", "overrides"), FAMILIES.values(), ids=FAMILIES)
def test_transformers_reads_what_was_written(any_tokenizer, preset, overrides, quantization, tmp_path: Path) -> None:
    exported = to_llama_cpp(build(any_tokenizer, preset, **overrides))
    assert write_gguf(exported, any_tokenizer, tmp_path / "m.gguf", quantization, name="mine") == 0
    assert "read by transformers" in check_gguf_file(tmp_path / "m.gguf", exported, any_tokenizer)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_rounding(tokenizer, quantization: str, tmp_path: Path) -> None:
    """Each type rounds as far as its bits say; norms, biases and positions not at all; embeddings to 8 bits."""
    model = build(tokenizer, "gpt2")
    exported = to_llama_cpp(model)
    write_gguf(exported, tokenizer, tmp_path / "m.gguf", quantization, name="mine")
    change = {
        name: ((after - before).abs().max() / before.abs().max()).item()
        for (name, before), after in zip(to_llama_cpp(model).named_parameters(), exported.parameters(), strict=True)
    }
    steps = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 250, "q5_1": 1 / 30, "q5_0": 1 / 25, "q4_1": 1 / 14}
    assert change["transformer.h.0.mlp.c_fc.weight"] <= steps.get(quantization, 1 / 12)
    assert change["transformer.wte.weight"] <= max(
        steps["q8_0"], steps.get(quantization, 0) * (quantization[0] != "q")
    )
    assert all(value == 0 for name, value in change.items() if "bias" in name or "ln_" in name or "wpe" in name)
    assert (change["transformer.h.0.mlp.c_fc.weight"] == 0) == (quantization == "f32")


def test_fields(tokenizer, tmp_path: Path) -> None:
    """What llama.cpp reads, by the names of the specification."""
    exported = to_llama_cpp(build(tokenizer, "modern", num_key_value_heads=2, head_dim=32))
    known = {"license": "mit", "source": "https://example.org/me/mine"}
    write_gguf(exported, tokenizer, tmp_path / "m.gguf", "q8_0", name="mine", **known)
    found = {name: field.contents() for name, field in gguf.GGUFReader(tmp_path / "m.gguf").fields.items()}
    expected = {
        "general.architecture": "qwen3", "general.name": "mine", "general.license": "mit", "general.file_type": 7,
        "general.source.url": "https://example.org/me/mine", "qwen3.block_count": 2, "qwen3.context_length": 64,
        "qwen3.embedding_length": 64, "qwen3.feed_forward_length": 192, "qwen3.vocab_size": 320,
        "qwen3.attention.head_count": 4, "qwen3.attention.head_count_kv": 2, "qwen3.attention.key_length": 32,
        "qwen3.attention.value_length": 32, "qwen3.rope.dimension_count": 32, "qwen3.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False, "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.eot_token_id": tokenizer.convert_tokens_to_ids("<|end|>"),
        "tokenizer.chat_template": tokenizer.chat_template,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert found["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_tokenizer_fields(any_tokenizer, tmp_path: Path) -> None:
    any_tokenizer = ScratchGPTTokenizer(tokenizer_object=any_tokenizer.backend_tokenizer)
    any_tokenizer.add_tokens([AddedToken("[name]", normalized=False)])
    size = len(any_tokenizer)
    fields = GGUFTokenizer.of(any_tokenizer, size + 3)
    assert len(fields.tokens) == len(fields.types) == size + 3
    assert [fields.types.count(kind) for kind in (NORMAL, CONTROL, USER_DEFINED, UNUSED)] == [size - 7, 6, 1, 3]
    assert len(set(fields.tokens)) == len(fields.tokens)
    text = AWKWARD + "my [name]s"
    assert fields.reread().encode(text) == any_tokenizer(text, add_special_tokens=False)["input_ids"]


def with_pattern(pattern: str) -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train(TEXTS, 280, pattern=pattern))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_transformers(RegexTokenizer.train(TEXTS)), "words or characters"),
        (lambda: to_transformers(RegexTokenizer.train(TEXTS, unk=True)), "words or characters"),
        (lambda: to_transformers(CharTokenizer.train(TEXTS)), "words or characters"),
        (lambda: with_pattern(WORD_PATTERN), "it splits text by"),
        (lambda: with_pattern(GPT4_PATTERN.replace("{1,3}", "{1,2}")), "it splits text by"),
        (lambda: with_pattern(r"[\s\S]+"), "it splits text by"),
    ],
)
def test_tokenizers_that_llama_cpp_has_not(make, message: str) -> None:
    with pytest.raises(ValueError, match=f"llama.cpp cannot express this tokenizer: .*{message}"):
        GGUFTokenizer.of(make(), 300)


def test_a_tokenizer_that_changes_the_text_first(tokenizer) -> None:
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document["normalizer"] = {"type": "NFC"}
    other = ScratchGPTTokenizer(tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(document)))
    with pytest.raises(ValueError, match="it has a normalizer"):
        GGUFTokenizer.of(other, 300)


def test_a_token_that_merges_do_not_lead_to() -> None:
    """`llama-bpe` takes a whole pre-token that is a token, where the merges here come to "a" and "bc"."""
    vocabulary = {bytes([value]): value for value in range(256)} | {b"bc": 256, b"ab": 257, b"abc": 258}
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")]
    special = {"<|endoftext|>": 259}
    assert BPETokenizer(vocabulary, merges, GPT4_PATTERN, special).encode("abc") == [97, 256]
    with pytest.raises(ValueError, match="it would read 'abc' as the one token"):
        check_whole_tokens(BPETokenizer(vocabulary, merges, GPT4_PATTERN, special))
    check_whole_tokens(BPETokenizer.train(TEXTS * 3, 290, pattern=GPT4_PATTERN))


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("gpt2", {"hidden_act": "relu"}, "llama.cpp cannot express .* hidden_act=relu"),
        ("modern", {"hidden_act": "gelu"}, "llama.cpp cannot express .* hidden_act=gelu"),
        ("modern", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_parameters"),
        ("modern", {"use_bias": True}, "Qwen3 cannot express .* use_bias=True"),
        ("modern", {"norm_type": "layernorm"}, "Qwen3 cannot express .* norm_type=layernorm"),
        ("gpt2", {"num_key_value_heads": 2}, "GPT-2 cannot express .* num_key_value_heads=2"),
        ("gpt2", {"qk_norm": True}, "GPT-2 cannot express .* qk_norm=True"),
    ],
)
def test_models_that_llama_cpp_has_not(tokenizer, preset, overrides, message) -> None:
    with pytest.raises(ValueError, match=message):
        to_llama_cpp(build(tokenizer, preset, **overrides))


def test_weights_beyond_halves(tokenizer, tmp_path: Path) -> None:
    model = build(tokenizer, "modern")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    with pytest.raises(
        ValueError, match=r"up_proj\.weight has weights that are too large for f16: choose bf16 or f32"
    ):
        write_gguf(to_llama_cpp(model), tokenizer, tmp_path / "m.gguf", "f16", name="mine")
    assert not list(tmp_path.iterdir())
    write_gguf(to_llama_cpp(model), tokenizer, tmp_path / "m.gguf", "bf16", name="mine")


def test_rows_that_make_no_blocks(tokenizer, tmp_path: Path) -> None:
    """Of 40 numbers, where a block has 32; the MLP's way down has rows of 128."""
    exported = to_llama_cpp(build(tokenizer, "modern", hidden_size=40, head_dim=10))
    assert write_gguf(exported, tokenizer, tmp_path / "m.gguf", "q8_0", name="mine") == 13
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["blk.0.ffn_up.weight"] == types["token_embd.weight"] == "F16"
    assert "read by transformers" in check_gguf_file(tmp_path / "m.gguf", exported, tokenizer)


def test_the_check_notices(tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = to_llama_cpp(build(tokenizer, "modern"))
    write_gguf(exported, tokenizer, tmp_path / "m.gguf", name="mine")
    with torch.no_grad():
        exported.model.layers[1].self_attn.k_proj.weight[3] += 0.01
    with pytest.raises(ValueError, match="The two models disagree"):
        check_gguf_file(tmp_path / "m.gguf", exported, tokenizer)
    other = to_transformers(BPETokenizer.train(TEXTS, 290, pattern=GPT2_PATTERN))
    with pytest.raises(ValueError, match="the file's tokenizer gives other ids from the one at"):
        check_gguf_file(tmp_path / "m.gguf", exported, other)


def test_near_ties(tokenizer) -> None:
    model = to_llama_cpp(build(tokenizer, "modern"))
    prompt = tokenizer("To be")["input_ids"]
    ours = gguf_checks.continuation(model, prompt, 6)
    assert not gguf_checks.is_near_tie(model, prompt, ours, 0.01)
    logits = model(torch.tensor([prompt + ours[:3]])).logits[0, -1]
    best, second = logits.topk(2).indices.tolist()
    gap = (logits[best] - logits[second]).item()
    theirs = [*ours[:3], second, 0, 0]
    assert gguf_checks.is_near_tie(model, prompt, theirs, gap)
    with pytest.raises(ValueError, match=re.escape(f"likelier by {gap:.2e}")):
        gguf_checks.is_near_tie(model, prompt, theirs, gap / 3)


def test_without_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama_cpp.llama_program() is None
    with pytest.raises(ValueError, match="SCRATCHGPT_LLAMA_CPP is not set"), llama_cpp.llama_server("m.gguf", 64):
        pass
    monkeypatch.setenv(llama_cpp.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"SCRATCHGPT_LLAMA_CPP=.* holds no llama-server"):
        llama_cpp.llama_program()


def test_a_server_that_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-server").write_text("#!/bin/sh\necho unknown model architecture\nexit 1\n")
    (tmp_path / "llama-server").chmod(0o755)
    monkeypatch.setenv(llama_cpp.VARIABLE, str(tmp_path))
    with (
        pytest.raises(ValueError, match=r"cannot read m\.gguf: … unknown model architecture"),
        llama_cpp.llama_server(tmp_path / "m.gguf", 64),
    ):
        pass


def test_modelfile(tokenizer) -> None:
    plain = modelfile("m.gguf", tokenizer, GenerationConfig(), 64, is_chat=False)
    assert plain.startswith('FROM ./m.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "<|endoftext|>"\n')
    assert "PARAMETER num_ctx 64" in plain
    settings = GenerationConfig(do_sample=True, temperature=0.7, top_k=40, repetition_penalty=1.1)
    chat = modelfile("m.gguf", tokenizer, settings, 64, is_chat=True)
    assert '<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"""' in chat
    for line in ('stop "<|end|>"', "temperature 0.7", "top_k 40", "repeat_penalty 1.1"):
        assert f"PARAMETER {line}\n" in chat
    assert "temperature 0\n" in modelfile("m.gguf", tokenizer, GenerationConfig(do_sample=False), 64, is_chat=False)
    tokenizer = ScratchGPTTokenizer(tokenizer_object=tokenizer.backend_tokenizer, chat_template="{{ messages }}")
    assert "TEMPLATE" not in modelfile("m.gguf", tokenizer, GenerationConfig(), 64, is_chat=True)


def test_vocabulary_survives_the_file(any_tokenizer, tmp_path: Path) -> None:
    exported = to_llama_cpp(build(any_tokenizer, "gpt2"))
    write_gguf(exported, any_tokenizer, tmp_path / "m.gguf", "f32", name="mine")
    assert read_tokenizer(tmp_path / "m.gguf") == GGUFTokenizer.of(any_tokenizer, 320)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    table = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    np.testing.assert_array_equal(table.data, exported.transformer.wte.weight.detach().numpy())
