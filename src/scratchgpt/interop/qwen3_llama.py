"""Models of ours as models that every engine knows; GPT-2 has a module of its own.

The `modern` preset is Qwen3's mathematics under Qwen3's names; without QK-norm it is Llama's. So nothing but the
configuration changes, and llama.cpp, Ollama, vLLM, MLX and the rest read the result.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..tokenization_scratchgpt import ScratchGPTTokenizer

SENTENCE = "The quick brown fox jumps over the lazy dog; it's 3.14 o'clock, and nobody knows why."
"""What two models are compared on."""

TOLERANCE = 1e-5
"""Of two computations of the same logits in fp32; in units of the largest logit, or of 1 where that is smaller."""


def refuse(target: str, config: ScratchGPTConfig, **required: Any) -> None:
    """Raises ValueError unless the configuration has the required values; lists the fields that stand in the way."""
    found = config.to_dict()
    wrong = [f"{name}={found[name]} (must be {value})" for name, value in required.items() if found[name] != value]
    if wrong:
        raise ValueError(f"{target} cannot express this model, because of {', '.join(wrong)}: choose another target")


def to_qwen3(model: ScratchGPTForCausalLM) -> Qwen3ForCausalLM:
    """The same model as transformers' Qwen3, in the same precision; a copy.

    Raises:
        ValueError: for a model that Qwen3 cannot express; names the fields.
    """
    refuse("Qwen3", model.config, **_COMMON, qk_norm=True, use_bias=False)
    return _copy(model, Qwen3ForCausalLM, Qwen3Config(**_fields(model.config)))


def to_llama(model: ScratchGPTForCausalLM) -> LlamaForCausalLM:
    """The same model as transformers' Llama, in the same precision; a copy.

    Raises:
        ValueError: for a model that Llama cannot express; names the fields.
    """
    config = model.config
    refuse("Llama", config, **_COMMON, qk_norm=False)
    fields: dict[str, Any] = _fields(config) | {"attention_bias": config.use_bias, "mlp_bias": config.use_bias}
    return _copy(model, LlamaForCausalLM, LlamaConfig(**fields))


_COMMON = {"position_embedding_type": "rotary", "norm_type": "rmsnorm", "gated_mlp": True}


def _fields(config: ScratchGPTConfig) -> dict[str, Any]:
    """What the configurations of Qwen3 and Llama call the same."""
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "use_cache",
        "tie_word_embeddings", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "rope_parameters",
    )  # fmt: skip
    found = config.to_dict()
    return {name: found[name] for name in same} | {"rms_norm_eps": config.norm_eps}


def _copy(model: ScratchGPTForCausalLM, kind: type[Any], config: Any) -> Any:
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exported = kind.from_pretrained(None, config=config, state_dict=weights, dtype=model.dtype)
    exported.generation_config = deepcopy(model.generation_config)
    return exported


@torch.no_grad()
def logits_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of the ids [B, T]."""
    return model(input_ids=ids, use_cache=False).logits


def check_same_logits(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of two models' logits [B, T, V], over the ids that both have.

    Raises:
        ValueError: where it is beyond `TOLERANCE`, or not a number.
    """
    size = min(ours.shape[-1], theirs.shape[-1])
    ours, theirs = ours[..., :size].float(), theirs[..., :size].float()
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ValueError(
            f"The two models disagree: their logits differ by up to {difference:.2e}, and are as large as "
            f"{largest:.3g}. The weights are not finite, or a layer is computed in another way."
        )
    return difference


def sample_ids(tokenizer: PreTrainedTokenizerBase | None, vocab_size: int, context: int) -> torch.Tensor:
    """Ids [1, T] of a sentence, below `vocab_size` and within the context; without tokenizer, ids from all over."""
    if tokenizer is None:
        return (torch.arange(min(context, 32)) * 7919 % vocab_size)[None]
    ids = [i for i in tokenizer(SENTENCE, add_special_tokens=False)["input_ids"] if i < vocab_size]
    return torch.tensor([ids[:context]])


def first_tokens(tokenizer: Any, vocab_size: int) -> ScratchGPTTokenizer:
    """The tokenizer without the special tokens from the id `vocab_size` on, and then without the chat template."""
    if len(tokenizer) <= vocab_size:
        return tokenizer
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < vocab_size]
    kept = {token["content"] for token in document["added_tokens"]}
    return ScratchGPTTokenizer(
        tokenizer_object=Tokenizer.from_str(json.dumps(document)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token if tokenizer.pad_token in kept else None,
        model_max_length=tokenizer.model_max_length,
    )


def complete_config(file: Path) -> None:
    """Adds what readers besides transformers 5 look for: `n_ctx` (llama.cpp), `rope_theta` and `rope_scaling`."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if "n_positions" in config:
        config["n_ctx"] = config["n_positions"]
    if rope := config.get("rope_parameters"):
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
