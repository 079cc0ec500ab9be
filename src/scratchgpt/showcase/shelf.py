"""Models that are loaded when somebody first asks for them, as many at a time as the memory limit allows."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig

from ..evaluation.classifying import load_classifier
from ..inference.decoding import load_for_decoding
from .finding import Found, Model


@dataclass(frozen=True)
class Opened:
    """A model with weights of its own, whatever else is open, and its tokenizer."""

    model: Any
    tokenizer: Any


class Shelf:
    """The models of a page. `lock` is for whatever computes: one thing at a time, or both would be slow.

    Args:
        memory: bytes of weights that may be open at once. The least recently used leaves for another.
        dtype, device: as for `load_for_decoding`.
    """

    def __init__(self, found: Found, memory: float, dtype: str | None = None, device: str = "cpu") -> None:
        self.found, self.memory, self.dtype, self.device = found, memory, dtype, device
        self.lock = threading.Lock()
        self._open: OrderedDict[str, Opened] = OrderedDict()
        self._tokenizers: dict[str, Any] = {}

    @property
    def open_names(self) -> list[str]:
        """The least recently used first."""
        return list(self._open)

    def language_model(self, name: str | None) -> Opened:
        """Loaded if it is not open; a request that still computes with a model that leaves keeps it until then.

        Raises:
            ValueError: for a name that there is not, a model beyond the limit, and what cannot be loaded.
        """
        return self._opened(name, self.found.names("language model", "chat"), "language model")

    def classifier(self, name: str | None) -> Opened:
        """Raises ValueError as `language_model`."""
        return self._opened(name, self.found.names("classifier"), "classifier")

    def _opened(self, name: str | None, among: list[str], what: str) -> Opened:
        model: Model = _chosen(name, {each: self.found.models[each] for each in among}, what)
        assert name is not None
        with self.lock:
            if name not in self._open:
                self._make_room(name, model)
                self._open[name] = self._load(model)
            self._open.move_to_end(name)
            return self._open[name]

    def tokenizer(self, name: str | None) -> Any:
        """One without its model; small enough to stay."""
        folder: Path = _chosen(name, self.found.tokenizers, "tokenizer")
        assert name is not None
        with self.lock:
            if name not in self._tokenizers:
                self._tokenizers[name] = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
            return self._tokenizers[name]

    def _make_room(self, name: str, model: Model) -> None:
        if model.size > self.memory:
            raise ValueError(
                f"{name} has {model.size / 1e9:.1f} GB of weights, and the page may keep {self.memory / 1e9:.1f} GB "
                "open: start it with a larger --memory_gb"
            )
        while sum(self.found.models[each].size for each in [*self._open, name]) > self.memory:
            self._open.popitem(last=False)

    def _load(self, model: Model) -> Opened:
        if model.kind == "classifier":
            classifier, tokenizer = load_classifier(model.directory)
            return Opened(classifier.to(self.device).eval(), tokenizer)
        language_model, tokenizer = load_for_decoding(model.directory, dtype=self.dtype, device=self.device)
        language_model.generation_config = GenerationConfig()  # `generate` would fill in from it what is left open
        tokenizer.split_special_tokens = True  # what visitors type is text, a role token too
        return Opened(language_model, tokenizer)


def _chosen(name: str | None, among: Mapping[str, Any], what: str) -> Any:
    if not isinstance(name, str) or name not in among:
        raise ValueError(f"choose a {what}" + (f": {name} is none here" if isinstance(name, str) else ""))
    return among[name]
