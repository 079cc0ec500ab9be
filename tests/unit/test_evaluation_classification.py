"""evaluation/classification.py: scikit-learn's numbers, and intervals that simulation gives too."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from scratchgpt.evaluation.classification import (
    calibration_error,
    confusion_matrix,
    matthews,
    measure,
)


@pytest.mark.parametrize("names", [["no", "yes"], ["a", "b", "c"]])
def test_figures_are_those_of_scikit_learn(names: list[str]) -> None:
    torch.manual_seed(1)
    logits = torch.randn(300, len(names))
    labels = (logits + torch.randn(300, len(names))).argmax(-1).numpy()
    predicted, probabilities = logits.argmax(-1).numpy(), logits.double().softmax(-1).numpy()
    result = measure(logits, labels, names)
    binary = len(names) == 2
    assert result.num_texts == 300
    assert result.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result.f1 == pytest.approx(metrics.f1_score(labels, predicted, average="binary" if binary else "macro"))
    assert result.f1_of == ("yes" if binary else "macro")
    assert result.mcc == pytest.approx(metrics.matthews_corrcoef(labels, predicted))
    assert result.confusion == metrics.confusion_matrix(labels, predicted).tolist()
    assert result.loss == pytest.approx(metrics.log_loss(labels, probabilities))
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for i, name in enumerate(names):
        assert list(result.per_label[name].values()) == pytest.approx([figure[i] for figure in expected])
    for value, (low, high) in (
        (result.accuracy, result.accuracy_interval),
        (result.f1, result.f1_interval),
        (result.mcc, result.mcc_interval),
    ):
        assert low < value < high
        assert 0.05 < high - low < 0.25


def test_the_bootstrap_of_the_matrix_is_that_of_the_texts() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    predicted = np.where(rng.random(200) < 0.9, labels, 1 - labels)
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), 2).float() * 4
    low, high = measure(logits, labels, ["no", "yes"]).mcc_interval
    rows = rng.integers(0, 200, (2000, 200))
    found = [metrics.matthews_corrcoef(labels[row], predicted[row]) for row in rows]
    assert (low, high) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])), abs=0.015)


def test_edges() -> None:
    assert matthews(np.array([[5, 0], [3, 0]])) == 0
    one_label = measure(torch.zeros(3, 2), np.zeros(3, int), ["no", "yes"])
    assert one_label.roc_auc is None
    assert one_label.f1 == 0
    with pytest.raises(ValueError, match="the split has no texts"):
        measure(torch.zeros(0, 2), np.zeros(0, int), ["no", "yes"])
    assert confusion_matrix(np.array([0, 1, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 1], [1, 1]]


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])  # bin at 0.95: half right; bin at 0.65: all right
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)
