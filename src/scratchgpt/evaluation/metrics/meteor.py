"""METEOR (Lavie and Agarwal 2007) as nltk computes it, 0 to 1, with WordNet's synonyms only where WordNet is there."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from nltk.corpus import wordnet
from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.meteor_score import single_meteor_score

from scratchgpt.evaluation.metrics.base import MeanMetric, versions


class NoWordNet:
    """A WordNet without words: METEOR then matches equal words and equal stems."""

    def synsets(self, word: str) -> list[Any]:
        return []


@lru_cache(maxsize=1)
def installed_wordnet() -> Any:
    """nltk's WordNet where its data is on this machine (it is never downloaded), else None."""
    try:
        wordnet.ensure_loaded()  # pyright: ignore[reportAttributeAccessIssue]  # a lazy loader
    except LookupError:
        return None
    return wordnet


class Meteor(MeanMetric):
    """METEOR: the mean of the answers' own; equal words, stems and (where WordNet is installed) synonyms, in order."""

    names = ("meteor",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        tokens = NLTKWordTokenizer().tokenize
        synonyms: Any = installed_wordnet() or NoWordNet()
        return np.array([
            [single_meteor_score(tokens(reference), tokens(prediction), wordnet=synonyms)]
            for prediction, reference in zip(predictions, references, strict=True)
        ])  # fmt: skip

    def signature(self) -> str:
        synonyms = "WordNet" if installed_wordnet() else "none (no WordNet here)"
        return (
            f"METEOR|alpha:0.9|beta:3|gamma:0.5|case:lower|stemmer:porter|synonyms:{synonyms}|tok:nltk Treebank|"
            f"{versions('nltk')}"
        )
