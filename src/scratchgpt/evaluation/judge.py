"""A language model as a judge of answers: a score from 0 to 100, or which of two answers is the better one.

A reply is read strictly: it is the score, or the letter, and nothing else. What cannot be read is counted and never
guessed: small models answer the question instead of judging the answer. Only the reply is read, never the prompt, and
what a reasoning model thinks between <think> and </think> is not part of the reply.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ..data.chat import render_chats
from .answers import with_chat_template
from .journal import Journal
from .log_likelihoods import context_length
from .responses import generate_responses

NO_REFERENCE = "(none is given)"

SCORE_PROMPT = """\
You grade an answer to a question. If a reference answer is given, it is correct; another answer can be as good.

Question:
{question}

Reference answer:
{reference}

Answer to grade:
{answer}

Give a score from 0 (useless or wrong) to 100 (correct, complete and helpful). Reply with the whole number only."""

PAIRWISE_PROMPT = """\
You compare two answers to a question. If a reference answer is given, it is correct; another answer can be as good.

Question:
{question}

Reference answer:
{reference}

Answer A:
{answer_a}

Answer B:
{answer_b}

Which answer is better? Reply with A, B or tie only."""

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_SCORE = re.compile(
    r"(?:(?:score|rating|grade)\s*[:=]?\s*)?([0-9]{1,3}(?:\.[0-9]+)?)\s*(?:(?:/|out of)\s*100)?\.?", re.IGNORECASE
)
_VERDICT = re.compile(r"(?:(?:verdict|answer|winner)\s*[:=]?\s*)?(\[\[(?:A|B|C|tie)\]\]|A|B|tie)\.?", re.IGNORECASE)
_LETTERS = {"a": "A", "b": "B", "c": "tie", "tie": "tie"}


def parse_score(reply: str) -> float | None:
    """The score that a reply is, from 0 to 100; None where it is anything else, or on another scale."""
    found = _SCORE.fullmatch(_bare(reply))
    score = float(found[1]) if found else None
    return score if score is not None and score <= 100 else None


def parse_verdict(reply: str) -> str | None:
    """A, B or tie, if the reply is that, or `[[A]]` as in MT-bench, where `[[C]]` is a tie; else None."""
    found = _VERDICT.fullmatch(_bare(reply))
    return _LETTERS[found[1].strip("[]").lower()] if found else None


def _bare(reply: str) -> str:
    """Without a reasoning model's thoughts and Markdown's bold."""
    return _THOUGHT.sub("", reply, count=1).replace("**", "").strip()


class Judge(Protocol):
    """Whoever replies to prompts."""

    def identity(self) -> dict[str, Any]:
        """Everything that a reply depends on beside the prompt."""
        ...

    def replies(self, prompts: Sequence[str]) -> Iterator[Mapping[int, str | None]]:
        """The number of a prompt → the reply, some at a time, in any order; None where the prompt is too long."""
        ...


class LocalJudge:
    """A causal language model, as `load_for_decoding` returns it. It always takes the likeliest token.

    Args:
        source: what identifies the model: name, weights, dtype, …
        max_new_tokens: of a reply; a reasoning model needs many.
    """

    def __init__(
        self, model: Any, tokenizer: Any, source: Mapping[str, Any], max_new_tokens: int = 16, batch_size: int = 8
    ) -> None:
        self.model, self.tokenizer, self.source = model, with_chat_template(tokenizer), source
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size

    def identity(self) -> dict[str, Any]:
        return {**self.source, "max_new_tokens": self.max_new_tokens, "do_sample": False}

    def replies(self, prompts: Sequence[str]) -> Iterator[Mapping[int, str | None]]:
        """Raises ValueError as `generate_responses`."""
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        lengths = [len(chat.input_ids) for chat in render_chats(chats, self.tokenizer, add_generation_prompt=True)]
        room = context_length(self.model.config) - self.max_new_tokens
        yield {i: None for i, length in enumerate(lengths) if length > room}
        order = sorted((i for i, length in enumerate(lengths) if length <= room), key=lengths.__getitem__)
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            responses = generate_responses(
                self.model, self.tokenizer, [chats[i] for i in numbers], self.max_new_tokens, self.batch_size
            )
            yield {i: response.text for i, response in zip(numbers, responses, strict=True)}


def ask(judge: Judge, prompts: Sequence[str], journal: Journal) -> list[str | None]:
    """The replies to the prompts. What is in the journal is not asked again, and each reply goes there at once."""
    keys = [journal.key(prompt) for prompt in prompts]
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in journal.answers}
    names = list(missing)
    for some in judge.replies(list(missing.values())) if missing else ():
        if some:
            journal.add((names[number], {"reply": reply}) for number, reply in some.items())
    return [journal.answers[key]["reply"] for key in keys]
