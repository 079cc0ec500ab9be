"""Cross-entropy of a linear head without its logits: N tokens × V vocabulary never stand in memory.

This is a Hub file: it is copied verbatim into every saved model, so it imports torch and nothing else.

The logits of a batch are the largest tensor of a small model's training step by far (2,048 tokens × 50,304 ids in
fp32: 412 MB, and their gradient as much again). But the gradient of the loss with respect to the logits is known as
soon as they are: softmax − one-hot. So the forward pass walks over the tokens in chunks and makes the gradients of
the hidden states and of the weight on the spot; the backward pass only scales them. (The idea is in Liger-Kernel, Hsu
et al. 2024, and Cut Your Losses, Wijmans et al. 2024.)
"""

import torch
import torch.nn.functional as F
from torch import nn

CHUNK_BYTES = 64 * 2**20  # one chunk of fp32 logits


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum over tokens of the cross-entropy; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, targets_N, ignore_index):
        chunk = max(1, CHUNK_BYTES // (4 * weight_VD.shape[0]))
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        loss = hidden_ND.new_zeros((), dtype=torch.float32)
        grad_chunks = []
        grad_weight_VD = torch.zeros_like(weight_VD) if needs_weight else None
        for hidden_nD, targets_n in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True):
            logits_nV = (hidden_nD @ weight_VD.T).float()
            log_z_n = logits_nV.logsumexp(-1)
            keep_n = targets_n != ignore_index
            index_n1 = targets_n.clamp(min=0).unsqueeze(-1)
            loss += ((log_z_n - logits_nV.gather(-1, index_n1).squeeze(-1)) * keep_n).sum()
            if needs_hidden or needs_weight:
                grad_nV = (logits_nV - log_z_n.unsqueeze(-1)).exp()
                grad_nV = grad_nV.scatter_add(-1, index_n1, torch.full_like(log_z_n, -1.0).unsqueeze(-1))
                grad_nV = (grad_nV * keep_n.unsqueeze(-1)).to(hidden_nD.dtype)
                grad_chunks.append(grad_nV @ weight_VD)
                if needs_weight:
                    grad_weight_VD += grad_nV.T @ hidden_nD
        ctx.save_for_backward(torch.cat(grad_chunks) if needs_hidden else None, grad_weight_VD)
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return (
            None if grad_hidden_ND is None else grad_hidden_ND * grad_loss,
            None if grad_weight_VD is None else grad_weight_VD * grad_loss,
            None,
            None,
        )


def linear_cross_entropy(
    hidden_BTD: torch.Tensor,
    head: nn.Linear,
    targets_BT: torch.Tensor,
    num_items_in_batch: int | torch.Tensor | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Mean cross-entropy of `head(hidden)` against `targets`, in nats, as a scalar.

    Args:
        hidden_BTD: [..., D]. head: linear layer D → V without bias. targets_BT: [...] ids, or `ignore_index`.
        num_items_in_batch: divisor of the sum; default: the number of targets that are not ignored.
    """
    hidden_ND, targets_N = hidden_BTD.reshape(-1, hidden_BTD.shape[-1]), targets_BT.reshape(-1).to(hidden_BTD.device)
    if num_items_in_batch is None:
        num_items_in_batch = (targets_N != ignore_index).sum()
    elif isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(hidden_BTD.device)
    if type(head) is nn.Linear and type(head.weight) is nn.Parameter and head.bias is None:
        total = _LinearCrossEntropy.apply(hidden_ND, head.weight, targets_N, ignore_index)
    else:  # a sharded or adapted head must be called as the module it is, and then its logits exist
        total = F.cross_entropy(head(hidden_ND).float(), targets_N, ignore_index=ignore_index, reduction="sum")
    return total / num_items_in_batch
