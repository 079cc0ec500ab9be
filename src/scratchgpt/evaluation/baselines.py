"""What a language model must beat: numbers in bits per byte that need no training to speak of."""

import gzip
import lzma

import numpy as np

from ..data.corpus import Corpus


def unigram_bits_per_byte(train: Corpus, evaluation: Corpus, byte_counts: np.ndarray) -> float:
    """A model that knows only how often each token occurs, with one count added to each (Laplace).

    Args:
        byte_counts: bytes that each id spells, [V]; tokens without bytes (special ones) are left out, as in
            `evaluate_language_model`.
    """
    counts = np.ones(len(byte_counts))
    counts += np.bincount(train.tokens, minlength=len(byte_counts))
    bits = -np.log2(counts / counts.sum())
    tokens = np.asarray(evaluation.tokens)
    sizes = byte_counts[tokens]
    return float(bits[tokens[sizes > 0]].sum() / sizes.sum())


def compressed_bits_per_byte(texts: list[str]) -> dict[str, float]:
    """What gzip -9 and xz -9e make of the texts, joined: general compressors that learn as they read."""
    data = "\n".join(texts).encode()
    sizes = {
        "gzip -9": len(gzip.compress(data, 9)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(data) for name, size in sizes.items()}
