"""Word and character tokenizers: one id for each known pre-token.

A regular expression cuts the text into words (each with the space before it), numbers, punctuation and white space;
nothing is dropped, so decoding gives the text back. The vocabulary is the pre-tokens seen often enough. A pre-token
that is not in it becomes its UTF-8 bytes, or `<|unk|>` when asked.

Cost: one look-up for each pre-token. The price is paid by the vocabulary, which grows with the corpus (a word with and
without a space are two entries), and by rare words: up to four ids a character as bytes, or lost as `<|unk|>`.
"""

from collections.abc import Iterable, Sequence
from typing import Self

from .base import BYTES, SPECIAL_TOKENS, Tokenizer, check_special_tokens, count_pieces
from .patterns import CHAR_PATTERN, WORD_PATTERN

UNK_TOKEN = "<|unk|>"


class RegexTokenizer(Tokenizer):
    """One id for each pre-token of the vocabulary.

    Args:
        vocabulary: token → id; with the 256 bytes, unless `<|unk|>` is among the special tokens.
        pattern, special_tokens: as for `Tokenizer`.

    Raises:
        ValueError: for a vocabulary without the bytes and without `<|unk|>`.
    """

    default_pattern = WORD_PATTERN

    def __init__(self, vocabulary: dict[bytes, int], pattern: str, special_tokens: dict[str, int]) -> None:
        self.unk_id = special_tokens.get(UNK_TOKEN)
        """The id of `<|unk|>`; None where unknown pre-tokens fall back to bytes."""
        if self.unk_id is None and not all(byte in vocabulary for byte in BYTES):
            raise ValueError(f"the vocabulary lacks bytes, and no special token {UNK_TOKEN} stands for them")
        super().__init__(vocabulary, pattern, special_tokens)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int | None = None,
        min_frequency: int = 2,
        pattern: str | None = None,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        unk: bool = False,
        progress: bool = False,
    ) -> Self:
        """Takes the most frequent pre-tokens of `texts`, read once; ties in the order of their bytes.

        Args:
            vocab_size: the most tokens to have, bytes and special tokens included; None for all frequent enough.
            min_frequency: how often a pre-token must occur.
            unk: unknown pre-tokens become `<|unk|>` and no bytes are in the vocabulary. Decoding then loses them.

        Raises:
            ValueError: for an empty corpus, or a vocabulary that has no room for the bytes and the special tokens.
        """
        if unk and UNK_TOKEN not in special_tokens:
            special_tokens = [UNK_TOKEN, *special_tokens]
        check_special_tokens(special_tokens)
        tokens = [] if unk else list(BYTES)
        reserved = len(tokens) + len(special_tokens)
        if vocab_size is not None and vocab_size < reserved + unk:
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than the alphabet: {len(tokens)} bytes, {len(special_tokens)} "
                f"special tokens{' and one word' if unk else ''} need at least {reserved + unk}"
            )
        pattern = pattern or cls.default_pattern
        counts = count_pieces(texts, pattern, special_tokens, progress)
        frequent = sorted((-count, piece.encode()) for piece, count in counts.items() if count >= min_frequency)
        known = set(tokens)
        words = [piece for _, piece in frequent if piece not in known]
        cls._check_room(len(words), reserved, vocab_size)
        tokens += words[: None if vocab_size is None else vocab_size - reserved]
        if not tokens:
            raise ValueError(f"nothing occurs {min_frequency} times or more: lower min_frequency or give more text")
        vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
        return cls(vocabulary, pattern, {name: len(tokens) + i for i, name in enumerate(special_tokens)})

    @classmethod
    def _check_room(cls, num_words: int, reserved: int, vocab_size: int | None) -> None:
        """Words that find no room are unknown words: no error."""

    def _encode_piece(self, piece: str) -> bytes:
        token = piece.encode()
        token_id = self.vocabulary.get(token, self.unk_id)
        if token_id is not None:
            return self._packed[token_id]
        return b"".join([self._packed[self.vocabulary[BYTES[byte]]] for byte in token])


class CharTokenizer(RegexTokenizer):
    """A `RegexTokenizer` whose pre-tokens are single characters (Unicode code points)."""

    default_pattern = CHAR_PATTERN

    @classmethod
    def _check_room(cls, num_words: int, reserved: int, vocab_size: int | None) -> None:
        if vocab_size is not None and reserved + num_words > vocab_size:
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than the alphabet: {num_words} characters beside {reserved} "
                f"bytes and special tokens need {reserved + num_words}; raise vocab_size or min_frequency"
            )
