"""chrF++ (Popović 2017) as sacrebleu computes it, 0 to 100."""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.version import __version__

from scratchgpt.evaluation.metrics.base import AnswerMetric


class ChrfPlusPlus(AnswerMetric):
    """chrF++ of the whole set: F2 of n-grams of 1 to 6 characters and 1 to 2 words."""

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return np.array(CHRF(word_order=2)._extract_corpus_statistics(list(predictions), [list(references)]))

    def scores(self, total: np.ndarray, count: int) -> dict[str, float]:
        return {"chrf++": float(CHRF(word_order=2)._compute_score_from_stats([int(each) for each in total]).score)}

    def signature(self) -> str:
        return f"chrF2++|nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:sacrebleu {__version__}"
