"""`import scratchgpt` is cheap and changes nothing outside the package."""

import json
import subprocess
import sys

import pytest

# Optional, heavy, or both: whoever needs one imports it where it is used.
HEAVY = [
    "accelerate",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "gradio",
    "lm_eval",
    "matplotlib",
    "nltk",
    "pandas",
    "peft",
    "pyarrow",
    "scipy",
    "sklearn",
    "tensorboard",
    "trl",
    "wandb",
]

# What scratchgpt has to import anyway is imported first, so that only its own doing is seen.
PROBE = """
import json, os, sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import GenerationMixin, PreTrainedTokenizerFast

def state():
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "rng": torch.random.get_rng_state().tolist()[:64],
    }

before, modules = state(), set(sys.modules)
import scratchgpt
after = state()
print(json.dumps({
    "changed": sorted(key for key in before if before[key] != after[key]),
    "imported": sorted(set(sys.modules) - modules),
}))
"""


@pytest.fixture(scope="module")
def effects() -> dict[str, list[str]]:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def test_import_changes_nothing_globally(effects: dict[str, list[str]]) -> None:
    assert effects["changed"] == []


def test_import_pulls_in_nothing_heavy(effects: dict[str, list[str]]) -> None:
    assert sorted({module.partition(".")[0] for module in effects["imported"]} & set(HEAVY)) == []
