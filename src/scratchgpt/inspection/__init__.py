"""Looking inside of a causal language model: what it attends to, expects, is surprised by, and consists of.

    from scratchgpt.inspection import attention, surprise

    seen = attention(model, tokenizer, "the cat saw the cat", layer=1)
    seen.weights                      # [heads, tokens, tokens]
    seen.figure().savefig("attention.png")

Every function takes any causal model of transformers, leaves it as it was, and returns data with a `figure()`.
"""

from .attention import AttentionMaps, PositionAttention, attention, attention_of_position
from .heads import HeadScores, ablation, induction, without_heads
from .labels import Tokenizations, token_labels, tokenizations
from .predictions import LogitLens, NextToken, Surprise, logit_lens, next_token, surprise
from .size import DepthNorms, Size, depth_norms, size

__all__ = [
    "AttentionMaps",
    "DepthNorms",
    "HeadScores",
    "LogitLens",
    "NextToken",
    "PositionAttention",
    "Size",
    "Surprise",
    "Tokenizations",
    "ablation",
    "attention",
    "attention_of_position",
    "depth_norms",
    "induction",
    "logit_lens",
    "next_token",
    "size",
    "surprise",
    "token_labels",
    "tokenizations",
    "without_heads",
]
