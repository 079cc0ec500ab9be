"""training/meters.py: FLOPs against a sum by hand and torch's own counter; memory against the kernel's record."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.training.metrics import flops_per_token, peak_memory_mb


def config(preset: str = "gpt2", **changed: object) -> ScratchGPTConfig:
    shape = {
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    }
    return ScratchGPTConfig.from_preset(preset, **{**shape, **changed})


def test_flops_by_hand() -> None:
    # Two layers: four projections 32 × 32 and two of 32 × 128, with biases; two norms. One more norm; the tied table.
    layer = 4 * (32 * 32 + 32) + (32 * 128 + 128) + (128 * 32 + 32) + 2 * (2 * 32)
    multiplying = 2 * layer + 2 * 32 + 96 * 32
    model = ScratchGPTForCausalLM(config())
    num_parameters = sum(p.numel() for p in model.parameters())
    assert num_parameters == multiplying + 16 * 32  # and the positions, which are only looked up
    attention = 2 * 4 * 8 * 16 * 6  # layers · heads · width of a head · length, 12 halved
    assert flops_per_token(model.config, num_parameters, 16) == 6 * multiplying + attention


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("gpt2", {}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("modern", {}),
        ("modern", {"tie_word_embeddings": False, "num_key_value_heads": 2, "head_dim": 16}),
    ],
)
def test_flops_are_those_that_torch_counts(preset: str, changed: dict) -> None:
    """torch counts matrix products alone, and all of the attention; norms, biases and the causal half are the rest."""
    length = 16
    model = ScratchGPTForCausalLM(config(preset, **changed)).train()
    model.set_attn_implementation("eager")
    ids = torch.randint(0, 96, (2, length))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, return_logits=True).loss.backward()
    counted = counter.get_total_flops() / ids.numel()
    half_attention = 6 * 2 * 4 * model.config.head_dim * length
    vectors = 6 * sum(p.numel() for p in model.parameters() if p.ndim == 1)
    num_parameters = sum(p.numel() for p in model.parameters())
    assert flops_per_token(model.config, num_parameters, length) == counted - half_attention + vectors


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the kernel's record is Linux's")
def test_peak_memory_is_the_kernels() -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert peak_memory_mb(torch.device("cpu")) == pytest.approx(int(status["VmHWM"].split()[0]) * 1024 / 1e6, rel=0.01)
