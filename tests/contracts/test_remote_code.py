"""A saved model loads, and gives the same logits, where transformers and torch are but this package is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import scratchgpt
from scratchgpt import (
    ScratchGPTConfig,
    ScratchGPTForCausalLM,
    ScratchGPTForSequenceClassification,
    ScratchGPTForTokenClassification,
    ScratchGPTModel,
)

MODELS = {
    "AutoModel": ScratchGPTModel,
    "AutoModelForCausalLM": ScratchGPTForCausalLM,
    "AutoModelForSequenceClassification": ScratchGPTForSequenceClassification,
    "AutoModelForTokenClassification": ScratchGPTForTokenClassification,
}
AUTO_CLASSES = {
    "AutoModel": AutoModel,
    "AutoModelForCausalLM": AutoModelForCausalLM,
    "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
    "AutoModelForTokenClassification": AutoModelForTokenClassification,
}
VARIANTS = [f"{preset}-{tying}" for preset in ("gpt2", "modern") for tying in ("tied", "untied")]
TEXT = "To be, or not to be: <|user|>gold<|end|>"

# Runs in a process of its own: loads every model under argv[1], writes what it computes to argv[2], saves to argv[3].
STRANGER = f"""
import json, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class NoScratchGPT(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scratchgpt":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoScratchGPT())
import torch, transformers
from safetensors.torch import save_file

root, outputs, copies = map(Path, sys.argv[1:])
found = {{}}
for folder in sorted(root.glob("*/Auto*")):
    name = f"{{folder.parent.name}}/{{folder.name}}"
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert type(tokenizer).__name__ == "ScratchGPTTokenizer", type(tokenizer)
    model = getattr(transformers, folder.name).from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        found[name] = model.eval()(**tokenizer({TEXT!r}, return_tensors="pt"))[0].clone()
    if folder.name == "AutoModelForCausalLM":
        prompt = tokenizer({TEXT!r}, return_tensors="pt")
        found[name + ":greedy"] = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        # The base model of a model with a head:
        base = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
        with torch.no_grad():
            found[name + ":base"] = base.eval()(**tokenizer({TEXT!r}, return_tensors="pt"))[0].clone()
    model.save_pretrained(copies / name)
    tokenizer.save_pretrained(copies / name)
plain = transformers.AutoTokenizer.from_pretrained(root / "plain")
found["plain"] = torch.tensor(plain({TEXT!r})["input_ids"])
plain.save_pretrained(copies / "plain")
assert "scratchgpt" not in sys.modules
save_file(found, outputs)
"""


def greedy(model: ScratchGPTForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Twelve tokens by definition: the whole text through the model again for each."""
    for _ in range(12):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], dim=-1)
        if ids[0, -1] == model.config.eos_token_id:
            break
    return ids


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, make_config, tokenizer) -> tuple[Path, dict[str, torch.Tensor]]:
    """`<variant>/<auto class>/` for every variant and head, and what each model gives here."""
    root, expected = tmp_path_factory.mktemp("saved"), {}
    inputs = tokenizer(TEXT, return_tensors="pt")
    for variant in VARIANTS:
        preset, tying = variant.split("-")
        for name, model_class in MODELS.items():
            torch.manual_seed(0)
            config = make_config(preset, tie_word_embeddings=tying == "tied", num_labels=3)
            model = model_class(config).eval()
            with torch.no_grad():
                expected[f"{variant}/{name}"] = model(**inputs)[0]
                if name == "AutoModelForCausalLM":
                    expected[f"{variant}/{name}:base"] = model.model(**inputs)[0]
                    expected[f"{variant}/{name}:greedy"] = greedy(model, inputs["input_ids"])
            model.save_pretrained(root / variant / name)
            tokenizer.save_pretrained(root / variant / name)
    tokenizer.save_pretrained(root / "plain", plain=True)
    expected["plain"] = inputs["input_ids"][0]
    return root, expected


def visit_stranger(root: Path, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Loads all under `root` without this package; returns where it saved them again, and what they gave."""
    outputs, copies = folder / "outputs.safetensors", folder / "copies"
    environment = {**os.environ, "HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")}
    run = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(root), str(outputs), str(copies)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "deprecat" not in run.stderr.lower(), run.stderr
    return copies, load_file(outputs)


@pytest.fixture(scope="module")
def abroad(saved, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    return visit_stranger(saved[0], tmp_path_factory.mktemp("stranger"))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def assert_complete(root: Path) -> None:
    """Code, the whole auto_map, safetensors and no pickle in every model directory under `root`."""
    package = Path(scratchgpt.__file__).parent
    folders = sorted(root.glob("*/Auto*"))
    assert len(folders) == len(VARIANTS) * len(MODELS)
    for folder in folders:
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert sorted(auto_map) == sorted(["AutoConfig", *MODELS])
        tokenizer_map = json.loads((folder / "tokenizer_config.json").read_text())["auto_map"]["AutoTokenizer"]
        named = [*auto_map.values(), *filter(None, tokenizer_map)]
        assert {f"{reference.partition('.')[0]}.py" for reference in named} <= {f.name for f in folder.glob("*.py")}
        for file in folder.glob("*.py"):
            assert file.read_bytes() == (package / file.name).read_bytes()
        assert (folder / "model.safetensors").is_file()
        assert (folder / "chat_template.jinja").is_file()
        assert (folder / "generation_config.json").is_file() == (folder.name == "AutoModelForCausalLM")
        assert [file for file in folder.rglob("*") if file.suffix in {".bin", ".pt", ".pth", ".pkl"}] == []


def test_save_is_complete(saved) -> None:
    assert_complete(saved[0])


def test_same_logits_without_the_package(saved, abroad) -> None:
    assert_same(abroad[1], saved[1])


def test_saved_again_without_the_package(saved, abroad, tmp_path: Path) -> None:
    assert_complete(abroad[0])
    assert_same(visit_stranger(abroad[0], tmp_path)[1], saved[1])


def test_same_logits_with_the_package(saved, abroad) -> None:
    """Our classes, without trust_remote_code; for the first save and for the one made abroad."""
    found = {}
    for root in (saved[0], abroad[0]):
        for folder in sorted(root.glob("*/Auto*")):
            name = f"{folder.parent.name}/{folder.name}"
            assert type(AutoConfig.from_pretrained(folder)) is ScratchGPTConfig
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AUTO_CLASSES[folder.name].from_pretrained(folder)
            assert type(model) is MODELS[folder.name]
            with torch.no_grad():
                outputs = model.eval()(**tokenizer(TEXT, return_tensors="pt"))
            found[name] = outputs[0]
            if folder.name == "AutoModelForCausalLM":
                prompt = tokenizer(TEXT, return_tensors="pt")
                found[f"{name}:greedy"] = model.generate(**prompt, max_new_tokens=12, do_sample=False)
                base = AutoModel.from_pretrained(folder)
                with torch.no_grad():
                    found[f"{name}:base"] = base.eval()(**tokenizer(TEXT, return_tensors="pt"))[0]
        found["plain"] = torch.tensor(AutoTokenizer.from_pretrained(root / "plain")(TEXT)["input_ids"])
        assert_same(found, saved[1])


def test_plain_tokenizer_needs_no_code(saved) -> None:
    files = {file.name for file in (saved[0] / "plain").iterdir()}
    assert files == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
