"""Attention for the CPU: in blocks of queries, for training, and of a single query, for decoding.

Both are attention implementations for transformers, and registered by whoever uses them: `blockwise` by
`performance.configure_process`, `one_query` by `inference.decoding.prepare_for_decoding`. Shapes are written as in
the model: B batch, H query heads, K key-value heads, G queries of one key-value head, T queries, S keys, C width of a
head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# Tokens in a row up to which blockwise attention keeps its weights for the backward pass.
KEPT_LENGTH = 256


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    visible: torch.Tensor,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    """Plain attention. Scores have the type of the query; inside, softmax computes in fp32."""
    scores = (query @ key.transpose(2, 3)) * scaling
    # Not -inf: a row of padding sees nothing, and its softmax would be NaN.
    weights = scores.where(visible, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return F.dropout(weights, p=dropout) @ value


def blockwise_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Causal attention in four blocks of queries, each with the keys up to its own end only: 5/8 of the products.

    An attention implementation for transformers, meant for training on the CPU under torch.compile, which fuses mask
    and softmax. Its memory is quadratic in the length, unlike SDPA's, though beyond `KEPT_LENGTH` tokens for one layer
    at a time. Anything but causal self-attention without a cache goes to SDPA.

    Args:
        query: [B, H, T, C]. key, value: [B, K, S, C], where K divides H.
        attention_mask: bool, [B, 1, T, S], true where a query may look, at most causal. None: causal.
        scaling: factor of the scores, before the softmax. dropout: probability, on the weights.

    Returns:
        The mixed values [B, T, H, C]; None instead of the weights.
    """
    length = query.shape[2]
    if length == 1 or length != key.shape[2] or not module.is_causal:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    position_T = torch.arange(length, device=query.device)
    block = max(128, -(-length // 4))
    mixed = []
    for start in range(0, length, block):
        end = min(start + block, length)
        if attention_mask is None:
            visible = position_T[start:end, None] >= position_T[:end]
        else:
            visible = attention_mask[:, :, start:end, :end]
        arguments = query[:, :, start:end], key[:, :, :end], value[:, :, :end], visible, scaling
        drop = dropout if module.training else 0.0
        # Weights grow with the square of the length: those of long rows would be the largest part of what the backward
        # pass keeps, and are recomputed there.
        if length > KEPT_LENGTH:
            mixed.append(checkpoint(_attend, *arguments, drop, use_reentrant=False))
        else:
            mixed.append(_attend(*arguments, drop))
    return torch.cat(mixed, dim=2).transpose(1, 2), None


def one_query_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a single query, written out; more than one, as in the prompt, go to SDPA.

    torch's fused CPU kernel takes five to nine times as long for one query in bf16.

    Args:
        query: [B, H, T, C]. key, value: [B, K, S, C], where K divides H.
        attention_mask: bool, [B, 1, T, S], true where a query may look. None: everywhere.
        scaling: factor of the scores, before the softmax. dropout: of training, which has more than one query.

    Returns:
        The mixed values [B, T, H, C]; None instead of the weights.
    """
    if query.shape[2] > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    batch_size, num_heads, _, width = query.shape
    # The queries that share a key-value head are rows of one product.
    query_BKGC = query.reshape(batch_size, key.shape[1], -1, width)
    scores_BKGS = (query_BKGC @ key.transpose(2, 3)).float() * scaling
    if attention_mask is not None:
        scores_BKGS = scores_BKGS.where(attention_mask, torch.finfo(torch.float).min)
    mixed_BKGC = scores_BKGS.softmax(dim=-1).to(value.dtype) @ value
    return mixed_BKGC.reshape(batch_size, 1, num_heads, width), None
