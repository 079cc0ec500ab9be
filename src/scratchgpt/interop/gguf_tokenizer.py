"""A tokenizer as llama.cpp reads it from a GGUF file: tokens, their types, merges, and the name of a pre-tokenizer.

llama.cpp has byte-level BPE with split patterns of its own, each known by a name: the file names one and holds none.
So a tokenizer can be written only if its pattern is one of those; any other would be read, and would split otherwise.
Every name also has habits of its own: `llama-bpe` puts a token in front of each text unless told not to, and looks a
whole pre-token up before it merges anything.

Source: the GGUF specification (ggml, docs/gguf.md), and what llama.cpp does with each name (src/llama-vocab.cpp).
"""

from dataclasses import dataclass
from typing import Any

from ..tokenizers import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer, from_json
from ..tokenizers.byte_to_unicode import from_unicode, to_unicode
from ..tokenizers.patterns import splitter

PRE_TOKENIZERS = {GPT2_PATTERN: "gpt-2", GPT4_PATTERN: "llama-bpe"}
"""Split pattern → llama.cpp's name of it."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens: of the vocabulary; special; added but not special; ids that stand for nothing."""


@dataclass(frozen=True)
class GGUFTokenizer:
    """What a file says of a tokenizer, in the order of the ids."""

    pre: str
    """The name of the pre-tokenizer."""

    tokens: list[str]
    """With a character for each byte, as in `tokenizer.json`; special tokens as they are."""

    types: list[int]
    merges: list[str]
    """Both tokens, with a space between."""

    @classmethod
    def of(cls, tokenizer: Any, vocab_size: int) -> "GGUFTokenizer":
        """
        Args:
            tokenizer: of transformers, on the Rust backend.
            vocab_size: of the model; ids that the tokenizer lacks become unused tokens.

        Raises:
            ValueError: for a tokenizer that llama.cpp cannot express; says why.
        """
        ours = from_json(tokenizer.backend_tokenizer.to_str())
        if not isinstance(ours, BPETokenizer):
            raise ValueError(
                "llama.cpp cannot express this tokenizer: its tokens are words or characters, and llama.cpp has "
                "byte-level BPE only. Train a model with a tokenizer of --kind bpe"
            )
        if (pre := PRE_TOKENIZERS.get(ours.pattern)) is None:
            raise ValueError(
                f"llama.cpp cannot express this tokenizer: it splits text by {ours.pattern!r}, and llama.cpp has, of "
                "the patterns here, only those of --pattern gpt2 and --pattern gpt4"
            )
        if tokenizer.eos_token_id is None:  # llama.cpp would take some other token for it
            raise ValueError("llama.cpp cannot express this tokenizer: it has no end-of-text token")
        if pre == "llama-bpe":
            check_whole_tokens(ours)
        tokens = [to_unicode(token) for token in ours.token_bytes]
        types = [NORMAL] * len(tokens)
        for token_id, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items():
            tokens[token_id], types[token_id] = token.content, CONTROL if token.special else USER_DEFINED
        for token_id in range(len(tokens), vocab_size):
            tokens.append(f"<|unused {token_id}|>")
            types.append(UNUSED)
        return cls(pre, tokens, types, [f"{to_unicode(a)} {to_unicode(b)}" for a, b in ours.merges])

    def reread(self) -> BPETokenizer:
        """The tokenizer that these fields describe, built from them alone."""
        pattern = next(pattern for pattern, name in PRE_TOKENIZERS.items() if name == self.pre)
        names = [(token, token_id) for token_id, token in enumerate(self.tokens)]
        vocabulary = {from_unicode(token): i for token, i in names if self.types[i] == NORMAL}
        merges = [merge.split(" ") for merge in self.merges]
        added = {token: i for token, i in names if self.types[i] != NORMAL}
        return BPETokenizer(vocabulary, [(from_unicode(a), from_unicode(b)) for a, b in merges], pattern, added)


def check_whole_tokens(tokenizer: BPETokenizer) -> None:
    """Makes sure that a pre-token which is a token is encoded as that token: merges might lead elsewhere.

    Raises:
        ValueError: names the first that is not.
    """
    split = splitter(tokenizer.pattern)
    for token, token_id in tokenizer.vocabulary.items():
        try:
            text = token.decode()
        except UnicodeDecodeError:  # a part of a character: no text is split there
            continue
        if split(text) == [text] and (ids := tokenizer.encode(text, split_special_tokens=True)) != [token_id]:
            raise ValueError(
                f"llama.cpp cannot express this tokenizer: it would read {text!r} as the one token that it is, where "
                f"the merges lead to {len(ids)}"
            )
