"""The page as a person has it, in a browser: every control of every tab, on a desk and on a phone, light and dark."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.showcase_server import Served, serving_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gradio", "playwright")) or CHROMIUM is None,
    reason="gradio, playwright or chromium is missing",
)

TEXT = "The quick brown fox"
SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
ENDED = re.compile("tokens, (ended by itself|as many as wanted)")


class Visitor:
    """Somebody who looks at the page, and how wide it is there."""

    def __init__(self, page: Any, width: int, folder: Path) -> None:
        self.page, self.width, self.folder = page, width, folder

    @property
    def panel(self) -> Any:
        return self.page.locator("[role=tabpanel]:visible")

    def go(self, tab: str) -> None:
        found = self.page.get_by_role("tab", name=tab, exact=True)
        if not (found.count() and found.first.is_visible()):  # on a phone the last ones are in a menu
            self.page.locator(".overflow-menu > button").click()
            found = self.page.locator(".overflow-dropdown button", has_text=tab)
        found.first.click()
        self.panel.wait_for()

    def press(self, name: str) -> None:
        self.panel.get_by_role("button", name=name, exact=True).click()

    def field(self, label: str) -> Any:
        return self.panel.get_by_label(re.compile(rf"^\s*{re.escape(label)}"))

    def box(self, name: str) -> Any:
        return self.panel.get_by_role("checkbox", name=name)

    def choose(self, label: str, name: str) -> None:
        self.panel.get_by_role("combobox", name=label).click()
        self.page.get_by_role("option", name=name, exact=True).click()

    def is_told(self, message: str) -> None:
        """By a message of the page, which is then put away."""
        self.page.get_by_test_id("toast-body").get_by_text(message).first.wait_for()
        self.page.evaluate("document.querySelectorAll('.toast-close').forEach(button => button.click())")
        self.page.get_by_test_id("toast-body").first.wait_for(state="detached")

    def see(self, name: str) -> None:
        """Nothing is wider than the screen. Keeps a picture, to be looked at."""
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width
        self.page.screenshot(path=self.folder / f"{name}.png", full_page=True)

    def use_sampling(self) -> None:
        """Every control of how the next token is chosen; afterwards they are as they were."""
        self.panel.get_by_role("button", name="How the next token is chosen").click()
        for name in ("Tokens, at most", "Temperature", "Top-k", "Top-p", "Min-p", "Repetition penalty"):
            number = self.field(f"number input for {name}")
            before = number.input_value()
            slider = self.field(f"range slider for {name}")
            slider.press("ArrowLeft" if before == slider.get_attribute("max") else "ArrowRight")
            assert number.input_value() != before
            for wrong in ("99999", "-1"):  # brought back into its bounds
                number.fill(wrong)
                number.blur()
                low, high = (float(slider.get_attribute(each)) for each in ("min", "max"))
                assert low <= float(number.input_value()) <= high
            number.locator("xpath=following::button[1]").click()
            assert number.input_value() == before


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_runs(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="module", params=SCREENS, ids=lambda screen: f"{screen[0]}-{screen[1]}")
def visitor(served: Served, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from playwright.sync_api import sync_playwright

    width, scheme = request.param
    asked: set[str] = set()
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.set_default_timeout(120_000)  # a busy machine is no failure
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(served.url)
        page.get_by_role("tab", name="Write", exact=True).wait_for()
        yield Visitor(page, width, tmp_path_factory.mktemp(f"{width}_{scheme}"))
        browser.close()
    assert asked == {f"127.0.0.1:{served.port}"}  # nothing from elsewhere
    assert problems == []


def test_write(visitor: Visitor) -> None:
    visitor.go("Write")
    visitor.choose("Model", "other")
    visitor.choose("Model", "base")
    text = visitor.field("Text")
    text.fill("")
    visitor.press("Write")
    visitor.is_told("there is no text: type some")
    text.fill(TEXT)
    visitor.press("What comes next?")
    bars = visitor.page.locator("#alternatives button")
    bars.nth(9).wait_for()
    visitor.use_sampling()
    visitor.field("Seed").fill("x")
    visitor.press("Write")
    visitor.is_told("seed=x: give a whole number")
    visitor.field("Seed").fill("1")
    visitor.press("Write")
    visitor.panel.get_by_text(ENDED).wait_for()
    written = text.input_value()
    assert written.startswith(TEXT)
    assert len(written) > len(TEXT)
    text.fill(TEXT)
    visitor.press("Write")
    visitor.page.wait_for_function("written => document.querySelector('textarea').value == written", arg=written)

    visitor.field("number input for Tokens, at most").fill("512")
    visitor.field("number input for Temperature").fill("0")  # tokens that end no text and are no whole character
    text.fill(TEXT)
    visitor.press("Write")
    visitor.panel.get_by_text("writing …").first.wait_for()
    visitor.press("Stop")
    visitor.panel.get_by_text("stopped").wait_for()

    text.fill(TEXT)
    visitor.press("What surprised?")
    visitor.page.locator("#surprise button").nth(2).press("Enter")  # the keyboard reaches it too
    visitor.page.wait_for_function("document.querySelector('textarea').value == 'The quick brown'")
    bars.first.click()
    visitor.page.wait_for_function("document.querySelector('textarea').value.length > 'The quick brown'.length")
    assert bars.count() == 10
    visitor.see("write")


def test_chat(visitor: Visitor) -> None:
    visitor.go("Chat")
    visitor.choose("Model", "base")
    visitor.choose("Model", "chat")
    message = visitor.field("Message")
    visitor.press("Send")
    visitor.is_told("there is no text: type some")
    message.fill("Where do unicorns live?")
    visitor.press("Send")
    visitor.is_told("no passage of the documents fits the question")
    message.fill("Where do cats sleep?")
    visitor.press("Send")
    visitor.panel.get_by_text("The model read this, from animals.txt:").wait_for()
    visitor.panel.get_by_text(ENDED).wait_for()
    assert "Cats sleep on <b>mats</b>." in visitor.page.locator("#passage blockquote").inner_text()
    visitor.see("chat_documents")

    visitor.box("Answer from the documents").uncheck()
    visitor.use_sampling()
    visitor.field("System message").fill("Be brief. 🎉 <|user|>")
    visitor.field("Seed").fill("-1")
    message.fill("Gold? <script>window.forged = true</script>")
    message.press("Enter")
    visitor.is_told("seed=-1: give a whole number")
    visitor.field("Seed").fill("7")
    message.press("Enter")
    visitor.page.locator("#passage blockquote").wait_for(state="detached")
    visitor.panel.get_by_text(ENDED).wait_for()
    visitor.page.get_by_text("<script>window.forged = true</script>").wait_for()
    assert visitor.page.evaluate("window.forged") is None
    visitor.see("chat")

    visitor.press("Forget")
    visitor.page.get_by_label("user's message").first.wait_for(state="detached")
    visitor.choose("Model", "base")
    visitor.field("System message").fill("")
    visitor.field("number input for Tokens, at most").fill("512")
    message.fill("On and on?")  # which this model answers with as much as it may
    visitor.press("Send")
    visitor.panel.get_by_text("answering …").first.wait_for()
    visitor.press("Stop")
    visitor.panel.get_by_text("stopped").wait_for()


def test_classify(visitor: Visitor) -> None:
    visitor.go("Classify")
    for name in ("reviews", "stars"):
        visitor.box(name).uncheck()
    visitor.press("Classify")
    visitor.is_told("choose a classifier")
    for name in ("reviews", "stars"):
        visitor.box(name).check()
    text = visitor.field("Text")
    text.fill("a" * 100_000)
    visitor.press("Classify")
    visitor.is_told("at most 20,000 are read here: shorten it")
    text.fill("Not so good 🎉 <|user|>, <i>really</i>")
    visitor.press("Classify")
    visitor.page.locator("#classified section").nth(1).wait_for()
    assert visitor.page.locator("#classified .sg-token").count() == 12
    visitor.see("classify")


def test_tokenizers(visitor: Visitor) -> None:
    visitor.go("Tokenizers")
    visitor.press("Cut")
    visitor.page.locator("#cuts section").nth(1).wait_for()
    visitor.box("words").uncheck()
    visitor.field("Text").fill("Zwölf 🎉 <|endoftext|>")
    visitor.press("Cut")
    visitor.page.locator("#cuts section").nth(1).wait_for(state="detached")
    visitor.box("words").check()
    visitor.box("Show ids").check()
    visitor.page.locator("#cuts section").nth(1).wait_for()
    assert re.search(r"\d", visitor.page.locator("#cuts .sg-token").first.inner_text())
    visitor.see("tokenizers")
    for name in ("base", "words"):
        visitor.box(name).uncheck()
    visitor.press("Cut")
    visitor.is_told("choose a tokenizer")


def test_attention(visitor: Visitor) -> None:
    visitor.go("Attention")
    visitor.choose("Model", "other")
    visitor.choose("Model", "base")
    off = visitor.field("Heads that are switched off")
    off.fill("first")
    visitor.press("Look")
    visitor.is_told("first is no head: write layer.head, such as 0.1")
    off.fill("0.1")
    off.press("Enter")
    visitor.page.locator("#heads button").nth(7).wait_for()
    visitor.page.locator("#effect .sg-bar").first.wait_for()
    visitor.page.locator("#heads button").nth(6).click()
    visitor.page.get_by_text("Layer 1, head 2").wait_for()
    visitor.page.locator("#one-head button").nth(1).click()
    visitor.page.get_by_text("(number 1) reads").wait_for()
    visitor.press("What is each head worth?")
    visitor.page.locator("#scores td").first.wait_for()
    visitor.see("attention")
    visitor.field("Text").fill("")
    visitor.press("What is each head worth?")
    visitor.is_told("there is no text: type some")


def test_runs(visitor: Visitor) -> None:
    visitor.go("Runs")
    visitor.panel.get_by_text("75.0% (60.0% to 90.0%)").first.wait_for()
    for curve in ("validation loss", "learning rate"):
        visitor.panel.get_by_role("radio", name=curve).check()
        visitor.panel.get_by_text(curve).nth(1).wait_for()  # beside the axis
    visitor.panel.get_by_role("radio", name="tokens per second").check()
    visitor.is_told("none of these runs has logged its tokens per second")
    visitor.panel.get_by_role("radio", name="training loss").check()
    visitor.panel.locator("canvas, svg.marks").first.wait_for()
    visitor.box("stars").uncheck()
    visitor.panel.get_by_text("75.0% (60.0% to 90.0%)").nth(1).wait_for(state="detached")
    visitor.see("runs")
    for name in ("base", "reviews"):
        visitor.box(name).uncheck()
    visitor.is_told("choose a run")


def test_evaluation(visitor: Visitor) -> None:
    visitor.go("Evaluation")
    visitor.page.locator("#report h1").wait_for()
    visitor.choose("Report", "base/comparison.md")
    visitor.page.locator("#report table").wait_for()
    visitor.see("evaluation")
