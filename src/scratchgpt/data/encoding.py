"""Text that people typed → ids, by the one rule for it: text is text.

Whatever somebody types, `<|end|>` too, gets the ids of its characters. Special tokens come from chat templates and
from code here, never from a text: otherwise who writes a text could forge turns or end documents.

A tokenizer that reads nothing but what people typed, a classifier's, is loaded with `split_special_tokens=True`. It
keeps that when it is saved, so that `pipeline("text-classification")` reads texts as they were read in training.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase


def encode_typed(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool = False
) -> list[list[int]]:
    """The ids of each text, none of them those of special tokens that the text spells.

    Args:
        add_special_tokens: with what the tokenizer puts around every text. Ours put nothing there.
    """
    if not texts:
        return []
    encode: Any = tokenizer  # annotated for all that it can return
    options = {"add_special_tokens": add_special_tokens, "split_special_tokens": True, "verbose": False}
    return encode(list(texts), **options)["input_ids"]
