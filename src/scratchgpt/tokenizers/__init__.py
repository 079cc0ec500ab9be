"""Tokenizers from scratch: trainers, readable reference encoders, and the fast bulk encoder for corpora.

At run time a model uses `ScratchGPTTokenizer`, the Rust form of the same tokenizer. Nothing here imports torch.
"""

from .base import SPECIAL_TOKENS, Tokenizer
from .bpe import BPETokenizer
from .export import from_json, load, to_json, to_rust, to_transformers
from .patterns import CHAR_PATTERN, GPT2_PATTERN, GPT4_PATTERN, WORD_PATTERN
from .regex import UNK_TOKEN, CharTokenizer, RegexTokenizer

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
