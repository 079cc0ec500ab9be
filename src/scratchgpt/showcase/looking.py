"""What the tabs for classifiers, tokenizers and attention show, as data. Every mistake is a ValueError."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..evaluation.classifying import label_names, probabilities
from ..inspection import HeadScores, Tokenizations, ablation, token_labels, tokenizations, without_heads
from ..inspection.attention import reading_attention
from ..inspection.parts import evaluating, token_ids
from .shelf import Shelf
from .writing import typed

MOST_WORDS = 80
"""Words that are left out in turn: each is a text more to classify."""

MOST_TOKENS = 96
"""Of a text whose attention is looked at: the maps of all heads are on the page at once."""

MOST_CHARACTERS_CUT = 5_000
"""Of a text for the tokenizers: each piece is an element of the page."""


@dataclass(frozen=True)
class Classified:
    """What a classifier says of a text."""

    probabilities: dict[str, float]
    """Of each label, the likeliest first."""
    words: list[str]
    """Of the text, with the spaces around them."""
    moved: list[float]
    """How much of the likeliest label's probability is lost without each word; empty for a text of one word."""
    was_cut: bool
    """Whether the text is longer than the model reads."""

    @property
    def label(self) -> str:
        return next(iter(self.probabilities))


def classify(shelf: Shelf, name: str, text: str) -> Classified:
    """The labels' probabilities, and which words moved them: each of the first `MOST_WORDS` is left out in turn.

    Raises:
        ValueError: as `typed`, `Shelf.classifier` and `TextRows`.
    """
    text = typed(text)
    words = re.findall(r"\s*\S+\s*", text)
    tried = range(min(len(words), MOST_WORDS)) if len(words) > 1 else ()
    texts = [text, *("".join(words[:i] + words[i + 1 :]) for i in tried)]
    opened = shelf.classifier(name)
    with shelf.lock:
        found, num_cut = probabilities(opened.model, opened.tokenizer, texts, batch_size=16)
    best = int(found[0].argmax())
    labels = dict(zip(label_names(opened.model), found[0].tolist(), strict=True))
    return Classified(
        dict(sorted(labels.items(), key=lambda each: -each[1])),
        words,
        (found[0, best] - found[1:, best]).tolist(),
        num_cut > 0,
    )


def cut(shelf: Shelf, names: Sequence[str], text: str) -> Tokenizations:
    """The text, cut by each of the tokenizers.

    Raises:
        ValueError: as `typed` and `tokenizations`.
    """
    text = typed(text, MOST_CHARACTERS_CUT)
    return tokenizations({name: shelf.tokenizer(name) for name in names}, text)


def counts(cuts: Tokenizations) -> list[list[str]]:
    """Of each tokenizer: its name, tokens, tokens per word, bytes per token."""
    num_words, num_bytes = len(cuts.text.split()), len(cuts.text.encode())
    return [
        [name, f"{len(ids):,}", f"{len(ids) / num_words:.2f}", f"{num_bytes / max(1, len(ids)):.2f}"]
        for name, ids in cuts.ids.items()
    ]


@dataclass(frozen=True)
class AllAttention:
    """The attention of every head, a byte for each weight: small enough to keep for a visitor."""

    labels: list[str]
    weights: torch.Tensor
    """[layers, heads, T, T]; 255 is 1."""

    def row(self, layer: int, head: int, position: int) -> list[float]:
        """How the token shares itself out over those up to it."""
        return [value / 255 for value in self.weights[layer, head, position, : position + 1].tolist()]


def all_attention(shelf: Shelf, name: str, text: str, off: Sequence[tuple[int, int]] = ()) -> AllAttention:
    """
    Args:
        off: heads that add nothing meanwhile, (layer, head).

    Raises:
        ValueError: for a text that is too long to look at; as `token_ids` and `parts_of`.
    """
    opened = shelf.language_model(name)
    ids = read_ids(shelf, name, text)
    rows: list[torch.Tensor] = []
    with (
        shelf.lock,
        without_heads(opened.model, by_layer(off)),
        reading_attention(opened.model, lambda _, weights: rows.append((weights[0].float() * 255).round().byte())),
    ):
        opened.model(input_ids=ids, use_cache=False)
    return AllAttention(token_labels(opened.tokenizer, ids[0].tolist()), torch.stack(rows).cpu())


def read_ids(shelf: Shelf, name: str, text: str) -> torch.Tensor:
    """The ids [1, T]. Raises ValueError for a text that is none or too long to look at."""
    opened = shelf.language_model(name)
    ids = token_ids(opened.model, opened.tokenizer, typed(text), at_least=2)
    if ids.shape[1] > MOST_TOKENS:
        raise ValueError(
            f"the text has {ids.shape[1]} tokens, and attention is shown for at most {MOST_TOKENS}: shorten it"
        )
    return ids


def lost_without(shelf: Shelf, name: str, text: str) -> HeadScores:
    """Bits per token that each head is worth. Raises ValueError as `all_attention`."""
    read_ids(shelf, name, text)
    opened = shelf.language_model(name)
    with shelf.lock:
        return ablation(opened.model, opened.tokenizer, text)


@dataclass(frozen=True)
class WithAndWithout:
    """A text with all heads, and without some."""

    bits: tuple[float, float]
    """Per token."""
    next: list[tuple[str, tuple[float, float]]]
    """The likeliest next tokens with all heads, and their probabilities."""


def with_and_without(shelf: Shelf, name: str, text: str, off: Sequence[tuple[int, int]]) -> WithAndWithout:
    """Raises ValueError as `all_attention`."""
    ids = read_ids(shelf, name, text)
    opened = shelf.language_model(name)

    def measured() -> tuple[float, torch.Tensor]:
        logits = opened.model(input_ids=ids, use_cache=False).logits[0].float()
        nats = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
        return float(nats) / math.log(2), logits[-1].softmax(-1)

    with shelf.lock, evaluating(opened.model):
        bits, probable = measured()
        with without_heads(opened.model, by_layer(off)):
            bits_without, probable_without = measured()
    best = probable.topk(min(8, len(probable))).indices.tolist()
    labels = token_labels(opened.tokenizer, best)
    return WithAndWithout(
        (bits, bits_without),
        [(label, (float(probable[i]), float(probable_without[i]))) for label, i in zip(labels, best, strict=True)],
    )


def by_layer(heads: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """(layer, head) pairs as `without_heads` takes them."""
    found: dict[int, list[int]] = {}
    for layer, head in heads:
        found.setdefault(layer, []).append(head)
    return found
