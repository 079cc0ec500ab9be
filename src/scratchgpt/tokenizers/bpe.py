"""Byte-level byte-pair encoding: the tokenizer of GPT-2 (Radford et al. 2019; BPE: Sennrich et al. 2016).

Training starts from the 256 bytes and merges, again and again, the most frequent pair of neighbouring tokens inside
pre-tokens into a new token. Done naively each merge reads the corpus; here each merge touches only what it changes:

1. Count the distinct pre-tokens; from now on a word that occurs a million times is one word with weight a million.
2. Lay all distinct pre-tokens out in one list of symbols, linked in both directions. For each pair keep its weighted
   count and the positions where it occurs.
3. Take the most frequent pair from a heap. At each of its positions join the two symbols, lower the counts of the
   two pairs that vanish there, raise those of the two that appear.

Counts in the heap are not updated when they fall; an entry found out of date is put back with today's count (lazy
invalidation). That is enough, since a count rises only in the step that creates the pair.

Cost: reading is as fast as the regular expression; merging is linear in the symbols that vanish (about a million for
8,000 merges on 25 MB of English), independent of how often words repeat. Ties go to the lexicographically greatest
pair of byte strings, so the result depends on the texts alone, not on their order or on the hash seed.

Encoding a pre-token applies the merges in the order in which they were learned.
"""

import heapq
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import getitem
from pathlib import Path

from tqdm import tqdm

from .base import BYTES, SPECIAL_TOKENS, Tokenizer, check_special_tokens, count_pieces
from .byte_to_unicode import from_unicode
from .patterns import GPT2_PATTERN, GPT4_PATTERN

Merge = tuple[bytes, bytes]

LONG_WORD = 100
"""Bytes from which on a pre-token is merged with a heap."""


def learn_merges(
    piece_counts: Counter[str], num_merges: int, min_frequency: int = 1, progress: bool = False
) -> list[Merge]:
    """The merges of byte-pair encoding, in order; fewer than `num_merges` where no pair is frequent enough."""
    # One list for all words; a negative symbol separates two words, or is what a merge left behind.
    border, dead = -1, -2
    symbols, weights = [border], [0]
    for piece, weight in piece_counts.items():
        word = piece.encode()
        symbols += word
        symbols.append(border)
        weights += [weight] * (len(word) + 1)
    following = list(range(1, len(symbols) + 1))
    preceding = list(range(-1, len(symbols) - 1))

    counts: dict[tuple[int, int], int] = defaultdict(int)
    positions: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, pair in enumerate(pairwise(symbols)):
        if pair[0] >= 0 and pair[1] >= 0:
            counts[pair] += weights[position]
            positions[pair].append(position)

    tokens = list(BYTES)
    known = set(tokens)
    # Complemented bytes, then a character above them all, sort in reverse: heapq finds the smallest, ties want the
    # greatest.
    complement = bytes(range(255, -1, -1))

    def reversed_order(token: bytes) -> str:
        return token.translate(complement).decode("latin-1") + "\u0100"

    order = [reversed_order(token) for token in tokens]
    heap = [(-count, order[a], order[b], (a, b)) for (a, b), count in counts.items()]
    heapq.heapify(heap)
    merges: list[Merge] = []
    bar = tqdm(total=num_merges, desc="merging", unit=" merges", disable=not progress)
    while heap and len(merges) < num_merges:
        stale, order_a, order_b, pair = heapq.heappop(heap)
        count = counts[pair]
        if count < min_frequency:
            del counts[pair], positions[pair]
            continue
        if count != -stale:
            heapq.heappush(heap, (-count, order_a, order_b, pair))
            continue
        first, second = pair
        token = tokens[first] + tokens[second]
        if token in known:  # the same bytes by another route: a vocabulary holds them once
            del counts[pair], positions[pair]
            continue
        merges.append((tokens[first], tokens[second]))
        new = len(tokens)
        tokens.append(token)
        known.add(token)
        order.append(reversed_order(token))
        appeared: set[tuple[int, int]] = set()
        for here in positions[pair]:
            there = following[here]
            if symbols[here] != first or symbols[there] != second:
                continue  # an earlier merge changed this place
            weight, before, after = weights[here], preceding[here], following[there]
            symbols[here], symbols[there] = new, dead
            following[here], preceding[after] = after, here
            if (left := symbols[before]) >= 0:
                counts[left, first] -= weight
                counts[left, new] += weight
                positions[left, new].append(before)
                appeared.add((left, new))
            if (right := symbols[after]) >= 0:
                counts[second, right] -= weight
                counts[new, right] += weight
                positions[new, right].append(here)
                appeared.add((new, right))
        del counts[pair], positions[pair]
        for a, b in appeared:  # a total order on the heap's entries: the order of this set does not matter
            heapq.heappush(heap, (-counts[a, b], order[a], order[b], (a, b)))
        bar.update()
    bar.close()
    return merges


class BPETokenizer(Tokenizer):
    """Byte-level BPE.

    Args:
        vocabulary: token → id; holds the 256 bytes and the result of every merge.
        merges: pairs of tokens in the order in which they are applied.
        pattern, special_tokens: as for `Tokenizer`.

    Raises:
        ValueError: for a vocabulary that lacks a byte or the parts or the result of a merge.
    """

    def __init__(
        self,
        vocabulary: dict[bytes, int],
        merges: Sequence[Merge],
        pattern: str = GPT4_PATTERN,
        special_tokens: dict[str, int] | None = None,
    ) -> None:
        self.merges = list(merges)
        # Inside a pre-token byte b is symbol b, and what a merge makes is symbol 256 + its id.
        try:
            byte_ids = [vocabulary[byte] for byte in BYTES]
            symbols = {token: 256 + token_id for token, token_id in vocabulary.items()}
            symbols |= {byte: value for value, byte in enumerate(BYTES)}
            self._merged = [symbols[a + b] for a, b in self.merges]
            pairs = [(symbols[a], symbols[b]) for a, b in self.merges]
        except KeyError as error:
            raise ValueError(
                f"the vocabulary lacks the token {error}, which the bytes or the merges need: "
                "vocabulary and merges are not of the same tokenizer"
            ) from None
        super().__init__(vocabulary, pattern, special_tokens or {})
        self._packed_symbols = [self._packed[token_id] for token_id in byte_ids] + self._packed
        self._ranks_after: list[dict[int, int]] = [{} for _ in self._packed_symbols]
        for rank, (a, b) in enumerate(pairs):
            self._ranks_after[a][b] = rank
        # The same for bytes, as a table: most look-ups are for the pairs that a pre-token begins with.
        never = len(self.merges)  # the rank of pairs that are not merged
        self._byte_ranks = [[ranks.get(b, never) for b in range(256)] for ranks in self._ranks_after[:256]]

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        pattern: str = GPT4_PATTERN,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        min_frequency: int = 2,
        progress: bool = False,
    ) -> "BPETokenizer":
        """Learns `vocab_size` tokens from `texts`, read once: the 256 bytes, the merges, the special tokens.

        Warns where the texts have too few pairs that occur `min_frequency` times to fill the vocabulary.

        Raises:
            ValueError: for an empty corpus, or a vocabulary that has no room for the bytes and the special tokens.
        """
        check_special_tokens(special_tokens)
        num_merges = vocab_size - len(BYTES) - len(special_tokens)
        if num_merges < 0:
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than the alphabet: 256 bytes and {len(special_tokens)} special "
                f"tokens need at least {len(BYTES) + len(special_tokens)}"
            )
        counts = count_pieces(texts, pattern, special_tokens, progress)
        merges = learn_merges(counts, num_merges, min_frequency, progress)
        if len(merges) < num_merges:
            warnings.warn(
                f"only {len(merges)} pairs occur {min_frequency} times or more: the vocabulary has "
                f"{vocab_size - num_merges + len(merges)} tokens, not {vocab_size}; give more text or ask for less",
                stacklevel=2,
            )
        tokens = BYTES + [a + b for a, b in merges]
        vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
        return cls(vocabulary, merges, pattern, {name: len(tokens) + i for i, name in enumerate(special_tokens)})

    @classmethod
    def from_gpt2(
        cls, vocab_file: str | Path, merges_file: str | Path, special_tokens: Sequence[str] = SPECIAL_TOKENS
    ) -> "BPETokenizer":
        """GPT-2's own vocabulary (`encoder.json` and `vocab.bpe`); special tokens it lacks get the ids after it.

        Raises:
            ValueError: for files that are missing or of another form.
        """
        try:
            spelled = json.loads(Path(vocab_file).read_text(encoding="utf-8"))
            lines = Path(merges_file).read_text(encoding="utf-8").splitlines()
            merges = [(from_unicode(a), from_unicode(b)) for a, b in (line.split(" ") for line in lines[1:] if line)]
            specials = {name: spelled[name] for name in special_tokens if name in spelled}
            vocabulary = {
                from_unicode(token): token_id for token, token_id in spelled.items() if token not in specials
            }
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{vocab_file} and {merges_file} are not GPT-2's encoder.json (vocab.json) and vocab.bpe "
                f"(merges.txt): {error}"
            ) from error
        for name in special_tokens:
            specials.setdefault(name, len(vocabulary) + len(specials))
        return cls(vocabulary, merges, GPT2_PATTERN, specials)

    def _encode_piece(self, piece: str) -> bytes:
        word = piece.encode()
        symbols = self._merge_word(word) if len(word) <= LONG_WORD else self._merge_long_word(word)
        return b"".join(map(self._packed_symbols.__getitem__, symbols))

    def _merge_word(self, word: bytes) -> list[int]:
        """Merges the pair of lowest rank, leftmost first, until there is none; quadratic in the length of `word`."""
        symbols = list(word)
        # Of the pair that begins at each place.
        ranks = list(map(getitem, map(self._byte_ranks.__getitem__, word), word[1:]))
        ranks_after, merged, never = self._ranks_after, self._merged, len(self._merged)
        while ranks and (rank := min(ranks)) < never:
            here = ranks.index(rank)
            symbols[here] = symbol = merged[rank]
            del symbols[here + 1], ranks[here]
            if here > 0:
                ranks[here - 1] = ranks_after[symbols[here - 1]].get(symbol, never)
            if here < len(ranks):
                ranks[here] = ranks_after[symbol].get(symbols[here + 1], never)
        return symbols

    def _merge_long_word(self, word: bytes) -> list[int]:
        """As `_merge_word`, by a heap of pairs and links between what is left: O(n log n), slower for words."""
        symbols, end = list(word), len(word)
        following, preceding = list(range(1, end + 1)), list(range(-1, end - 1))
        heap: list[tuple[int, int, int, int]] = []

        def note(here: int, there: int) -> None:
            rank = self._ranks_after[symbols[here]].get(symbols[there])
            if rank is not None:
                heapq.heappush(heap, (rank, here, symbols[here], symbols[there]))

        for here in range(end - 1):
            note(here, here + 1)
        while heap:
            rank, here, first, second = heapq.heappop(heap)
            there = following[here]
            if there >= end or (symbols[here], symbols[there]) != (first, second):
                continue  # a merge since then took one of the two
            symbols[here], symbols[there] = self._merged[rank], -1
            before, after = preceding[here], following[there]
            following[here] = after
            if after < end:
                preceding[after] = here
                note(here, after)
            if before >= 0:
                note(before, here)
        return [symbol for symbol in symbols if symbol >= 0]
