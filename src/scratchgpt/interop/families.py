"""The architecture of transformers that a model of ours is: what formats for other engines are written from."""

from typing import Any

from ..modeling_scratchgpt import ScratchGPTForCausalLM
from .gpt2 import to_gpt2
from .qwen3_llama import to_llama, to_qwen3


def to_family(model: ScratchGPTForCausalLM) -> Any:
    """The model as GPT-2, Qwen3 or Llama, whichever it is; a copy, in the same precision.

    Raises:
        ValueError: for a model that is none of them; names the fields.
    """
    if model.config.position_embedding_type == "learned":
        return to_gpt2(model)
    return to_qwen3(model) if model.config.qk_norm else to_llama(model)
