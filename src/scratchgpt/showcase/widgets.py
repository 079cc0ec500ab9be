"""What the page's tabs have in common: messages in place of tracebacks, a way to stop, the controls of sampling."""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from .drawing import CLICK, note

COMPUTES: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
"""Of every event that needs a model: these wait for each other."""


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a visitor gets wrong (ValueError), or a file that is gone (OSError), becomes a message in the page."""

    def message(error: Exception) -> gr.Error:
        return gr.Error(escape(str(error)), title="Not like this", print_exception=False)

    @functools.wraps(function)
    def once(*args: Any) -> Any:
        try:
            return function(*args)
        except (ValueError, OSError) as error:
            raise message(error) from None

    @functools.wraps(function)
    def piecewise(*args: Any) -> Iterator[Any]:
        try:
            yield from function(*args)
        except (ValueError, OSError) as error:
            raise message(error) from None

    return piecewise if inspect.isgeneratorfunction(function) else once


class Stops:
    """Who wants the text that is being written for them to end."""

    def __init__(self) -> None:
        self._events: dict[str | None, threading.Event] = {}

    def begin(self, request: gr.Request) -> None:
        self._events[request.session_hash] = threading.Event()

    def stop(self, request: gr.Request) -> None:
        """Also of who closed the page: nobody reads on."""
        if event := self._events.pop(request.session_hash, None):
            event.set()

    def of(self, request: gr.Request) -> threading.Event:
        """Set already where the visitor stopped or left before the queue came to them."""
        event = self._events.get(request.session_hash)
        if event is None:
            event = threading.Event()
            event.set()
        return event


def clickable(**options: Any) -> gr.HTML:
    """A place for HTML whose pieces with a `data-number` can be clicked."""
    return gr.HTML(js_on_load=CLICK, **options)


def number_in(event: gr.EventData) -> int:
    """Which piece was clicked. Raises ValueError where the browser did not say."""
    number = (event._data or {}).get("number") if isinstance(event._data, dict) else None
    if not isinstance(number, int):
        raise ValueError("nothing was chosen")
    return number


def sampling_controls(max_new_tokens: int) -> list[Any]:
    """In the order of `sampling_of`, and the seed."""
    with gr.Accordion("How the next token is chosen", open=False):
        with gr.Row():
            controls = [
                gr.Slider(1, 512, max_new_tokens, step=1, label="Tokens, at most"),
                gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", info="0: always the likeliest"),
            ]
        with gr.Row():
            controls += [
                gr.Slider(0, 200, 50, step=1, label="Top-k", info="only the k likeliest; 0: all"),
                gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", info="only the likeliest with this sum"),
            ]
        with gr.Row():
            controls += [
                gr.Slider(0, 0.95, 0, step=0.05, label="Min-p", info="at least this share of the likeliest"),
                gr.Slider(0.5, 2, 1, step=0.05, label="Repetition penalty", info="above 1: less repetition"),
            ]
        seed = gr.Number(None, label="Seed", info="the same text each time; empty: another one", precision=None)
    return [*controls, seed]


def choice(names: list[str], what: str) -> gr.Dropdown:
    return gr.Dropdown(names, value=names[0], label=what, filterable=False)


def missing(what: str) -> None:
    """In place of a tab's controls."""
    gr.HTML(note(f"There is no {what} among the folders that this page was started with."))
