"""evaluation/baselines.py: what a classifier must beat."""

import numpy as np
import pytest

from scratchgpt.data.labelled_texts import LabelledTexts
from scratchgpt.evaluation.baselines import linear_baseline, majority_baseline


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
