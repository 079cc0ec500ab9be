"""BERTScore (Zhang et al. 2020) as bert-score computes it, with any encoder of the disk or the Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scratchgpt.data.files import source_name
from scratchgpt.evaluation.metrics.base import MeanMetric, versions
from scratchgpt.hub.fingerprints import weights_fingerprint


class BertScore(MeanMetric):
    """Precision, recall and F1 of tokens matched by the encoder's vectors: the mean of the answers' own.

    Args:
        model: directory or Hub name of the encoder.
        layer: whose vectors are compared; default: bert-score's choice for the encoder, or its last layer.
        baseline: a .tsv of bert-score's form (LAYER, P, R, F); scores are then rescaled, (x - b) / (1 - b).

    Raises:
        ValueError: for an encoder that cannot be read, a layer that it lacks, and a baseline without this layer.
    """

    names = ("bertscore_f1", "bertscore_precision", "bertscore_recall")

    def __init__(
        self, *args: Any, model: str = "", layer: int | None = None, baseline: str | None = None, **settings: Any
    ) -> None:
        from bert_score.utils import model2layers
        from transformers import AutoConfig

        super().__init__(*args, **settings)
        if not model:
            raise ValueError("BERTScore needs an encoder: give --bertscore_model, a directory or a Hub name")
        try:
            layers = int(AutoConfig.from_pretrained(model).num_hidden_layers)
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(f"--bertscore_model {model} is no encoder that can be read: {error}") from error
        self.model, self.baseline = model, baseline
        self.layer: int = model2layers.get(model, layers) if layer is None else layer
        if not 0 < self.layer <= layers:
            raise ValueError(f"--bertscore_layer {self.layer}: {model} has the layers 1 to {layers}")
        if baseline is not None and not Path(baseline).is_file():
            raise ValueError(f"--bertscore_baseline {baseline} is no file: give a .tsv with LAYER, P, R, F")
        lines = [] if baseline is None else Path(baseline).read_text(encoding="utf-8").splitlines()[self.layer + 1 :]
        if baseline is not None and not (lines and re.fullmatch(r"\d+(,-?\d*\.?\d+(e-?\d+)?){3}", lines[0].strip())):
            raise ValueError(f"--bertscore_baseline {baseline} has no line with LAYER,P,R,F for layer {self.layer}")

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
        from bert_score import BERTScorer

        rows = np.zeros((len(predictions), 3))
        # bert-score 0.3.13 asks the tokenizer for a method that transformers 5 has no more, for empty texts only.
        spoken = [i for i, prediction in enumerate(predictions) if prediction.strip()]
        if not spoken:
            return rows
        scorer = BERTScorer(
            model_type=self.model, num_layers=self.layer, lang="any", baseline_path=self.baseline,
            rescale_with_baseline=self.baseline is not None,
        )  # fmt: skip
        longest = scorer._model.config.max_position_embeddings
        # Tokenizers without a limit of their own have 10^30 here, which overflows.
        scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, longest)
        found: Any = scorer.score([predictions[i] for i in spoken], [references[i] for i in spoken])
        precision, recall, f_measure = found
        rows[spoken] = np.stack([f_measure.numpy(), precision.numpy(), recall.numpy()], axis=1)
        return rows

    def signature(self) -> str:
        baseline = "no" if self.baseline is None else source_name(self.baseline)
        try:
            weights = weights_fingerprint(self.model)[:12]
        except ValueError:  # weights in another form than safetensors
            weights = "unknown"
        return (
            f"BERTScore|model:{source_name(self.model)}|weights:{weights}|layer:{self.layer}|baseline:{baseline}|idf:no|"
            f"empty answer:0|{versions('bert_score', 'transformers')}"
        )
