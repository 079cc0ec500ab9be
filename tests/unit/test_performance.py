import sys
import warnings

import pytest
import torch
from transformers import AttentionInterface

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, performance


@pytest.fixture(autouse=True)
def restore_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def settings():
    before = torch.get_float32_matmul_precision()
    settings = performance.configure_process()
    torch.set_float32_matmul_precision(before)
    return settings


def model_pair(**overrides):
    """The same small model with SDPA and with blockwise attention."""
    shape = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ScratchGPTConfig.from_preset("modern", **{**shape, **overrides})
    torch.manual_seed(0)
    reference = ScratchGPTForCausalLM(config)
    model = ScratchGPTForCausalLM(config)
    model.load_state_dict(reference.state_dict())
    model.set_attn_implementation("blockwise")
    return reference, model


def test_settings_say_what_and_why(settings):
    text = str(settings)
    assert settings.attention == "blockwise"
    assert settings.matmul_precision in text
    assert len(text.splitlines()) == 4


def test_precision_chosen_on_the_cpu_is_fp32():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, _ = performance.set_matmul_precision("cpu")
    assert torch.get_float32_matmul_precision() == precision
    assert performance.matmul_error() < performance.FP32_TOLERANCE


def test_precision_goes_back_when_products_are_rounded(monkeypatch):
    monkeypatch.setattr(performance, "matmul_error", lambda: 2e-3)
    with pytest.warns(UserWarning, match="2.0e-03"):
        precision, reason = performance.set_matmul_precision("cpu")
    assert precision == torch.get_float32_matmul_precision() == "highest"
    assert "not fp32" in reason


def test_tolerance_lies_between_fp32_and_bf16(monkeypatch):
    matmul = torch.Tensor.__matmul__

    def rounding_matmul(a, b):
        return matmul(a.bfloat16(), b.bfloat16()).to(a.dtype) if a.dtype == torch.float else matmul(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding_matmul)
    assert performance.matmul_error() > 10 * performance.FP32_TOLERANCE


def test_gpu_gets_tf32_and_keeps_sdpa():
    settings = performance.configure_process("meta")
    assert settings.matmul_precision == "high"
    assert settings.attention == "sdpa"
    assert settings.autocast_dtype is None


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    done, reason = performance.keep_freed_memory()
    assert not done
    assert "glibc" in reason


def test_attention_is_registered(settings):
    assert "blockwise" in AttentionInterface().valid_keys()


@pytest.mark.parametrize("length", [1, 5, 128, 129, 300, 600])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_blockwise_attention_equals_sdpa(settings, length, kv_heads):
    reference, model = model_pair(num_key_value_heads=kv_heads)
    ids = torch.randint(0, 97, (2, length))
    torch.testing.assert_close(model(ids).logits, reference(ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [200, 300])  # weights kept, weights recomputed
def test_blockwise_gradients_equal_sdpa(settings, length):
    reference, model = model_pair()
    ids = torch.randint(0, 97, (2, length))
    for each in (reference, model):
        each.train()
        each(ids, labels=ids).loss.backward()
    for expected, actual in zip(reference.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_blockwise_attention_with_padding(settings, side):
    reference, model = model_pair()
    ids = torch.randint(0, 97, (2, 150))
    mask = torch.ones_like(ids)
    mask[0, slice(0, 20) if side == "left" else slice(-20, None)] = 0
    actual, expected = model(ids, attention_mask=mask).logits, reference(ids, attention_mask=mask).logits
    assert actual.isfinite().all()
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-4)


def test_blockwise_attention_with_packed_documents(settings):
    reference, model = model_pair()
    ids = torch.randint(0, 97, (1, 150))
    positions = torch.cat((torch.arange(70), torch.arange(80))).unsqueeze(0)
    actual, expected = (each(ids, position_ids=positions, use_cache=False).logits for each in (model, reference))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_blockwise_attention_generates_as_sdpa(settings):
    reference, model = model_pair()
    ids = torch.randint(0, 97, (2, 140))
    arguments = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert model.generate(ids, **arguments).equal(reference.generate(ids, **arguments))


def test_blockwise_attention_drops_weights_in_training_only(settings):
    _, model = model_pair(attention_dropout=0.5)
    ids = torch.randint(0, 97, (1, 20))
    assert model.eval()(ids).logits.equal(model(ids).logits)
    model.train()
    assert not model(ids).logits.equal(model(ids).logits)


def test_saved_models_do_not_ask_for_it(settings, tmp_path):
    _, model = model_pair()
    model.save_pretrained(tmp_path)
    assert "blockwise" not in (tmp_path / "config.json").read_text()
