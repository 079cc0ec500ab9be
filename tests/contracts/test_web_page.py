"""The page that runs the model in the browser: Node tries it at the export, and a browser without a network here.

Needs Node with npm, which must have the run-time in its cache (no test asks the network): once, by hand,
`npm pack onnxruntime-web@… @huggingface/tokenizers@… @huggingface/jinja@…` with the versions of `RUNTIME`; and for the
browser playwright and chromium.
"""

import functools
import importlib.util
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from recipes import export_model
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.push_checks import check_before_push, kind_of
from scratchgpt.inference.answer_settings import text_settings
from scratchgpt.interop.checks import continuation
from scratchgpt.interop.onnx import to_onnx_family
from scratchgpt.interop.web import RUNTIME, check_page

pytest.importorskip("onnxscript", reason="no onnxscript: torch.onnx.export needs it")
pytest.importorskip("onnxruntime", reason="no onnxruntime")
if shutil.which("node") is None or shutil.which("npm") is None:
    pytest.skip("no Node with npm", allow_module_level=True)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="playwright or chromium is missing"
)
TEXT = "The quick brown fox"


class Page(NamedTuple):
    model: ScratchGPTForCausalLM
    tokenizer: Any
    folder: Path


@pytest.fixture(scope="module")
def page(make_config, tokenizer, tmp_path_factory) -> Page:
    folder = tmp_path_factory.mktemp("web")
    page = folder / "out"
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(make_config("modern", num_key_value_heads=2)).eval()
    with torch.no_grad():  # no token that ends a text is ever the likeliest
        model.get_input_embeddings().weight[tokenizer.all_special_ids] = 0
    save_model(model, tokenizer, folder / "mine")
    (folder / "mine" / "README.md").write_text("---\nlicense: mit\ntags: [chat-model]\n---\nMine.\n")
    (folder / "mine" / "manifest.json").unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("npm_config_offline", "true")
        try:
            export_model.main(
                [f"--model_name_or_path={folder / 'mine'}", f"--output_dir={folder / 'out'}", "--to=web"]
            )
        except ValueError as error:
            if "npm cannot get" not in str(error):
                raise
            pytest.skip("the run-time is not in npm's cache")
    return Page(model, tokenizer, page)


def test_the_folder(page: Page) -> None:
    files = {file.relative_to(page.folder).as_posix() for file in page.folder.rglob("*") if file.is_file()}
    runtime = {f"runtime/{name}" for wanted in RUNTIME.values() for name in wanted.values()}
    assert runtime < files
    assert {"index.html", "README.md", "runtime/onnxruntime.LICENSE", "model/model.onnx"} < files
    assert sum((page.folder / name).stat().st_size for name in files) < 30e6
    card = (page.folder / "README.md").read_text()
    assert "sdk: static" in card
    assert "license: mit" in card
    for name in ("index.html", "page.css", "page.js", "model.js"):
        addresses = re.findall(r"https?://[\w.:/-]+", (page.folder / name).read_text())
        assert set(addresses) <= {"http://localhost:8000"}, name


def test_it_can_be_pushed(page: Page) -> None:
    assert kind_of(page.folder) == "page"
    check_before_push(page.folder)


def test_another_graph_or_tokenizer_is_noticed(page: Page, tmp_path: Path) -> None:
    copy = shutil.copytree(page.folder, tmp_path / "copy")
    facts = json.loads((copy / "model" / "page.json").read_text())
    exported = to_onnx_family(page.model)
    assert "tokenizer, template and logits agree" in check_page(copy, exported, page.tokenizer, facts, True)
    (copy / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(ValueError, match="writes a conversation otherwise"):
        check_page(copy, exported, page.tokenizer, facts, True)
    shutil.copyfile(page.folder / "model" / "chat_template.jinja", copy / "model" / "chat_template.jinja")
    with torch.no_grad():
        exported.get_input_embeddings().weight.mul_(1.01)
    with pytest.raises(ValueError, match="disagree"):
        check_page(copy, exported, page.tokenizer, facts, True)
    (copy / "model" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="Node cannot run the page"):
        check_page(copy, exported, page.tokenizer, facts, True)


PROBABILITIES = """
const { probabilities } = await import(process.argv[1]);
const { logits, seen, never, settings } = JSON.parse(process.argv[2]);
console.log(JSON.stringify(settings.map((each) => Array.from(probabilities(logits, each, seen, never)))));
"""


def test_probabilities_are_those_of_generate(page: Page) -> None:
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    changes: list[dict[str, float]] = [
        {}, {"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.2}, {"repetition_penalty": 1.7},
        {"temperature": 1.4, "top_k": 30, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
    ]  # fmt: skip
    settings, never, seen = [{**plain, **change} for change in changes], [3, 4], [7, 7, 11, 30]
    logits = 2 * torch.randn(60, generator=torch.Generator().manual_seed(0))
    job = {"logits": logits.tolist(), "seen": seen, "never": never, "settings": settings}
    command = [
        "node",
        "--input-type=module",
        "-e",
        PROBABILITIES,
        (page.folder / "model.js").as_uri(),
        json.dumps(job),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    ids = torch.tensor([seen])
    for each, found in zip(settings, json.loads(run.stdout), strict=True):
        scores = RepetitionPenaltyLogitsProcessor(each["repetition_penalty"])(ids, logits[None].clone())
        scores = SuppressTokensLogitsProcessor(never)(ids, scores)
        scores = TemperatureLogitsWarper(each["temperature"])(ids, scores)
        scores = TopKLogitsWarper(each["top_k"])(ids, scores) if each["top_k"] else scores
        scores = TopPLogitsWarper(each["top_p"])(ids, scores)
        scores = MinPLogitsWarper(each["min_p"])(ids, scores)
        torch.testing.assert_close(torch.tensor(found), scores.softmax(-1)[0], atol=1e-6, rtol=1e-4)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(page: Page) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(page.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def set_slider(window: Any, name: str, value: float) -> None:
    window.locator(f"#{name}").fill(str(value))


@in_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_every_control(page: Page, address: str, width: int, scheme: Any, tmp_path: Path) -> None:
    """64 tokens as in Python, then everything that can be used; nothing is asked of another address."""
    from playwright.sync_api import sync_playwright

    settings = text_settings(page.tokenizer, page.model.config.vocab_size)
    ids = page.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    expected = continuation(page.model, ids, 64, **settings)
    assert len(expected) == 64
    asked: set[str] = set()
    problems: list[str] = []
    with sync_playwright() as driver:
        # Whatever is not this machine has no address.
        offline = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=offline)
        window = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        window.set_default_timeout(90_000)
        window.on("request", lambda request: asked.add(request.url))
        window.on("pageerror", lambda error: problems.append(str(error)))
        window.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        window.goto(address)
        status = window.locator("#status")

        def said(words: str) -> None:
            window.locator("#stop:disabled").wait_for(state="attached")  # or a line of before is taken for it
            window.locator("#status", has_text=words).wait_for()

        said("The model is here.")
        assert window.title() == "mine"

        # Chat: a message, its end, an empty one, a new chat.
        set_slider(window, "temperature", 0)
        set_slider(window, "max_new_tokens", 8)
        window.locator("#system").fill("Be brief.")
        window.locator("#question").fill("Gold? <script>window.forged = true</script>")
        window.locator("#question").press("Enter")
        said(" a second;")
        assert window.locator(".message").count() == 2
        assert window.evaluate("window.forged") is None
        window.locator("#send").click()
        said("The message is empty")
        window.locator("#question").fill("word " * 100)
        window.locator("#send").click()
        said("shorten it, or lower")
        window.locator("#new-chat").click()
        said("0 of 128 tokens")
        assert window.locator(".message").count() == 0

        # Text: what Python writes, token by token too; stop; what is too long.
        window.locator("#text-mode").click()
        text = window.locator("#text")
        text.fill(TEXT)
        set_slider(window, "max_new_tokens", 64)
        window.locator("#write").click()
        said(" a second;")
        assert text.input_value() == page.tokenizer.decode(ids + expected)
        assert status.text_content().startswith(f"{len(expected)} tokens")
        text.fill(TEXT)
        said(f"{len(ids)} of 128 tokens")
        rows = window.locator("#next button")
        assert rows.count() == 10
        assert rows.first.get_attribute("data-id") == str(expected[0])
        assert "→ 100.0%" in rows.first.text_content()
        rows.nth(1).click()
        said(f"{len(ids) + 1} of 128 tokens")
        text.fill(TEXT)
        window.locator("#one").click()
        said("1 token, ")
        assert text.input_value() == page.tokenizer.decode([*ids, expected[0]])
        text.fill("word " * 200)
        window.locator("#write").click()
        said("the model reads 128")

        # How it is chosen: each setting changes what is left; the same seed writes the same.
        text.fill(TEXT)
        said(f"{len(ids)} of 128 tokens")
        set_slider(window, "temperature", 1)
        set_slider(window, "top_k", 0)  # 50 at first, as in `generate`
        for name, value, neutral in (
            ("top_k", 3, 0), ("top_p", 0.5, 1), ("min_p", 0.5, 0), ("repetition_penalty", 1.5, 1),
        ):  # fmt: skip
            before = window.locator("#next").text_content()
            set_slider(window, name, value)
            assert window.locator(f"label:has(#{name}) output").text_content() == str(value)
            # What it has seen need not be among the likeliest.
            assert name == "repetition_penalty" or window.locator("#next").text_content() != before, name
            set_slider(window, name, neutral)
            assert window.locator("#next").text_content() == before
        written = []
        for seed in ("7", "7", "8"):
            window.locator("#seed").fill(seed)
            text.fill(TEXT)
            window.locator("#write").click()
            said(" a second;")
            written.append(text.input_value())
        assert written[0] == written[1] != written[2]

        # The attention of the last token: another layer and another head look otherwise.
        drawn = []
        for layer, head in (("1", "mean of all"), ("2", "mean of all"), ("2", "1")):
            window.locator("#layer").select_option(label=layer)
            window.locator("#head").select_option(label=head)
            drawn.append(window.locator("#attention").inner_html())
        assert len({*drawn}) == 3

        text.fill(TEXT)
        set_slider(window, "temperature", 0)
        set_slider(window, "max_new_tokens", 100)
        click = "document.getElementById('%s').click()"
        window.evaluate(f"{click % 'write'}; setTimeout(() => {click % 'stop'}, 50)")
        said(" a second;")
        assert int(status.text_content().split()[0]) < 64
        window.locator("#sampling summary").click()
        assert not window.locator("#temperature").is_visible()
        before = window.evaluate("getComputedStyle(document.body).backgroundColor")
        window.locator("#theme").click()
        assert window.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert window.evaluate("document.documentElement.scrollWidth <= innerWidth")
        window.locator("#clear").click()
        said("0 of 128 tokens")
        window.locator("#write").click()
        said("no text to continue")
        browser.close()
    assert not problems
    assert not [each for each in asked if not each.startswith((f"{address}/", "data:"))]
