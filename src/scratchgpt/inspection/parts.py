"""Where a causal model of transformers keeps what is looked at, whatever its family calls it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

OUTPUT_NAMES = ("o_proj", "c_proj", "out_proj", "dense", "wo")
"""How families call the projection that ends an attention."""


@dataclass(frozen=True)
class Parts:
    layers: list[nn.Module]
    attentions: list[nn.Module]
    """One of each layer."""
    outputs: list[nn.Module]
    """The projection at the end of each attention; its input [B, T, H * C] is the heads' values side by side."""
    norm: nn.Module
    """The last one, before the head."""
    head: nn.Module
    """Hidden states to logits."""
    num_heads: int


def parts_of(model: Any) -> Parts:
    """
    Raises:
        ValueError: for a model that is built in a way that is not known here.
    """
    config, decoder = model.config.get_text_config(), model.get_decoder()
    children = dict(decoder.named_children())
    stacks = [
        (name, list(child))
        for name, child in children.items()
        if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers
    ]
    if len(stacks) == 1:
        name, layers = stacks[0]
        attentions = [_only(layer, lambda _, each: "Attention" in type(each).__name__) for layer in layers]
        outputs = [each and _only(each, lambda name, _: name in OUTPUT_NAMES) for each in attentions]
        later = list(children)[list(children).index(name) + 1 :]
        norm = next((children[each] for each in later if "Norm" in type(children[each]).__name__), None)
        head = model.get_output_embeddings()
        if all(attentions) and all(outputs) and norm is not None and head is not None:
            return Parts(layers, attentions, outputs, norm, head, config.num_attention_heads)  # type: ignore[arg-type]
    raise ValueError(
        f"{type(model).__name__} is built in another way than GPT-2, Llama, Qwen3 or ScratchGPT, so that its layers, "
        "attention or last norm are not found"
    )


def _only(module: nn.Module, fits: Callable[[str, nn.Module], bool]) -> nn.Module | None:
    """The only child that fits, or None."""
    found = [child for name, child in module.named_children() if fits(name, child)]
    return found[0] if len(found) == 1 else None


def token_ids(model: Any, tokenizer: Any, text: str, at_least: int = 1) -> torch.Tensor:
    """The ids [1, T] of a text, on the model's device, with the special tokens that the tokenizer adds.

    Raises:
        ValueError: for a text of too few tokens, and for one that is longer than the model's context.
    """
    ids = tokenizer(text, return_tensors="pt")["input_ids"].long()
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if ids.shape[1] < at_least:
        raise ValueError(f"the text has {ids.shape[1]} tokens, and at least {at_least} are needed: give more text")
    if longest is not None and ids.shape[1] > longest:
        raise ValueError(f"the text has {ids.shape[1]} tokens, and the model reads {longest}: give less text")
    return ids.to(model.device)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout and without gradients; afterwards the model is as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@contextmanager
def hooked(modules: list[nn.Module], hook: Callable[[int, Any, Any], Any]) -> Iterator[None]:
    """Calls `hook(number, inputs, output)` after each module; what it returns, if anything, replaces the output."""

    def after(number: int) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda _, inputs, output: hook(number, inputs, output)

    handles = [module.register_forward_hook(after(number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hooked_before(modules: dict[int, nn.Module], hook: Callable[[int, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Calls `hook(number, input)` before each module, and gives it what that returns."""

    def before(number: int) -> Callable[[nn.Module, Any], Any]:
        return lambda _, inputs: (hook(number, inputs[0]), *inputs[1:])

    handles = [module.register_forward_pre_hook(before(number)) for number, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden states [B, T, D] in what a layer returns: a tensor, or a tuple that begins with them."""
    return output[0] if isinstance(output, tuple) else output
