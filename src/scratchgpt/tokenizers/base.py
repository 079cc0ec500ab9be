"""What the tokenizers share: text → pre-tokens → bytes → ids, and back.

A regular expression cuts the text into pre-tokens. What it does not match is a pre-token too, so the pre-tokens joined
are the text. Each becomes ids on its own, which makes encoding a look-up: natural text repeats its words, so the ids
of a pre-token are computed once and kept as packed bytes. Encoding a text is then

    b"".join(map(cache.__getitem__, split(text)))

with no Python loop over tokens: faster for a corpus than the Rust tokenizer, which makes offsets too (results:
benchmarks/tokenization.py). Price: memory for the cache, at most `CACHE_LIMIT` short pre-tokens.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from .byte_to_unicode import to_unicode
from .patterns import PATTERNS, check_same_in_rust, splitter

SPECIAL_TOKENS = ("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

BYTES = [bytes([value]) for value in range(256)]

CACHE_LIMIT = 1_000_000
"""Pre-tokens remembered for each tokenizer; later ones, and those too long to be words, are encoded each time."""

CHECKED_CHARACTERS = 100_000
"""Characters of a corpus on which a pattern of one's own is compared with the Rust library."""

LONGEST_CACHED = 100
"""Characters."""


class PieceCache(dict[str, bytes]):
    """Pre-token → its ids, packed; filled as pre-tokens are met."""

    def __init__(self, encode_piece: Callable[[str], bytes]) -> None:
        super().__init__()
        self.encode_piece = encode_piece

    def __missing__(self, piece: str) -> bytes:
        packed = self.encode_piece(piece)
        if len(piece) <= LONGEST_CACHED and len(self) < CACHE_LIMIT:
            self[piece] = packed
        return packed


class Tokenizer(ABC):
    """Text ↔ ids by a split pattern and a vocabulary of byte strings.

    Args:
        vocabulary: token → id, for all tokens that are not special.
        pattern: what a pre-token is, and so is what lies between two (syntax common to `regex` and Oniguruma).
        special_tokens: name → id. In a text they stand for themselves unless `split_special_tokens` is set.

    Raises:
        ValueError: when ids are not 0 … vocabulary size - 1, each once.
    """

    def __init__(self, vocabulary: dict[bytes, int], pattern: str, special_tokens: dict[str, int]) -> None:
        self.vocabulary, self.pattern, self.special_tokens = vocabulary, pattern, special_tokens
        self.vocab_size = len(vocabulary) + len(special_tokens)
        self.token_bytes = [b""] * self.vocab_size
        """id → the bytes it stands for."""
        ids = [*vocabulary.values(), *special_tokens.values()]
        if sorted(ids) != list(range(self.vocab_size)):
            raise ValueError(
                f"{len(vocabulary)} tokens and {len(special_tokens)} special tokens must have the ids "
                f"0 … {self.vocab_size - 1}, each once: some are missing or used twice"
            )
        # `tokenizer.json` has both in one table, the tokens with a character for each byte.
        taken = {to_unicode(token) for token in vocabulary}
        if both := [name for name in special_tokens if name.encode() in vocabulary or name in taken]:
            raise ValueError(f"{both} cannot be special tokens and tokens of the vocabulary at once: rename them")
        for token, token_id in vocabulary.items():
            self.token_bytes[token_id] = token
        for name, token_id in special_tokens.items():
            self.token_bytes[token_id] = name.encode()
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uintc)
        """The smallest unsigned integers that hold every id."""
        size, ids = self.dtype.itemsize, np.arange(self.vocab_size, dtype=self.dtype).tobytes()
        self._packed = [ids[i : i + size] for i in range(0, len(ids), size)]
        """id → the id as bytes of `dtype`."""
        self._split = splitter(pattern)
        self._split_at_special = split_at_special(special_tokens)
        self._cache = PieceCache(self._encode_piece)

    @abstractmethod
    def _encode_piece(self, piece: str) -> bytes:
        """The ids of one pre-token, packed."""

    def encode(self, text: str, split_special_tokens: bool = False) -> list[int]:
        """The ids of `text`; with `split_special_tokens`, text that spells a special token stays text.

        Raises:
            UnicodeEncodeError: (a ValueError) for lone surrogates, which UTF-8 cannot spell.
        """
        return self.encode_array(text, split_special_tokens).tolist()

    def encode_array(self, text: str, split_special_tokens: bool = False) -> np.ndarray:
        """As `encode`, as a read-only array of `self.dtype`."""
        packed: list[bytes] = []
        for i, part in enumerate([text] if split_special_tokens else self._split_at_special(text)):
            if i % 2 == 0:
                packed.extend(map(self._cache.__getitem__, self._split(part)))
            else:
                packed.append(self._packed[self.special_tokens[part]])
        return np.frombuffer(b"".join(packed), dtype=self.dtype)

    def encode_batch(self, texts: Iterable[str], split_special_tokens: bool = False) -> Iterator[np.ndarray]:
        """The ids of each text, lazily: the way to tokenise a corpus."""
        for text in texts:
            yield self.encode_array(text, split_special_tokens)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens by name; bytes that are no UTF-8 become U+FFFD, as in `tokenizers`.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        ids = list(ids)
        if ids and (min(ids) < 0 or max(ids) >= self.vocab_size):
            raise ValueError(f"ids must be in 0 … {self.vocab_size - 1}, got {min(ids)} … {max(ids)}")
        return b"".join([self.token_bytes[token_id] for token_id in ids]).decode("utf-8", errors="replace")


def split_at_special(special_tokens: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that cuts a text at special tokens into [text, special, text, …, text]; the longest wins."""
    names = sorted(special_tokens, key=len, reverse=True)
    if not names:
        return lambda text: [text]
    return re.compile("(" + "|".join(map(re.escape, names)) + ")").split


def count_pieces(
    texts: Iterable[str], pattern: str, special_tokens: Sequence[str], progress: bool = False
) -> Counter[str]:
    """How often each pre-token occurs, in order of first occurrence; special tokens are borders and not counted.

    Holds one text and the distinct pre-tokens in memory, never the corpus.

    Raises:
        ValueError: where there is no text at all, `texts` is a single string, or a pattern of one's own means
            something else to the Rust library.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be an iterable of strings; for a single text pass [text]")
    split, split_special = splitter(pattern), split_at_special(special_tokens)
    counts: Counter[str] = Counter()
    unchecked = 0 if pattern in PATTERNS else CHECKED_CHARACTERS
    for text in tqdm(texts, desc="reading", unit=" texts", disable=not progress):
        for part in split_special(text)[::2]:
            if unchecked > 0:
                check_same_in_rust(pattern, part[:unchecked])
                unchecked -= len(part)
            counts.update(split(part))
    if not counts:
        raise ValueError("the corpus is empty: there is no text to learn from; check the data set and its column")
    return counts


def check_special_tokens(special_tokens: Sequence[str]) -> None:
    """Raises ValueError unless the names are distinct and not empty."""
    if "" in special_tokens or len(set(special_tokens)) != len(special_tokens):
        raise ValueError(f"special tokens must be distinct and not empty, got {list(special_tokens)}")
