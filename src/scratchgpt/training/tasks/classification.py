"""Classification: one label for each text."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from ...adapters import AdapterArguments, add_adapter
from ...arguments import option
from ...data.labelled_texts import LabelledTexts
from ...data.packing import Batch, Rows
from ...data.text_rows import TextRows
from ...evaluation.classification import ClassificationResult, measure, predict


@dataclass
class ClassificationArguments(AdapterArguments):
    """What of a classifier to train, and on which loss. Recipes inherit this beside `TrainingArguments`."""

    HELP_GROUPS = {"last_layers": "Tuning"}

    tuning: Literal["full", "last_layers", "frozen", "lora"] = option(
        "full", "What is trained beside the head: everything, last_layers of the layers, nothing, or an adapter."
    )
    last_layers: int = option(2, "tuning=last_layers: how many.", at_least=1)
    lora_r: int = option(4, "Rank of the adapter's matrices.", at_least=1)
    lora_alpha: int = option(16, "The adapter's output is scaled by alpha / rank (rsLoRA: alpha / √rank).", at_least=1)
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: every label has the same share of the loss."
    )
    r_drop: float = option(
        0.0, "Weight of the divergence between two passes of a text with different dropout (R-Drop); for small data.",
        at_least=0, at_most=100,
    )  # fmt: skip

    def prepare(self, model: Any) -> Any:
        """The classifier with what `tuning` says trainable. Raises ValueError as `freeze`."""
        if self.tuning == "lora":
            return add_adapter(model, self, task_type="SEQ_CLS")
        if self.tuning != "full":
            freeze(model, self.last_layers if self.tuning == "last_layers" else 0)
        return model


@dataclass
class TextClassification:
    """One label per text.

    Args:
        class_weights: [labels], factors of the losses of each label's texts; None: all 1.
        r_drop: every text is read twice, with other dropout, and this times the divergence between the two answers
            (Kullback-Leibler, the mean of both directions) is added to their mean loss (R-Drop, Liang et al. 2021).
    """

    train_rows: Rows
    eval_rows: TextRows
    batch_size: int
    class_weights: torch.Tensor | None = None
    r_drop: float = 0.0

    def prepare(self, model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
        return {}

    def num_targets(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(len(batch["labels"]), device=batch["labels"].device)

    def loss(self, model: nn.Module, batch: Batch, num_targets: torch.Tensor) -> torch.Tensor:
        passes = 2 if self.r_drop else 1
        batch = {name: torch.cat([tensor] * passes) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits.float()
        weights = self.class_weights.to(logits.device) if self.class_weights is not None else None
        loss = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / passes
        if self.r_drop:
            one, other = logits.log_softmax(-1).chunk(2)
            forth = F.kl_div(one, other, log_target=True, reduction="sum")
            back = F.kl_div(other, one, log_target=True, reduction="sum")
            loss = loss + self.r_drop * (forth + back) / 2
        return loss / num_targets

    def evaluate(self, model: nn.Module, accelerator: Accelerator) -> ClassificationResult:
        names = self.eval_rows.data.names
        logits = predict(model, self.eval_rows, len(names), self.batch_size, accelerator)
        return measure(logits, self.eval_rows.labels, names)

    def samples(self, model: Any) -> list[str]:
        return []


def balanced_weights(data: LabelledTexts) -> torch.Tensor:
    """Weights [labels] that give every label the same share of the loss; their mean over the texts is 1."""
    counts = torch.tensor(list(data.counts().values()), dtype=torch.float32)
    return len(data) / (len(counts) * counts)


def freeze(model: nn.Module, last_layers: int) -> None:
    """Leaves only the head, the last norm and the last `last_layers` decoder layers of a classifier trainable.

    Raises:
        ValueError: where the model has fewer layers.
    """
    base: Any = model.get_submodule("model")
    num_layers = len(base.layers)
    if not 0 <= last_layers <= num_layers:
        raise ValueError(f"last_layers={last_layers}: the model has {num_layers} layers")
    base.requires_grad_(False)
    for layer in base.layers[num_layers - last_layers :]:
        layer.requires_grad_(True)
    if last_layers:
        base.norm.requires_grad_(True)
