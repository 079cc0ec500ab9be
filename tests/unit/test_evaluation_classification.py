"""The figures of a classifier against scikit-learn's, its intervals against simulation, and the baselines."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics

from scratchgpt.data.labelled_texts import LabelledTexts
from scratchgpt.evaluation.classification import (
    calibration_error,
    confusion_matrix,
    linear_baseline,
    majority_baseline,
    matthews,
    mean_interval,
    measure,
    plot_result,
    wilson_interval,
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


def test_wilson_is_scipys() -> None:
    for hits, total in ((0, 10), (5, 10), (10, 10), (818, 828)):
        expected = binomtest(hits, total).proportion_ci(0.95, method="wilson")
        assert wilson_interval(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


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


def test_interval_of_a_mean() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    with pytest.raises(ValueError, match="two runs or more"):
        mean_interval([1.0])


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


def test_plots(data: LabelledTexts, tmp_path: Path) -> None:
    for num_labels in (2, 3):
        names = [f"label {i}" for i in range(num_labels)]
        plot_result(torch.randn(30, num_labels), np.arange(30) % num_labels, names, tmp_path)
        for name in ("confusion.png", "roc.png", "calibration.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
