"""A server that speaks as OpenAI's chat completions do, or fails as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def server(script: Callable[[int, dict], tuple[int, Any]]) -> Iterator[tuple[str, list[dict], list[str]]]:
    """An endpoint whose n-th request gets what the script says: (status, body); a status of 0 hangs up; with 429
    comes that a second later is soon enough.

    Gives the address, the requests, and the keys that came with them.
    """
    requests: list[dict] = []
    keys: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                requests.append(body)
                keys.append(str(self.headers["Authorization"]))
                status, answer = script(len(requests), body)
            if status == 0:
                self.connection.close()
                return
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}/v1", requests, keys
    finally:
        served.shutdown()
        served.server_close()


def said(text: Any) -> tuple[int, dict]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return 200, {"id": "1", "model": "m", "created": 1, "object": "chat.completion", "choices": [choice]}
