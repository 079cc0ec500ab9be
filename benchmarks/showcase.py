"""How soon the page answers: `python benchmarks/showcase.py --show runs/demo --chat chat [--rounds 5]`.

In headless Chromium, which is open before the command is given (needs playwright and chromium):

- first paint: seconds from the command to the first content that the browser draws (Paint Timing, W3C), which says
  that the page is being loaded
- page: seconds from the command to the page itself, by which all of it can be used
- first token: milliseconds from Enter under a question to the first characters of the reply, of a model that has
  answered before; and of the very first question, in which the model is loaded

Values are medians over the rounds; in each the command is given anew.
"""

import argparse
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import TimeoutError, sync_playwright

from records import RESULTS, append, machine

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUESTIONS = 10

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
WATCH = """
() => {
    const bot = () => [...document.querySelectorAll('[data-testid=bot]')].at(-1)?.innerText.trim() ?? '';
    const before = document.querySelectorAll('[data-testid=bot]').length;
    window.firstToken = null;
    document.addEventListener('keydown', () => {
        const begun = performance.now();
        const look = () => {
            const begins = document.body.innerText.includes('answering …');
            const found = begins || (document.querySelectorAll('[data-testid=bot]').length > before && bot());
            found ? window.firstToken = performance.now() - begun : setTimeout(look, 1);
        };
        look();
    }, { once: true, capture: true });
}
"""


def ask(page: Any, question: str) -> float | None:
    """Milliseconds to the first characters of the reply; None where it has none, which happens to small models."""
    panel = page.locator("[role=tabpanel]:visible")
    panel.get_by_role("button", name="Forget", exact=True).click()
    page.locator("[data-testid=bot]").first.wait_for(state="detached")
    message = panel.get_by_role("textbox", name="Message", exact=True)
    message.fill(question)
    page.evaluate(WATCH)
    message.press("Enter")
    try:
        page.wait_for_function("window.firstToken !== null", timeout=20_000)
    except TimeoutError:
        return None
    panel.get_by_text("answering …").wait_for(state="detached")
    return page.evaluate("window.firstToken")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def measure(browser: Any, command: list[str], port: int, chat: str) -> dict[str, float | None]:
    page = browser.new_page()
    page.set_default_timeout(120_000)
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not answers(port):  # as somebody who opens the address as soon as it is there
            time.sleep(0.01)
        page.goto(f"http://127.0.0.1:{port}", wait_until="commit")
        page.wait_for_function(PAINT)
        paint = page.evaluate(f"(performance.timeOrigin + {PAINT}) / 1000") - began
        page.get_by_role("tab", name="Chat", exact=True).click()
        there = time.time() - began
        panel = page.locator("[role=tabpanel]:visible")
        panel.get_by_role("combobox", name="Model").click()
        page.get_by_role("option", name=chat, exact=True).click()
        first = ask(page, "What is a list?")
        later = [ask(page, f"What does function number {number} return?") for number in range(QUESTIONS)]
        return {
            "first paint, s": paint,
            "page, s": there,
            "first token of the first reply, ms": first,
            "first token, ms": statistics.median(each for each in later if each is not None),
        }
    finally:
        page.close()
        process.send_signal(signal.SIGINT)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", nargs="+", required=True, help="what the command shows")
    parser.add_argument("--chat", required=True, help="the model that is asked, by its name on the page")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "showcase.jsonl")
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recipe = str(ROOT / "recipes" / "showcase.py")
    command = [sys.executable, recipe, "--show", *arguments.show, "--port", str(port)]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = [measure(browser, command, port, arguments.chat) for _ in range(arguments.rounds)]
        browser.close()
    shared = {
        "benchmark": "The showcase page", "metric": "how soon it answers", "candidate": "scratchgpt showcase",
        "rounds": arguments.rounds, **machine("torch", "gradio"),
    }  # fmt: skip
    lines = []
    for case in found[0]:
        values = [value for each in found if (value := each[case]) is not None]
        print(f"{case:36s} {statistics.median(values):8.2f}   {[round(value, 2) for value in values]}")
        lines.append({**shared, "case": case, "value": round(statistics.median(values), 3), "all": values})
    append(lines, arguments.output)


if __name__ == "__main__":
    main()
