"""Python tokenizer ⇄ `tokenizer.json`, the format of the Rust library that runs at inference time.

All tokenizers here share one pipeline: `Split` by the pattern, `ByteLevel` for bytes as visible characters, a model,
and the `ByteLevel` decoder. Only the model differs:

- BPE: `BPE` with the merges.
- words or characters, unknown ones as bytes: `BPE` without merges and with `ignore_merges`. That option looks a whole
  pre-token up first; one that is not found is left as its bytes, since no merge ever joins them.
- words or characters, unknown ones as `<|unk|>`: `WordLevel`.

Special tokens are "added tokens": found before anything else, never normalised, not stripped of spaces.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from .base import Tokenizer
from .bpe import BPETokenizer
from .byte_to_unicode import from_unicode, to_unicode
from .patterns import CHAR_PATTERN, GPT2_PATTERN
from .regex import UNK_TOKEN, CharTokenizer, RegexTokenizer

if TYPE_CHECKING:
    from ..tokenization_scratchgpt import ScratchGPTTokenizer


def to_rust(tokenizer: Tokenizer) -> RustTokenizer:
    """The Rust tokenizer that gives the same ids."""
    vocabulary = {to_unicode(token): token_id for token, token_id in tokenizer.vocabulary.items()}
    # The library numbers added tokens from the size of the model's vocabulary on; those with lower ids must be in it.
    last = max(vocabulary.values())
    vocabulary |= {name: i for name, i in tokenizer.special_tokens.items() if i < last or name == UNK_TOKEN}
    if isinstance(tokenizer, BPETokenizer):
        model = models.BPE(vocabulary, [(to_unicode(a), to_unicode(b)) for a, b in tokenizer.merges])
    elif UNK_TOKEN in vocabulary:
        model = models.WordLevel(vocabulary, unk_token=UNK_TOKEN)
    else:
        model = models.BPE(vocabulary, [], ignore_merges=True)
    rust = RustTokenizer(model)
    split = pre_tokenizers.Split(Regex(tokenizer.pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    rust.decoder = decoders.ByteLevel()
    names = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)
    rust.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    assert all(rust.token_to_id(name) == tokenizer.special_tokens[name] for name in names)
    return rust


def to_json(tokenizer: Tokenizer) -> str:
    """The content of `tokenizer.json`."""
    return to_rust(tokenizer).to_str(pretty=True)


def to_transformers(tokenizer: Tokenizer, model_max_length: int = 1024) -> "ScratchGPTTokenizer":
    """The tokenizer for use with a model; its `save_pretrained` writes the tokenizer directory. Imports torch."""
    from ..tokenization_scratchgpt import ScratchGPTTokenizer

    return ScratchGPTTokenizer(tokenizer_object=to_rust(tokenizer), model_max_length=model_max_length)


def from_json(content: str) -> Tokenizer:
    """The Python tokenizer, with the fast bulk encoder, of a `tokenizer.json` of the forms written here, or GPT-2's.

    Raises:
        ValueError: for anything else.
    """
    try:
        document = json.loads(content)
        model, pattern = document["model"], _pattern(document["pre_tokenizer"])
        if document["normalizer"] is not None:
            raise ValueError("it has a normalizer")
        if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in document["added_tokens"]):
            raise ValueError("its added tokens take the white space or the word beside them")
        specials = {token["content"]: token["id"] for token in document["added_tokens"]}
        vocabulary = {from_unicode(token): i for token, i in model["vocab"].items() if token not in specials}
        if model["type"] == "WordLevel" and model["unk_token"] == UNK_TOKEN:
            kind = CharTokenizer if pattern == CHAR_PATTERN else RegexTokenizer
            return kind(vocabulary, pattern, specials)
        if model["type"] != "BPE" or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            raise ValueError("its model is neither byte-level BPE nor a word list")
        if model.get("ignore_merges") and not model["merges"]:
            kind = CharTokenizer if pattern == CHAR_PATTERN else RegexTokenizer
            return kind(vocabulary, pattern, specials)
        if model.get("ignore_merges"):
            raise ValueError("it has both merges and ignore_merges")
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        return BPETokenizer(vocabulary, [(from_unicode(a), from_unicode(b)) for a, b in pairs], pattern, specials)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"not a tokenizer.json that scratchgpt can read in Python: {error}; train one with "
            "recipes/train_tokenizer.py, or encode with the Rust tokenizer's own encode_batch"
        ) from error


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """`from_json` for a file, or for a directory that holds a `tokenizer.json`: the bulk encoder of a saved tokenizer.

    Raises:
        ValueError: where there is none, or it is of another form; names the file.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"{file} does not exist: give the directory of a saved tokenizer")
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _pattern(pre_tokenizer: dict[str, Any]) -> str:
    """The split pattern of a pre-tokenizer: ours, or GPT-2's, whose pattern is built into `ByteLevel`."""
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *splits, byte_level = steps
    if byte_level["type"] != "ByteLevel" or byte_level["add_prefix_space"] or len(splits) > 1:
        raise ValueError("its pre-tokenizer is not byte-level")
    if not splits and byte_level["use_regex"]:
        return GPT2_PATTERN
    if not splits or byte_level["use_regex"]:
        raise ValueError("its pre-tokenizer splits in a way of its own")
    if splits[0]["type"] != "Split" or splits[0]["behavior"] != "Isolated" or splits[0]["invert"]:
        raise ValueError("its pre-tokenizer splits in a way of its own")
    return splits[0]["pattern"]["Regex"]
