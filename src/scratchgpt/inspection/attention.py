"""Attention weights, read while the model computes, one layer in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .drawing import grid_size, panels, set_tokens
from .labels import token_labels
from .parts import evaluating, hooked, parts_of, token_ids


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of one layer: row t of a head says how its token t shares itself out over the tokens 0 to t."""

    labels: list[str]
    weights: torch.Tensor
    """[heads, T, T]; rows sum to 1."""
    layer: int

    def figure(self) -> Any:
        """A map for each head: the reading token on the left, the token that it reads below."""
        heads, length, _ = self.weights.shape
        side = grid_size(length)
        figure, axes = panels(heads, side, side + 0.5, columns=2 if heads <= 4 else 4)
        for head, axis in enumerate(axes):
            axis.imshow(self.weights[head].numpy(), cmap="Blues", vmin=0, vmax=1)
            axis.set_title(f"layer {self.layer}, head {head}", fontsize=9)
            set_tokens(axis, self.labels, "xy")
        return figure


@dataclass(frozen=True)
class PositionAttention:
    """What one token attends to, in every head of every layer."""

    labels: list[str]
    """Of the tokens up to this one."""
    weights: torch.Tensor
    """[layers, heads, T]."""
    position: int

    def figure(self) -> Any:
        """A map for each layer, with a row for each head."""
        layers, heads, length = self.weights.shape
        figure, axes = panels(layers, 0.6 + grid_size(length), 0.9 + 0.16 * heads, columns=2)
        for layer, axis in enumerate(axes):
            axis.imshow(self.weights[layer].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
            axis.set_title(f"layer {layer}: where “{self.labels[-1]}” looks", fontsize=9)
            axis.set_ylabel("head")
            axis.set_yticks(range(heads))
            set_tokens(axis, self.labels, "x")
        return figure


def attention(model: Any, tokenizer: Any, text: str, layer: int) -> AttentionMaps:
    """How the heads of one layer attend (Vaswani et al. 2017).

    Args:
        layer: counted from 0; from the end if negative.

    Raises:
        ValueError: as `token_ids` and `parts_of`, and for a layer that there is not.
    """
    ids = token_ids(model, tokenizer, text)
    layer = number_of(layer, len(parts_of(model).layers), "layer")
    found = {}

    def keep(number: int, weights: torch.Tensor) -> None:
        if number == layer:
            found["weights"] = weights[0].float().cpu()

    with reading_attention(model, keep):
        model(input_ids=ids, use_cache=False)
    return AttentionMaps(token_labels(tokenizer, ids[0].tolist()), found["weights"], layer)


def attention_of_position(model: Any, tokenizer: Any, text: str, position: int = -1) -> PositionAttention:
    """What one token of a text attends to, followed through the layers.

    Args:
        position: of the token; from the end if negative.

    Raises:
        ValueError: as `attention`.
    """
    ids = token_ids(model, tokenizer, text)
    position = number_of(position, ids.shape[1], "token")
    rows: list[torch.Tensor] = []
    with reading_attention(model, lambda _, weights: rows.append(weights[0, :, position].float().cpu())):
        model(input_ids=ids[:, : position + 1], use_cache=False)
    return PositionAttention(token_labels(tokenizer, ids[0, : position + 1].tolist()), torch.stack(rows), position)


@contextmanager
def reading_attention(model: Any, read: Callable[[int, torch.Tensor], object]) -> Iterator[None]:
    """Calls `read(layer, weights [B, H, T, T])` for each layer of each forward pass; keeps nothing.

    The attention is the plain one meanwhile: the fast ones make no weights.
    """
    before = model.config._attn_implementation

    def hook(number: int, _: Any, output: Sequence[Any]) -> None:
        read(number, output[1])

    with evaluating(model), hooked(parts_of(model).attentions, hook):
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(before)


def number_of(number: int, count: int, what: str) -> int:
    """A number from 0 on for one that may count from the end. Raises ValueError for one that is not there."""
    if not -count <= number < count:
        raise ValueError(f"there is no {what} {number}: give one from 0 to {count - 1}")
    return number % count
