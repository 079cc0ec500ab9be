"""What a run would take: the arithmetic against real models, and against what was measured on a GPU and here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import count_parameters
from scratchgpt.training.forecast import (
    ACTIVATIONS,
    GRADIENTS,
    MFU,
    ForecastArguments,
    configuration,
    find_machine,
    forecast,
    kept_bytes,
    measured_steps,
    state_bytes,
)
from scratchgpt.training.metrics import flops_per_token
from scratchgpt.training.optimizers import build_optimizers
from scratchgpt_cli.commands import main

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "context_length": 32, "vocab_size": 300,
    "per_device_train_batch_size": 4, "compile": False,
}  # fmt: skip


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_is_what_an_optimizer_holds(preset: str, optimizer: Any) -> None:
    arguments = ForecastArguments(**SMALL, preset=preset, optimizer=optimizer, num_key_value_heads=2)
    model = ScratchGPTForCausalLM(configuration(arguments))
    optimizers = build_optimizers(model, optimizer=optimizer, learning_rate=1e-3)
    model(input_ids=torch.zeros(1, 8, dtype=torch.long), labels=torch.zeros(1, 8, dtype=torch.long)).loss.backward()
    optimizers.step()
    held = sum(
        value.numel() * 4
        for part in optimizers.state_dict().values()
        for of in part.values()
        for value in of.values()
        if value.ndim > 0
    )
    parts = state_bytes(model.config, count_parameters(model), arguments)
    assert parts[f"state of the optimizer ({optimizer})"] == pytest.approx(held, rel=0.01)
    assert parts[GRADIENTS] == 4 * sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_flops_are_what_torch_counts(preset: str) -> None:
    arguments = ForecastArguments(**SMALL, preset=preset)
    model = ScratchGPTForCausalLM(configuration(arguments))
    model.set_attn_implementation("eager")
    ids = torch.zeros(1, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0], ids[0]).backward()
    whole_squares = 6 * 2 * 64 * 32  # attention that is masked is computed too, in eager attention
    expected = counter.get_total_flops() / 32 - whole_squares
    assert flops_per_token(model.config, count_parameters(model), 32) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_kept_for_the_backward_pass(compiled: bool) -> None:
    config = configuration(ForecastArguments(**SMALL))
    kept = kept_bytes(config, compiled)
    matrices = sum(
        each.numel() for each in ScratchGPTForCausalLM(config).model.layers[0].parameters() if each.ndim == 2
    )
    assert kept.copies == pytest.approx(2 * matrices, rel=0.1)  # beside tables of rotary positions
    assert kept.layer > 32 * 64 * 2 * 10  # the stream, q, k, v, what attention gives, and five of the MLP's
    assert kept.rest >= 0


def measured_on_a_gpu(candidate: str) -> dict[str, float]:
    lines = (ROOT / "benchmarks" / "results" / "gpu.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return {
        each["metric"]: each["value"]
        for each in found
        if each["benchmark"].startswith("GPU training step") and each["candidate"] == candidate
    }


@pytest.mark.parametrize(
    ("candidate", "options"),
    [
        ("scratchgpt gpt2", {"preset": "gpt2"}),
        ("scratchgpt modern", {"preset": "modern"}),
        ("scratchgpt modern, Muon", {"preset": "modern", "optimizer": "muon"}),
    ],
)
def test_peaks_that_were_measured_on_an_h200(candidate: str, options: dict[str, Any]) -> None:
    """Within the tenth that the documentation says; CUDA's own memory is not in what torch measures."""
    found = forecast(ForecastArguments(**options, context_length=1024, machine="h200"))
    measured = measured_on_a_gpu(candidate)
    assert (found.peak - found.memory["CUDA itself"]) / 1e9 == pytest.approx(measured["peak memory, GB"], rel=0.1)
    if candidate == "scratchgpt gpt2":
        assert round(measured["MFU against the data sheet, %"] / 100, 2) == MFU
        assert found.tokens_per_second == pytest.approx(measured["tokens/s"], rel=0.03)


def test_this_machine_is_measured() -> None:
    """A model of six layers from those of one and four; its memory, since its time depends on who else computes."""
    arguments = ForecastArguments(**SMALL | {"num_hidden_layers": 6, "hidden_size": 256, "context_length": 128})
    found = forecast(arguments, say=lambda _: None)
    real = measured_steps(arguments, configuration(arguments), 6)
    assert found.peak / 1e6 == pytest.approx(real.memory_mb, rel=0.1)
    assert found.tokens_per_second > 0


def test_cards_and_batches() -> None:
    assert find_machine("this") is None
    eight = find_machine("h100x8")
    assert eight is not None
    assert (eight.name, eight.count) == ("NVIDIA H100 SXM", 8)
    shape = {**SMALL, "hidden_size": 256, "context_length": 64}
    one, many = (forecast(ForecastArguments(**shape, machine=name)) for name in ("h100", "h100x8"))
    assert many.tokens_per_second == pytest.approx(8 * one.tokens_per_second)
    assert many.memory == one.memory
    sharded = forecast(ForecastArguments(**shape, machine="h100x8", sharded=True))
    assert sharded.memory[GRADIENTS] == one.memory[GRADIENTS] / 8
    assert sharded.memory[ACTIVATIONS] == one.memory[ACTIVATIONS]

    full = forecast(ForecastArguments(**shape | {"per_device_train_batch_size": one.largest_batch}, machine="h100"))
    assert full.peak == pytest.approx(0.9 * 80e9, rel=0.01)
    assert "IT DOES NOT FIT" not in str(full)
    more = forecast(
        ForecastArguments(**shape | {"per_device_train_batch_size": one.largest_batch + 1}, machine="h100")
    )
    assert "IT DOES NOT FIT" in str(more)
    less = forecast(ForecastArguments(**shape, machine="h100", gradient_checkpointing=True))
    assert less.memory[ACTIVATIONS] < one.memory[ACTIVATIONS]


def test_the_documentation_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "many_gpus.md").read_text(encoding="utf-8")
    shown = re.findall(r"```bash\nscratchgpt (plan .*?)\n```\n\n```text\n(.*?)\n```", page, re.DOTALL)
    assert len(shown) == 2
    for command, output in shown:
        main(command.split())
        assert capsys.readouterr().out.strip() == output
