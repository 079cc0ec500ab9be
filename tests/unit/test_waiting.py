"""What answers before the page is there, and that whoever comes in between is answered too."""

import re
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from scratchgpt.showcase.waiting import address, answering, listen
from tests.runs import ROOT


class Real(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the page")

    def log_message(self, format: str, *args: object) -> None:
        pass


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_one_socket_from_the_waiting_page_to_the_real_one() -> None:
    listening = listen("127.0.0.1", 0)
    url = address("127.0.0.1", listening.getsockname()[1])
    with answering(listening):
        status, page = get(f"{url}/any/where")
        assert status == 503
        assert "It opens by itself" in page
        assert not re.search(r"(src|href)=|https?://", page)  # nothing to fetch
    found: list[tuple[int, str]] = []
    early = threading.Thread(target=lambda: found.append(get(url)))  # nobody answers now, and nobody refuses
    early.start()
    early.join(0.3)
    assert found == []
    with HTTPServer(listening.getsockname(), Real, bind_and_activate=False) as real:
        real.socket.close()
        real.socket = listening
        real.handle_request()
        early.join(20)
    assert found == [(200, "the page")]


def test_an_error_while_loading_ends_the_waiting_page() -> None:
    listening = listen("127.0.0.1", 0)
    with pytest.raises(ValueError, match="cannot be loaded"), answering(listening):
        raise ValueError("cannot be loaded")
    listening.close()


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1:{port} cannot be listened on: give another --port or --host"):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="cannot be listened on"):
        listen("203.0.113.1", 0)  # of no machine (RFC 5737)


@pytest.mark.parametrize(
    ("host", "said"), [("0.0.0.0", "localhost"), ("::", "localhost"), ("::1", "[::1]"), ("10.0.0.1", "10.0.0.1")]
)
def test_addresses(host: str, said: str) -> None:
    assert address(host, 7) == f"http://{said}:7"


def test_both_families_of_addresses() -> None:
    try:
        listening = listen("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with listening, answering(listening):
        assert listening.family == socket.AF_INET6
        assert get(address("::1", listening.getsockname()[1]))[0] == 503


def run(folder: Path, program: str) -> str:
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT / 'src')!r}]\n{program}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "__init__.py").write_text("print('heavy')\nfrom .light import NAME\nVERSION = 1\n")
    (tmp_path / "heavy" / "light.py").write_text("print('light')\nNAME = 'a'\n")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("from heavy.light import NAME\nprint(NAME)", "light a"),
        ("import heavy.light\ncomplete('heavy')\nprint(heavy.VERSION)\ncomplete('heavy')", "light heavy 1"),
        ("from heavy.light import NAME\nfrom heavy import VERSION\nprint(VERSION)", "light heavy 1"),
        ("import heavy\nprint(hasattr(heavy, 'nothing'))", "heavy light False"),
    ],
)
def test_a_package_is_completed_when_it_is_needed(package: Path, program: str, printed: str) -> None:
    assert run(package, f"from scratchgpt_cli.light import *\npostpone('heavy')\n{program}").split() == printed.split()


def test_what_has_been_imported_is_left_alone(package: Path) -> None:
    program = "import heavy\nfrom scratchgpt_cli.light import *\npostpone('heavy')\ncomplete('heavy')"
    assert run(package, program).split() == ["heavy", "light"]


def test_what_is_checked_first_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "from scratchgpt_cli.light import *\npostpone('scratchgpt')\n"
        "import scratchgpt.arguments, scratchgpt.data.text, scratchgpt.showcase.finding, scratchgpt.showcase.waiting\n"
        "print('torch' in sys.modules)\n"
        "from scratchgpt import ScratchGPTConfig\nfrom transformers import AutoConfig\n"
        "print(type(AutoConfig.for_model('scratchgpt')) is ScratchGPTConfig)"
    )
    assert run(tmp_path, program).split() == ["False", "True"]
