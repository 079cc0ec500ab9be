"""The arithmetic of `scratchgpt plan` against real models, torch's own counters, and what was measured."""

import itertools
import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import PEAK_TFLOPS
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.training import estimates
from scratchgpt.training.estimates import MACHINES, Run
from scratchgpt.training.metrics import flops_per_token
from scratchgpt.training.optimizers import build_optimizers
from tests.runs import ROOT

SMALL = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS: dict[str, ScratchGPTConfig] = {
    "gpt2": ScratchGPTConfig.from_preset("gpt2", **SMALL, max_position_embeddings=48),
    "gpt2, untied": ScratchGPTConfig.from_preset("gpt2", **SMALL, tie_word_embeddings=False),
    "modern": ScratchGPTConfig.from_preset("modern", **SMALL),
    "grouped": ScratchGPTConfig.from_preset("modern", **SMALL, num_key_value_heads=2, tie_word_embeddings=False),
    "between": ScratchGPTConfig.from_preset("modern", **SMALL, use_bias=True, norm_type="layernorm", head_dim=24),
}


def build(config: ScratchGPTConfig) -> Any:
    torch.manual_seed(0)
    return ScratchGPTForCausalLM(config).train()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_parameter_is_in_one_part(config: ScratchGPTConfig) -> None:
    model = build(config)
    assert sum(estimates.parameters(config).values()) == sum(p.numel() for p in model.parameters())
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    assert estimates.matrix_weights(config) == sum(p.numel() for p in matrices)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_state_of_the_optimizer(config: ScratchGPTConfig, optimizer: Any) -> None:
    model = build(config)
    optimizers = build_optimizers(model, optimizer=optimizer, learning_rate=1e-3)
    ids = torch.randint(config.vocab_size, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizers.step()
    states = [state for one in optimizers.optimizers for state in one.state.values()]
    held = sum(value.nbytes for state in states for value in state.values() if torch.is_tensor(value) and value.ndim)
    assert estimates.optimizer_bytes(config, optimizer) == held


@pytest.mark.parametrize("name", ["gpt2", "modern", "grouped"])
def test_flops_are_those_that_torch_counts(name: str) -> None:
    """torch counts attention whole, causal or not, so the other half is added."""
    config, length = CONFIGS[name], 48
    model = build(config)
    model.set_attn_implementation("eager")
    ids = torch.randint(config.vocab_size, (2, length))
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), ids.flatten()).backward()
    number = sum(estimates.parameters(config).values())
    other_half = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length  # pyright: ignore
    assert flops_per_token(config, number, length) + other_half == pytest.approx(
        counter.get_total_flops() / ids.numel(), rel=0.03
    )


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["gpt2", "modern", "gpt2, untied"])
def test_activations_are_what_autograd_keeps(name: str, bf16: bool) -> None:
    """Not compiled: the difference that a layer makes."""
    kept = []
    for layers in (1, 2):
        config = ScratchGPTConfig.from_dict({**CONFIGS[name].to_dict(), "num_hidden_layers": layers})
        model = build(config)
        held = {parameter.untyped_storage().data_ptr(): 0 for parameter in model.parameters()}
        alive = []

        def pack(tensor: torch.Tensor, held: dict[int, int] = held, alive: list[torch.Tensor] = alive) -> torch.Tensor:
            alive.append(tensor)
            held.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
            return tensor

        ids = torch.randint(config.vocab_size, (3, 40))
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            model(input_ids=ids, labels=ids)
        kept.append(sum(held.values()))
    run = Run(config, 3, 40, bf16=bf16, compiled=False, on_cpu=True)
    a_token, fixed = estimates.activation_bytes(run)
    assert a_token * run.tokens + fixed == pytest.approx(kept[1] - kept[0], rel=0.02)


def measured_on_the_gpu() -> list[dict[str, Any]]:
    lines = (ROOT / "benchmarks" / "results" / "gpu.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["benchmark"] == "GPU training step, 124M, bf16"]


@pytest.mark.parametrize(
    ("candidate", "preset", "optimizer"),
    [("gpt2", "gpt2", "adamw"), ("modern", "modern", "adamw"), ("modern, Muon", "modern", "muon")],
)
def test_peaks_that_were_measured_on_a_gpu(candidate: str, preset: str, optimizer: Any) -> None:
    [peak] = {
        line["value"]
        for line in measured_on_the_gpu()
        if line["candidate"] == f"scratchgpt {candidate}"
        and line["metric"] == "peak memory, GB"
        and line["case"] == "8 × 1,024 tokens"
    }
    config = ScratchGPTConfig.from_preset(preset, vocab_size=50304, max_position_embeddings=1024)
    planned = estimates.memory(Run(config, 8, 1024, optimizer=optimizer))["peak"]
    assert planned / 1e9 == pytest.approx(peak, rel=0.03)


def test_what_is_assumed_was_measured() -> None:
    found = {
        line["value"] / 100
        for line in measured_on_the_gpu()
        if line["candidate"] == "scratchgpt gpt2" and line["metric"] == "MFU against the data sheet, %"
    }
    assert any(round(value, 3) == estimates.ASSUMED_MFU for value in found)
    assert {machine.flops for machine in MACHINES.values()} == {peak * 1e12 for peak in PEAK_TFLOPS.values()}


def test_parts_under_sharding_and_checkpointing() -> None:
    run = Run(ScratchGPTConfig.from_preset("modern-xl", vocab_size=50304, max_position_embeddings=1024), 4, 1024)
    alone = estimates.memory(run)
    shared = estimates.memory(Run(**{**vars(run), "processes": 8}))
    sharded = estimates.memory(Run(**{**vars(run), "processes": 8, "sharded": True}))
    checkpointed = estimates.memory(Run(**{**vars(run), "checkpointing": True}))
    assert shared["peak"] - alone["peak"] == shared["DDP's buckets"] == alone["gradients"]
    assert sharded["optimizer"] == alone["optimizer"] / 8
    assert alone["weights"] / 8 < sharded["weights"] < alone["weights"] / 2
    assert checkpointed["activations"] < alone["activations"] / 5
    assert {name for name in alone if alone[name] != checkpointed[name]} == {"activations", "peak"}


def test_the_largest_batch_just_fits() -> None:
    run = Run(CONFIGS["modern"], 1, 32)
    limit = estimates.memory(Run(**{**vars(run), "rows": 37}))["peak"]
    assert estimates.largest_rows(run, limit) == 37
    assert estimates.largest_rows(run, limit - 1) == 36
    assert estimates.largest_rows(run, 1000) == 0


@pytest.mark.parametrize(("limit", "said"), [(1e9, "all of 7 layers, 2 × 32"), (0.0, "1 and 3 of 7 layers, 2 × 32")])
def test_a_short_run(limit: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model is measured with fewer layers; more take what two of them more took."""
    monkeypatch.setattr(estimates, "SHORT_SECONDS", limit)
    monkeypatch.setattr(estimates, "_timed", lambda run, *_: (10.0 + run.config.num_hidden_layers, 5.0))
    config = ScratchGPTConfig.from_dict({**CONFIGS["modern"].to_dict(), "num_hidden_layers": 7})
    run = Run(config, 2, 32, accumulation=3, bf16=False, compiled=False, on_cpu=True)
    found = estimates.short_run(run, torch.device("cpu"))
    assert found.measured.startswith(said)
    assert (found.pass_seconds, found.update_seconds) == (17.0, 5.0)
    assert found.tokens_per_second(run) == 3 * 64 / (3 * 17 + 5)
    assert found.roof > 1e8


def test_steps_are_timed_by_the_clock_that_is_given() -> None:
    """A clock that ticks a second a reading: one for the pass, one for the update."""
    run = Run(CONFIGS["modern"], 2, 32, accumulation=2, bf16=False, compiled=False, on_cpu=True)
    clock = itertools.count().__next__
    assert estimates._timed(run, torch.device("cpu"), "sdpa", 1.0, clock) == (0.5, 1.0)
