"""What single attention heads do: which of them copy what followed before, and what is lost without each."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .attention import number_of, reading_attention
from .drawing import panels
from .parts import evaluating, hooked_before, parts_of, token_ids


@dataclass(frozen=True)
class HeadScores:
    """A number for each head."""

    scores: torch.Tensor
    """[layers, heads]."""
    title: str

    def figure(self) -> Any:
        """A cell for each head."""
        layers, heads = self.scores.shape
        figure, (axis,) = panels(1, 2 + 0.55 * heads, 1.2 + 0.4 * layers, columns=1)
        most = max(float(self.scores.abs().max()), 1e-9)
        shown = axis.imshow(self.scores.numpy(), cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", origin="lower")
        for layer in range(layers):
            for head in range(heads):
                value = float(self.scores[layer, head])
                colour = "white" if abs(value) > 0.65 * most else "black"
                axis.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set(xlabel="head", ylabel="layer", title=self.title)
        axis.set_xticks(range(heads))
        axis.set_yticks(range(layers))
        figure.colorbar(shown)
        return figure


def induction(model: Any, length: int = 32, repeats: int = 8, seed: int = 0) -> HeadScores:
    """How much each head attends to what followed the same token before (Olsson et al. 2022).

    Random tokens are shown twice. In the second half a head that copies looks at the token after the first occurrence
    of the one that it stands on; the score is the mean of these weights: 1 for a perfect copier, about one over the
    length by chance.

    Args:
        length: of a half, in tokens.
        repeats: sequences.

    Raises:
        ValueError: as `parts_of`; for a length that does not fit twice into the model's context.
    """
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", 2 * length)
    if length < 2 or 2 * length > longest:
        raise ValueError(f"length={length}: two halves of it must fit into {longest} tokens, and a half has 2 or more")
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(0, config.vocab_size, (repeats, length), generator=generator)
    ids = torch.cat([half, half], 1).to(model.device)
    second = torch.arange(length, 2 * length)
    scores: list[torch.Tensor] = []

    def read(_: int, weights: torch.Tensor) -> None:
        scores.append(weights[:, :, second, second - length + 1].float().mean((0, 2)).cpu())

    with reading_attention(model, read):
        model(input_ids=ids, use_cache=False)
    return HeadScores(torch.stack(scores), "weight on what followed\nthe same token before")


def ablation(model: Any, tokenizer: Any, text: str) -> HeadScores:
    """How much the loss of a text grows without each head, in bits per token (Michel et al. 2019).

    Raises:
        ValueError: as `token_ids` and `parts_of`; two tokens are needed.
    """
    ids, parts = token_ids(model, tokenizer, text, at_least=2), parts_of(model)

    def bits() -> float:
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
        return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]) / torch.log(torch.tensor(2.0)))

    found = torch.zeros(len(parts.layers), parts.num_heads)
    with evaluating(model):
        whole = bits()
        for layer in range(len(parts.layers)):
            for head in range(parts.num_heads):
                with without_heads(model, {layer: [head]}):
                    found[layer, head] = bits() - whole
    return HeadScores(found, "bits per token that are lost\nwithout the head")


@contextmanager
def without_heads(model: Any, heads: Mapping[int, Iterable[int]]) -> Iterator[None]:
    """Inside of this the heads named, `{layer: [head, …]}`, add nothing: their slice of what the attention's last
    projection reads is zero. All functions of this package can be called inside.

    Raises:
        ValueError: as `parts_of`; for a layer or head that there is not.
    """
    parts = parts_of(model)
    off = {
        number_of(layer, len(parts.layers), "layer"): [number_of(each, parts.num_heads, "head") for each in those]
        for layer, those in heads.items()
    }

    def silence(layer: int, values: torch.Tensor) -> torch.Tensor:
        by_head = values.unflatten(-1, (parts.num_heads, -1)).clone()
        by_head[..., off[layer], :] = 0
        return by_head.flatten(-2)

    with hooked_before({layer: parts.outputs[layer] for layer in off}, silence):
        yield
