"""A judge behind an OpenAI-compatible address (vLLM, llama.cpp, Ollama, a provider), through huggingface_hub's client.

Whatever may pass (too many requests, an error of the server, no connection, no answer in time, an answer that is no
chat completion) is tried again, each time after twice as long. What will not get better (an unknown model, a key that
is not accepted) ends at once.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

KEY_VARIABLE = "JUDGE_API_KEY"

PASSING = (408, 409, 425, 429)
"""Refusals of the 4xx kind that may be over soon."""

LONGEST_WAIT = 60.0


class EndpointJudge:
    """
    Args:
        url: up to and with `/v1`. The key is read from the environment variable JUDGE_API_KEY; it is sent, and never
            stored or printed. Without one, no key of the Hub that is stored on this machine is sent either.
        parallel: requests at the same time.
        attempts: for each request.
        wait: seconds before the second attempt, unless the server says how many.
        timeout: seconds for an answer.

    Raises:
        ValueError: for something else than an address.
    """

    def __init__(
        self,
        url: str,
        model: str,
        max_new_tokens: int = 16,
        parallel: int = 4,
        attempts: int = 6,
        wait: float = 1.0,
        timeout: float = 120.0,
    ) -> None:
        no_address = f"--judge {url} is no address: give one like http://localhost:8000/v1"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:  # a port that is no number, brackets without an end
            raise ValueError(no_address) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(no_address)
        self.model, self.max_new_tokens = model, max_new_tokens
        self.parallel, self.attempts, self.wait = parallel, attempts, wait
        # Without a name and a password, which are nobody's business.
        self.address = f"{parts.hostname}{f':{port}' if port else ''}{parts.path}"
        key = os.environ.get(KEY_VARIABLE)
        self.secrets = [secret for secret in (key, parts.password, parts.username) if secret]
        self.client = InferenceClient(base_url=url, api_key=key or "none", timeout=timeout)

    def identity(self) -> dict[str, Any]:
        return {"name": self.model, "url": self.address, "max_new_tokens": self.max_new_tokens, "temperature": 0}

    def replies(self, prompts: Sequence[str]) -> Iterator[Mapping[int, str | None]]:
        """Raises ValueError where a request fails for good; what was replied before has been handed out."""
        stop = threading.Event()
        with ThreadPoolExecutor(self.parallel) as threads:
            waiting = {threads.submit(self._reply, prompt, stop): i for i, prompt in enumerate(prompts)}
            try:
                for done in as_completed(waiting):
                    if (reply := done.result()) is not None:
                        yield {waiting[done]: reply}
            finally:
                stop.set()
                threads.shutdown(wait=True, cancel_futures=True)

    def _reply(self, prompt: str, stop: threading.Event) -> str | None:
        """None where it is too late: another request failed for good."""
        failure = ""
        for attempt in range(self.attempts):
            if stop.is_set():
                return None
            pause = min(LONGEST_WAIT, self.wait * 2**attempt)
            try:
                completion = self.client.chat_completion(
                    [{"role": "user", "content": prompt}],
                    model=self.model, max_tokens=self.max_new_tokens, temperature=0.0,
                )  # fmt: skip
                # Of a type in name only: the client takes whatever the server sends.
                reply: Any = completion.choices[0].message.content
                if isinstance(reply, str | None):
                    return reply or ""
                failure = f"a reply that is no text: {reply!r}"
            except HfHubHTTPError as error:
                failure, status = str(error), error.response.status_code
                if 400 <= status < 500 and status not in PASSING:
                    break
                seconds = error.response.headers.get("retry-after", "")
                pause = min(LONGEST_WAIT, float(seconds)) if seconds.isdecimal() else pause
            except OfflineModeIsEnabled:
                failure = "the client of the Hub asks nobody, not even this machine, while HF_HUB_OFFLINE is set"
                break
            except Exception as error:  # whatever the network, the client's parser or a strange answer leads to
                failure = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.attempts:
                stop.wait(pause)
        stop.set()
        for secret in self.secrets:
            failure = failure.replace(secret, "***")
        raise ValueError(
            f"the judge {self.model} at {self.address} does not reply ({' '.join(failure.split())[:200]}): run this "
            f"again to go on, what was judged is kept; the key is read from {KEY_VARIABLE}"
        )
