"""evaluation/classification.py: scikit-learn's numbers, and intervals that simulation gives too."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from scratchgpt.evaluation.classification import (
    calibration_error,
    f1_scores,
    matthews,
    measure,
)


@pytest.mark.parametrize("names", [["no", "yes"], ["a", "b", "c"]])
def test_numbers_are_those_of_scikit_learn(names: list[str]) -> None:
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
    scores = probabilities[:, 1] if binary else probabilities
    assert result.roc_auc == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for i, name in enumerate(names):
        assert list(result.per_label[name].values()) == pytest.approx([values[i] for values in expected])
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
    rows = rng.integers(0, 200, (1000, 200))
    found = [metrics.matthews_corrcoef(labels[row], predicted[row]) for row in rows]
    assert (low, high) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])), abs=0.02)


def test_by_hand() -> None:
    """Eight texts. Of the four with label 1 three are found; of the four with label 0 one is taken for it."""
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    probability = torch.tensor([0.9, 0.8, 0.7, 0.3, 0.6, 0.4, 0.2, 0.1], dtype=torch.float64)
    result = measure(torch.stack((1 - probability, probability), 1).log(), labels, ["no", "yes"])
    assert result.confusion == [[3, 1], [1, 3]]
    assert result.accuracy == 6 / 8
    assert result.f1 == pytest.approx(3 / 4)  # precision 3/4, recall 3/4
    assert result.mcc == pytest.approx((3 * 3 - 1 * 1) / 4**2)
    # Of the 16 pairs of a 1 and a 0 the 1 has the higher probability in 4 + 4 + 4 + 2.
    assert result.roc_auc == pytest.approx(14 / 16)
    likelihoods = [0.9, 0.8, 0.7, 0.3, 1 - 0.6, 1 - 0.4, 1 - 0.2, 1 - 0.1]
    assert result.loss == pytest.approx(-np.log(likelihoods).mean())
    assert result.accuracy_interval == pytest.approx((0.409275, 0.928521), abs=1e-6)  # Wilson's, of 6 in 8
    assert result.summary().startswith("validation loss 0.4556, accuracy 75.00% (40.93% to 92.85%), F1 of yes 0.7500")


def test_the_formulas_of_the_bootstrap_are_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    for num_labels in (2, 3, 5):
        labels, predicted = rng.integers(0, num_labels, (2, 90))
        confusion = metrics.confusion_matrix(labels, predicted, labels=range(num_labels))
        stacked = np.stack([confusion, 2 * confusion])  # twice the texts, the same numbers
        expected = metrics.f1_score(labels, predicted, average=None, labels=range(num_labels))
        assert f1_scores(stacked) == pytest.approx(np.stack([expected] * 2))
        assert matthews(stacked) == pytest.approx([metrics.matthews_corrcoef(labels, predicted)] * 2)


def test_the_interval_of_f1_is_that_of_resampled_texts() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.8, labels, rng.integers(0, 3, 300))
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), 3).float() * 4
    rows = rng.integers(0, 300, (600, 300))
    found = [metrics.f1_score(labels[row], predicted[row], average="macro") for row in rows]
    expected = tuple(np.percentile(found, [2.5, 97.5]))
    assert measure(logits, labels, ["a", "b", "c"]).f1_interval == pytest.approx(expected, abs=0.015)


def test_edges() -> None:
    assert matthews(np.array([[5, 0], [3, 0]])) == 0
    one_label = measure(torch.zeros(3, 2), np.zeros(3, int), ["no", "yes"])
    assert one_label.roc_auc is None
    assert one_label.f1 == one_label.mcc == 0
    assert one_label.confusion == [[3, 0], [0, 0]]
    assert one_label.per_label["yes"] == {"precision": 0, "recall": 0, "f1": 0, "num_texts": 0}
    # A label that has no text, and that nobody predicts, counts in the mean, as 0.
    three = measure(torch.eye(3)[[0, 1]] * 9, np.array([0, 1]), ["a", "b", "c"])
    assert three.f1 == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="the split has no texts"):
        measure(torch.zeros(0, 2), np.zeros(0, int), ["no", "yes"])
    # An answer that is wrong with a certainty beyond any float's is as wrong as it is, and not infinitely so.
    assert measure(torch.tensor([[9000.0, 0.0]]), np.array([1]), ["no", "yes"]).loss == 9000


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])  # bin at 0.95: half right; bin at 0.65: all right
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)
    # Bins are weighted by their texts: three at 0.95, one of them right, and one at 0.65 that is right.
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([[0.95, 0.05]] * 3 + [[0.35, 0.65]])
    assert calibration_error(probabilities, labels) == pytest.approx(3 / 4 * (0.95 - 1 / 3) + 1 / 4 * 0.35)
    # Ten bins: 0.61 and 0.69 are in one, so that one too sure and one too unsure answer even out.
    close = np.array([[0.39, 0.61], [0.31, 0.69]] * 10)
    right = np.array([1] * 13 + [0] * 7)
    assert calibration_error(close, right) == pytest.approx(0)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0
