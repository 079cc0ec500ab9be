"""The page over HTTP: what visitors get, many at a time and whatever they send, and an app folder that serves it."""

import importlib.util
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from recipes import showcase
from tests.showcase_server import Served, free_port, serving, serving_runs
from tests.unit.test_showcase import make_runs
from tests.unit.test_waiting import get

CONTROLS = [16, 0.0, 50, 1, 0, 1, ""]
TEXT = "The quick brown fox"

with_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra [showcase] is missing")


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="the extra [showcase] is there")
def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs")
    with pytest.raises(ValueError, match=re.escape('needs the extra [showcase]: pip install "scratchgpt[showcase]"')):
        showcase.main([str(runs)])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_runs(tmp_path_factory.mktemp("served")) as served:
        yield served


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


def ask(client: Any, text: str, from_documents: bool, *controls: Any) -> Any:
    client.predict(api_name="/begin")
    return client.predict("chat", [], text, "", from_documents, *(controls or CONTROLS), api_name="/ask")


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
def test_who_stops_makes_room_for_the_next_within_a_second(served: Served) -> None:
    one, other = served.client(), served.client()
    began = time.monotonic()
    text_of(start(other, tokens=1))
    alone = time.monotonic() - began
    long = start(one, tokens=512, temperature=0.0)  # none of which ends the text, or is a whole character
    while long.status().code.name not in ("PROCESSING", "ITERATING"):
        time.sleep(0.01)
    one.predict(api_name="/stop")
    stopped = time.monotonic()
    assert text_of(start(other, tokens=1)).startswith(TEXT)
    assert time.monotonic() - stopped < alone + 1
    assert "stopped" in long.result(timeout=30)[1]


@with_gradio
@pytest.mark.usefixtures("quiet_log")
def test_the_chat_answers_from_documents(served: Served) -> None:
    client = served.client()
    messages, _, said, passage = ask(client, "Where do cats sleep?", True)
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert "tokens, " in said
    assert "from animals.txt" in passage
    assert "Cats sleep on &lt;b&gt;mats&lt;/b&gt;." in passage
    assert ask(client, "Where do cats sleep?", False)[3] == ""
    assert ask(client, "Where do cats sleep?", False)[0] != messages


MISTAKES = [
    ("/look", ["base", "", *CONTROLS], "there is no text"),
    ("/look", ["base", "a" * 100_000, *CONTROLS], "at most 20,000"),
    ("/look", ["nobody", TEXT, *CONTROLS], "choose a language model"),
    ("/look", ["base", TEXT, 0, *CONTROLS[1:]], "max_new_tokens: give a number from 1 to 512"),
    ("/look", ["base", TEXT, 8, "hot", *CONTROLS[2:]], "temperature: give a number"),
    ("/colour", ["base", " "], "there is no text"),
    ("/take", ["base", TEXT, *CONTROLS], "nothing was chosen"),
    ("/ask", ["chat", [], "", "", True, *CONTROLS], "there is no text"),
    ("/ask", ["chat", [], "Unicorns?", "", True, *CONTROLS], "no passage of the documents fits the question"),
    ("/ask", ["chat", [], TEXT, "a" * 100_000, False, *CONTROLS], "at most 20,000"),
    ("/ask", ["chat", [], "word " * 900, "", False, *CONTROLS], "shorten it, or lower max_new_tokens"),
    ("/run", [[], TEXT], "choose a classifier"),
    ("/run_1", [["nobody"], TEXT, False], "choose a tokenizer"),
    ("/look_1", ["base", TEXT, "9.9"], "there is no layer 9"),
    ("/look_1", ["base", TEXT, "first"], "write layer.head"),
    ("/worth", ["base", "x y " * 100], "at most 96"),
    ("/draw", [[], "training loss"], "choose a run"),
    ("/draw", [["base"], "joy"], "choose what is shown"),
    ("/draw", [["base"], ["training loss"]], "choose what is shown"),
    ("/show", ["../../etc/passwd"], "choose a report"),
]


@with_gradio
@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize(("event", "inputs", "said"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_a_message(served: Served, event: str, inputs: list[Any], said: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=re.escape(said)):
        served.client().predict(*inputs, api_name=event)


FIELD: Any = object()
"""Stands for what is sent."""

TEXTS = ["", "a" * 100_000, "🎉", "👩‍👩‍👧", "<|user|> <|endoftext|>", "\x00\x07", "-1", "9" * 400]
NAMES = [None, "", "nobody", "🎉", ["base"], 5]
NUMBERS = [None, -1, 10**9, "x", 1.5e300]
FIELDS = [
    *[("/look", ["base", FIELD, *CONTROLS], TEXTS), ("/colour", ["base", FIELD], TEXTS)],
    *[("/go_on", ["base", FIELD, *CONTROLS], TEXTS), ("/go_on", ["base", TEXT, *CONTROLS[:-1], FIELD], TEXTS)],
    *[("/ask", ["chat", [], FIELD, "", each, *CONTROLS], TEXTS) for each in (False, True)],
    *[("/ask", ["chat", [], TEXT, FIELD, False, *CONTROLS], TEXTS), ("/run", [["reviews"], FIELD], TEXTS)],
    *[("/run_1", [["base", "words"], FIELD, True], TEXTS), ("/look_1", ["base", FIELD, ""], TEXTS)],
    *[("/look_1", ["base", TEXT, FIELD], TEXTS), ("/worth", ["base", FIELD], TEXTS)],
    *[("/look", [FIELD, TEXT, *CONTROLS], NAMES), ("/go_on", [FIELD, TEXT, *CONTROLS], NAMES)],
    *[("/ask", [FIELD, [], TEXT, "", False, *CONTROLS], NAMES), ("/run", [FIELD, TEXT], NAMES)],
    *[("/run_1", [FIELD, TEXT, True], NAMES), ("/look_1", [FIELD, TEXT, ""], NAMES)],
    *[("/draw", [FIELD, "training loss"], NAMES), ("/cost", [FIELD], NAMES), ("/show", [FIELD], NAMES)],
    *[("/go_on", ["base", TEXT, *CONTROLS[:i], FIELD, *CONTROLS[i + 1 :]], NUMBERS) for i in range(6)],
]


@with_gradio
@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize(("event", "inputs", "sent"), FIELDS, ids=range(len(FIELDS)))
def test_whatever_a_field_holds_is_answered(served: Served, event: str, inputs: list[Any], sent: list[Any]) -> None:
    """With what was asked for, or a message of this package; gradio has one of its own for what it did not expect."""
    from gradio_client.exceptions import AppError

    client = served.client()
    refused: list[str] = []
    for value in sent:
        client.predict(api_name="/begin")
        try:
            client.predict(*(value if each is FIELD else each for each in inputs), api_name=event)
        except AppError as error:
            refused.append(str(error))
    assert len(refused) >= (1 if sent is TEXTS else len(sent) - 1)
    assert not any("upstream Gradio app" in message for message in refused)


@with_gradio
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quiet_log")
def test_memory_is_flat_over_two_hundred_requests(served: Served) -> None:
    """After a first hundred, in which caches fill; every tenth request is another visitor's."""
    process = psutil.Process(served.process.pid)

    def visit(count: int) -> None:
        for _ in range(count // 10):
            client = served.client()
            for name in ("base", "other", "chat"):
                text_of(start(client, name))
            ask(client, "Where do cats sleep?", True)
            client.predict("base", TEXT, *CONTROLS, api_name="/look")
            client.predict("base", TEXT, api_name="/colour")
            client.predict(["reviews"], TEXT, api_name="/run")
            client.predict(["base", "words"], TEXT, True, api_name="/run_1")
            client.predict("base", TEXT, "0.1", api_name="/look_1")
            client.predict(["base"], "training loss", api_name="/draw")

    visit(100)
    before = process.memory_info().rss
    visit(200)
    assert process.memory_info().rss - before < 10e6


@with_gradio
@pytest.mark.timeout(900)
def test_an_app_folder_serves_the_page_by_itself(tmp_path: Path) -> None:
    """Nothing of the runs is there any more, nor of the documents."""
    runs, documents, port = make_runs(tmp_path / "runs"), tmp_path / "documents", free_port()
    documents.mkdir()
    (documents / "animals.txt").write_text("Cats sleep on mats.\n")
    arguments = ["--app_dir", str(tmp_path / "app"), "--documents", str(documents), "--port", str(port)]
    showcase.main([str(runs), *arguments])
    for folder in (runs, documents):
        shutil.rmtree(folder)
    with serving([str(tmp_path / "app" / "app.py")], port, tmp_path) as served:
        assert get(served.url)[0] == 200
        client = served.client()
        assert text_of(start(client, "base")).startswith(TEXT)
        assert "from animals.txt" in ask(client, "Where do cats sleep?", True)[3]
