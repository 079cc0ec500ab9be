"""Results of a classifier on a whole split: rates with 95 % intervals, and the model card that shows them.

The interval of the accuracy is Wilson's. Those of F1 and of Matthews' correlation coefficient are percentiles of the
bootstrap over texts. Both depend on the confusion matrix alone, so the bootstrap draws matrices, from the multinomial
distribution that resampled texts have. The results themselves are scikit-learn's; `f1_scores` and `matthews` compute
the same two numbers for thousands of matrices at once, which scikit-learn cannot.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from ..data.text_rows import TextRows
from .statistics import percentile_interval, wilson_interval

NUM_RESAMPLES = 10_000


@dataclass
class ClassificationResult:
    """What `measure` found, with the counts it was computed on. Intervals are (low, high) at 95 %."""

    loss: float
    """Mean cross-entropy per text, in nats, unweighted."""

    num_texts: int

    accuracy: float
    accuracy_interval: tuple[float, float]

    f1: float
    """Of two labels the F1 score of the second one, of more their mean (macro)."""
    f1_interval: tuple[float, float]
    f1_of: str
    """The label that `f1` is of, or "macro"."""

    mcc: float
    """Matthews' correlation coefficient (Gorodkin's, for more than two labels): 0 is chance, 1 is perfect."""
    mcc_interval: tuple[float, float]

    roc_auc: float | None
    """Area under the ROC curve, one label against the rest, averaged; None where a label has no text."""

    calibration_error: float
    """Expected calibration error: confidence minus accuracy, in ten bins of confidence, weighted by their texts."""

    per_label: dict[str, dict[str, float]]
    """Precision, recall, F1 and number of texts."""

    confusion: list[list[int]]
    """Rows: the true label; columns: the predicted one."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        low, high = self.accuracy_interval
        return (
            f"validation loss {self.loss:.4f}, accuracy {self.accuracy:.2%} ({low:.2%} to {high:.2%}), F1 of "
            f"{self.f1_of} {self.f1:.4f}, MCC {self.mcc:.4f} ({self.num_texts:,} texts)"
        )


@torch.no_grad()
def predict(
    model: torch.nn.Module,
    rows: TextRows,
    num_labels: int,
    batch_size: int,
    accelerator: Accelerator | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> torch.Tensor:
    """Logits [rows, labels] in the rows' order, fp32, on the CPU. Texts of like length share a batch.

    Args:
        accelerator: splits the rows over its processes; without, this process does it all.
        progress: told how many texts each batch had.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    order = np.argsort(rows.lengths, kind="stable")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator is not None else (0, 1)
    share = -(-len(order) // world)
    # Under FSDP2 every forward pass takes all processes: each has as many rows, some once more, which do not count.
    mine, num_own = np.resize(order, share * world)[rank::world], len(order[rank::world])
    found = []
    for start in range(0, share, batch_size):
        part = mine[start : start + batch_size]
        batch = {name: tensor.to(device) for name, tensor in rows.batch(part).items() if name != "labels"}
        logits = model(**batch, use_cache=False).logits.float()
        own = max(0, min(len(part), num_own - start))
        found.append((part[:own], logits[:own]))
        progress(own)
    model.train(was_training)
    logits = torch.zeros(len(rows), num_labels, device=device)
    for part, values in found:
        logits[torch.from_numpy(part).to(device)] = values
    if accelerator is not None:
        total = accelerator.reduce(logits, "sum")
        assert isinstance(total, torch.Tensor)
        logits = total
    return logits.cpu()


def measure(logits: torch.Tensor, labels: np.ndarray, names: Sequence[str]) -> ClassificationResult:
    """
    Args:
        logits: [N, labels]. labels: [N], the true ones. names: of the labels.

    Raises:
        ValueError: where there are no texts.
    """
    from sklearn import metrics

    if len(labels) == 0:
        raise ValueError("there is nothing to evaluate on: the split has no texts")
    probabilities = logits.double().softmax(-1).numpy()
    predicted, all_labels = probabilities.argmax(-1), range(len(names))
    confusion = metrics.confusion_matrix(labels, predicted, labels=all_labels)
    undefined: Any = 0  # annotated as text, which it may be too
    per_label: Any = metrics.precision_recall_fscore_support(
        labels, predicted, labels=all_labels, zero_division=undefined
    )
    draws = np.random.default_rng(0).multinomial(len(labels), confusion.flatten() / len(labels), size=NUM_RESAMPLES)
    draws = draws.reshape(-1, *confusion.shape)
    # Of two labels the second one's F1, of more the mean.
    f1_column = slice(1, None) if len(names) == 2 else slice(None)
    return ClassificationResult(
        loss=torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(labels)).item(),
        num_texts=len(labels),
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        accuracy_interval=wilson_interval(int(np.trace(confusion)), len(labels)),
        f1=float(per_label[2][f1_column].mean()),
        f1_interval=percentile_interval(f1_scores(draws)[:, f1_column].mean(-1)),
        f1_of=names[1] if len(names) == 2 else "macro",
        mcc=float(metrics.matthews_corrcoef(labels, predicted)),
        mcc_interval=percentile_interval(matthews(draws)),
        roc_auc=roc_auc(probabilities, labels),
        calibration_error=calibration_error(probabilities, labels),
        per_label={
            name: {"precision": float(p), "recall": float(r), "f1": float(f1), "num_texts": int(count)}
            for name, p, r, f1, count in zip(names, *per_label, strict=True)
        },
        confusion=confusion.tolist(),
    )


def f1_scores(confusion: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall of each label, [..., labels]; 0 for a label that does not occur."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return 2 * hits / np.maximum(confusion.sum(-2) + confusion.sum(-1), 1)


def matthews(confusion: np.ndarray) -> np.ndarray:
    """Matthews' correlation coefficient of matrices [..., labels, labels] (Gorodkin 2004); 0 where undefined."""
    counts = confusion.astype(float)
    total, hits = counts.sum((-2, -1)), np.trace(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    covariance = hits * total - (true * predicted).sum(-1)
    spread = np.sqrt((total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1)))
    return np.where(spread > 0, covariance / np.where(spread > 0, spread, 1), 0.0)


def roc_auc(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC curve: of the second of two labels, or of each against the rest, averaged."""
    from sklearn.metrics import roc_auc_score

    num_labels = probabilities.shape[1]
    if len(np.unique(labels)) < num_labels:
        return None
    if num_labels == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr"))


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean confidence, accuracy and number of texts of each bin of confidence that has some, [bins, 3]."""
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return np.array(
        [
            (confidence[place == i].mean(), correct[place == i].mean(), (place == i).sum())
            for i in range(bins)
            if (place == i).any()
        ]
    )


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015)."""
    bins = calibration_bins(probabilities, labels)
    return float((np.abs(bins[:, 0] - bins[:, 1]) * bins[:, 2]).sum() / len(labels))
