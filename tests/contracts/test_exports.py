"""Tools that know nothing of this package read the exports: transformers, and GGUF's own library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes import export_model
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model

TEXT = "To be, or not to be: <|user|>gold<|end|>"
TARGETS = {"gpt2": {}, "qwen3": {}, "llama": {"qk_norm": False}}

# In a process of its own, in which this package cannot be imported.
STRANGER = f"""
import sys
from pathlib import Path
sys.modules["scratchgpt"] = None
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

found = {{}}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__module__.startswith("transformers.models."), type(model)
    with torch.no_grad():
        found[folder.name] = model(**tokenizer({TEXT!r}, return_tensors="pt")).logits
    chat = [{{"role": "user", "content": "gold"}}]
    text = pipeline("text-generation", model=model, tokenizer=tokenizer)(chat, max_new_tokens=3, do_sample=False)
    assert text[0]["generated_text"][-1]["role"] == "assistant", text
save_file(found, sys.argv[2])
"""


@pytest.fixture(scope="module")
def exports(make_config, tokenizer, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder with an export to each target, and the logits that our model gives."""
    models, root, expected = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("exports"), {}
    for target, overrides in TARGETS.items():
        torch.manual_seed(0)
        preset = "gpt2" if target == "gpt2" else "modern"
        model = ScratchGPTForCausalLM(make_config(preset, **overrides)).eval()
        save_model(model, tokenizer, models / target)
        command = ["--model_name_or_path", str(models / target), "--output_dir", str(root / target)]
        export_model.main([*command, "--to", target])
        with torch.no_grad():
            expected[target] = model(**tokenizer(TEXT, return_tensors="pt")).logits
    return root, expected


def test_transformers_without_this_package(exports, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", STRANGER, str(exports[0]), str(tmp_path / "found.safetensors")]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    found = load_file(tmp_path / "found.safetensors")
    for target in TARGETS:
        torch.testing.assert_close(found[target], exports[1][target], atol=1e-5, rtol=1e-5)


# What llama.cpp's converter reads of config.json (its conversion/gpt2.py, qwen.py, llama.py and base.py).
LLAMA_FIELDS = [
    "num_hidden_layers", "max_position_embeddings", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "vocab_size",
]  # fmt: skip
GGUF_FIELDS = {
    "gpt2": ["n_layer", "n_ctx", "n_embd", "n_head", "layer_norm_epsilon", "vocab_size"],
    "qwen3": LLAMA_FIELDS,
    "llama": LLAMA_FIELDS,
}


@pytest.mark.parametrize("target", TARGETS)
def test_what_gguf_requires_is_there(exports, target: str) -> None:
    """Every field that the converter reads, and a name in GGUF for every tensor."""
    gguf = pytest.importorskip("gguf", reason="no gguf")
    folder = exports[0] / target
    config = json.loads((folder / "config.json").read_text())
    assert {name: config.get(name) for name in GGUF_FIELDS[target] if config.get(name) is None} == {}
    architecture = {"gpt2": "GPT2LMHeadModel", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}[target]
    assert config["architectures"] == [architecture]
    layers = config["n_layer" if target == "gpt2" else "num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[target.upper()], layers)
    for name in load_file(folder / "model.safetensors"):
        assert names.get_name(name, try_suffixes=(".weight", ".bias")) is not None, name
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {f.name for f in folder.iterdir()}
