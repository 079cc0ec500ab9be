"""How much of what a model writes is copied word for word from its training text: overlap of n-grams."""

import numpy as np

BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it vanishes modulo 2^64
CHUNK = 1 << 22


def ngram_hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash of each run of `n` ids: [len(ids) - n + 1] (Rabin and Karp 1987; a false match is unlikely)."""
    hashes = np.zeros(max(0, len(ids) - n + 1), dtype=np.uint64)
    for i in range(n):
        hashes = hashes * BASE + ids[i : i + len(hashes)].astype(np.uint64) + np.uint64(1)
    return hashes


def ngram_overlap(samples: list[list[int]], corpus: np.ndarray, n: int = 8) -> tuple[float, int]:
    """Share of the samples' runs of `n` tokens that occur in `corpus`, and how many runs there are.

    Args:
        samples: ids of generated texts, prompts left out. corpus: ids [tokens], may be memory-mapped.

    Cost: one pass over the corpus.
    """
    wanted = np.concatenate([ngram_hashes(np.asarray(ids, dtype=np.int64), n) for ids in samples] or [np.empty(0)])
    found = np.zeros(len(wanted), dtype=bool)
    for start in range(0, len(corpus) if len(wanted) else 0, CHUNK):
        found |= np.isin(wanted, ngram_hashes(np.asarray(corpus[start : start + CHUNK + n - 1]), n))
    return (float(found.mean()) if len(found) else 0.0), len(found)
