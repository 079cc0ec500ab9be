"""Which checkpoint a run goes on from, and the weights in it; that it goes on exactly stands in tests/reliability."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.hub.model_directory import NonFiniteWeightsError
from scratchgpt.training.checkpoints import CheckpointError, save_checkpoint
from scratchgpt.training.guards import FiniteGuard, SpikeGuard
from scratchgpt.training.optimizers import EMA, build_optimizers
from scratchgpt.training.resuming import RunState, find_checkpoint, model_writer, tensors_of


def checkpoint(output: Path, step: int, broken: bool = False) -> Path:
    path = save_checkpoint(output, step, lambda directory: (directory / "weights").write_bytes(bytes(9)) and None)
    if broken:
        (path / "weights").write_bytes(bytes(8))
    return path


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    said: list[str] = []
    assert find_checkpoint(None, tmp_path, said.append) is None
    assert find_checkpoint("True", tmp_path, said.append) is None
    assert "starting anew" in said.pop()
    paths = [checkpoint(tmp_path, step, broken=step == 3) for step in (1, 2, 3)]
    assert find_checkpoint("true", tmp_path, said.append) == paths[1]
    assert "Skipping the broken checkpoint-3" in said.pop()
    assert find_checkpoint(str(paths[0]), tmp_path, said.append) == paths[0]
    assert not said


def test_what_nobody_can_go_on_from_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 1, broken=True)
    with pytest.raises(ValueError, match="go on with --resume_from_checkpoint true"):
        find_checkpoint(None, tmp_path, print)
    with pytest.raises(ValueError, match=r"every checkpoint .* is broken"):
        find_checkpoint("true", tmp_path, print)
    with pytest.raises(CheckpointError, match="8 bytes, 9 were written"):
        find_checkpoint(str(path), tmp_path, print)


def test_weights_have_their_names_and_ties() -> None:
    model = ScratchGPTForCausalLM(
        ScratchGPTConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    optimizers = build_optimizers(model, learning_rate=0.1)
    state = RunState(
        Accelerator(cpu=True), model, model, None, optimizers, EMA(model), FiniteGuard(), SpikeGuard(), None, {}
    )  # fmt: skip # pyright: ignore
    found, expected = state.weights(), model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert model.config.tie_word_embeddings
    assert found["lm_head.weight"] is found["model.embed_tokens.weight"]
    assert not any(weight.requires_grad for weight in found.values())


@pytest.mark.parametrize("kind", [ScratchGPTForCausalLM, ScratchGPTForSequenceClassification])
def test_what_writes_a_sharded_model_is_of_its_class(kind: Any) -> None:
    """A classifier has no generation_config, which was read from it."""
    sharded: Any = SimpleNamespace(is_fsdp2=True)
    model = kind(ScratchGPTConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    writer = model_writer(model, sharded)
    assert type(writer) is kind
    assert writer.device.type == "meta"
    if kind is ScratchGPTForCausalLM:
        assert writer.generation_config is model.generation_config


@pytest.mark.parametrize("place", ["weights", "optimizer"])
def test_what_is_not_finite_is_never_sealed(tmp_path: Path, place: str) -> None:
    model = ScratchGPTForCausalLM(
        ScratchGPTConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    optimizers = build_optimizers(model, learning_rate=0.1)
    model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    optimizers.step()
    norm = model.model.norm.weight
    broken = norm.data if place == "weights" else optimizers.optimizers[0].state[norm]["exp_avg"]
    broken[3] = float("nan")
    tokenizer: Any = SimpleNamespace(save_pretrained=lambda _: None)
    rows: Any = None
    state = RunState(
        Accelerator(cpu=True), model, model, tokenizer, optimizers, None, FiniteGuard(), SpikeGuard(), rows, {}
    )
    with pytest.raises(NonFiniteWeightsError, match=r"model\.norm\.weight.* of step 0 is not finite: 1 of its 16"):
        state.save(tmp_path, 1)
    assert not list(tmp_path.iterdir())
    broken[3] = 1.0
    state.save(tmp_path, 1)


def test_tensors_are_found_wherever_they_are() -> None:
    one, two = torch.ones(1), torch.zeros(2)
    assert tensors_of({"a": [one, {"b": two}], "c": 3, "d": None}) == {"a/0": one, "a/1/b": two}
