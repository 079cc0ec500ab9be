"""Tiny models of both presets and a tiny tokenizer; big enough that a wrong mask or position shows in the logits."""

from collections.abc import Callable

import pytest

from scratchgpt import ScratchGPTConfig, ScratchGPTTokenizer
from scratchgpt.tokenizers import BPETokenizer, to_transformers

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A journey of a thousand miles begins with a single step.",
    "To be, or not to be, that is the question.",
    "All that glitters is not gold; often have you heard that told.",
]

MakeConfig = Callable[..., ScratchGPTConfig]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer() -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train(TEXTS * 4, vocab_size=320), model_max_length=128)


@pytest.fixture(scope="session")
def make_config(tokenizer: ScratchGPTTokenizer) -> MakeConfig:
    """`make_config(preset, **overrides)`: that architecture, two layers of width 32, for `tokenizer`."""

    def make(preset: str, **overrides: object) -> ScratchGPTConfig:
        shape = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4 if preset == "gpt2" else 2,
            "max_position_embeddings": 128,
            # Far larger than one trains with, so that logits of a random model differ from token to token.
            "initializer_range": 0.3,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        return ScratchGPTConfig.from_preset(preset, **{**shape, **overrides})

    return make


@pytest.fixture(params=["gpt2", "modern"])
def preset(request: pytest.FixtureRequest) -> str:
    return request.param
