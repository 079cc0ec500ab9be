"""Models of other architectures in and out.

    model = from_gpt2("openai-community/gpt2")     # from the Hub, a folder, a file or a transformers model
    to_gpt2(model).save_pretrained("gpt2")         # likewise to_qwen3 and to_llama, for the `modern` presets

Each function returns a copy, in the precision of what it was given. The recipes import_gpt2 and export_model do this
with the tokenizer, and compare the logits of both sides.
"""

from .gpt2 import from_gpt2, to_gpt2
from .qwen3_llama import to_llama, to_qwen3

__all__ = ["from_gpt2", "to_gpt2", "to_llama", "to_qwen3"]
