"""What a model expects next: in every layer, under the settings of sampling, and against what came."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .drawing import coloured_lines, panels, plain, set_tokens
from .labels import token_labels
from .parts import evaluating, hidden_of, hooked, parts_of, token_ids

ACROSS = 16
"""Tokens beside each other in the logit lens."""


@dataclass(frozen=True)
class LogitLens:
    """What each layer would say, if the model ended there."""

    labels: list[str]
    guesses: list[list[str]]
    """[layers + 1][T]: the likeliest next token after each token; the first row is the embedding's."""
    probabilities: torch.Tensor
    """[layers + 1, T], of these guesses."""
    ranks: torch.Tensor
    """[layers + 1, T - 1]: of the token that came next; 1 is the likeliest."""

    def figure(self) -> Any:
        """A cell for each token and layer, with its guess, darker where that is more likely."""
        rows, length = self.probabilities.shape
        width = min(length, ACROSS)
        figure, axes = panels(-(-length // ACROSS), 1.2 + 0.75 * width, 1.1 + 0.25 * rows, columns=1)
        for number, axis in enumerate(axes):
            part = slice(number * ACROSS, min(length, (number + 1) * ACROSS))
            shown = self.probabilities[:, part]
            axis.imshow(shown.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
            for row, guesses in enumerate(self.guesses):
                for column, guess in enumerate(guesses[part]):
                    colour = "white" if shown[row, column] > 0.6 else "black"
                    axis.text(column, row, plain(guess[:9]), ha="center", va="center", fontsize=7, color=colour)
            axis.set_xlim(-0.5, width - 0.5)  # a last line that is shorter keeps the width of its cells
            axis.set_frame_on(False)
            axis.set_yticks(range(rows), ["embedding", *(f"layer {each}" for each in range(rows - 1))], fontsize=8)
            set_tokens(axis, self.labels[part], "x")
        axes[0].set_title("the likeliest next token after each token, layer by layer", fontsize=9)
        return figure


def logit_lens(model: Any, tokenizer: Any, text: str) -> LogitLens:
    """Every layer's hidden states through the last norm and the head (nostalgebraist 2020). One layer's logits at a
    time are in memory.

    Raises:
        ValueError: as `token_ids` and `parts_of`.
    """
    ids, parts = token_ids(model, tokenizer, text), parts_of(model)
    best: list[torch.Tensor] = []
    probabilities: list[torch.Tensor] = []
    ranks: list[torch.Tensor] = []

    def look(hidden: torch.Tensor) -> None:
        logits = parts.head(parts.norm(hidden))[0].float()
        probability, token = logits.softmax(-1).max(-1)
        came = logits[:-1].gather(-1, ids[0, 1:, None])
        best.append(token.cpu())
        probabilities.append(probability.cpu())
        ranks.append((logits[:-1] > came).sum(-1).cpu() + 1)

    def hook(number: int, inputs: Sequence[Any], output: Any) -> None:
        if number == 0:
            look(inputs[0])
        look(hidden_of(output))

    with evaluating(model), hooked(parts.layers, hook):
        model.get_decoder()(input_ids=ids, use_cache=False)
    guesses = [token_labels(tokenizer, each.tolist()) for each in best]
    return LogitLens(
        token_labels(tokenizer, ids[0].tolist()), guesses, torch.stack(probabilities), torch.stack(ranks)
    )  # fmt: skip


@dataclass(frozen=True)
class NextToken:
    """The likeliest next tokens, under several settings of sampling."""

    labels: list[str]
    ids: list[int]
    probabilities: dict[str, list[float]]
    """Of each setting, for these tokens."""

    def figure(self) -> Any:
        """A group of bars for each token."""
        figure, (axis,) = panels(1, 2 + 0.14 * len(self.labels) * (len(self.probabilities) + 2), 3.6, columns=1)
        width = 0.8 / len(self.probabilities)
        for number, (name, values) in enumerate(self.probabilities.items()):
            axis.bar([i + (number + 0.5) * width - 0.4 for i in range(len(values))], values, width, label=name)
        axis.set_xticks(range(len(self.labels)), [plain(each) for each in self.labels], rotation=45, ha="right")
        axis.set(ylabel="probability", title="the next token")
        axis.grid(axis="y", alpha=0.3)
        axis.legend()
        return figure


def next_token(
    model: Any,
    tokenizer: Any,
    text: str,
    temperatures: Sequence[float] = (1.0,),
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    show: int = 10,
) -> NextToken:
    """How likely the next tokens are, as `generate` would draw them: its own temperature, top-k, top-p and min-p.

    Args:
        temperatures: one setting for each; below 1 the likely becomes likelier.
        top_k, top_p, min_p: as in `GenerationConfig`; None: without.
        show: tokens, the likeliest under the first setting.

    Raises:
        ValueError: as `token_ids`, and for settings that `generate` does not take.
    """
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    if not temperatures:
        raise ValueError("give at least one temperature")
    ids = token_ids(model, tokenizer, text)
    with evaluating(model):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu()
    kinds: list[tuple[str, Any, float | None]] = [  # in the order of `generate`
        ("top-k", TopKLogitsWarper, top_k),
        ("top-p", TopPLogitsWarper, top_p),
        ("min-p", MinPLogitsWarper, min_p),
    ]
    cut = [(name, warper(value), value) for name, warper, value in kinds if value is not None]
    settings = "".join(f", {name} {value:g}" for name, _, value in cut)
    found: dict[str, torch.Tensor] = {}
    for temperature in temperatures:
        scores: Any = logits
        for warper in (TemperatureLogitsWarper(float(temperature)), *(each for _, each, _ in cut)):
            scores = warper(ids.cpu(), scores)  # type: ignore[arg-type]
        found[f"temperature {temperature:g}{settings}"] = scores.softmax(-1)[0]
    shown = next(iter(found.values())).topk(min(show, logits.shape[-1])).indices.tolist()
    return NextToken(
        token_labels(tokenizer, shown), shown, {name: each[shown].tolist() for name, each in found.items()}
    )  # fmt: skip


@dataclass(frozen=True)
class Surprise:
    """How many bits each token of a text costs, given what stands before it."""

    labels: list[str]
    bits: torch.Tensor
    """[T]; NaN for the first, which nothing stands before."""

    @property
    def mean(self) -> float:
        """Bits per token; times ln 2 it is the loss."""
        return float(self.bits[1:].mean())

    def figure(self) -> Any:
        """The text, darker where it surprises."""
        from matplotlib import colormaps

        most = max(12.0, float(self.bits[1:].max()))
        colours = colormaps["Oranges"]
        pieces = [
            (label, "#eeeeee" if math.isnan(bits) else colours(0.75 * bits / most))
            for label, bits in zip(self.labels, self.bits.tolist(), strict=True)
        ]
        return coloured_lines([(f"{self.mean:.2f} bits per token", pieces)])


def surprise(model: Any, tokenizer: Any, text: str) -> Surprise:
    """−log2 of the probability that the model gave each token.

    Raises:
        ValueError: as `token_ids`; two tokens are needed.
    """
    ids = token_ids(model, tokenizer, text, at_least=2)
    with evaluating(model):
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").cpu()
    bits = torch.cat([torch.tensor([math.nan]), nats / math.log(2)])
    return Surprise(token_labels(tokenizer, ids[0].tolist()), bits)
