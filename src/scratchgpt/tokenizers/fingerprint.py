"""What a tokenizer is, in one hash: the only meaning of "tokenizer fingerprint" in this package."""

import hashlib
import json


def fingerprint(content: str) -> str:
    """SHA-256 of what decides the ids of a text, as hexadecimal digits.

    That is vocabulary, merges, splitting, normalisation and special tokens, and not how a file writes them down, nor
    truncation, padding or the decoder.

    Args:
        content: of a `tokenizer.json`.

    Raises:
        ValueError: for anything else.
    """
    try:
        document = json.loads(content)
        model, added = document["model"], document["added_tokens"]
        vocabulary = dict(model["vocab"]) | {token["content"]: token["id"] for token in added}
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges") or []]
        special = sorted(token["content"] for token in added if token["special"])
        how = [model["type"], bool(model.get("ignore_merges")), document["normalizer"], document["pre_tokenizer"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no tokenizer.json: {error}") from error
    parts = [sorted(vocabulary.items()), merges, special, how]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
