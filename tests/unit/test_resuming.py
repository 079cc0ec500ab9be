"""Which checkpoint a run goes on from, and the weights in it; that it goes on exactly stands in tests/reliability."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.training.checkpoints import CheckpointError, save_checkpoint
from scratchgpt.training.guards import FiniteGuard, SpikeGuard
from scratchgpt.training.optimizers import EMA, build_optimizers
from scratchgpt.training.resuming import RunState, find_checkpoint


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
