"""performance.py: what is chosen for a process, and that the choice is measured."""

import sys
import warnings

import pytest
import torch
from transformers import AttentionInterface

from scratchgpt import performance


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


@pytest.mark.parametrize(("name", "words"), [("gpu", "is no device"), ("cuda:99", "is not to be had here")])
def test_a_device_that_is_not_there(name: str, words: str) -> None:
    """A mistake of the user's; torch itself fails with an assertion where it was built without CUDA."""
    performance.check_device("cpu")
    with pytest.raises(ValueError, match=f"device={name} {words}"):
        performance.check_device(name)
