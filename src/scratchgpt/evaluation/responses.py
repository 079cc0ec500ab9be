"""Answers of a model: generated in batches, cut by token position, and compared with reference answers.

An answer ends at the first special token, whichever it is; only the one that the chat template ends answers with
counts as a proper end. So no answer can hold a role token or end-of-text, and the prompt, which is cut off by its
length in tokens and never looked for in the text, cannot be in it either.

ROUGE-L (Lin 2004; see rouge.py) is the F-measure of the longest common subsequence of words, stemmed, case and
punctuation ignored. It rewards the reference's words in their order, not truth.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..data.chat import Message, render_chats, stop_token_id, text_of_ids
from ..inference.answer_settings import answer_settings
from .journal import Journal
from .log_likelihoods import context_length
from .rouge import NAMES, rouge_f1
from .statistics import wilson_interval


@dataclass(frozen=True)
class Response:
    """One answer."""

    text: str
    token_ids: list[int]
    """Without the token that ended it."""
    stopped: bool
    """Whether it ended with the chat template's stop token, not at the limit and not with another special token."""


@dataclass
class ResponseScores:
    """What `score_responses` found."""

    rouge_l: float
    """Mean F-measure, 0 to 1."""
    exact_stop_rate: float
    """Share of answers that ended with the stop token."""
    exact_stop_interval: tuple[float, float]
    """95 % confidence interval of the rate."""
    mean_tokens: float
    num_responses: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Question:
    """A conversation up to a question, and the answer that the data set has for it."""

    messages: list[Message]
    reference: str


def last_questions(conversations: Sequence[Sequence[Message]]) -> list[Question]:
    """Of each conversation that ends with an answer what comes before it, and the answer."""
    return [
        Question(list(messages[:-1]), messages[-1]["content"])
        for messages in conversations
        if len(messages) > 1 and messages[-1]["role"] == "assistant"
    ]


def texts_of_questions(questions: Sequence[Question], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Each question with its reference, as a chat model with this tokenizer would have seen them in training; without
    a chat template, one after the other."""
    if tokenizer.chat_template is None:
        yield from (f"{each.messages[-1]['content']}\n\n{each.reference}" for each in questions)
        return
    chats = [[*each.messages, {"role": "assistant", "content": each.reference}] for each in questions]
    yield from (text_of_ids(chat.input_ids, tokenizer) for chat in render_chats(chats, tokenizer))


def generate_responses(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int = 128,
    batch_size: int = 16,
    do_sample: bool = False,
    seed: int = 0,
    journal: Journal | None = None,
    **sampling: Any,
) -> list[Response]:
    """An answer to each conversation.

    Args:
        model: a causal language model, adapted or not.
        conversations: each ends with a question. Prompts of similar length share a batch, padded on the left.
        max_new_tokens: at most; less where the context ends earlier.
        do_sample: draw from the distribution instead of taking the likeliest token; `sampling` then holds
            temperature, top_k and the like, as for `generate`.
        journal: where each batch is written when it is done; a batch that is there is not generated again.

    Raises:
        ValueError: for a prompt that fills the whole context, and as `render_chats` and `stop_token_id`.
    """
    context = context_length(model.config)
    stop = stop_token_id(tokenizer)
    prompts = [chat.input_ids for chat in render_chats(conversations, tokenizer, add_generation_prompt=True)]
    for number, prompt in enumerate(prompts):
        if len(prompt) >= context:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens and leaves no room for an answer within {context}: "
                "shorten the conversation"
            )
    settings = answer_settings(tokenizer, model.config.vocab_size)
    responses: dict[int, Response] = {}
    keys: list[str] = []
    if journal is not None:
        how = {"max_new_tokens": max_new_tokens, "do_sample": do_sample, "seed": seed, **settings, **sampling}
        keys = [journal.key([how, number, prompt]) for number, prompt in enumerate(prompts)]
        responses = {i: Response(**journal.answers[key]) for i, key in enumerate(keys) if key in journal.answers}
    settings |= {"do_sample": do_sample, **sampling}
    for batch in generated_ids(model, prompts, max_new_tokens, batch_size, settings, seed, done=set(responses)):
        for i, new_ids in batch.items():
            responses[i] = response_of(new_ids, tokenizer, settings["eos_token_id"], stop)
        if journal is not None:
            journal.add((keys[i], asdict(responses[i])) for i in batch)
    return [responses[i] for i in range(len(prompts))]


def response_of(new_ids: list[int], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], stop: int) -> Response:
    """What a model said, cut at the first of the tokens `ends`.

    Args:
        stop: the one that ends an answer properly.
    """
    end = next((place for place, token in enumerate(new_ids) if token in ends), None)
    answer = new_ids[:end]
    return Response(str(tokenizer.decode(answer)), answer, end is not None and new_ids[end] == stop)


@torch.no_grad()
def generated_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    settings: Mapping[str, Any],
    seed: int = 0,
    done: set[int] | frozenset[int] = frozenset(),
) -> Iterator[dict[int, list[int]]]:
    """What a model says after each prompt, batch by batch: the number of the prompt → the new ids, padded.

    Args:
        prompts: ids, each shorter than the context. Those of similar length share a batch.
        settings: of `GenerationConfig`, `pad_token_id` among them.
        seed: of the first batch; each has its own, so that a batch does not depend on those before.
        done: numbers of prompts that need no answer; a batch of these only is left out.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        if done.issuperset(numbers):
            continue
        torch.manual_seed(seed + start)
        width = max(len(prompts[i]) for i in numbers)
        ids = torch.full((len(numbers), width), settings["pad_token_id"], dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(numbers):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        new = min(max_new_tokens, context_length(model.config) - width)
        generation = GenerationConfig(max_new_tokens=new, **settings)
        output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=generation)
        yield dict(zip(numbers, output[:, width:].tolist(), strict=True))
    model.train(was_training)


def score_responses(responses: Sequence[Response], references: Sequence[str]) -> ResponseScores:
    """
    Raises:
        ValueError: where there are none, or not one reference for each.
    """
    if not responses or len(responses) != len(references):
        raise ValueError(f"{len(responses)} responses and {len(references)} references: give one for each")
    scores = rouge_f1([response.text for response in responses], references)[:, NAMES.index("rougeL")]
    count, stopped = len(responses), sum(response.stopped for response in responses)
    return ResponseScores(
        rouge_l=float(scores.mean()),
        exact_stop_rate=stopped / count,
        exact_stop_interval=wilson_interval(stopped, count),
        mean_tokens=sum(len(response.token_ids) for response in responses) / count,
        num_responses=count,
    )


def write_responses(
    file: str | os.PathLike[str], questions: Sequence[Question], answers: dict[str, Sequence[Response]]
) -> None:
    """JSON lines: the messages, the reference, and for each named model its answer and whether it stopped."""
    lines = []
    for i, question in enumerate(questions):
        found = {name: {"text": given[i].text, "stopped": given[i].stopped} for name, given in answers.items()}
        line = {"messages": question.messages, "reference": question.reference, "responses": found}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    Path(file).write_text("".join(lines), encoding="utf-8")
