"""attention.py: both implementations give what SDPA gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, performance
from scratchgpt.attention import blockwise_attention_forward, one_query_attention_forward


@pytest.fixture(scope="module", autouse=True)
def blockwise():
    """Registered, as it is for a training process."""
    before = torch.get_float32_matmul_precision()
    performance.configure_process()
    torch.set_float32_matmul_precision(before)


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


@pytest.mark.parametrize("length", [1, 5, 128, 129, 300, 600])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_blockwise_attention_equals_sdpa(length, kv_heads):
    reference, model = model_pair(num_key_value_heads=kv_heads)
    ids = torch.randint(0, 97, (2, length))
    torch.testing.assert_close(model(ids).logits, reference(ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [2, 130, 600])
def test_without_a_mask_blockwise_attention_is_causal(length):
    """The model hands on a mask; other callers leave it out where attention is plainly causal."""
    query, key, value = torch.randn(3, 2, 4, length, 8)
    module = nn.Module().eval()
    module.is_causal = True
    mixed, _ = blockwise_attention_forward(module, query, key, value, None, scaling=8**-0.5)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(mixed, expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [200, 300])  # weights kept, weights recomputed
def test_blockwise_gradients_equal_sdpa(length):
    reference, model = model_pair()
    ids = torch.randint(0, 97, (2, length))
    for each in (reference, model):
        each.train()
        each(ids, labels=ids).loss.backward()
    for expected, actual in zip(reference.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_blockwise_attention_with_padding(side):
    reference, model = model_pair()
    ids = torch.randint(0, 97, (2, 150))
    mask = torch.ones_like(ids)
    mask[0, slice(0, 20) if side == "left" else slice(-20, None)] = 0
    actual, expected = model(ids, attention_mask=mask).logits, reference(ids, attention_mask=mask).logits
    assert actual.isfinite().all()
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-4)


def test_blockwise_attention_with_packed_documents():
    reference, model = model_pair()
    ids = torch.randint(0, 97, (1, 150))
    positions = torch.cat((torch.arange(70), torch.arange(80))).unsqueeze(0)
    actual, expected = (each(ids, position_ids=positions, use_cache=False).logits for each in (model, reference))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_blockwise_attention_generates_as_sdpa():
    reference, model = model_pair()
    ids = torch.randint(0, 97, (2, 140))
    arguments = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert model.generate(ids, **arguments).equal(reference.generate(ids, **arguments))


def test_blockwise_attention_drops_weights_in_training_only():
    _, model = model_pair(attention_dropout=0.5)
    ids = torch.randint(0, 97, (1, 20))
    assert model.eval()(ids).logits.equal(model(ids).logits)
    model.train()
    assert not model(ids).logits.equal(model(ids).logits)


def test_saved_models_do_not_ask_for_it(tmp_path):
    _, model = model_pair()
    model.save_pretrained(tmp_path)
    assert "blockwise" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("num_key_value_heads", [4, 2])
def test_one_query_is_what_sdpa_gives(num_key_value_heads: int) -> None:
    query, mask = torch.randn(2, 4, 1, 8), torch.rand(2, 1, 1, 11) > 0.3
    key, value = torch.randn(2, 2, num_key_value_heads, 11, 8)
    module = nn.Module()
    for visible in (mask, None):
        found, _ = one_query_attention_forward(module, query, key, value, visible, scaling=0.3)
        wanted = F.scaled_dot_product_attention(query, key, value, visible, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(found, wanted.transpose(1, 2))
