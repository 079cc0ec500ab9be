"""Tokenizers from scratch: trainers, readable reference encoders, and the fast bulk encoder for corpora.

At run time a model uses `ScratchGPTTokenizer`, the Rust form of the same tokenizer. Nothing here imports torch.
"""

from .base import SPECIAL_TOKENS, Tokenizer
from .bpe import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer
from .export import from_json, load, to_json, to_rust, to_transformers
from .regex import CHAR_PATTERN, UNK_TOKEN, WORD_PATTERN, CharTokenizer, RegexTokenizer

__all__ = [
    "CHAR_PATTERN",
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "SPECIAL_TOKENS",
    "UNK_TOKEN",
    "WORD_PATTERN",
    "BPETokenizer",
    "CharTokenizer",
    "RegexTokenizer",
    "Tokenizer",
    "from_json",
    "load",
    "to_json",
    "to_rust",
    "to_transformers",
]
