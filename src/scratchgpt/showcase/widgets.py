"""What the page's tabs have in common: messages in place of tracebacks, a way to stop, the controls of sampling."""

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any

import gradio as gr

from .drawing import CLICK, note
from .writing import LIMITS

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


def trusting(component: Any) -> Any:
    """Without gradio's check of what the browser sends, whose message comes with a traceback in the log: the functions
    of this package check it. (A subclass would make gradio write a file beside this one.)"""
    component.preprocess = lambda payload: payload
    return component


def chosen_of(names: Any, among: Iterable[str], what: str) -> list[str]:
    """Of a group of boxes. Raises ValueError where none is chosen, or one that there is not."""
    known = list(among)
    if not isinstance(names, list) or not names or any(name not in known for name in names):
        raise ValueError(f"choose a {what}")
    return names


def sampling_controls(max_new_tokens: int, temperature: float = 0.7) -> list[Any]:
    """In the order of `sampling_of`, and the seed."""
    words = {
        "max_new_tokens": ("Tokens, at most", "as far as the context goes", max_new_tokens),
        "temperature": ("Temperature", "0: always the likeliest", temperature),
        "top_k": ("Top-k", "only the k likeliest; 0: all", 50),
        "top_p": ("Top-p", "only the likeliest with this sum", 1),
        "min_p": ("Min-p", "at least this share of the likeliest", 0),
        "repetition_penalty": ("Repetition penalty", "above 1: less repetition", 1),
    }
    controls: list[Any] = []
    with gr.Accordion("How the next token is chosen", open=False):
        for pair in (list(words)[each : each + 2] for each in range(0, len(words), 2)):
            with gr.Row():
                for name in pair:
                    (low, high, step), (label, info, value) = LIMITS[name], words[name]
                    controls.append(trusting(gr.Slider(low, high, value, step=step, label=label, info=info)))
        info = "a number: the same text each time; empty: another one"
        controls.append(gr.Textbox("", label="Seed", info=info, max_lines=1))
    return controls


def choice(names: list[str], what: str) -> Any:
    return trusting(gr.Dropdown(names, value=names[0], label=what, filterable=False))


def choices(names: list[str], chosen: list[str], what: str, info: str | None = None) -> Any:
    return trusting(gr.CheckboxGroup(names, value=chosen, label=what, info=info))


def missing(what: str) -> None:
    """In place of a tab's controls."""
    gr.HTML(note(f"There is no {what} among the folders that this page was started with."))
