"""BLEU-4 (Papineni et al. 2002) as sacrebleu computes it by default, 0 to 100."""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.version import __version__

from scratchgpt.evaluation.metrics.base import AnswerMetric


class Bleu(AnswerMetric):
    """BLEU-4 of the whole set: tokenizer 13a, case kept, exponential smoothing; with brevity penalty and P1 to P4."""

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        bleu = BLEU(force=True)  # says nothing about texts that look tokenized; the score is the same
        return np.array(bleu._extract_corpus_statistics(list(predictions), [list(references)]))

    def scores(self, total: np.ndarray, count: int) -> dict[str, float]:
        length, reference_length, *grams = (int(each) for each in total)
        score = BLEU.compute_bleu(grams[:4], grams[4:], length, reference_length, smooth_method="exp")
        precisions = {f"bleu_p{n}": float(value) for n, value in enumerate(score.precisions, 1)}
        return {"bleu": float(score.score), "bleu_brevity_penalty": float(score.bp), **precisions}

    def signature(self) -> str:
        return f"BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:sacrebleu {__version__}"
