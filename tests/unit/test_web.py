"""The page for the browser without Node: what is said where it is missing, and what the page and the Hub are told."""

import os
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, SpaceCard

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.cards import is_own
from scratchgpt.interop.export_cards import Source, export_card, page_card
from scratchgpt.interop.onnx import to_onnx_family
from scratchgpt.interop.web import check_node, fetch_runtime, page_facts
from scratchgpt.tokenizers import BPETokenizer, to_transformers


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(["to be or not to be"] * 2, 262), model_max_length=64)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def add(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts here")
def test_a_missing_program_is_named(programs: Path) -> None:
    with pytest.raises(ValueError, match=r"needs node, .* install Node\.js 20"):
        check_node()
    add(programs, "node", "exit 0")
    with pytest.raises(ValueError, match="needs npm"):
        check_node()
    add(programs, "npm", "exit 0")
    check_node()


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts here")
def test_what_npm_says_is_passed_on(programs: Path) -> None:
    pytest.importorskip("onnxruntime", reason="no onnxruntime")
    add(programs, "npm", "echo 'network is unreachable' >&2; exit 1")
    with pytest.raises(ValueError, match=r"npm cannot get onnxruntime-web .*\(network is unreachable\)"):
        fetch_runtime(programs / "runtime")


@pytest.mark.parametrize(("preset", "heads"), [("gpt2", 4), ("modern", 2)])
def test_facts(tokenizer, preset: str, heads: int) -> None:
    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = ScratchGPTForCausalLM(
        ScratchGPTConfig.from_preset(preset, **shape, num_key_value_heads=heads, max_position_embeddings=64)
    )
    model.generation_config.do_sample, model.generation_config.top_k = True, 7
    facts = page_facts(to_onnx_family(model), tokenizer, "mine", is_chat=True)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    wanted = {"context": 64, "num_layers": 3, "num_heads": 4, "num_key_value_heads": heads, "head_dim": 8}
    assert {name: facts[name] for name in wanted} == wanted
    assert tokenizer.eos_token_id in facts["ends"]
    assert facts["never"] == [*range(len(tokenizer), 320)]
    assert facts["sampling"]["top_k"] == 7
    model.generation_config.do_sample = False
    assert page_facts(to_onnx_family(model), tokenizer, "mine", is_chat=True)["sampling"]["temperature"] == 0


def test_card_of_a_space() -> None:
    facts = {"title": "My: model", "chat": False, "parameters": 1_234_567}
    text = page_card(facts, "mit", "me/base")
    assert is_own(text)
    card = SpaceCard(text)
    found = card.data.to_dict()
    assert (found["title"], found["sdk"], found["license"], found["models"]) == (
        "My: model",
        "static",
        "mit",
        ["me/base"],
    )
    assert "1,234,567 parameters" in card.text
    assert "models" not in SpaceCard(page_card(facts, None, None)).data.to_dict()


@pytest.mark.parametrize(("target", "library"), [("gguf", "gguf"), ("onnx", "transformers.js")])
def test_card_of_an_export(target: str, library: str) -> None:
    text = export_card(target, Source("My: model", "mit", "me/base", is_chat=True), 1_234_567, {"a.gguf": 1000})
    assert is_own(text)
    card = ModelCard(text)
    found = card.data.to_dict()
    assert (found["library_name"], found["license"], found["pipeline_tag"]) == (library, "mit", "text-generation")
    assert (found["base_model"], found["base_model_relation"]) == ("me/base", "quantized")
    assert target in found["tags"]
    assert "A chat model of 1,234,567 parameters" in card.text
    assert "- `a.gguf`, 1,000 bytes" in card.text
    plain = ModelCard(export_card(target, Source("Mine", None, None, is_chat=False), 1, {})).data.to_dict()
    assert not {"license", "base_model", "base_model_relation"} & plain.keys()
