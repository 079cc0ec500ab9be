"""A language model that only counts: n-grams with modified Kneser-Ney smoothing, interpolated.

Source: Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", section 3. Of the
longest n-grams it counts how often they occur, of shorter ones after how many different tokens; from every count a
discount is taken, by whether it is 1, 2 or more, and what that leaves goes to the next shorter n-gram:

    P(w | h) = (c(h w) - D(c(h w))) / c(h) + gamma(h) · P(w | h without its first token)

down to the uniform distribution over the vocabulary, so that nothing is impossible. Each document begins after n - 1
start tokens, and the end of a document is predicted as well. 30 MB of text take half a minute and 2 GB of memory.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from .log_likelihoods import Scored, Sequences

CONTEXT = 2048
"""Tokens of a sequence: more than it looks at, and few enough that a text has many."""


class NgramModel:
    """Counts `documents`; then scores sequences as `LogLikelihoods` does.

    Args:
        documents: tokens of each, without start and end.
        vocab_size: ids below this can occur.
        start, end: tokens around every document; may be the same.
        order: n, the length of the longest n-grams.

    Raises:
        ValueError: where there are no documents.
    """

    def __init__(
        self, documents: Iterable[Sequence[int]], vocab_size: int, start: int, end: int, order: int = 5
    ) -> None:
        self.vocab_size, self.start, self.order = vocab_size, start, order
        self.context = CONTEXT
        pieces = [np.array([*[start] * (order - 1), *document, end], dtype=np.int64) for document in documents]
        if not pieces:
            raise ValueError("an n-gram model needs text to count: there are no documents")
        tokens = np.concatenate(pieces)
        predicted = np.concatenate([np.arange(len(piece)) >= order - 1 for piece in pieces])
        # Of each length k the n-grams that occur, as sorted numbers: that of the first k - 1 tokens · V + the last.
        self.grams = [np.arange(vocab_size)]
        ids = [tokens]
        for _ in range(order - 1):
            before = np.concatenate(([0], ids[-1][:-1]))  # wrong only where a document begins, which is not counted
            unique, inverse = np.unique(before * vocab_size + tokens, return_inverse=True)
            self.grams.append(unique)
            ids.append(inverse)
        self.shares: list[np.ndarray] = []  # of each n-gram (c - D) / c(h)
        self.left: list[np.ndarray] = []  # of each context gamma
        counts = np.bincount(ids[-1][predicted], minlength=len(self.grams[-1]))
        for k in range(order - 1, -1, -1):
            contexts = self.grams[k] // vocab_size if k else np.zeros(vocab_size, dtype=np.int64)
            num_contexts = len(self.grams[k - 1]) if k else 1
            discounts = _discounts(counts)[np.minimum(counts, 3)]
            totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
            with np.errstate(divide="ignore", invalid="ignore"):
                self.shares.insert(0, (counts - discounts) / totals[contexts])
                gamma = np.bincount(contexts, weights=discounts, minlength=num_contexts) / totals
            self.left.insert(0, np.where(totals > 0, gamma, 1.0))
            self.shares[0][counts == 0] = 0
            if k:  # one for each different token before it
                suffixes = np.zeros(len(self.grams[k]), dtype=np.int64)
                suffixes[ids[k]] = ids[k - 1]
                counts = np.bincount(suffixes[counts > 0], minlength=len(self.grams[k - 1]))
        self.unigrams = self.shares[0] + self.left[0][0] / vocab_size

    def log_probabilities(self, tokens: Sequence[int]) -> np.ndarray:
        """Of each token after those before it, in nats, [T]; before the first stand start tokens."""
        padded = np.concatenate((np.full(self.order - 1, self.start, dtype=np.int64), np.asarray(tokens, np.int64)))
        ids, found = padded, self.unigrams[padded]
        for grams, shares, left in zip(self.grams[1:], self.shares[1:], self.left[1:], strict=True):
            context = np.concatenate(([-1], ids[:-1]))
            wanted = context * self.vocab_size + padded
            places = np.searchsorted(grams, wanted).clip(max=len(grams) - 1)
            ids = np.where((grams[places] == wanted) & (context >= 0), places, -1)
            found = np.where(ids >= 0, shares[ids], 0) + np.where(context >= 0, left[context], 1) * found
        return np.log(found[self.order - 1 :])

    def distribution(self, context: Sequence[int]) -> np.ndarray:
        """Probabilities of all tokens after `context`, [V]."""
        context = [*[self.start] * (self.order - 1), *context][len(context) :]
        found = self.unigrams
        for k in range(1, self.order):
            number: int = context[-k]
            for j, token in enumerate(context[len(context) - k + 1 :], start=1):
                wanted = number * self.vocab_size + token
                place = int(np.searchsorted(self.grams[j], wanted))
                if place == len(self.grams[j]) or self.grams[j][place] != wanted:
                    return found  # a longer context has not occurred either
                number = place
            first, last = np.searchsorted(self.grams[k], [number * self.vocab_size, (number + 1) * self.vocab_size])
            found = self.left[k][number] * found
            found[self.grams[k][first:last] - number * self.vocab_size] += self.shares[k][first:last]
        return found

    def score(self, sequences: Sequences) -> list[Scored]:
        """As `LogLikelihoods.score`."""
        found = []
        for tokens, count in sequences:
            values = self.log_probabilities(tokens)[len(tokens) - count :]
            found.append(Scored(float(values.sum()), self._is_greedy(tokens, count, values)))
        return found

    def _is_greedy(self, tokens: Sequence[int], count: int, values: np.ndarray) -> bool:
        first = len(tokens) - count
        return all(
            self.distribution(tokens[:place]).max() <= np.exp(value) * (1 + 1e-9)
            for place, value in enumerate(values, start=first)
        )


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from a count of 0, 1, 2 and more; [4]. Too little text to estimate them gets 0, 0.5, 1 and 1.5."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if not n[1:5].all():
        return np.array([0, 0.5, 1, 1.5])
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0, *(i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))])
    return found.clip(min=0)
