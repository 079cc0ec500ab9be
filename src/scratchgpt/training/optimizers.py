"""AdamW for everything, or Muon for the hidden matrices and AdamW for the rest; handled as one optimizer.

Muon (Jordan et al. 2024) replaces the momentum of a matrix by the nearest orthogonal one, so that all its directions
move equally fast. That is meant for matrices between hidden layers; embeddings, the head, norms and biases stay with
AdamW (Loshchilov and Hutter 2019).

Weight decay is for matrices. Norms and biases get none; neither do embeddings unless asked: a row that does not occur
in a batch has no gradient but would shrink all the same, and small embeddings make large gradients behind the first
norm (OLMo 2, 2025, after Takase et al. 2023). GPT-2's reproductions decay them: `decay_embeddings=True`. A head
tied to the embedding counts as one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from .muon import Muon

OptimizerName = Literal["adamw", "muon"]
FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


class Optimizers:
    """Torch optimizers that step together. Their order, groups and parameter names are the same in every process.

    Args:
        optimizers: made with named parameters, so that each group has its `param_names`. Accelerate gets each of them
            with the model, to tell them of sharded weights: `accelerator.prepare(model, *optimizers.optimizers)`.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]  # the peak, under the name torch's own schedulers use

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def set_learning_rate(self, factor: float) -> None:
        """Sets every group to `factor` times its peak; the schedule gives the factor."""
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def state_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """{optimizer's index: {parameter's name: {"exp_avg": tensor, …}}}; sharded tensors are put together.

        Under FSDP2 every process must call this. Learning rates and the like are not in it: they come from the
        configuration and the schedule.
        """
        return {
            str(i): {
                name: {key: gathered(value) for key, value in optimizer.state.get(parameter, {}).items()}
                for name, parameter in _named_parameters(optimizer)
            }
            for i, optimizer in enumerate(self.optimizers)
        }

    def load_state_dict(self, state: dict[str, dict[str, dict[str, Any]]]) -> None:
        """Restores exactly what `state_dict` gave, on any number of processes.

        Raises:
            ValueError: where the state is that of other optimizers or parameters.
        """
        if sorted(state) != [str(i) for i in range(len(self.optimizers))]:
            raise ValueError(
                f"The saved state is of {len(state)} optimizer(s), this run has {len(self.optimizers)}: resume with "
                "the optimizer that the run was started with"
            )
        for i, optimizer in enumerate(self.optimizers):
            saved, parameters = state[str(i)], list(_named_parameters(optimizer))
            different = sorted(set(saved) ^ {name for name, _ in parameters})
            if different:
                raise ValueError(
                    f"The saved optimizer state and the model differ in {len(different)} parameter(s), {different[0]} "
                    "among them: resume with the model and the optimizer that the run was started with"
                )
            # Through torch's own loading, which knows the device that each value belongs on.
            by_index = {
                index: {key: sharded_like(parameter, value) for key, value in saved[name].items()}
                for index, (name, parameter) in enumerate(parameters)
                if saved[name]
            }
            optimizer.load_state_dict({**optimizer.state_dict(), "state": by_index})


def build_optimizers(
    model: nn.Module,
    *,
    optimizer: OptimizerName = "adamw",
    learning_rate: float,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    decay_embeddings: bool = False,
    muon_learning_rate: float = 0.02,
    muon_weight_decay: float | None = None,
) -> Optimizers:
    """Optimizers for the trainable parameters of `model`, which accelerate has not wrapped yet.

    Args:
        learning_rate: peak of AdamW.
        weight_decay: decoupled and multiplied by the learning rate, as torch has it.
        muon_learning_rate: peak of Muon. A step changes a matrix by about this much in spectral norm; 0.02 is usual.
        muon_weight_decay: `weight_decay` where None.

    Raises:
        ValueError: for an unknown optimizer, nothing to train, and Muon without decoder layers.
    """
    if optimizer not in get_args(OptimizerName):
        raise ValueError(f"Unknown optimizer {optimizer!r}: choose from {', '.join(get_args(OptimizerName))}")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ValueError("The model has no trainable parameter: every requires_grad is False")
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}

    matrices = []
    if optimizer == "muon":
        matrices = [(name, p) for name, p in named if p.ndim == 2 and ".layers." in f".{name}"]
        named = [(name, p) for name, p in named if not (p.ndim == 2 and ".layers." in f".{name}")]
        if not matrices:
            raise ValueError("Muon is for the matrices of decoder layers and found none: take optimizer=adamw")

    def decays(p: nn.Parameter) -> bool:
        return p.ndim >= 2 and (decay_embeddings or id(p) not in embeddings)

    groups = [
        {"params": [(name, p) for name, p in named if decays(p)], "weight_decay": weight_decay},
        {"params": [(name, p) for name, p in named if not decays(p)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    built: list[torch.optim.Optimizer] = []
    if groups:
        fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for _, p in named)
        built.append(torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused))
    if matrices:
        decay = weight_decay if muon_weight_decay is None else muon_weight_decay
        built.append(Muon(matrices, lr=muon_learning_rate, weight_decay=decay))
    return Optimizers(built)


class EMA:
    """Exponential moving average of the trainable weights, in fp32: average = decay · average + (1 − decay) · weight.

    Give it the model as it is trained, after `accelerator.prepare` (under FSDP2 the averages are sharded likewise).
    """

    def __init__(self, model: nn.Module):
        self.averages = {name: p.detach().float().clone() for name, p in _trainable(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        """Moves the averages towards the model's weights; 0.999 remembers about the last thousand steps."""
        names, parameters = zip(*_trainable(model), strict=True)
        averages = [self.averages[name] for name in names]
        weights = [parameter.detach().float() for parameter in parameters]
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrites the model's weights by the averages."""
        for name, parameter in _trainable(model):
            parameter.copy_(self.averages[name])

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """The model has the averages as its weights inside, and exactly its own again afterwards."""
        own = {name: parameter.detach().clone() for name, parameter in _trainable(model)}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in _trainable(model):
                    parameter.copy_(own[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """{parameter's name: average}; sharded ones are put together. Under FSDP2 every process must call this."""
        return {name: gathered(average) for name, average in self.averages.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores exactly what `state_dict` gave.

        Raises:
            ValueError: where the state is that of other parameters.
        """
        different = sorted(set(state) ^ set(self.averages))
        if different:
            raise ValueError(
                f"The saved average and the model differ in {len(different)} parameter(s), {different[0]} among them: "
                "resume with the model that the run was started with"
            )
        for name, average in self.averages.items():
            average.copy_(sharded_like(average, state[name]))


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Trainable parameters by the names that the bare model gives them, without what DDP and torch.compile add."""
    for module in model.modules():  # after a forward pass without a backward one some weights are still gathered
        if isinstance(module, FSDPModule):
            module.reshard()
    return [
        (name.replace("_orig_mod.", "").removeprefix("module."), parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def _named_parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)


def gathered(value: Any) -> Any:
    """A tensor put together on the CPU, if it is sharded; every process must call this. Anything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def sharded_like(parameter: torch.Tensor, value: Any) -> Any:
    """A value of a saved state, sharded as its parameter is, in memory of its own."""
    if not isinstance(value, torch.Tensor):
        return value
    if isinstance(parameter, DTensor) and value.shape == parameter.shape and value.ndim:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.clone()
