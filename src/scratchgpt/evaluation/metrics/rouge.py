"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) as rouge-score computes them with its stemmer, 0 to 1; see `..rouge`."""

from collections.abc import Sequence

import numpy as np

from scratchgpt.evaluation.metrics.base import MeanMetric, versions
from scratchgpt.evaluation.rouge import NAMES, TOKENS, rouge_f1


class Rouge(MeanMetric):
    """ROUGE-1, ROUGE-2 and ROUGE-L: the mean of the answers' F1, words stemmed, case and punctuation ignored."""

    names = NAMES

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return rouge_f1(predictions, references)

    def signature(self) -> str:
        return f"ROUGE|mean F1|{TOKENS}|{versions('rouge_score', 'nltk')}"
