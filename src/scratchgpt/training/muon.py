"""Muon (Jordan et al. 2024): momentum, of which each matrix gets the nearest orthogonal one.

    buffer ← momentum · buffer + (1 − momentum) · gradient
    update = NewtonSchulz((1 − momentum) · gradient + momentum · buffer)                               (Nesterov's)
    weight ← (1 − lr · weight_decay) · weight − lr · √max(1, rows / columns) · update

as in `torch.optim.Muon`, whose state it reads and writes, but faster in two ways. Matrices of one shape are iterated
together, since a product of small matrices is mostly waiting. And products are in bf16 only where the hardware
multiplies it: elsewhere bf16 is emulated, at worst number by number, which takes some hundred times as long.

Of sharded matrices each process iterates the whole, so that the result is that of one process.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from ..performance import choose_autocast_dtype

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that drives all singular values towards 1, chosen for its slope at 0 (Jordan et al. 2024)."""
STEPS = 5
EPS = 1e-7

STACKED = 2**22
"""Numbers in a stack of matrices, at most: larger products gain nothing, and need the memory."""


class Muon(torch.optim.Optimizer):
    """
    Args:
        params: matrices [rows, columns], as of any optimizer of torch's.
        lr: a step changes a matrix by about so much in spectral norm.
        weight_decay: decoupled, and multiplied by `lr`.

    Raises:
        ValueError: for a parameter that is no matrix.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon is for matrices, not for a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            momentum, lr, decay = group["momentum"], group["lr"], group["weight_decay"]
            for parameters in _stacks(group["params"]):
                updates = []
                for parameter in parameters:
                    state, gradient = self.state[parameter], parameter.grad
                    assert gradient is not None  # see _stacks
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(gradient)
                    buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
                    update = gradient.lerp(buffer, momentum)
                    updates.append(update.full_tensor() if isinstance(update, DTensor) else update)
                rows, columns = parameters[0].shape
                rate = lr * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, orthogonalized(updates), strict=True):
                    if isinstance(parameter, DTensor):
                        mesh, placements = parameter.device_mesh, parameter.placements
                        update = distribute_tensor(update, mesh, placements, src_data_rank=None)
                    parameter.mul_(1 - lr * decay).add_(update, alpha=-rate)


def _stacks(parameters: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Those with a gradient, by shape, in stacks that are not too large."""
    by_shape: dict[Any, list[torch.Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_shape.setdefault((parameter.shape, parameter.dtype, parameter.device), []).append(parameter)
    for alike in by_shape.values():
        size = max(1, STACKED // max(1, alike[0].numel()))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def orthogonalized(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """For each of the matrices, all of one shape, about the nearest one whose singular values are equal: they end
    between 0.7 and 1.2. A matrix of zeros stays one."""
    a, b, c = COEFFICIENTS
    dtype = choose_autocast_dtype(matrices[0].device.type)[0] or torch.float32
    wide = matrices[0].shape[0] <= matrices[0].shape[1]
    x = torch.stack(matrices) if len(matrices) > 1 else matrices[0][None]
    x = (x if wide else x.mT) / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    x = x.to(dtype)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return list(x if wide else x.mT)
