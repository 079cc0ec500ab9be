"""Baselines that a model must beat, with little training or none.

For a language model: token frequencies and general compressors on the same text, in bits per byte. For a classifier:
the most frequent label, and logistic regression on TF-IDF.
"""

import gzip
import lzma

import numpy as np
import torch

from ..data.corpus import Corpus
from ..data.labelled_texts import LabelledTexts
from .classification import ClassificationResult, measure


def unigram_bits(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Bits of each id, [V], for a model that knows how often each occurs in `tokens`, one count added (Laplace)."""
    counts = np.bincount(tokens, minlength=vocab_size) + 1.0
    return -np.log2(counts / counts.sum())


def unigram_bits_per_byte(train: Corpus, evaluation: Corpus, byte_counts: np.ndarray) -> float:
    """Bits per byte of a model that knows only token frequencies: see `unigram_bits`.

    Args:
        byte_counts: bytes that each id spells, [V]; tokens without bytes (special ones) are left out, as in
            `evaluate_language_model`.
    """
    bits = unigram_bits(train.tokens, len(byte_counts))
    tokens = np.asarray(evaluation.tokens)
    sizes = byte_counts[tokens]
    return float(bits[tokens[sizes > 0]].sum() / sizes.sum())


def compressed_bits_per_byte(texts: list[str]) -> dict[str, float]:
    """Bits per byte of the texts, joined, when gzip -9 and xz -9e compress them."""
    data = "\n".join(texts).encode()
    sizes = {
        "gzip -9": len(gzip.compress(data, 9)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(data) for name, size in sizes.items()}


def majority_baseline(train: LabelledTexts, evaluation: LabelledTexts) -> ClassificationResult:
    """Every text gets the most frequent label of the training split, and the shares of the labels as probabilities."""
    shares = np.array(list(train.counts().values())) / len(train)
    logits = torch.from_numpy(np.log(np.maximum(shares, 1e-12))).expand(len(evaluation), -1)
    return measure(logits, np.array(evaluation.labels), train.names)


def linear_baseline(
    train: LabelledTexts, validation: LabelledTexts, evaluation: LabelledTexts, analyzer: str = "word"
) -> tuple[ClassificationResult, float]:
    """Logistic regression on TF-IDF (scikit-learn), of words and pairs of words or of 1 to 5 characters within words.

    The strength of the regularisation is chosen on the validation split.

    Args:
        analyzer: "word" or "char_wb".

    Returns:
        The result on `evaluation`, and the C that was chosen.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    longest = 2 if analyzer == "word" else 5
    vectorizer = TfidfVectorizer(analyzer=analyzer, ngram_range=(1, longest), sublinear_tf=True)  # pyright: ignore[reportArgumentType]
    features = vectorizer.fit_transform(train.texts)
    held_out = vectorizer.transform(validation.texts)
    candidates = []
    for strength in (1.0, 10.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=1000).fit(features, train.labels)
        candidates.append((model.score(held_out, validation.labels), -strength, model))
    _, strength, best = max(candidates, key=lambda candidate: candidate[:2])
    logits = np.log(np.maximum(best.predict_proba(vectorizer.transform(evaluation.texts)), 1e-12))
    return measure(torch.from_numpy(logits), np.array(evaluation.labels), train.names), -strength
