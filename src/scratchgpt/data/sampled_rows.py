"""Answers that a model has sampled to its prompts → rows for learning from them.

    slot 0     prompt 7    answers 0 … G - 1       a step reads B slots, which are B · G rows
    slot 1     prompt 2    answers 0 … G - 1
    …

Slots are numbered from the beginning of the run, and which prompt a slot has is a function of its number. The task
samples answers for `steps_per_sampling` steps at once and puts them here (`put`), and those steps read them. What is
here goes into a checkpoint, so that a run which goes on between two samplings learns from the same answers.

Padding stands at the end, where no real token sees it. An answer that is not there is a row without targets.

Shapes: S slots of a sampling, B of a batch, G answers of a slot, W tokens of prompt and answer, T of a row.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .chat import render_chats, text_of_ids
from .chat_sources import describe
from .packing import Batch, batch_indices
from .preference_rows import answer_batch
from .prompts import Prompt

PER_TOKEN = ("old", "reference")
"""Names of samples that have a value for each token."""


class SampledRows:
    """Rows by slot; satisfies `packing.StatefulRows`.

    Args:
        tokenizer: of an assistant, with its chat template.
        context_length: tokens of prompt and answer, at most.
        response_tokens: of an answer, at most. Prompts that leave less room are left out.

    Raises:
        ValueError: where no prompt is left; and as `render_chats`.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        response_tokens: int,
    ) -> None:
        ids: Any = tokenizer  # annotated as if ids could be text
        self.pad_token_id: int = ids.eos_token_id if ids.pad_token_id is None else ids.pad_token_id
        self.response_tokens = response_tokens
        rendered = render_chats([each.messages for each in prompts], tokenizer, add_generation_prompt=True)
        longest = context_length - response_tokens
        fitting = [i for i, chat in enumerate(rendered) if len(chat.input_ids) <= longest]
        reason = f"a prompt of more than {max(longest, 0)} tokens, which leaves no room for {response_tokens}"
        self.left_out = Counter({reason: len(prompts) - len(fitting)} if len(fitting) < len(prompts) else {})
        """Reasons, and how many prompts were left out."""
        if not fitting:
            raise ValueError(
                f"none of the {len(prompts)} prompts can be answered: {describe(self.left_out)}; give fewer "
                "response_tokens or a longer context_length"
            )
        self.prompts = [prompts[i] for i in fitting]
        self.prompt_ids = [rendered[i].input_ids for i in fitting]
        self.context_length = max(map(len, self.prompt_ids)) + response_tokens
        self.first_slot = 0
        self.samples: dict[str, torch.Tensor] = {}
        """See `put`."""
        self.tally: Counter[str] = Counter()
        """What the task counts between two evaluations."""

    def __len__(self) -> int:
        return len(self.prompts)

    def indices(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """Slots [global_batch_size] of a step."""
        return step * global_batch_size + np.arange(global_batch_size)

    def prompts_of(self, step: int, global_batch_size: int, seed: int) -> np.ndarray:
        """Numbers [global_batch_size] of the prompts in the slots of a step; see `packing.batch_indices`."""
        return batch_indices(len(self), step, global_batch_size, seed)

    def holds(self, slots: np.ndarray) -> bool:
        """Whether answers for these are here."""
        count = len(self.samples["starts"]) if self.samples else 0
        return bool(count) and self.first_slot <= slots.min() and slots.max() < self.first_slot + count

    def put(self, first_slot: int, samples: dict[str, torch.Tensor]) -> None:
        """Answers in place of those before.

        Args:
            samples: `ids` int [S, G, W], of prompt and answer; `starts` int [S], where the answers begin; `lengths`
                int [S, G], tokens of the answers, the one that ends it included, 0: none; `advantages` float [S, G];
                and, where the loss needs them, log-probabilities of the answers' tokens, each where its row has it
                as a target: `old` float [S, G, W] by the model that sampled them, and `reference` float [S, G, W].
                Others are kept too.
        """
        self.first_slot, self.samples = first_slot, samples

    def state_dict(self) -> dict[str, Any]:
        """Answers and counts."""
        return {"first_slot": self.first_slot, "samples": self.samples, "tally": dict(self.tally)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.put(state["first_slot"], state["samples"])
        self.tally = Counter(state["tally"])

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The answers in slots: int64 tensors [B · G, T] `input_ids`, `shift_labels` and `attention_mask`, float
        `advantages` [B · G], and float [B · G, T] `old` and `reference`, where they are known.

        Before the first sampling it is the prompts, without answers.
        """
        if not self.holds(np.asarray(indices)):
            prompts = [np.array(self.prompt_ids[i % len(self)], dtype=np.int32) for i in indices]
            return answer_batch([(ids, len(ids)) for ids in prompts], self.pad_token_id, self.context_length)
        places = torch.as_tensor(np.asarray(indices)) - self.first_slot
        return self.rows_of({name: values[places] for name, values in self.samples.items()})

    def rows_of(self, samples: dict[str, torch.Tensor]) -> Batch:
        """What `batch` makes of samples; see `put`."""
        group = samples["lengths"].shape[1]
        starts, lengths = samples["starts"].repeat_interleave(group), samples["lengths"].flatten()
        ids = samples["ids"].flatten(0, 1).numpy()
        places = zip(starts.tolist(), lengths.tolist(), strict=True)
        rows = [(ids[row, : start + length], start) for row, (start, length) in enumerate(places)]
        batch = answer_batch(rows, self.pad_token_id, self.context_length)
        width = batch["input_ids"].shape[1]
        if "advantages" in samples:
            batch["advantages"] = samples["advantages"].flatten()
        return batch | {name: samples[name].flatten(0, 1)[:, :width] for name in PER_TOKEN if name in samples}

    def texts(self, tokenizer: Any) -> Iterator[str]:
        """The prompts, each as one document."""
        return (text_of_ids(ids, tokenizer) for ids in self.prompt_ids)

    def fingerprint(self) -> str:
        """SHA-256 of the prompts and of what the checker gets with them, as hexadecimal digits."""
        digest = hashlib.sha256(repr((self.context_length, self.response_tokens, self.prompt_ids)).encode())
        for prompt in self.prompts:
            digest.update(json.dumps(prompt.row, sort_keys=True, default=str).encode() + b"\0")
        return digest.hexdigest()

    def __str__(self) -> str:
        left_out = f" (left out: {describe(self.left_out)})" if self.left_out else ""
        known = sum("answer" in prompt.row for prompt in self.prompts)
        return (
            f"{len(self):,} questions{left_out}, {known:,} with the right answer; rows of {self.context_length:,} "
            "tokens at most"
        )
