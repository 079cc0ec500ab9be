"""data_builders/pdf/download.py against a server on the loopback interface that fails in every way."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_builders.pdf.download import Downloader, file_name

PDF = b"%PDF-1.5\n" + bytes(range(256)) * 2000 + b"\n%%EOF\n"
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def send(self, status: int = 200, body: bytes = b"", cut: int | None = None, **headers: str) -> None:
        """`cut`: bytes after which the connection breaks."""
        self.send_response(status)
        for name, value in ({"Content_Type": "application/pdf", "Content_Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None or not headers.get("Content_Length", "x"):
            self.close_connection = True

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.asked.append((self.path, dict(self.headers), time.monotonic()))
        answers = server.answers[self.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str], float]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def downloader(pauses: list[float]) -> Downloader:
    return Downloader(sleep=pauses.append, seconds_between=0, timeout=1, attempts=4, max_bytes=10**6)


def whole(handler: Handler) -> None:
    handler.send(body=PDF)


def resumable(handler: Handler) -> None:
    """As a server that knows ranges, and breaks off after 100,000 bytes each time."""
    tag, wanted = '"version 1"', handler.headers.get("Range")
    if wanted and handler.headers.get("If-Range") == tag:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        part = PDF[start:]
        handler.send(206, part, 200_000, Content_Range=f"bytes {start}-{len(PDF) - 1}/{len(PDF)}", ETag=tag)
    else:
        handler.send(200, PDF, 200_000, ETag=tag)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.send(code, b"", **headers)


def fetch(server: Server, downloader: Downloader, folder: Path, *answers: Answer) -> tuple[str, Path]:
    server.answers["/a.pdf"] = list(answers)
    file = folder / "a.pdf"
    return downloader.get(server.url("/a.pdf"), file), file


def test_a_file_is_downloaded_once(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    assert fetch(server, downloader, tmp_path, whole) == ("", tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == PDF
    assert fetch(server, downloader, tmp_path, whole)[0] == ""
    assert len(server.asked) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pdf"]


def test_it_goes_on_where_it_broke_off(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    reason, file = fetch(server, downloader, tmp_path, resumable)
    assert reason == ""
    assert file.read_bytes() == PDF
    assert [headers.get("Range") for _, headers, _ in server.asked] == [None, "bytes=200000-", "bytes=400000-"]


def test_a_part_of_another_version_is_not_gone_on_with(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    (tmp_path / "a.pdf.part").write_bytes(b"%PDF-old" + b"x" * 1000)
    (tmp_path / "a.pdf.part.version").write_text('"version 0"')
    reason, file = fetch(server, downloader, tmp_path, resumable)
    assert reason == ""
    assert file.read_bytes() == PDF


def test_a_part_without_a_version_is_begun_again(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    (tmp_path / "a.pdf.part").write_bytes(b"%PDF-old" + b"x" * 1000)
    assert fetch(server, downloader, tmp_path, whole)[1].read_bytes() == PDF
    assert "Range" not in server.asked[0][1]


def test_a_part_that_the_server_does_not_know(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    (tmp_path / "a.pdf.part").write_bytes(b"%PDF-old" + b"x" * 1000)
    (tmp_path / "a.pdf.part.version").write_text('"version 0"')
    assert fetch(server, downloader, tmp_path, status(416), whole)[1].read_bytes() == PDF


def test_what_fails_for_the_moment_is_tried_again(
    server: Server, downloader: Downloader, tmp_path: Path, pauses: list[float]
) -> None:
    reason, file = fetch(server, downloader, tmp_path, status(503), status(429, Retry_After="7"), status(500), whole)
    assert reason == ""
    assert file.read_bytes() == PDF
    assert pauses == [2.0, 7.0, 8.0]


def test_it_gives_up(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    assert fetch(server, downloader, tmp_path, status(503))[0] == "given up after 4 tries: status 503"
    assert len(server.asked) == 4


def test_a_server_that_says_nothing(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    downloader.timeout, downloader.attempts = 0.2, 2
    reason, file = fetch(server, downloader, tmp_path, lambda _: time.sleep(1))
    assert reason.startswith("given up after 2 tries")
    assert not file.exists()


def test_a_server_that_is_slow_without_end(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/pdf")
        handler.send_header("Content-Length", "900000")
        handler.end_headers()
        try:
            handler.wfile.write(b"%PDF-1.5\n")
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass

    downloader.deadline, downloader.attempts = 0.3, 1
    assert "not complete after 0.3 seconds" in fetch(server, downloader, tmp_path, drip)[0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_what_will_not_change_is_not_tried_again(
    server: Server, downloader: Downloader, tmp_path: Path, code: int
) -> None:
    assert fetch(server, downloader, tmp_path, status(code))[0] == f"refused: status {code}"
    assert len(server.asked) == 1


def test_other_types_are_refused(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    html: Answer = lambda handler: handler.send(body=b"<html>", Content_Type="text/html; charset=utf-8")  # noqa: E731
    assert fetch(server, downloader, tmp_path, html)[0] == "refused: the server sent text/html, not a PDF"
    disguised: Answer = lambda handler: handler.send(body=b"<html><body>" * 99)  # noqa: E731
    assert fetch(server, downloader, tmp_path, disguised)[0] == "refused: what came is not a PDF"
    cut: Answer = lambda handler: handler.send(body=PDF[:5000])  # noqa: E731
    assert fetch(server, downloader, tmp_path, cut)[0] == "refused: truncated: the end of the file is missing"
    assert list(tmp_path.iterdir()) == []


def test_too_large_is_refused_before_it_is_loaded(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    def huge(handler: Handler) -> None:
        handler.send(body=b"%PDF-1.5", cut=8, Content_Length=str(3 * 2**30))

    assert fetch(server, downloader, tmp_path, huge)[0] == "refused: 3,221,225,472 bytes, more than 1,000,000"

    def unannounced(handler: Handler) -> None:
        handler.send(body=b"%PDF-1.5" + b"x" * 2_000_000, Content_Length="")

    assert fetch(server, downloader, tmp_path, unannounced)[0] == "refused: more than 1,000,000 bytes"
    assert list(tmp_path.iterdir()) == []


def test_redirects_stay_on_their_host_and_end(server: Server, downloader: Downloader, tmp_path: Path) -> None:
    server.answers["/b"] = [whole]
    assert fetch(server, downloader, tmp_path, status(301, Location="/b"))[0] == ""
    (tmp_path / "a.pdf").unlink()
    there = status(302, Location="http://localhost:1/a.pdf")
    assert fetch(server, downloader, tmp_path, there)[0] == "refused: redirected to another host: localhost"
    assert fetch(server, downloader, tmp_path, status(302, Location="/a.pdf"))[0] == "refused: redirected in a circle"
    server.answers |= {f"/{n}": [status(302, Location=f"/{n + 1}")] for n in range(20)}
    assert fetch(server, downloader, tmp_path, status(302, Location="/0"))[0] == "refused: more than 5 redirects"
    file = status(302, Location="file:///etc/passwd")
    assert fetch(server, downloader, tmp_path, file)[0].startswith("refused: redirected to another host")


def test_requests_are_apart(server: Server, pauses: list[float], tmp_path: Path) -> None:
    downloader = Downloader(seconds_between=3, sleep=pauses.append)
    server.answers |= {f"/{n}.pdf": [whole] for n in range(3)}
    for number in range(3):
        downloader.get(server.url(f"/{number}.pdf"), tmp_path / f"{number}.pdf")
    assert len(pauses) == 2
    assert all(2.5 < pause <= 3 for pause in pauses)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/a.pdf", "a.pdf", "http:///a.pdf"])
def test_what_is_no_link(downloader: Downloader, tmp_path: Path, url: str) -> None:
    assert downloader.get(url, tmp_path / "a.pdf").startswith("not a link")


def test_names() -> None:
    assert file_name("", "https://example.org/pdf/2005.14165.pdf") == "2005.14165.pdf"
    assert file_name("", "https://example.org/pdf/2005.14165") == "2005.14165.pdf"
    assert file_name("", "https://example.org/a.pdf?version=../../x") == "a.pdf"
    for bad in ("/../../a.pdf", "/", "/..", "/.hidden.pdf", "/a%2f..%2fb.pdf", "/a b.pdf", "/" + "x" * 300):
        with pytest.raises(ValueError, match="plain file name"):
            file_name("A report", f"https://example.org{bad}")
