"""How well a tokenizer does on a text, and how it splits words that it has not seen."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import regex

from ..tokenizers import RegexTokenizer, Tokenizer, to_rust


class CountedTexts:
    """Counts the training texts as they are read, and remembers which of `words` they contain."""

    def __init__(self, texts: Iterable[str], words: Sequence[str]) -> None:
        self.texts, self.words = texts, words
        self.num_texts = self.num_bytes = 0
        self.seen: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.num_texts += 1
            self.num_bytes += len(text.encode())
            self.seen.update(word for word in self.words if word not in self.seen and word in text)
            yield text


def measure_tokenizer(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float | int | str]:
    """Rates over `texts` and the counts they come from; text that spells a special token counts as text."""
    encoded = list(tokenizer.encode_batch(texts, split_special_tokens=True))
    num_tokens, num_bytes = sum(map(len, encoded)), sum(len(text.encode()) for text in texts)
    num_words = sum(len(text.split()) for text in texts)
    pieces = unknown = 0
    if isinstance(tokenizer, RegexTokenizer):
        for text in texts:
            found = regex.findall(tokenizer.pattern, text)
            pieces += len(found)
            unknown += sum(piece.encode() not in tokenizer.vocabulary for piece in found)
    rust = to_rust(tokenizer)
    rust.encode_special_tokens = True
    agree = sum(ids.tolist() == rust.encode(text).ids for ids, text in zip(encoded, texts, strict=True))
    kept = sum(tokenizer.decode(ids.tolist()) == text for ids, text in zip(encoded, texts, strict=True))
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": round(num_bytes / max(num_tokens, 1), 4),
        "tokens_per_word": round(num_tokens / max(num_words, 1), 4),
        "unknown_rate": round(unknown / max(pieces, 1), 6),
        "round_trip": f"{kept}/{len(texts)}",
        "same_ids_in_rust": f"{agree}/{len(texts)}",
        "num_texts": len(texts),
        "num_bytes": num_bytes,
        "num_words": num_words,
        "num_tokens": num_tokens,
    }


def split_word(tokenizer: Tokenizer, word: str) -> list[str]:
    """The tokens of ` word`; bytes that are no character by themselves as \\x…"""
    ids = tokenizer.encode(" " + word, split_special_tokens=True)
    return [tokenizer.token_bytes[token_id].decode("utf-8", errors="backslashreplace") for token_id in ids]


def tokenizer_report(
    tokenizers: Mapping[str, Tokenizer], trained_on: CountedTexts, texts: Sequence[str], eval_on_train: bool
) -> dict[str, Any]:
    """What `report.json` holds.

    Args:
        tokenizers: the one that was trained first, then those to compare it with.
        texts: to measure on; `eval_on_train` says whether they are of the training texts.
    """
    return {
        "train": {"num_texts": trained_on.num_texts, "num_bytes": trained_on.num_bytes},
        "eval_on_train": eval_on_train,
        "tokenizers": {name: measure_tokenizer(each, texts) for name, each in tokenizers.items()},
        "new_words": {
            word: {
                "seen": word in trained_on.seen,
                "splits": {name: split_word(each, word) for name, each in tokenizers.items()},
            }
            for word in trained_on.words
        },
    }
