"""Classifying texts that have no labels yet: for a file of them, and for one that somebody typed."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from ..adapters import is_adapter, load_adapter, merge_adapter
from ..data.labelled_texts import LabelledTexts
from ..data.text_rows import TextRows
from ..hub.model_directory import load_model
from ..hub.names import local_copy
from .classification import predict


def load_classifier(name: str | os.PathLike[str], base: str | None = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """A classifier with all of its weights, its adapter merged, and its tokenizer.

    Raises:
        ValueError: as `load_adapter` and `load_model`: for a language model, among others, whose head would be random.
    """
    name = local_copy(name)
    if is_adapter(name):
        adapted, tokenizer = load_adapter(name, base, "SEQ_CLS")
        return merge_adapter(adapted), tokenizer
    model = load_model(AutoModelForSequenceClassification, name, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(name)


def longest_read(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a text that the classifier reads; the rest is cut."""
    return min(tokenizer.model_max_length, model.config.max_position_embeddings)


def label_names(model: Any) -> list[str]:
    return [model.config.id2label[number] for number in range(model.config.num_labels)]


def probabilities(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int = 64
) -> tuple[torch.Tensor, int]:
    """Of each text's labels, [texts, labels]; and how many of the texts were cut.

    Raises:
        ValueError: as `TextRows`, for a text without tokens.
    """
    names = label_names(model)
    with warnings.catch_warnings(action="ignore"):  # the count of what was cut is returned
        data = LabelledTexts(list(texts), [0] * len(texts), names)
        rows = TextRows(data, tokenizer, longest_read(model, tokenizer))
    return predict(model, rows, len(names), batch_size).softmax(-1), rows.num_truncated
