"""Cross-entropy of a linear head without its logits: N tokens × V vocabulary never stand in memory.

This is a Hub file: it is copied verbatim into every saved model, so it imports torch and nothing else.

The logits of a batch are the largest tensor of a small model's training step by far (2,048 tokens × 50,304 ids in
fp32: 412 MB, and their gradient as much again). But the gradient of the loss with respect to the logits is known as
soon as they are: softmax − one-hot. So the forward pass walks over the tokens in chunks and makes the gradients of
the hidden states and of the weight on the spot; the backward pass only scales them. (The idea is in Liger-Kernel, Hsu
et al. 2024, and Cut Your Losses, Wijmans et al. 2024.) Compiled, it is as fast as the whole logits at once.
"""

import torch
import torch.nn.functional as F
from torch import nn

CHUNK_BYTES = 64 * 2**20  # logits of one chunk, in the type they are computed in


@torch.library.custom_op("scratchgpt::accumulate", mutates_args=("total",))
def accumulate(total: torch.Tensor, update: torch.Tensor) -> None:
    """total += update, opaque to the compiler.

    It would fuse the additions of all chunks into one at the end, and keep the V × D product of every chunk until
    then: with many chunks more memory than the logits would take. Costs 2 % of a small model's step.
    """
    total += update


@accumulate.register_fake
def _(total: torch.Tensor, update: torch.Tensor) -> None:
    pass


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum over tokens of the cross-entropy; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, targets_N, ignore_index, compute_dtype, grad_hidden, grad_weight):
        weight = weight_VD.to(compute_dtype)
        ids_V = torch.arange(weight.shape[0], device=weight.device)
        num_chunks = -(-len(hidden_ND) * weight.shape[0] * compute_dtype.itemsize // CHUNK_BYTES)
        chunk = max(1, -(-len(hidden_ND) // max(1, num_chunks)))
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        grad_hidden_chunks = []
        grad_weight_VD = torch.zeros_like(weight, dtype=torch.float32) if grad_weight else None
        for hidden_nD, targets_n in zip(hidden_ND.to(compute_dtype).split(chunk), targets_N.split(chunk), strict=True):
            targets_n1 = targets_n.unsqueeze(-1)
            counts_n1 = targets_n1 != ignore_index
            logits_nV = (hidden_nD @ weight.t()).float()
            # The exponentials serve the sum and the softmax: they are the costliest pass over the logits.
            max_n1 = logits_nV.amax(-1, keepdim=True)
            exp_nV = (logits_nV - max_n1).exp()
            sum_n1 = exp_nV.sum(-1, keepdim=True)
            target_logits_n1 = logits_nV.gather(-1, targets_n1 * counts_n1)
            loss = loss + ((max_n1 + sum_n1.log() - target_logits_n1) * counts_n1).sum()
            if grad_hidden or grad_weight:
                one_hot_nV = (ids_V == targets_n1) & counts_n1
                softmax_nV = exp_nV.to(compute_dtype) * (counts_n1 / sum_n1)
                grad_nV = (softmax_nV - one_hot_nV.float()).to(compute_dtype)
                if grad_hidden:
                    grad_hidden_chunks.append(grad_nV @ weight)
                if grad_weight_VD is not None:
                    accumulate(grad_weight_VD, grad_nV.t() @ hidden_nD)
        ctx.save_for_backward(torch.cat(grad_hidden_chunks) if grad_hidden else None, grad_weight_VD)
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        grads = (
            None if grad is None else (grad * grad_loss).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return *grads, None, None, None, None, None


def linear_cross_entropy(
    hidden: torch.Tensor,
    head: nn.Linear,
    targets: torch.Tensor,
    num_items_in_batch: int | torch.Tensor | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Mean cross-entropy of `head(hidden)` against `targets`: a scalar, in nats, fp32.

    Args:
        hidden: [..., D]. head: linear layer D → V without bias. targets: [...] ids, or `ignore_index` (negative).
        num_items_in_batch: divisor of the sum; default: the number of targets that are not ignored.
    """
    device = hidden.device
    hidden_ND, targets_N = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(device)
    if num_items_in_batch is None:
        num_items_in_batch = (targets_N != ignore_index).sum()
    elif isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(device)
    if not (type(head) is nn.Linear and type(head.weight) is nn.Parameter and head.bias is None):
        # An adapted or sharded head must be called as the module it is, and then its logits exist.
        total = F.cross_entropy(head(hidden_ND).float(), targets_N, ignore_index=ignore_index, reduction="sum")
        return total / num_items_in_batch
    weight_VD = head.weight
    autocast = torch.is_autocast_enabled(device.type)
    compute_dtype = torch.get_autocast_dtype(device.type) if autocast else weight_VD.dtype
    wants_grad = torch.is_grad_enabled()
    with torch.autocast(device.type, enabled=False):
        total = _LinearCrossEntropy.apply(
            hidden_ND,
            weight_VD,
            targets_N,
            ignore_index,
            compute_dtype,
            wants_grad and hidden.requires_grad,
            wants_grad and weight_VD.requires_grad,
        )
    return total / num_items_in_batch
