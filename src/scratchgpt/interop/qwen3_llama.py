"""Models of ours as Qwen3 and Llama, which every engine knows.

The `modern` preset is Qwen3's mathematics under Qwen3's names; without QK-norm it is Llama's. So nothing but the
configuration changes, and transformers, vLLM, MLX and the rest read the result (llama.cpp and Ollama: `gguf.py`).
"""

from copy import deepcopy
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from .checks import check_expressible


def to_qwen3(model: ScratchGPTForCausalLM) -> Qwen3ForCausalLM:
    """The same model as transformers' Qwen3, in the same precision; a copy.

    Raises:
        ValueError: for a model that Qwen3 cannot express; names the fields.
    """
    check_expressible("Qwen3", model.config, **_COMMON, qk_norm=True, use_bias=False)
    return _copy(model, Qwen3ForCausalLM, Qwen3Config(**_fields(model.config)))


def to_llama(model: ScratchGPTForCausalLM) -> LlamaForCausalLM:
    """The same model as transformers' Llama, in the same precision; a copy.

    Raises:
        ValueError: for a model that Llama cannot express; names the fields.
    """
    config = model.config
    check_expressible("Llama", config, **_COMMON, qk_norm=False)
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
