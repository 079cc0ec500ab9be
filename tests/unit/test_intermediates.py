"""hub/intermediates.py: used again only if made from today's inputs, and whole."""

import json
from pathlib import Path

import pytest
import torch

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.intermediates import Intermediate, base_inputs
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers


def make(folder: Path, seed: int = 0, overwrite: bool = False) -> Path:
    tokenizer = to_transformers(BPETokenizer.train(["to be or not"] * 2, 262))
    torch.manual_seed(seed)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    save_model(ScratchGPTForCausalLM(config), tokenizer, folder, overwrite)
    return folder


def finished(folder: Path, inputs: dict) -> Intermediate:
    found = Intermediate(folder / "stage", folder / "stage", inputs)
    assert not found.begin(pytest.fail)
    make(folder / "stage")
    found.finish()
    return found


def test_it_is_used_again_for_the_same_inputs_only(tmp_path: Path) -> None:
    found, said = finished(tmp_path, {"seed": 1, "tokens": ("a", "b")}), []
    assert found.begin(said.append)
    assert said == []
    other = Intermediate(found.directory, found.model, {"seed": 2, "tokens": ["a", "b"], "more": 0})
    assert not other.begin(said.append)
    assert said == [f"{found.directory} was made with other more, seed: it is made anew"]
    assert not found.directory.exists()


def test_what_was_begun_from_the_same_inputs_stays_and_is_not_finished(tmp_path: Path) -> None:
    found = Intermediate(tmp_path / "stage", tmp_path / "stage", {"seed": 1})
    assert not found.begin(pytest.fail)
    make(tmp_path / "stage")
    assert not found.begin(pytest.fail)
    assert found.directory.is_dir()


def test_damage_is_noticed(tmp_path: Path) -> None:
    found, said = finished(tmp_path, {"seed": 1}), []
    make(found.directory, seed=5, overwrite=True)
    assert not found.begin(said.append)
    found = finished(tmp_path, {"seed": 1})
    (found.directory / "model.safetensors").write_bytes(b"torn")
    assert not found.begin(said.append)
    found = finished(tmp_path, {"seed": 1})
    found.record.write_text("{")
    assert not found.begin(said.append)
    assert ["has other weights" in said[0], "cannot be read" in said[1], "broken record" in said[2]] == [True] * 3


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "precious").write_text("")
    with pytest.raises(ValueError, match="is in the way"):
        Intermediate(tmp_path / "stage", tmp_path / "stage", {}).begin(pytest.fail)
    assert (tmp_path / "stage" / "precious").is_file()


def test_inputs_tell_bases_apart_and_not_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other", seed=1)
    first, second = base_inputs(one), base_inputs(other)
    assert {name for name in first if first[name] != second[name]} == {"weights of the base"}
    config = json.loads((other / "config.json").read_text()) | {"hidden_dropout": 0.5}
    (other / "config.json").write_text(json.dumps(config))
    assert base_inputs(other)["configuration of the base"] != second["configuration of the base"]
    monkeypatch.chdir(tmp_path)
    assert base_inputs("one") == first
