"""evaluation/baselines.py: what a model must beat, against sums by hand and the libraries' own results."""

import lzma
import math
import zlib
from pathlib import Path

import numpy as np
import pytest

from scratchgpt.data.corpus import Corpus
from scratchgpt.data.labelled_texts import LabelledTexts
from scratchgpt.evaluation.baselines import (
    compressed_bits_per_byte,
    linear_baseline,
    majority_baseline,
    unigram_bits_per_byte,
)


def corpus(*tokens: int) -> Corpus:
    """One document; id 2 ends it."""
    return Corpus(np.array(tokens, dtype=np.uint16), np.array([0, len(tokens)]), 2, 0, "", "", "", Path())


def test_unigram_by_hand() -> None:
    # Counts of the ids 0 to 3 in the training text, one added to each: 3, 2, 2, 1 of 8.
    train, evaluation = corpus(0, 0, 1, 2), corpus(0, 1, 1, 3, 2)
    bits = math.log2(8 / 3) + 2 * math.log2(8 / 2) + math.log2(8 / 1)  # id 2 spells nothing and is left out
    found = unigram_bits_per_byte(train, evaluation, np.array([1, 2, 0, 4]))
    assert found == pytest.approx(bits / (1 + 2 + 2 + 4))


def test_compressors() -> None:
    texts = ["Ein Text, zweimal: naïve 日本. " * 20, "Gold! " * 10]
    data = ("\n".join(texts)).encode()
    plain = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = len(plain.compress(data) + plain.flush())
    xz = len(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]))
    assert compressed_bits_per_byte(texts) == {
        "gzip -9": 8 * (deflated + 18) / len(data),  # a header of 10 bytes, checksum and length of 8 (RFC 1952)
        "xz -9e": 8 * xz / len(data),
    }


def test_random_digits_take_about_four_bits() -> None:
    """Sixteen symbols without any pattern: no compressor gets below their entropy, a good one comes near it."""
    digits = np.random.default_rng(0).bytes(50_000).hex()
    for name, bits in compressed_bits_per_byte([digits]).items():
        assert 4 < bits < 4.6, name


def test_the_most_frequent_label_by_hand() -> None:
    train = LabelledTexts(["x"] * 4, [1, 1, 1, 0], ["no", "yes"])
    evaluation = LabelledTexts(["x"] * 4, [1, 1, 0, 0], ["no", "yes"])
    result = majority_baseline(train, evaluation)
    assert result.confusion == [[0, 2], [0, 2]]
    assert result.accuracy == 0.5
    assert result.f1 == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert result.loss == pytest.approx(-(2 * math.log(3 / 4) + 2 * math.log(1 / 4)) / 4)
    assert result.roc_auc == 0.5
    assert result.calibration_error == pytest.approx(3 / 4 - 1 / 2)


@pytest.fixture
def data() -> LabelledTexts:
    texts = [f"good film number {i}" if i % 3 else f"bad film number {i}" for i in range(60)]
    return LabelledTexts(texts, [int(text.startswith("good")) for text in texts], ["bad", "good"])


@pytest.mark.parametrize("analyzer", ["word", "char_wb"])
def test_baselines(data: LabelledTexts, analyzer: str) -> None:
    train, rest = data.select(range(40)), data.select(range(40, 60))
    majority = majority_baseline(train, rest)
    assert majority.accuracy == pytest.approx(np.mean(rest.labels))
    assert majority.mcc == 0
    linear, strength = linear_baseline(train, rest, rest, analyzer)
    assert linear.accuracy == 1
    assert strength == 1  # of equally good ones the most regularised


def test_the_strength_is_chosen_on_the_validation_split() -> None:
    """scikit-learn alone, on the same texts, chooses the same and predicts the same."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(6)
    words = np.array(["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "good", "bad"])
    texts = [" ".join(rng.choice(words, 6)) for _ in range(300)]
    labels = [int((text.count("good") - text.count("bad") + rng.normal()) > 0) for text in texts]
    data = LabelledTexts(texts, labels, ["no", "yes"])
    parts = [data.select(range(i, i + 100)) for i in (0, 100, 200)]
    result, strength = linear_baseline(*parts, "word")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = vectorizer.fit_transform(parts[0].texts)
    scores, tests = {}, {}
    for c in (1.0, 10.0, 100.0):
        model = LogisticRegression(C=c, max_iter=1000).fit(features, parts[0].labels)
        scores[c] = model.score(vectorizer.transform(parts[1].texts), parts[1].labels)
        tests[c] = model.score(vectorizer.transform(parts[2].texts), parts[2].labels)
    assert len(set(scores.values())) > 1
    assert strength == max(scores, key=lambda c: (scores[c], -c))
    assert result.accuracy == pytest.approx(tests[strength])
