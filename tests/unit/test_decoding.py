"""Decoding fast gives what `generate` gives: the same ids in fp32, close logits in 8 and 4 bits."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.hub.model_directory import save_model
from scratchgpt.inference import decoding
from scratchgpt.inference.decoding import (
    Int8Linear,
    OneRowLinear,
    compiled_decoding,
    four_bit_linear,
    load_for_decoding,
    prepare_for_decoding,
)
from scratchgpt.interop.quantized import write_quantized
from scratchgpt.tokenizers import BPETokenizer, to_transformers

pytestmark = pytest.mark.gpu

TEXTS = ["The quick brown fox jumps over the lazy dog.", "All that glitters is not gold."]
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}


def build(preset: str, **overrides: Any) -> ScratchGPTForCausalLM:
    shape = {
        "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4 if preset == "gpt2" else 2, "max_position_embeddings": 64,
        "initializer_range": 0.2, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    return ScratchGPTForCausalLM(ScratchGPTConfig.from_preset(preset, **{**shape, **overrides})).eval()


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_compiled_decoding_gives_the_ids_of_generate(preset: str) -> None:
    model = build(preset)
    prompts = torch.randint(1, 320, (3, 7))
    expected = model.generate(prompts, **GREEDY)  # plain layers, dynamic cache
    one = model.generate(prompts[:1], **GREEDY)
    prepare_for_decoding(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.generate(prompts, **GREEDY), expected)
    arguments = compiled_decoding(model, max_length=24)
    torch._dynamo.utils.counters.clear()
    for prompt, wanted in ((prompts[:1], one), (prompts[:1, :4], None), (prompts[:1], one)):
        found = model.generate(prompt, **GREEDY, **arguments)
        assert wanted is None or torch.equal(found, wanted)
    # The prompt's length changed, the step was compiled once.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_compiled_row_is_a_linear_layer() -> None:
    layer = nn.Linear(48, 40)
    row = deepcopy(layer)
    row.__class__ = OneRowLinear
    compiled = torch.compile(row, fullgraph=True, dynamic=False)
    part_of_more, strided = torch.randn(3, 48)[1], torch.randn(1, 48, 7).transpose(1, 2)[:, 2:3]
    for x in (torch.randn(1, 1, 48), torch.randn(48), torch.randn(2, 1, 48), part_of_more, strided):
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-5, atol=1e-6)

    def of_a_part(x: torch.Tensor) -> torch.Tensor:
        return row(F.silu(x)[:, -1:]) + row(x[:, 2:3])

    x = torch.randn(1, 7, 48)
    torch.testing.assert_close(torch.compile(of_a_part, fullgraph=True)(x), of_a_part(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unpacks", [True, False])
def test_a_compiled_row_in_8_bits_is_one_that_is_not(unpacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where compiled code unpacks the weights, and where torch's kernel does."""
    monkeypatch.setattr(decoding, "UNPACKS_INT8", unpacks)
    layer = Int8Linear(nn.Linear(48, 40).bfloat16())
    compiled = torch.compile(layer, fullgraph=True, dynamic=False)
    for x in (torch.randn(1, 1, 48), torch.randn(3, 1, 48)):
        torch.testing.assert_close(compiled(x.bfloat16()), layer(x.bfloat16()), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_int8_rounds_to_half_a_step(rows: int) -> None:
    layer = nn.Linear(64, 96).bfloat16()
    with torch.no_grad():
        layer.weight[3] = 0  # a row without a largest weight
    rounded = Int8Linear(layer)
    assert rounded.weight.abs().amax(1).tolist() == [127] * 3 + [0] + [127] * 92  # all of the 8 bits are used
    weight = rounded.weight.float() * rounded.scale.float()[:, None]
    step = layer.weight.detach().float().abs().amax(1) / 127
    # Half a step, and what bf16 takes from the scale.
    assert ((weight - layer.weight.float()).abs() <= step[:, None] * (0.5 + 127 / 256)).all()
    x = torch.randn(rows, 1, 64).bfloat16()
    exact = F.linear(x.float(), weight, layer.bias.float())
    assert rounded(x).shape == (rows, 1, 96)
    assert (rounded(x).float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_four_bits_are_nf4() -> None:
    pytest.importorskip("bitsandbytes")
    layer = nn.Linear(128, 64).bfloat16()
    rounded = four_bit_linear(layer)
    x = torch.randn(4, 128).bfloat16()
    with torch.no_grad():
        error = (rounded(x) - layer(x)).float().norm() / layer(x).float().norm()
    assert 0.01 < error < 0.15  # of normal weights, nf4 loses about 9 %


@pytest.mark.parametrize(("bits", "tolerance"), [(None, 0.02), (8, 0.05), (4, 0.4)])
def test_fewer_bits_keep_the_logits(bits: int | None, tolerance: float) -> None:
    if bits == 4:
        pytest.importorskip("bitsandbytes")
    model = build("modern", initializer_range=0.05)
    ids = torch.randint(1, 320, (2, 20))
    with torch.no_grad():
        exact = model(ids).logits
        prepared = prepare_for_decoding(model.bfloat16(), bits)
        rounded = prepared(ids).logits.float()
    error = (rounded - exact).norm() / exact.norm()
    assert 0 < error < tolerance
    kinds = {type(module).__name__ for module in prepared.modules() if "Linear" in type(module).__name__}
    assert kinds == {None: {"OneRowLinear"}, 8: {"Int8Linear"}, 4: {"Int8Linear", "Linear4bit"}}[bits]
    found = prepared.generate(ids, **GREEDY)
    assert found.shape == (2, 32)


def test_padding_on_the_left_changes_nothing() -> None:
    model = prepare_for_decoding(build("modern"))
    prompt = torch.randint(1, 320, (1, 6))
    padded = F.pad(prompt, (3, 0))
    mask = F.pad(torch.ones_like(prompt), (3, 0))
    alone = model.generate(prompt, attention_mask=torch.ones_like(prompt), **GREEDY)
    assert torch.equal(model.generate(padded, attention_mask=mask, **GREEDY)[:, 9:], alone[:, 6:])


def test_what_cannot_be_prepared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gpt2")
    with pytest.raises(ValueError, match="weight_bits=3"):
        prepare_for_decoding(model, 3)
    model.config.quantization_config = {"load_in_4bit": True}
    with pytest.raises(ValueError, match="quantised already"):
        prepare_for_decoding(model, 8)
    del model.config.quantization_config
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="bitsandbytes"):
        prepare_for_decoding(model, 4)
    assert type(model.lm_head) is nn.Linear


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = to_transformers(BPETokenizer.train(TEXTS * 4, vocab_size=320), model_max_length=64)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    save_model(build("modern", vocab_size=len(tokenizer), **ids), tokenizer, folder / "model")
    return folder / "model"


def test_models_are_loaded_in_the_wanted_type(saved: Path) -> None:
    model, tokenizer = load_for_decoding(saved, dtype="float32")
    assert isinstance(tokenizer, ScratchGPTTokenizer)
    assert (model.dtype, model.training) == (torch.float32, False)
    assert load_for_decoding(saved, weight_bits=8)[0].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype='half'"):
        load_for_decoding(saved, dtype="half")


def test_models_saved_in_four_bits_are_loaded(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoTokenizer, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    rounded = ScratchGPTForCausalLM.from_pretrained(saved, quantization_config=config, dtype=torch.bfloat16).eval()
    rounded.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(saved).save_pretrained(tmp_path)
    model, _ = load_for_decoding(tmp_path)
    ids = torch.randint(1, 250, (1, 9), device=model.device)  # bitsandbytes takes the GPU where there is one
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, rounded(ids).logits, rtol=0.05, atol=0.05)
    with pytest.raises(ValueError, match="quantised already"):
        load_for_decoding(tmp_path, weight_bits=8)


def test_adapters_are_merged_into_their_base(saved: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from scratchgpt.adapters import AdapterArguments, add_adapter, load_base

    tokenizer = AutoTokenizer.from_pretrained(saved)
    adapted = add_adapter(load_base(saved), AdapterArguments(lora_r=4)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    save_model(adapted, tokenizer, tmp_path / "adapter")
    model, _ = load_for_decoding(tmp_path / "adapter", dtype="float32")
    ids = torch.randint(1, 250, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, adapted(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
        plain = load_for_decoding(saved, dtype="float32")[0](ids).logits
    assert not torch.allclose(model(ids).logits, plain, atol=0.01)


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_a_directory_in_8_bits_decodes_by_our_kernel(preset: str, tmp_path: Path) -> None:
    """The integers of the file are the layers', whatever type the rest computes in."""
    pytest.importorskip("bitsandbytes")
    model, ids = build(preset), torch.randint(1, 320, (1, 9))
    tokenizer = to_transformers(BPETokenizer.train(TEXTS, vocab_size=280))
    tokenizer.save_pretrained(tmp_path)
    write_quantized(model, tmp_path, 8, ids)
    written = load_file(tmp_path / "model.safetensors")
    for dtype in (None, "float32"):
        loaded, _ = load_for_decoding(tmp_path, dtype=dtype)
        layer = loaded.model.layers[1].mlp.down_proj
        assert isinstance(layer, Int8Linear)
        assert torch.equal(layer.weight, written["model.layers.1.mlp.down_proj.weight"])
        assert {parameter.dtype for parameter in loaded.parameters()} == {getattr(torch, dtype or "bfloat16")}
        with torch.no_grad():
            error = (loaded(ids).logits.float() - model(ids).logits).norm() / model(ids).logits.norm()
        assert 0 < error < 0.05
    found = loaded.generate(ids, **GREEDY)
    torch._dynamo.utils.counters.clear()
    assert torch.equal(loaded.generate(ids, **GREEDY, **compiled_decoding(loaded, max_length=24)), found)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_directory_in_4_bits_decodes_in_its_own_type(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model, ids = build("gpt2"), torch.randint(1, 320, (1, 9))
    to_transformers(BPETokenizer.train(TEXTS, vocab_size=280)).save_pretrained(tmp_path)
    read = write_quantized(model, tmp_path, 4, ids)
    loaded, _ = load_for_decoding(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, read(ids).logits)
    torch._dynamo.utils.counters.clear()
    written = loaded.generate(ids, **GREEDY, **compiled_decoding(loaded, max_length=24))
    assert written.shape == (1, 9 + GREEDY["max_new_tokens"])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    with pytest.raises(ValueError, match="is quantised, and computes in bfloat16: leave out dtype"):
        load_for_decoding(tmp_path, dtype="float32")
    with pytest.raises(ValueError, match="quantised already: leave out weight_bits"):
        load_for_decoding(tmp_path, weight_bits=8)


def test_in_8_bits_later_tokens_change_nothing(tmp_path: Path) -> None:
    """LLM.int8() looks for outliers in all tokens of a call; here a token has the largest inputs by far."""
    pytest.importorskip("bitsandbytes")
    model, ids = build("modern"), torch.randint(1, 319, (1, 9))
    with torch.no_grad():
        model.model.embed_tokens.weight[319] *= 100
        model.model.layers[0].input_layernorm.weight[5] = 50
    read = write_quantized(model, tmp_path, 8, ids)
    other = ids.clone()
    other[0, -1] = 319
    with torch.no_grad():
        assert torch.equal(read(ids).logits[:, :-1], read(other).logits[:, :-1])
