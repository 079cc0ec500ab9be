"""The page, of gradio's components: what a visitor touches, and which function of this package answers.

Everything that computes waits in one queue, first come, first served; what a visitor gets wrong is a message in the
page. Needs the extra [showcase].
"""

import logging
from types import FrameType

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.themes import Default

from ..data.passages import Passages
from . import tabs_looking, tabs_writing
from .drawing import CSS
from .finding import Found
from .shelf import Shelf
from .training_runs import Read
from .widgets import Stops

MOST_WAITING = 64
"""Requests in the queue; more are refused with a message."""

THEME = Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
)
"""Without fonts from elsewhere, or any to load; notes dark enough to be read."""


def build_page(found: Found, shelf: Shelf, read: Read, passages: Passages | None = None) -> gr.Blocks:
    """
    Args:
        read: lines of a metrics.jsonl.
        passages: of documents that the chat answers from.
    """
    stops = Stops()
    with gr.Blocks(title="scratchgpt", analytics_enabled=False, fill_width=False) as page:
        gr.Markdown("# scratchgpt\nModels that were trained from scratch, to try and to look into.")
        with gr.Tabs():
            tabs_writing.write(shelf, stops)
            tabs_writing.chat(shelf, stops, passages)
            tabs_looking.classify(shelf)
            tabs_looking.tokenizers(shelf)
            tabs_looking.attention(shelf)
            tabs_looking.runs(found, read)
            tabs_looking.evaluation(found)
        page.unload(stops.stop)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=8)
    return page


class Server(uvicorn.Server):
    """Ends when it is told to: a page keeps a connection open for as long as it is shown, so waiting is of no use."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        logging.getLogger("uvicorn.error").disabled = True  # a connection that is cut off is no error then
        self.force_exit = True
        super().handle_exit(sig, frame)


def server_of(page: gr.Blocks) -> Server:
    """With all that takes time done; `run([socket])` answers on one that is listened on."""
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        theme=THEME,
        css=CSS,
    )
    return Server(uvicorn.Config(app, log_level="warning"))
