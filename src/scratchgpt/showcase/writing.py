"""What the tabs for texts and chats do: continue, answer, and say what was likely. Every mistake is a ValueError."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from ..data.chat import Message
from ..data.encoding import encode_typed
from ..inference.answer_settings import text_settings
from ..inference.chat import INCOMPLETE, Answer, AnswerStreamer, ChatSession, Sampling, check_text, generate_answer
from ..inference.streaming import streamed
from ..inspection import NextToken, Surprise, next_token, surprise
from ..inspection.labels import visible
from .shelf import Shelf

MOST_CHARACTERS = 20_000
"""Of anything that somebody types: more than a small model reads, and little enough to look at at once."""

LIMITS = {
    "max_new_tokens": (1, 512, 1),
    "temperature": (0, 2, 0.05),
    "top_k": (0, 200, 1),
    "top_p": (0.05, 1, 0.05),
    "min_p": (0, 0.95, 0.05),
    "repetition_penalty": (0.5, 2, 0.05),
}
"""Of the controls: the least, the most, and the step of a slider."""


def typed(text: str | None, most: int = MOST_CHARACTERS) -> str:
    """What somebody typed. Raises ValueError for a text that is empty, too long or no text."""
    if not (text or "").strip():
        raise ValueError("there is no text: type some")
    assert text is not None
    if len(text) > most:
        raise ValueError(f"the text has {len(text):,} characters, and at most {most:,} are read here: shorten it")
    check_text(text)
    return text


def sampling_of(*values: Any) -> Sampling:
    """What the controls say, in the order of `LIMITS`.

    Raises:
        ValueError: for a number that is missing or beyond its limits.
    """
    found: dict[str, Any] = {}
    for (name, (low, high, step)), value in zip(LIMITS.items(), values, strict=True):
        if not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name}: give a number from {low:g} to {high:g}")
        if step == 1 and value != int(value):
            raise ValueError(f"{name}: give a whole number")
        found[name] = int(value) if step == 1 else float(value)
    return Sampling(**found)


def seed_of(text: str | None) -> int | None:
    """None for an empty field: another text each time."""
    if not (text or "").strip():
        return None
    assert text is not None
    if not re.fullmatch(r"[0-9]{1,10}", text.strip()) or int(text) >= 2**32:
        raise ValueError(f"seed={text.strip()[:20]}: give a whole number from 0 to {2**32 - 1:,}, or none")
    return int(text)


def continue_text(
    shelf: Shelf,
    name: str,
    text: str,
    sampling: Sampling,
    seed: int | None = None,
    left: threading.Event | None = None,
) -> Iterator[Any]:
    """What the model writes behind `text`, piece by piece; at the end the `AnswerStreamer`, unless `left` is set.

    Raises:
        ValueError: for a text that is none or fills the context.
    """
    text = typed(text)
    opened = shelf.language_model(name)
    (prompt,) = encode_typed([text], opened.tokenizer, add_special_tokens=True)
    context = opened.model.config.max_position_embeddings
    if len(prompt) >= context:
        raise ValueError(
            f"the text has {len(prompt):,} tokens, and the model's context of {context:,} has no room behind them: "
            "shorten it"
        )
    wanted = min(sampling.max_new_tokens or context, context - len(prompt))

    def work(on_text: Callable[[str], None]) -> AnswerStreamer:
        settings = text_settings(opened.tokenizer, opened.model.config.vocab_size)
        streamer = AnswerStreamer(opened.tokenizer, {*settings["eos_token_id"]}, on_text)
        with shelf.lock:
            if seed is not None:
                torch.manual_seed(seed)
            generate_answer(opened.model, prompt, sampling, streamer, {}, max_new_tokens=wanted, **settings)
        streamer.finish()
        return streamer

    return streamed(work, left)


def answer(
    shelf: Shelf,
    name: str,
    messages: Sequence[Message],
    text: str,
    system: str | None,
    sampling: Sampling,
    seed: int | None = None,
    left: threading.Event | None = None,
) -> Iterator[Any]:
    """The model's answer to `text` after `messages`, piece by piece; at the end the `Answer`, unless `left` is set.

    Raises:
        ValueError: as `ChatSession`.
    """
    text = typed(text)
    system = typed(system) if system and system.strip() else None
    opened = shelf.language_model(name)
    session = ChatSession(opened.model, opened.tokenizer, system, sampling)
    session.messages += messages

    def work(on_text: Callable[[str], None]) -> Answer:
        with shelf.lock:
            if seed is not None:
                torch.manual_seed(seed)
            return session.ask(text, on_text)

    return streamed(work, left)


def likely_next(shelf: Shelf, name: str, text: str, sampling: Sampling, show: int = 10) -> NextToken:
    """The likeliest next tokens, as the model has them and as the controls leave them.

    Raises:
        ValueError: as `next_token`.
    """
    opened = shelf.language_model(name)
    settings = {"top_k": sampling.top_k or None, "top_p": sampling.top_p, "min_p": sampling.min_p or None}
    with shelf.lock:
        plain = next_token(opened.model, opened.tokenizer, typed(text), show=show)
        if sampling.temperature == 0:
            drawn = [1.0] + [0.0] * (len(plain.ids) - 1)
        else:
            found = next_token(
                opened.model,
                opened.tokenizer,
                text,
                (sampling.temperature,),
                **settings,
                show=opened.model.config.vocab_size,
            )
            (values,) = found.probabilities.values()
            by_id = dict(zip(found.ids, values, strict=True))
            drawn = [by_id[each] for each in plain.ids]
    (own,) = plain.probabilities.values()
    return NextToken(plain.labels, plain.ids, {"the model": own, "with the controls": drawn})


def surprise_of(shelf: Shelf, name: str, text: str) -> Surprise:
    """How many bits each token of the text costs.

    Raises:
        ValueError: as `surprise`.
    """
    opened = shelf.language_model(name)
    with shelf.lock:
        return surprise(opened.model, opened.tokenizer, typed(text))


@dataclass(frozen=True)
class Word:
    """One as the tokenizer sees it before it cuts it, and what it cost."""

    text: str
    bits: float
    """The sum over its tokens: the model's surprise at the whole word."""
    tokens: list[tuple[str, float]]
    last: int
    """The position of its last token."""


def by_word(shelf: Shelf, name: str, text: str, found: Surprise) -> list[Word]:
    """The surprise of a text, its tokens put together to words. What nothing stands before costs 0 bits."""
    tokenizer = shelf.language_model(name).tokenizer
    encoding = tokenizer(text)
    bits, words = found.bits.nan_to_num(0).tolist(), []
    for _, group in groupby(
        enumerate(encoding.word_ids()), key=lambda each: -1 - each[0] if each[1] is None else each[1]
    ):
        positions = [position for position, _ in group]
        written = tokenizer.decode([encoding["input_ids"][each] for each in positions])
        pieces = [(found.labels[each], bits[each]) for each in positions]
        shown = visible(written.removeprefix(" ") or written)
        words.append(Word(shown, sum(cost for _, cost in pieces), pieces, positions[-1]))
    return words


def text_until(shelf: Shelf, name: str, text: str, position: int) -> str:
    """The text up to one of its tokens, with it.

    Raises:
        ValueError: for a token that there is not, or that ends within a character.
    """
    tokenizer = shelf.language_model(name).tokenizer
    (ids,) = encode_typed([text], tokenizer, add_special_tokens=True)
    if not 0 <= position < len(ids):
        raise ValueError(f"there is no token {position}: measure the text again")
    return _whole_characters(tokenizer.decode(ids[: position + 1], skip_special_tokens=True))


def with_token(shelf: Shelf, name: str, text: str, token: int) -> str:
    """The text and a token behind it.

    Raises:
        ValueError: for a token that there is not, that is none of text, or is a part of a character.
    """
    tokenizer = shelf.language_model(name).tokenizer
    if not 0 <= token < len(tokenizer) or token in tokenizer.all_special_ids:
        raise ValueError("this token is no text: it ends one, or stands between the parts of a chat")
    (ids,) = encode_typed([text], tokenizer)
    return _whole_characters(tokenizer.decode([*ids, token]))


def _whole_characters(text: str) -> str:
    if text.endswith(INCOMPLETE):
        raise ValueError("the token is a part of a character, and no text can end there")
    return text
