"""Token-F1: which tokens of an answer are the reference's, whatever their order; between white space, case kept."""

from collections.abc import Sequence

import numpy as np

from scratchgpt.evaluation.metrics.base import AnswerMetric, divided, f1
from scratchgpt.evaluation.token_overlap import token_overlap


class TokenF1(AnswerMetric):
    """F1, precision and recall of tokens, as often as they stand in both: over all tokens (micro), and the mean of the
    answers' own (macro). 0 to 1."""

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            both, said, wanted = token_overlap(prediction, reference)
            precision, recall = divided(both, said), divided(both, wanted)
            rows.append([both, said, wanted, f1(precision, recall), precision, recall])
        return np.array(rows, dtype=float)

    def scores(self, total: np.ndarray, count: int) -> dict[str, float]:
        both, said, wanted, *sums = total
        precision, recall = divided(both, said), divided(both, wanted)
        micro = {"token_f1": f1(precision, recall), "token_precision": precision, "token_recall": recall}
        return micro | {name: float(value / count) for name, value in zip(self.means, sums, strict=True)}

    @property
    def means(self) -> tuple[str, ...]:
        return ("token_f1_macro", "token_precision_macro", "token_recall_macro")

    def signature(self) -> str:
        return "token-F1|tok:white space|case:mixed|micro over all tokens, macro over answers|version:scratchgpt 1"
