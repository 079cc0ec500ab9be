"""scratchgpt: from-scratch GPT models and tokenizers that are Hugging Face models from their first checkpoint on.

Importing the package registers its classes with the Auto classes of transformers and changes nothing else.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from .configuration_scratchgpt import ScratchGPTConfig
from .modeling_scratchgpt import (
    ScratchGPTForCausalLM,
    ScratchGPTForSequenceClassification,
    ScratchGPTForTokenClassification,
    ScratchGPTModel,
    ScratchGPTPreTrainedModel,
)
from .tokenization_scratchgpt import ScratchGPTTokenizer

AutoConfig.register("scratchgpt", ScratchGPTConfig)
AutoModel.register(ScratchGPTConfig, ScratchGPTModel)
AutoModelForCausalLM.register(ScratchGPTConfig, ScratchGPTForCausalLM)
AutoModelForSequenceClassification.register(ScratchGPTConfig, ScratchGPTForSequenceClassification)
AutoModelForTokenClassification.register(ScratchGPTConfig, ScratchGPTForTokenClassification)
AutoTokenizer.register(ScratchGPTConfig, tokenizer_class=ScratchGPTTokenizer)

__version__ = "0.1.0"

__all__ = [
    "ScratchGPTConfig",
    "ScratchGPTForCausalLM",
    "ScratchGPTForSequenceClassification",
    "ScratchGPTForTokenClassification",
    "ScratchGPTModel",
    "ScratchGPTPreTrainedModel",
    "ScratchGPTTokenizer",
    "__version__",
]
