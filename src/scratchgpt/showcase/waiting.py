"""What the page's address answers until the page is there: that it is being loaded. Of the standard library alone.

The port is listened on once, from the start, and handed over as it is: a browser that comes in between waits for a
moment, and none is refused.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>scratchgpt</title>
<style>
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { max-width: 36rem; margin: 20vh auto; padding: 0 1rem; line-height: 1.5; }
progress { width: 100%; accent-color: #f97316; }
</style>
<noscript><meta http-equiv="refresh" content="2"></noscript>
</head>
<body>
<h1>scratchgpt</h1>
<p>PyTorch and the page are being loaded. It opens by itself.</p>
<progress aria-label="loading"></progress>
<script>
async function look() {
  const answer = await fetch(location, {cache: 'no-store'}).catch(() => null);
  if (answer && answer.status !== 503) location.reload();
  else setTimeout(look, 300);
}
setTimeout(look, 300);
</script>
</body>
</html>
"""


class _Answer(BaseHTTPRequestHandler):
    """503, the status of what will be there soon, with the page."""

    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(HTTPStatus.SERVICE_UNAVAILABLE)
        headers = {"Content-Type": "text/html; charset=utf-8", "Retry-After": "2", "Cache-Control": "no-store"}
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Visitors are not logged."""


def listen(host: str, port: int) -> socket.socket:
    """
    Raises:
        ValueError: for a port or an address that cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ValueError(f"{host}:{port} cannot be listened on: give another --port or --host") from error


def address(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    name = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


@contextmanager
def answering(listening: socket.socket) -> Iterator[None]:
    """Meanwhile whoever asks gets `PAGE`; the socket stays open."""
    server = ThreadingHTTPServer(listening.getsockname()[:2], _Answer, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
