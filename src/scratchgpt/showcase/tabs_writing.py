"""The tabs in which a model writes: a text with what was likely, and a chat."""

import contextlib
import time
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

import gradio as gr

from ..data.chat import Message
from ..data.passages import Passage, Passages
from . import writing
from .drawing import bars, legend, note, quotation, tokens
from .shelf import Shelf
from .widgets import COMPUTES, Stops, choice, clickable, missing, number_in, sampling_controls, told

PACE = 0.05
"""Seconds between two updates of the page, at least: the browser draws no faster, and each costs the model time."""

MOST_BITS = 12
"""Of a word that is coloured as strongly as can be."""


def paced(pieces: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    """The text so far, less often than the pieces come; at the end with what ended it, or None if it was stopped."""
    text, shown = "", 0.0
    with contextlib.closing(pieces):  # type: ignore[type-var]
        for piece in pieces:
            if not isinstance(piece, str):
                yield text, piece
                return
            text += piece
            if time.monotonic() - shown >= PACE:
                yield text, None
                shown = time.monotonic()
    yield text, None


def pieces_of(word: writing.Word) -> str:
    """What each token of a word cost; nothing of a word of one."""
    return ": " + ", ".join(f"{label} {bits:.1f}" for label, bits in word.tokens) if len(word.tokens) > 1 else ""


def write(shelf: Shelf, stops: Stops) -> None:
    """A text that the model goes on with, from any of its tokens."""

    @told
    def go_on(request: gr.Request, name: str, text: str, *controls: Any) -> Iterator[tuple[Any, str]]:
        sampling, seed = writing.sampling_of(*controls[:-1]), writing.seed_of(controls[-1])
        end = None
        written = writing.continue_text(shelf, name, text, sampling, seed, stops.of(request))
        for so_far, end in paced(written):  # noqa: B007 - the last one is looked at
            yield text + so_far, note("writing …")
        if end is None:
            yield gr.skip(), note("stopped")
        else:
            yield gr.skip(), note(f"{len(end.ids)} tokens, {'ended by itself' if end.ended else 'as many as wanted'}")

    def likely(name: str, text: str, controls: tuple[Any, ...]) -> str:
        found = writing.likely_next(shelf, name, text, writing.sampling_of(*controls[:-1]))
        own, drawn = found.probabilities.values()
        lines = [(label, pair) for label, pair in zip(found.labels, zip(own, drawn, strict=True), strict=True)]
        return legend("the model", "with the controls") + bars(lines, found.ids)

    @told
    def look(name: str, text: str, *controls: Any) -> str:
        return likely(name, text, controls)

    @told
    def look_again(name: str, text: str, *controls: Any) -> str:
        """While controls move; a text that is none is no mistake then."""
        return likely(name, text, controls) if (text or "").strip() else ""

    @told
    def take(event: gr.EventData, name: str, text: str, *controls: Any) -> tuple[str, str]:
        longer = writing.with_token(shelf, name, writing.typed(text), number_in(event))
        return longer, likely(name, longer, controls)

    @told
    def colour(name: str, text: str) -> str:
        found = writing.surprise_of(shelf, name, text)
        words = writing.by_word(shelf, name, text, found)
        titles = [f"{word.bits:.1f} bits{pieces_of(word)}" for word in words]
        ends = [word.last for word in words]
        coloured = tokens([word.text for word in words], [word.bits / MOST_BITS for word in words], titles, ends)
        said = f"{found.mean:.2f} bits per token. Darker words surprise more. Click one to go on behind it."
        return note(said) + coloured

    @told
    def go_back(event: gr.EventData, name: str, text: str, *controls: Any) -> tuple[str, str]:
        shorter = writing.text_until(shelf, name, writing.typed(text), number_in(event))
        return shorter, likely(name, shorter, controls)

    with gr.Tab("Write"):
        names = shelf.found.names("language model", "chat")
        if not names:
            return missing("language model")
        model = choice(names, "Model")
        text = gr.Textbox("The function", lines=6, max_lines=16, label="Text", info="The model goes on behind it.")
        with gr.Row():
            start = gr.Button("Write", variant="primary", min_width=130)
            end = gr.Button("Stop", min_width=130)
            next_button = gr.Button("What comes next?", min_width=130)
            surprise_button = gr.Button("What surprised?", min_width=130)
        said = gr.HTML()
        controls = sampling_controls(64)
        gr.Markdown("### The next token\nClick one to write it.")
        alternatives = clickable(elem_id="alternatives")
        gr.Markdown("### Surprise")
        coloured = clickable(elem_id="surprise")
    inputs = [model, text, *controls]
    start.click(stops.begin, queue=False).then(go_on, inputs, [text, said], **COMPUTES)
    end.click(stops.stop, queue=False)
    next_button.click(look, inputs, alternatives, **COMPUTES)
    for control in controls[1:-1]:
        control.change(
            look_again, inputs, alternatives, trigger_mode="always_last", show_progress="hidden", **COMPUTES
        )
    alternatives.click(take, inputs, [text, alternatives], **COMPUTES)
    surprise_button.click(colour, [model, text], coloured, **COMPUTES)
    coloured.click(go_back, inputs, [text, alternatives], **COMPUTES)
    return None


def plain(history: list[dict[str, Any]]) -> list[Message]:
    """What gradio's chat holds, as messages of text."""
    messages = []
    for each in history:
        content = each["content"]
        if not isinstance(content, str):
            content = "".join(part.get("text", "") for part in content)
        messages.append({"role": each["role"], "content": unescape(content)})
    return messages


def shown(messages: list[Message]) -> list[Message]:
    """As gradio's chat is to have them, which shows HTML, and would leave out what looks like it."""
    return [{"role": each["role"], "content": escape(each["content"], quote=False)} for each in messages]


def read_from(passage: Passage | None) -> str:
    """What the model was shown beside the question; nothing without it."""
    if passage is None:
        return ""
    return note(f"The model read this, from {Path(passage.source).name}:") + quotation(passage.text)


def chat(shelf: Shelf, stops: Stops, passages: Passages | None) -> None:
    """A conversation, or with passages questions that stand for themselves, each behind the one that fits it."""

    @told
    def ask(
        request: gr.Request,
        name: str,
        history: list[dict[str, Any]],
        text: str,
        system: str,
        from_passages: Any,
        *controls: Any,
    ) -> Iterator[tuple[Any, Any, str, Any]]:
        sampling, seed = writing.sampling_of(*controls[:-1]), writing.seed_of(controls[-1])
        before, stop = plain(history), stops.of(request)
        asked = [*before, {"role": "user", "content": text}]
        passage, seen, question = None, before, text
        if passages is not None and from_passages:
            passage, question = passages.prompt(writing.typed(text))
            seen = []
        so_far, end = "", None
        for so_far, end in paced(writing.answer(shelf, name, seen, question, system, sampling, seed, stop)):  # noqa: B007
            answered = shown([*asked, {"role": "assistant", "content": so_far}])
            yield answered, "", note("answering …"), read_from(passage)
        if end is None:  # stopped: what there is stays, and without it the question leaves too
            yield (
                (gr.skip(), "", note("stopped"), gr.skip())
                if so_far
                else (shown(before), text, note("stopped before the first word"), "")
            )
            return
        said = f"{end.num_tokens} tokens"
        said += ", as many as wanted" if end.ending == "length" else ", ended by itself"
        if end.num_dropped:
            said += f"; the oldest {end.num_dropped} messages have left the context"
        yield shown([*asked, {"role": "assistant", "content": end.text}]), "", note(said), read_from(passage)

    with gr.Tab("Chat"):
        names = shelf.found.names("chat", "language model")
        if not names:
            return missing("language model")
        model = choice(names, "Model")
        messages = gr.Chatbot(
            label="Chat",
            height=360,
            render_markdown=False,
            buttons=[],
            latex_delimiters=[],
            feedback_options=None,
            layout="bubble",
        )
        text = gr.Textbox(label="Message", placeholder="Ask something, and press Enter", lines=1, max_lines=6)
        with gr.Row():
            send = gr.Button("Send", variant="primary", min_width=90)
            end = gr.Button("Stop", min_width=90)
            clear = gr.Button("Forget", min_width=90)
        said = gr.HTML()
        passage = gr.HTML(elem_id="passage")
        there = passages is not None
        info = "Each question stands for itself, behind the passage that has most in common with it."
        from_passages = gr.Checkbox(there, label="Answer from the documents", info=info, visible=there)
        system = gr.Textbox(label="System message", info="What the model is told before; may be empty.", max_lines=4)
        controls = sampling_controls(64, temperature=0) if there else sampling_controls(128)
    inputs, outputs = [model, messages, text, system, from_passages, *controls], [messages, text, said, passage]
    gr.on([send.click, text.submit], stops.begin, queue=False).then(ask, inputs, outputs, **COMPUTES)
    end.click(stops.stop, queue=False)
    clear.click(lambda: ([], "", ""), None, [messages, said, passage], queue=False)
    return None
