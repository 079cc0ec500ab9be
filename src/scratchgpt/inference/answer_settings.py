"""Where an answer ends, and what never occurs in one: the same for a conversation and for an evaluation."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data.chat import stop_token_id


def text_settings(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> dict[str, Any]:
    """`answer_settings` for a text that is continued, which needs no chat template."""
    ids: Any = tokenizer  # annotated as if ids could be text
    unk = [] if ids.unk_token_id in (None, ids.eos_token_id) else [ids.unk_token_id]  # in GPT-2 they are one
    return {
        "eos_token_id": sorted({*ids.all_special_ids} - {*unk}),
        "pad_token_id": ids.eos_token_id if ids.pad_token_id is None else ids.pad_token_id,
        "suppress_tokens": [*unk, *range(len(tokenizer), vocab_size)] or None,
    }


def answer_settings(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> dict[str, Any]:
    """The fields of `GenerationConfig` that follow from the tokenizer.

    No special token belongs into an answer: whichever comes, the answer is over. `<|unk|>` spells nothing, and rows of
    the embedding beyond the tokenizer's ids (round sizes are faster) mean nothing: they are never chosen.

    Args:
        vocab_size: the model's.

    Returns:
        `eos_token_id` (a list), `pad_token_id` and `suppress_tokens`.

    Raises:
        ValueError: as `stop_token_id`.
    """
    stop_token_id(tokenizer)  # raises where an answer could not end
    return text_settings(tokenizer, vocab_size)
