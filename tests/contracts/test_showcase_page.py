"""The page itself: its events over HTTP, and in a browser every tab, without a network and without a traceback."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipes import showcase
from tests.runs import ROOT
from tests.unit.test_showcase import make_runs
from tests.unit.test_waiting import get

CONTROLS = [16, 0.0, 50, 1, 0, 1, ""]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEXT = "The quick brown fox"

with_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra [showcase] is missing")
in_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="playwright or chromium is missing"
)


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="the extra [showcase] is there")
def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs")
    with pytest.raises(ValueError, match=re.escape('needs the extra [showcase]: pip install "scratchgpt[showcase]"')):
        showcase.main([str(runs)])


class Served:
    """The recipe in a process of its own, as a person starts it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", folder / "log"
        command = [sys.executable, str(ROOT / "recipes" / "showcase.py"), str(make_runs(folder / "runs"))]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        self.wait_for(f"{self.url} says when the page is there")
        self.first_answer = get(self.url)
        self.wait_for("showing")

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + 240
        while line not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.1)

    def client(self) -> Any:
        from gradio_client import Client

        return Client(self.url, verbose=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(60) == 130
    assert "Traceback" not in served.log.read_text()


@pytest.fixture
def quiet_log(served: Served) -> Iterator[None]:
    """Whatever a visitor does, the log holds no traceback."""
    yield
    assert "Traceback" not in served.log.read_text()


def start(client: Any, name: str = "base", tokens: int = 16, temperature: float = 0.7, seed: str = "1") -> Any:
    client.predict(api_name="/begin")
    return client.submit(name, TEXT, tokens, temperature, 0, 1, 0, 1, seed, api_name="/go_on")


def text_of(job: Any) -> str:
    job.result(timeout=120)
    return job.outputs()[-2][0]


@with_gradio
def test_the_address_answers_before_the_page_is_there(served: Served) -> None:
    """Without torch: what is loaded since then takes several times as long."""
    assert served.first_answer[0] == 503
    assert "It opens by itself" in served.first_answer[1]
    status, page = get(served.url)
    assert status == 200
    assert "gradio" in page


@with_gradio
@pytest.mark.usefixtures("quiet_log")
def test_twenty_visitors_at_once_read_what_each_would_alone(served: Served) -> None:
    client = served.client()
    alone = {name: text_of(start(client, name)) for name in ("base", "other")}
    found: list[tuple[str, str]] = []

    def visit(name: str) -> None:
        found.append((name, text_of(start(served.client(), name))))

    visitors = [threading.Thread(target=visit, args=(["base", "other"][number % 2],)) for number in range(20)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert sorted(found) == sorted([*alone.items()] * 10)
    assert alone["base"] != alone["other"]


@with_gradio
@pytest.mark.usefixtures("quiet_log")
def test_who_stops_makes_room_for_the_next(served: Served) -> None:
    one, other = served.client(), served.client()
    long = start(one, tokens=512, temperature=0.0)  # none of which ends the text, or is a whole character
    time.sleep(0.3)
    one.predict(api_name="/stop")
    assert "stopped" in long.result(timeout=30)[1]
    assert text_of(start(other, tokens=1)).startswith(TEXT)


MISTAKES = [
    ("/look", ["base", "", *CONTROLS], "there is no text"),
    ("/look", ["base", "a" * 100_000, *CONTROLS], "at most 20,000"),
    ("/look", ["nobody", TEXT, *CONTROLS], "choose a language model"),
    ("/look", ["base", TEXT, 0, *CONTROLS[1:]], "max_new_tokens: give a number from 1 to 512"),
    ("/look", ["base", TEXT, 8, "hot", *CONTROLS[2:]], "temperature: give a number"),
    ("/colour", ["base", " "], "there is no text"),
    ("/take", ["base", TEXT, *CONTROLS], "nothing was chosen"),
    ("/run", [[], TEXT], "choose a classifier"),
    ("/run_1", [["nobody"], TEXT, False], "choose a tokenizer"),
    ("/look_1", ["base", TEXT, "9.9"], "there is no layer 9"),
    ("/look_1", ["base", TEXT, "first"], "write layer.head"),
    ("/worth", ["base", "x y " * 100], "at most 96"),
    ("/draw", [[], "training loss"], "choose a run"),
    ("/draw", [["base"], "joy"], "choose what is shown"),
    ("/show", ["../../etc/passwd"], "choose a report"),
]


@with_gradio
@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize(("event", "inputs", "said"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_a_message(served: Served, event: str, inputs: list[Any], said: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=re.escape(said)):
        served.client().predict(*inputs, api_name=event)


@with_gradio
@in_browser
@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_tab_in_a_browser(served: Served, width: int, scheme: Any) -> None:
    from playwright.sync_api import sync_playwright

    asked: set[str] = set()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(served.url)

        def go(tab: str) -> None:
            found = page.get_by_role("tab", name=tab, exact=True)
            if not (found.count() and found.first.is_visible()):  # on a phone the last ones are in a menu
                page.locator(".overflow-menu > button").click()
                found = page.locator(".overflow-dropdown button", has_text=tab)
            found.first.click()

        def press(name: str) -> None:
            page.locator("[role=tabpanel]:visible").get_by_role("button", name=name, exact=True).click()

        text = page.get_by_label("Text").first
        text.fill("")
        press("Write")
        page.get_by_text("there is no text: type some").wait_for()
        text.fill(TEXT)
        press("Write")
        page.get_by_text(re.compile("tokens, (ended by itself|as many as wanted)")).first.wait_for()
        assert text.input_value().startswith(TEXT)
        text.fill(TEXT)
        press("What surprised?")
        page.locator("#surprise button").nth(2).press("Enter")  # the keyboard reaches it too
        page.locator("#alternatives button").first.wait_for()
        assert TEXT.startswith(text.input_value())
        assert page.locator("#alternatives button").count() == 10

        go("Chat")
        message = page.get_by_label("Message", exact=True)
        message.fill("Gold? <script>window.forged = true</script>")
        message.press("Enter")
        page.get_by_text(re.compile("tokens, (ended by itself|as many as wanted)")).last.wait_for()
        page.get_by_text("<script>window.forged = true</script>").wait_for()
        assert page.evaluate("window.forged") is None

        go("Classify")
        press("Classify")
        page.locator("#classified .sg-token").first.wait_for()
        go("Tokenizers")
        page.get_by_label("Show ids").check()
        page.locator("#cuts section").nth(1).wait_for()
        go("Attention")
        page.get_by_label("Heads that are switched off").fill("0.1")
        press("Look")
        page.locator("#heads button").nth(6).click()
        page.get_by_text("Layer 1, head 2").wait_for()
        page.locator("#one-head button").nth(1).click()
        page.get_by_text("(number 1) reads").wait_for()
        press("What is each head worth?")
        page.locator("#scores td").first.wait_for()
        go("Runs")
        page.get_by_text("75.0% (60.0% to 90.0%)").wait_for()
        page.get_by_label("learning rate").check()
        go("Evaluation")
        page.locator("#report h1").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert asked == {f"127.0.0.1:{served.port}"}
    assert problems == []
