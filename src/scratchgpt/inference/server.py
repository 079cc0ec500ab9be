"""A model over HTTP with the interface of OpenAI: chat completions, whole or streamed, and the list of models.

    POST /v1/chat/completions     GET /v1/models     GET /health

What a client gets wrong is answered with status 400 and a message, in OpenAI's form. A special token that a client
types is text, as everywhere (see `data.chat`), so that nobody can forge turns. Answers are made one at a time.
Needs the extra [serve].
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..data.chat import Message, render_chat
from ..data.passages import Passage, Passages
from .answer_settings import answer_settings
from .chat import AnswerStreamer, Sampling, check_text, generate_answer
from .decoding import compiled_decoding
from .streaming import streamed

NOT_OFFERED = {
    "n": (None, 1),
    "stop": (None, []),
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
}
"""Fields that would change an answer, with the values that leave it as it is; any other field is ignored."""


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def as_message(self) -> Message:
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(BaseModel, extra="allow"):
    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, strict=True)
    max_completion_tokens: int | None = Field(None, ge=1, strict=True)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, lt=2**32, strict=True)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


class ChatServer:
    """Answers requests with one model.

    Args:
        model: in evaluation mode. Its generation_config.json decides nothing here.
        tokenizer: the model's, with a chat template.
        name: what clients call it.
        compiled: compile the decoding step (see `compiled_decoding`).
        passages: the last message is asked by itself, behind the one of these that fits it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        compiled: bool = False,
        passages: Passages | None = None,
    ):
        self.model, self.tokenizer, self.name, self.passages = model, tokenizer, name, passages
        self.context: int = model.config.max_position_embeddings
        self.settings = answer_settings(tokenizer, model.config.vocab_size)
        model.generation_config = GenerationConfig()  # `generate` would fill in from it what a request leaves open
        self.decoding = compiled_decoding(model, self.context) if compiled else {}
        self.lock = threading.Lock()
        self.created = int(time.time())

    def prepare(self, request: ChatRequest) -> tuple[list[int], int, Sampling, Passage | None]:
        """The prompt's ids, how many tokens may follow, how they are chosen, and the passage in the prompt.

        Raises:
            ValueError: for what cannot be answered; the message is for the client.
        """
        for field, value in (request.model_extra or {}).items():
            if field in NOT_OFFERED and value not in NOT_OFFERED[field]:
                raise ValueError(f"{field} is not offered by this server: leave it out")
        messages = [message.as_message() for message in request.messages]
        for message in messages:
            check_text(message["content"])
        if messages[-1]["role"] != "user":
            raise ValueError("the last of messages must be the user's")
        passage = None
        if self.passages is not None:
            passage, prompted = self.passages.prompt(messages[-1]["content"])
            messages = [{"role": "user", "content": prompted}]
        prompt = render_chat(messages, self.tokenizer, add_generation_prompt=True).input_ids
        room = self.context - len(prompt)
        if room < 1:
            raise ValueError(
                f"the messages take {len(prompt)} tokens, and the model's context is {self.context}: shorten them"
            )
        wanted = request.max_completion_tokens or request.max_tokens or room
        if wanted > room:
            raise ValueError(
                f"max_tokens={wanted} and {len(prompt)} tokens of messages exceed the model's context of "
                f"{self.context} tokens: ask for {room} at most, or leave max_tokens out"
            )
        given: dict[str, Any] = {"temperature": request.temperature, "top_p": request.top_p}
        if passage is not None and request.temperature is None:
            given["temperature"] = 0.0
        sampling = Sampling(**{name: value for name, value in given.items() if value is not None})
        return prompt, wanted, sampling, passage

    def pieces(self, request: ChatRequest, prompt: list[int], wanted: int, sampling: Sampling) -> Iterator[Any]:
        """The answer piece by piece, as it is made in a thread; at the end its `AnswerStreamer`."""

        def work(on_text: Callable[[str], None]) -> AnswerStreamer:
            streamer = AnswerStreamer(self.tokenizer, {*self.settings["eos_token_id"]}, on_text)
            with self.lock:
                if request.seed is not None:
                    set_seed(request.seed)
                generate_answer(
                    self.model, prompt, sampling, streamer, self.decoding, max_new_tokens=wanted, **self.settings
                )
            streamer.finish()
            return streamer

        return streamed(work)

    def complete(self, request: ChatRequest) -> Response:
        """The HTTP answer to a request for a chat completion."""
        if request.model is not None and request.model != self.name:
            raise HTTPException(404, f"the model {request.model!r} is not served here, but {self.name!r}")
        try:
            prompt, wanted, sampling, passage = self.prepare(request)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        identity: dict[str, Any] = {
            "id": f"chatcmpl-{uuid4().hex}",
            "created": int(time.time()),
            "model": self.name,
        }
        if passage is not None:
            identity["passage"] = {"text": passage.text, "source": passage.source}
        pieces = self.pieces(request, prompt, wanted, sampling)
        if request.stream:
            with_usage = bool((request.stream_options or {}).get("include_usage"))
            return StreamingResponse(events(identity, pieces, len(prompt), with_usage), media_type="text/event-stream")
        *texts, end = pieces
        message = {"role": "assistant", "content": "".join(texts)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason(end)}
        usage = count(len(prompt), end)
        return JSONResponse({**identity, "object": "chat.completion", "choices": [choice], "usage": usage})


def reason(end: AnswerStreamer) -> str:
    return "stop" if end.ended else "length"


def count(prompt_tokens: int, end: AnswerStreamer) -> dict[str, int]:
    """OpenAI's usage. The token that ended the answer was made too."""
    made = len(end.ids) + end.ended
    return {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}


def events(identity: dict[str, Any], pieces: Iterator[Any], prompt_tokens: int, with_usage: bool) -> Iterator[str]:
    """Server-sent events in OpenAI's form. An error in the middle is an event too: the status was sent long ago."""

    def event(content: dict[str, Any]) -> str:
        return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**identity, "object": "chat.completion.chunk", "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    try:
        for piece in pieces:
            if isinstance(piece, str):
                yield chunk({"content": piece})
                continue
            yield chunk({}, reason(piece))
            if with_usage:
                usage = count(prompt_tokens, piece)
                yield event({**identity, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    except Exception as error:
        yield event(error_body(500, f"{type(error).__name__}: the answer could not be finished"))
    yield "data: [DONE]\n\n"


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = "model_not_found" if status == 404 else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def build_app(server: ChatServer) -> FastAPI:
    """The application, for any ASGI server."""
    app = FastAPI(title="scratchgpt", docs_url=None, redoc_url=None, openapi_url=None)
    card = {"id": server.name, "object": "model", "created": server.created, "owned_by": "scratchgpt"}

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse(error_body(400, f"{where or 'the body'}: {first['msg']}", where or None), 400)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse(error_body(error.status_code, error.detail), error.status_code)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, f"{type(error).__name__}: the answer could not be made"), 500)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.post("/v1/chat/completions")
    def chat_completions(request: ChatRequest) -> Response:
        return server.complete(request)

    return app
