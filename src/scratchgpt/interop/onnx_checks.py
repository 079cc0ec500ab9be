"""Whether an ONNX graph computes what was exported: run by onnxruntime, step by step with its cache.

Three things are compared: the logits of a sentence, the likeliest continuations of three prompts, and the tokenizer
that lies beside the graph, on a page of awkward text.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from .checks import (
    NUM_WRITTEN,
    PROMPTS,
    awkward_ids,
    check_same_ids,
    check_same_logits,
    end_ids,
    is_near_tie,
    logits_of,
    prompt_ids,
    sample_ids,
)
from .onnx import cache_names, cache_shape


class OnnxDecoder:
    """A graph in onnxruntime, on the CPU, with the tokens that it has seen.

    Args:
        config: of the model that the graph was written from.
    """

    def __init__(self, file: str | os.PathLike[str], config: Any):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
        self.num_layers, num_heads, width = cache_shape(config)
        self.empty = np.zeros((1, num_heads, 0, width), dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Forgets what it has seen."""
        self.past: list[Any] = [self.empty] * (2 * self.num_layers)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits [T, V] of T more tokens."""
        num_cached, num_new = self.past[0].shape[2], len(ids)
        inputs = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, num_cached + num_new), dtype=np.int64),
            "position_ids": np.arange(num_cached, num_cached + num_new, dtype=np.int64)[None],
        } | dict(zip(cache_names(self.num_layers), self.past, strict=True))
        found: Any = self.session.run(["logits", *cache_names(self.num_layers, "present")], inputs)
        logits, *self.past = found
        return logits[0]

    def continuation(self, prompt: Sequence[int], count: int, ends: Sequence[int] = ()) -> list[int]:
        """The ids that follow, the likeliest each time, up to one that ends a text."""
        self.reset()
        written: list[int] = []
        given = prompt
        while len(written) < count and not (written and written[-1] in ends):
            given = [int(self.logits(given)[-1].argmax())]
            written += given
        return written


def check_onnx_file(file: str | os.PathLike[str], exported: Any, tokenizer: Any) -> str:
    """Compares a graph with the model that it was written from.

    Args:
        exported: that model. tokenizer: its tokenizer.

    Returns:
        What was found, for people.

    Raises:
        ValueError: where the graph computes something else; names what.
    """
    decoder, context = OnnxDecoder(file, exported.config), exported.config.max_position_embeddings
    ids = sample_ids(tokenizer, exported.config.vocab_size, context)
    # The beginning in one go, the rest token by token: what comes out of the cache has to be as good.
    beginning, rest = ids[0, : ids.shape[1] // 2].tolist(), ids[0, ids.shape[1] // 2 :].tolist()
    found = np.concatenate([decoder.logits(beginning), *(decoder.logits([each]) for each in rest)])
    difference = check_same_logits(logits_of(exported, ids), torch.from_numpy(found)[None])
    ends, near_ties = end_ids(exported), 0
    for prompt in prompt_ids(tokenizer, context):
        count = min(NUM_WRITTEN, context - len(prompt))
        near_ties += is_near_tie(exported, prompt, decoder.continuation(prompt, count, ends), difference)
    ties = f", {near_ties} of {len(PROMPTS)} continuations part at a near-tie" if near_ties else ""
    return f"read by onnxruntime: logits of {ids.shape[1]} tokens agree, largest difference {difference:.2e}{ties}"


def change_by_rounding(file: str | os.PathLike[str], exported: Any, tokenizer: Any) -> float:
    """The largest change of a log-probability of a sentence, of a graph that was quantised."""
    ids = sample_ids(tokenizer, exported.config.vocab_size, exported.config.max_position_embeddings)
    rounded = torch.from_numpy(OnnxDecoder(file, exported.config).logits(ids[0].tolist()))
    return (rounded.log_softmax(-1) - logits_of(exported, ids)[0].log_softmax(-1)).abs().max().item()


def check_saved_tokenizer(folder: str | os.PathLike[str], tokenizer: Any) -> None:
    """Makes sure that the tokenizer in a folder gives the ids of the model's.

    Raises:
        ValueError: names the first that is not.
    """
    check_same_ids(awkward_ids(AutoTokenizer.from_pretrained(folder)), tokenizer)
