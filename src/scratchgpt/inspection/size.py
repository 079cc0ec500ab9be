"""What a model consists of, what a token costs, and how large its weights and activations are through the layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .drawing import panels
from .parts import evaluating, hidden_of, hooked, parts_of, token_ids


@dataclass(frozen=True)
class Size:
    """Where the parameters are, and where the operations of a forward pass go."""

    parameters: dict[str, int]
    """Of each part; a matrix that two parts share (tied embeddings) counts once, as the embedding's."""
    flops: dict[str, float]
    """Floating-point operations per token of a forward pass, a multiplication and an addition being two."""
    length: int
    """Tokens of context that the attention's operations are counted for."""

    def figure(self) -> Any:
        """Two rows of bars: parameters, and operations per token."""
        figure, axes = panels(2, 4.2, 2.6, columns=2)
        for axis, values, title in (
            (axes[0], self.parameters, f"{sum(self.parameters.values()):,} parameters"),
            (axes[1], self.flops, f"{sum(self.flops.values()):,.0f} FLOPs per token, context {self.length:,}"),
        ):
            whole = sum(values.values()) or 1
            bars = axis.barh(list(values), list(values.values()), color="#4878a8")
            axis.bar_label(bars, [f"{value / whole:.0%}" for value in values.values()], padding=3, fontsize=8)
            axis.set_title(title, fontsize=9)
            axis.margins(x=0.15)
            axis.invert_yaxis()
        return figure


def size(model: Any, length: int | None = None) -> Size:
    """Parameters by part, and operations: two for each weight of a matrix that a token passes, and for attention the
    products of queries with keys and of weights with values over the mean of the causal context (Kaplan et al. 2020,
    table 1, with the causal half).

    Args:
        length: tokens of context; default: the model's.

    Raises:
        ValueError: as `parts_of`.
    """
    parts = parts_of(model)
    context: int = length or model.config.get_text_config().max_position_embeddings
    inside = {id(each) for attention in parts.attentions for each in attention.parameters()}
    of_layers = {id(each) for layer in parts.layers for each in layer.parameters()}
    embeddings = {id(each) for each in model.get_input_embeddings().parameters()}
    head = {id(each) for each in parts.head.parameters()} - embeddings
    counts: dict[str, int] = dict.fromkeys(("embedding", "attention", "MLP", "norms and other", "head"), 0)
    for each in {id(each): each for each in model.parameters()}.values():
        if id(each) in head:
            part = "head"
        elif id(each) in embeddings or (id(each) not in of_layers and each.ndim == 2):  # of tokens or of positions
            part = "embedding"
        elif each.ndim < 2:
            part = "norms and other"
        else:
            part = "attention" if id(each) in inside else "MLP"
        counts[part] += each.numel()
    keys_and_values = 2 * 2 * len(parts.layers) * parts.num_heads * _head_width(parts.outputs[0], parts.num_heads)
    flops = {
        "attention": 2.0 * counts["attention"] + keys_and_values * (context + 1) / 2,
        "MLP": 2.0 * counts["MLP"],
        "head": 2.0 * sum(each.numel() for each in parts.head.parameters() if each.ndim == 2),
    }
    return Size(counts, flops, context)


def _head_width(output: nn.Module, num_heads: int) -> int:
    """Of an attention's last projection: nn.Linear has [out, in], the Conv1D of GPT-2 [in, out]."""
    weight: Any = output.weight
    return weight.shape[1 if isinstance(output, nn.Linear) else 0] // num_heads


@dataclass(frozen=True)
class DepthNorms:
    """Root mean squares through the depth of a model."""

    weights: dict[str, list[float]]
    """Of the matrices of attention and MLP, of each layer."""
    hidden: list[float]
    """Of the residual stream before the first layer and after each."""
    added: dict[str, list[float]]
    """Of what attention and the rest of a layer add to it."""

    def figure(self) -> Any:
        """Weights on the left, activations on the right."""
        figure, axes = panels(2, 4.2, 3.2, columns=2)
        for name, values in self.weights.items():
            axes[0].plot(values, marker="o", label=name)
        axes[0].set(xlabel="layer", ylabel="root mean square", title="weights")
        axes[1].plot(range(-1, len(self.hidden) - 1), self.hidden, marker="o", label="residual stream")
        for name, values in self.added.items():
            axes[1].plot(values, marker="o", label=name)
        axes[1].set(xlabel="layer (−1: embedding)", title="activations")
        for axis in axes:
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
        return figure


def depth_norms(model: Any, tokenizer: Any, text: str) -> DepthNorms:
    """How large weights are in each layer, and activations on a text.

    Raises:
        ValueError: as `token_ids` and `parts_of`.
    """
    ids, parts = token_ids(model, tokenizer, text), parts_of(model)
    weights: dict[str, list[float]] = {"attention": [], "MLP": []}
    for layer, attention in zip(parts.layers, parts.attentions, strict=True):
        inside = {id(each) for each in attention.parameters()}
        for name in weights:
            chosen = [w for w in layer.parameters() if w.ndim == 2 and (id(w) in inside) == (name == "attention")]
            square = sum(float(w.detach().float().square().sum()) for w in chosen)
            weights[name].append((square / max(1, sum(w.numel() for w in chosen))) ** 0.5)
    hidden: list[float] = []
    attended: list[torch.Tensor] = []
    added: dict[str, list[float]] = {"attention adds": [], "the rest adds": []}

    def of_attention(_: int, inputs: Sequence[Any], output: Any) -> None:
        attended.append(hidden_of(output))

    def of_layer(number: int, inputs: Sequence[Any], output: Any) -> None:
        before, after = inputs[0], hidden_of(output)
        if number == 0:
            hidden.append(_rms(before))
        hidden.append(_rms(after))
        added["attention adds"].append(_rms(attended[-1]))
        added["the rest adds"].append(_rms(after - before - attended.pop()))

    with evaluating(model), hooked(parts.layers, of_layer), hooked(parts.attentions, of_attention):
        model.get_decoder()(input_ids=ids, use_cache=False)
    return DepthNorms(weights, hidden, added)


def _rms(values: torch.Tensor) -> float:
    return float(values.float().square().mean().sqrt())
