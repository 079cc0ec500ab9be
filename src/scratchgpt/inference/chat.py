"""A conversation with a model: history that fits the context, answers that arrive piece by piece.

    session = ChatSession(model, tokenizer, system="Be brief.", sampling=Sampling(temperature=0))
    answer = session.ask("What is a list?", on_text=lambda piece: print(piece, end="", flush=True))

An answer is what stands behind the prompt, counted in tokens, up to the first special token; so it holds neither the
prompt nor a role token. A token of a byte-level vocabulary may be part of a character: text is passed on when its
characters are whole.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from ..data.chat import Message, render_chat
from .answer_settings import answer_settings
from .decoding import compiled_decoding

INCOMPLETE = "\ufffd"
"""What decoding gives for bytes that are not, or not yet, a character."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the names are those of `GenerationConfig`."""

    max_new_tokens: int | None = None
    """Tokens of an answer, at most; the context keeps so many free for it. Default: half of it, up to 256."""
    temperature: float = 0.7
    """0 takes the likeliest token."""
    top_k: int = 50
    """Only the k likeliest; 0: all."""
    top_p: float = 1.0
    """Only the likeliest that together have this probability."""
    min_p: float = 0.0
    """Only those with this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that occurred become less likely (Keskar et al. 2019)."""

    def __post_init__(self) -> None:
        for name, ok, wanted in (
            ("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens > 0, "above 0"),
            ("temperature", self.temperature >= 0, "0 or above"),
            ("top_k", self.top_k >= 0, "0 or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", 0 <= self.min_p < 1, "0 or above, below 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
        ):
            if not ok:
                raise ValueError(f"{name}={getattr(self, name)}: it has to be {wanted}")

    def generation_config(self, **kwargs: Any) -> GenerationConfig:
        """For `generate`; sampling options only where there is sampling."""
        if self.temperature > 0:
            kwargs |= {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return GenerationConfig(
            do_sample=self.temperature > 0,
            num_beams=1,  # whatever the model's generation_config.json says
            num_return_sequences=1,
            repetition_penalty=self.repetition_penalty,
            **kwargs,
        )


@dataclass(frozen=True)
class Answer:
    """What came of a question."""

    text: str
    num_tokens: int
    """Without the token that ended it."""
    ending: Literal["stopped", "length", "interrupted"]
    """By itself, at `max_new_tokens`, or by Ctrl-C."""
    num_dropped: int
    """Messages that left the history to make room, the oldest ones."""


class ChatSession:
    """A conversation; `messages` is what the model will see of it.

    Args:
        model: in evaluation mode.
        tokenizer: the model's, with a chat template.
        system: a system message, which never leaves the history.
        sampling: how answers are chosen.
        compiled: compile the decoding step (see `compiled_decoding`); the first answer waits for it.

    Raises:
        ValueError: for a tokenizer whose chat template is missing or has no token that ends an answer, and for
            `max_new_tokens` that fill the context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        system: str | None = None,
        sampling: Sampling | None = None,
        compiled: bool = False,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.sampling = sampling or Sampling()
        self.context: int = model.config.max_position_embeddings
        self.max_new_tokens = self.sampling.max_new_tokens or min(256, self.context // 2)
        if self.max_new_tokens >= self.context:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} leaves no room for a question in the model's context of "
                f"{self.context} tokens: {self.context // 2} would be half of it"
            )
        self.settings = answer_settings(tokenizer, model.config.vocab_size)
        self.system: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages: list[Message] = [*self.system]
        self._decoding = compiled_decoding(model, self.context) if compiled else {}

    def reset(self) -> None:
        """Forgets everything but the system message."""
        self.messages = [*self.system]

    def save(self, file: str | os.PathLike[str]) -> None:
        """Appends the conversation to a JSON lines file of schema {"messages"}, which the recipes can train on."""
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")

    def ask(self, text: str, on_text: Callable[[str], None] = lambda piece: None) -> Answer:
        """The model's answer to `text`; both are added to the history.

        Ctrl-C ends the answer; the part that was made stays in the history. If nothing was made yet, the question
        leaves the history too.

        Args:
            on_text: gets the answer piece by piece, as it is made.

        Raises:
            ValueError: for a message that is empty or does not fit the context; the history is then as before.
        """
        check_text(text)
        kept, prompt = self._fit([*self.messages, {"role": "user", "content": text}])
        num_dropped = len(self.messages) + 1 - len(kept)
        streamer = AnswerStreamer(self.tokenizer, {*self.settings["eos_token_id"]}, on_text)
        interrupted = False
        try:
            generate_answer(
                self.model,
                prompt,
                self.sampling,
                streamer,
                self._decoding,
                max_new_tokens=self.max_new_tokens,
                **self.settings,
            )
        except KeyboardInterrupt:
            interrupted = True
        answer = streamer.finish()
        self.messages = kept if answer or not interrupted else kept[:-1]
        if answer or not interrupted:
            self.messages.append({"role": "assistant", "content": answer})
        ending = "interrupted" if interrupted else "stopped" if streamer.ended else "length"
        return Answer(answer, len(streamer.ids), ending, num_dropped)

    def _fit(self, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """The newest of `messages` that leave room for an answer, behind the system message; and the prompt's ids."""
        room = self.context - self.max_new_tokens
        rest = messages[len(self.system) :]
        while True:
            prompt = render_chat([*self.system, *rest], self.tokenizer, add_generation_prompt=True).input_ids
            if len(prompt) <= room:
                return [*self.system, *rest], prompt
            if len(rest) == 1:
                raise ValueError(
                    f"the message{' with the system message' if self.system else ''} takes {len(prompt)} tokens, and "
                    f"the context of {self.context} has room for {room} beside an answer of {self.max_new_tokens}: "
                    "shorten it, or lower max_new_tokens"
                )
            rest = rest[2:]  # a question and its answer


def check_text(text: str) -> None:
    """Raises ValueError for a message without text, or with half a character (a lone surrogate)."""
    if not text.strip():
        raise ValueError("the message is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the message is no valid text: {error.reason} at character {error.start}") from error


def generate_answer(
    model: PreTrainedModel,
    prompt: list[int],
    sampling: Sampling,
    streamer: BaseStreamer,
    decoding: Mapping[str, Any],
    **settings: Any,
) -> None:
    """`generate` for one prompt; what comes of it goes to `streamer`.

    Args:
        decoding: of `compiled_decoding`, or empty.
        settings: fields of `GenerationConfig`, such as those of `answer_settings`.
    """
    ids = torch.tensor([prompt], device=model.device)
    keywords = dict(decoding)
    settings["compile_config"] = keywords.pop("compile_config", None)
    generate: Any = model.generate
    generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=sampling.generation_config(**settings),
        streamer=streamer,
        **keywords,
    )


class AnswerStreamer(BaseStreamer):
    """Takes tokens from `generate`, leaves out the prompt and the end, and passes on whole characters.

    Args:
        end_ids: tokens that end an answer.
        on_text: gets the pieces; an empty one for a token that completes no character, so that it can raise then too.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: set[int], on_text: Callable[[str], None]):
        self.tokenizer, self.end_ids, self.on_text = tokenizer, end_ids, on_text
        self.ids: list[int] = []
        self.ended = False
        self._saw_prompt = False
        self._shown = 0  # characters that were passed on

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate`: with the prompt [1, T] first, then with one token [1] at a time."""
        if not self._saw_prompt:
            self._saw_prompt = True
            return
        token = int(value)
        self.ended = self.ended or token in self.end_ids
        if not self.ended:
            self.ids.append(token)
            self._show()

    def end(self) -> None:
        """Called by `generate` after the last token."""

    def finish(self) -> str:
        """The answer; bytes at its end that are no character are left out."""
        self._show()
        return self._text()

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids)).rstrip(INCOMPLETE)

    def _show(self) -> None:
        text, shown = self._text(), self._shown
        self._shown = max(len(text), shown)  # first: Ctrl-C may come while the piece is printed
        self.on_text(text[shown:])
