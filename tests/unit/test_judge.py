"""evaluation/judge.py and its neighbours: what is read from a reply, positions, failures, and going on after them."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scratchgpt.evaluation.journal import Journal
from scratchgpt.evaluation.judge import NO_REFERENCE, LocalJudge, ask, parse_score, parse_verdict
from scratchgpt.evaluation.judge_endpoint import EndpointJudge
from scratchgpt.evaluation.judging import Item, Judging, read_items, read_preferences
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.chat_server import said, server


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("72", 72), ("72/100", 72), ("Score: 72", 72), (" 72.\n", 72), ("**72**", 72), ("72 out of 100", 72),
        ("score = 7.5", 7.5), ("0", 0), ("100", 100), ("<think>Not 50, 60?</think>\n\n72", 72),
        ("7 out of 10", None), ("7/10", None), ("I would say seventy", None), ("It has 3 faults.", None), ("", None),
        ("72 or 80", None), ("72 80", None), ("720", None), ("101", None), ("-5", None), ("72%", None), ("1e2", None),
        ("\u0667\u0662", None), ("=72", None), ("72/1000", None), ("Score:", None), ("<think>72", None),
        ("72\n\nThe answer is good.", None),
        ("The sum of 2 and 2 is 4.", None),
    ],
)  # fmt: skip
def test_scores_are_read_strictly(reply: str, score: float | None) -> None:
    assert parse_score(reply) == score


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A", "A"), ("b", "B"), ("Tie", "tie"), ("[[A]]", "A"), ("[[C]]", "tie"), ("Answer B", "B"), ("**A**.", "A"),
        ("Verdict: tie", "tie"), ("A.", "A"),
        ("", None), ("A or B", None), ("A good answer", None), ("Both", None), ("AB", None),
        ("A\nB", None), ("D", None), ("C", None), ("[A", None), ("[[A]", None),
    ],
)  # fmt: skip
def test_verdicts_are_read_strictly(reply: str, verdict: str | None) -> None:
    assert parse_verdict(reply) == verdict


class Replies:
    """Says of each prompt what it is told, one at a time."""

    def __init__(self, reply: Callable[[str], str | None], dies_after: int = 10**9) -> None:
        self.reply, self.dies_after = reply, dies_after
        self.asked: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"name": "replies"}

    def replies(self, prompts: Sequence[str]) -> Iterator[Mapping[int, str | None]]:
        for number, prompt in enumerate(prompts):
            if len(self.asked) == self.dies_after:
                raise RuntimeError("killed")
            self.asked.append(prompt)
            yield {number: self.reply(prompt)}


def after(prompt: str, heading: str) -> str:
    return prompt.split(f"{heading}:\n")[1].split("\n")[0]


def longer_is_better(prompt: str) -> str:
    """Score: the letters of the answer; verdict: the longer answer, wherever it stands."""
    if "Answer A:" not in prompt:
        return str(len(after(prompt, "Answer to grade")))
    a, b = (len(after(prompt, f"Answer {name}")) for name in "AB")
    return "tie" if a == b else "A" if a > b else "B"


PAIRS = [
    Item("q1", "fine", "good", "okay"), Item("q2", "", "bad", "fine"), Item("q3", "", "good", "better"),
    Item("q4", "", "same", "same "), Item("q5", "", "longest", "short"),
]  # fmt: skip
SINGLE = [replace(item, other=None) for item in PAIRS]


def test_scores(tmp_path: Path) -> None:
    judge = Replies(longer_is_better)
    found = Judging(SINGLE, judge, tmp_path).run()
    assert found.metrics["score"].value == (4 + 3 + 4 + 4 + 7) / 5
    assert found.metrics["score"].count == 5
    assert found.metrics["readable"].value == 1
    assert found.items["score"] == [4, 3, 4, 4, 7]
    assert "Reference answer:\nfine" in judge.asked[0]
    assert NO_REFERENCE in judge.asked[1]
    lines = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [4, 3, 4, 4, 7]
    again = Replies(longer_is_better)
    assert Judging(SINGLE, again, tmp_path).run() == found
    assert again.asked == []  # reruns are free


def test_pairs_are_shown_in_both_orders(tmp_path: Path) -> None:
    judge = Replies(longer_is_better)
    found = Judging(PAIRS, judge, tmp_path).run()
    win = found.metrics["win_rate"]
    assert found.items["win_rate"] == [0.5, 0, 0, 0.5, 1]
    assert (win.value, win.count) == (2 / 5, 5)
    assert win.details == {
        "unreadable": 0, "too_long": 0, "wins": 1, "ties": 2, "losses": 2, "identical": 1
    }  # fmt: skip
    assert found.metrics["changed_with_order"].value == 0
    orders = [(after(prompt, "Answer A"), after(prompt, "Answer B")) for prompt in judge.asked]
    assert orders[:2] == [("good", "okay"), ("okay", "good")]
    assert len(judge.asked) == 2 * 4  # and not about the same words
    swapped = [Item(item.question, item.reference, item.other or "", item.answer) for item in PAIRS]
    assert Judging(swapped, Replies(longer_is_better), tmp_path).run().metrics["win_rate"].value == 3 / 5


def test_braces_in_answers_stay_and_a_reference_that_is_an_answer_is_not_shown() -> None:
    (prompt,) = Item("{answer}", "{reference}", "{question}").prompts()
    assert all(each in prompt for each in ("{answer}", "{reference}", "{question}"))
    for item in (Item("q", "one", "one", "two"), Item("q", "two", "one", "two")):
        assert all(NO_REFERENCE in prompt for prompt in item.prompts())
    assert not any(NO_REFERENCE in prompt for prompt in Item("q", "three", "one", "two").prompts())


@pytest.mark.parametrize(("letter", "favoured"), [("A", "first_preferred"), ("B", "second_preferred")])
def test_what_changes_with_the_order_is_a_tie(tmp_path: Path, letter: str, favoured: str) -> None:
    found = Judging(PAIRS, Replies(lambda prompt: letter), tmp_path).run().metrics
    assert found["win_rate"].value == 0.5
    assert (found["changed_with_order"].value, found["changed_with_order"].count) == (1, 4)
    assert found["changed_with_order"].details[favoured] == 4


@pytest.mark.parametrize("answer", ["a", "", "b \n"])
def test_identical_answers_tie_unasked(tmp_path: Path, answer: str) -> None:
    judge = Replies(lambda prompt: "A")
    found = (
        Judging([Item("q", "", answer, answer), Item("p", "", answer, f"{answer} ")], judge, tmp_path).run().metrics
    )
    assert found["win_rate"].value == 0.5
    assert judge.asked == []
    assert "readable" not in found  # there was nothing to read


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    found = Judging(SINGLE, Replies(lambda prompt: "80" if "q2" not in prompt else "four"), tmp_path).run()
    score = found.metrics["score"]
    assert (score.value, score.count, score.details) == (80, 4, {"unreadable": 1, "too_long": 0})
    assert found.metrics["readable"].value == 0.8
    assert found.items == {}  # a list with gaps compares with nothing
    verdicts, _ = Judging(SINGLE, Replies(longer_is_better), tmp_path).asked()
    assert list(verdicts) == [80, None, 80, 80, 80]
    # Of a pair, one order that cannot be read is enough.
    half = Judging(PAIRS, Replies(lambda prompt: "?" if "Answer A:\nfine" in prompt else "tie"), tmp_path / "b").run()
    assert "unfit" in half.metrics["readable"].details["verdict"]
    assert half.metrics["readable"].details["unreadable"] == 1


@pytest.mark.parametrize("items", [SINGLE, PAIRS], ids=["scores", "pairs"])
def test_a_judge_that_answers_the_question_is_unfit(tmp_path: Path, items: list[Item]) -> None:
    judge = Replies(lambda prompt: ("tie" if "Answer A:" in prompt else "9") if "q1" in prompt else "It is four.")
    found = Judging(items, judge, tmp_path).run()
    assert set(found.metrics) == {"readable"}
    readable = found.metrics["readable"]
    asked = 5 if items is SINGLE else 4
    assert readable.value == 1 / asked
    said = f"unfit as a judge: {asked - 1} of {asked} times there was no reply that is what was asked for"
    assert readable.details["verdict"] == said


@pytest.mark.parametrize("items", [SINGLE, PAIRS], ids=["scores", "pairs"])
def test_a_killed_judge_goes_on(tmp_path: Path, items: list[Item]) -> None:
    judge = Replies(longer_is_better)
    whole = Judging(items, judge, tmp_path / "whole").run()
    killed = Replies(longer_is_better, dies_after=3)
    with pytest.raises(RuntimeError):
        Judging(items, killed, tmp_path / "killed").run()
    rest = Replies(longer_is_better)
    assert Judging(items, rest, tmp_path / "killed").run() == whole
    assert killed.asked + rest.asked == judge.asked


def write(file: Path, rows: Any) -> Path:
    file.write_text(json.dumps(rows))
    return file


def test_files_of_answers(tmp_path: Path) -> None:
    mine = write(
        tmp_path / "mine.json",
        [{"Instruction": "Add.", "Input": "1, 2", "Response": "3", "model_response": "4", "other one": "5"}] * 2,
    )
    (item, _) = read_items(mine)
    assert item == Item("Add.\n\n1, 2", "3", "4")
    assert read_items(mine, "model_response", mine, "other one")[1].other == "5"
    theirs = write(tmp_path / "theirs.json", [{"question": "Add.\n\n1, 2", "model_response": ""}] * 2)
    assert read_items(theirs)[0] == Item("Add.\n\n1, 2", "", "")
    assert read_items(mine, other=theirs)[0] == Item("Add.\n\n1, 2", "3", "4", "")
    odd = [{"question": "q", "model_response": "4"}, {"question": "r", "model_response": 5, "output": 0}]
    assert [(item.answer, item.reference) for item in read_items(write(tmp_path / "x.json", odd))] == [
        ("4", ""),
        ("5", "0"),
    ]
    with pytest.raises(ValueError, match="row 1: 'model_response' is NaN, not text"):
        read_items(write(tmp_path / "x.json", [{"question": "q", "model_response": float("nan")}]))
    # As AlpacaEval has it: the answer is where others have the reference.
    assert read_items(write(tmp_path / "x.json", [{"instruction": "q", "output": "o"}]), "output")[0].reference == ""
    with pytest.raises(ValueError, match="the same questions"):
        read_items(mine, other=write(tmp_path / "x.json", [{"question": "Add.", "model_response": ""}] * 2))
    with pytest.raises(ValueError, match="the same questions"):
        read_items(mine, other=write(tmp_path / "x.json", [{"question": "Add.\n\n1, 2", "model_response": ""}]))
    with pytest.raises(ValueError, match=r"x.json, row 1: no question in a column"):
        read_items(write(tmp_path / "x.json", [{"model_response": "a"}]))
    with pytest.raises(ValueError, match=r"mine.json, row 1: no text in the column 'said'"):
        read_items(mine, "said")
    with pytest.raises(ValueError, match="holds no rows"):
        read_items(write(tmp_path / "x.json", []))


def test_preferences(tmp_path: Path) -> None:
    """What people chose stands first in half of the pairs; chat turns are text."""
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "Bye"}]
    rows = [{"conversations": turns, "chosen": {"value": "good"}, "rejected": [{"content": "bad"}]}] * 40
    items, people = read_preferences(write(tmp_path / "p.json", rows))
    assert items[0].question == "human: Hi\n\ngpt: Yes?\n\nhuman: Bye"
    assert {(item.answer, item.other, of) for item, of in zip(items, people, strict=True)} == {
        ("good", "bad", "A"), ("bad", "good", "B")
    }  # fmt: skip
    assert 12 <= people.count("A") <= 28
    with pytest.raises(ValueError, match="no text in the column 'rejected'"):
        read_preferences(write(tmp_path / "p.json", [{"prompt": "q", "chosen": "a"}]))


@pytest.mark.parametrize("name", ["rasbt/instruction-data-with-preference.json", "llamafactory_dpo_en_demo.json.zst"])
def test_real_preferences(shared_data: Path, name: str) -> None:
    items, people = read_preferences(shared_data / "instruct" / name)
    assert len(items) == len(people) >= 300
    assert all(item.question and item.answer and item.other for item in items)


# Through HTTP


@pytest.fixture(autouse=True)
def this_machine_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # its client refuses even this machine


def endpoint(url: str, **settings: Any) -> EndpointJudge:
    return EndpointJudge(url, "m", **{"wait": 0.01, "timeout": 0.5, "parallel": 1, **settings})


PASSING = {
    "error of the server": (500, {}),
    "too many requests": (429, {}),
    "cut connection": (0, b""),
    "no JSON": (200, b"<html>Welcome</html>"),
    "JSON, and no completion": (200, {"choices": []}),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: tuple[int, Any]
) -> None:
    """Every second request fails; all is asked for once, and the key is sent and not kept."""
    monkeypatch.setenv("JUDGE_API_KEY", "secret-key")
    with server(lambda number, body: failure if number % 2 else said("72")) as (url, requests, keys):
        judge, started = endpoint(url), time.monotonic()
        assert ask(judge, ["one", "two"], Journal(tmp_path / "j.jsonl", judge.identity())) == ["72", "72"]
        assert (time.monotonic() - started > 2) == (failure[0] == 429)  # as the server asked
        assert [each["messages"][0]["content"] for each in requests] == ["one", "one", "two", "two"]
        assert {(each["model"], each["max_tokens"], each["temperature"]) for each in requests} == {("m", 16, 0.0)}
        assert set(keys) == {"Bearer secret-key"}
        assert ask(judge, ["two", "one"], Journal(tmp_path / "j.jsonl", judge.identity())) == ["72", "72"]
        assert len(requests) == 4
        with (tmp_path / "j.jsonl").open("a") as file:
            file.write('{"reply": "of nobody"}\n')  # dropped, like a line that was cut off
        assert len(Journal(tmp_path / "j.jsonl", judge.identity()).answers) == 2
    assert "secret-key" not in (tmp_path / "j.jsonl").read_text() + json.dumps(judge.identity())


def test_a_request_without_answer_is_tried_again() -> None:
    release = threading.Event()

    def script(number: int, body: dict) -> tuple[int, Any]:
        if number == 1:
            release.wait(30)
        return said("5")

    with server(script) as (url, requests, _):
        judge = endpoint(url, timeout=0.5)
        threading.Timer(0.7, release.set).start()
        assert [dict(each) for each in judge.replies(["one"])] == [{0: "5"}]
        assert len(requests) == 2


@pytest.mark.parametrize(
    ("failure", "attempts", "words"),
    [
        *((failure, 3, "") for failure in PASSING.values() if failure[0] != 429),
        ((401, {"error": "wrong: secret-key"}), 1, "401"),
        ((404, {"error": "no such model"}), 1, "404"),
    ],
    ids=[*(name for name in PASSING if name != "too many requests"), "wrong key", "unknown model"],
)
def test_a_failure_for_good_is_one_line_and_keeps_what_was_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: tuple[int, Any], attempts: int, words: str
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "secret-key")
    with server(lambda number, body: said("7") if number < 3 else failure) as (url, sent, _):
        judge = endpoint(url.replace("127", "user:word@127"), attempts=3)
        journal = Journal(tmp_path / "j.jsonl", judge.identity())
        with pytest.raises(ValueError, match=rf"m at 127.0.0.1:\d+/v1 does not reply .*{words}.*: run this") as error:
            ask(judge, ["a", "b", "c", "d"], journal)
        text = str(error.value) + json.dumps(judge.identity())
        assert not any(secret in text for secret in ("secret-key", "word", "user", "\n"))
        assert (len(sent), len(journal.answers)) == (2 + attempts, 2)
    assert len(Journal(tmp_path / "j.jsonl", judge.identity()).answers) == 2


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.delenv("JUDGE_API_KEY", raising=False)
    with server(lambda number, body: said(None)) as (url, _, keys):
        assert list(endpoint(url).replies(["a"])) == [{0: ""}]  # and what is no text is not read
    assert keys == ["Bearer none"]


def test_nobody_there_offline_and_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda number, body: said("1")) as (url, _, _):
        pass
    with pytest.raises(ValueError, match="does not reply"):
        list(endpoint(url, attempts=2).replies(["a"]))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="while HF_HUB_OFFLINE is set"):
        list(endpoint(url, wait=1000).replies(["a"]))
    for wrong in ("http://localhost:port/v1", "http://[::1/v1"):
        with pytest.raises(ValueError, match=r"^--judge http.* is no address: give one like"):
            EndpointJudge(wrong, "m")
    with pytest.raises(ValueError, match="--judge localhost:1 is no address"):
        endpoint("localhost:1")


# A model as judge


def tiny(context: int) -> LocalJudge:
    tokenizer: Any = to_transformers(
        BPETokenizer.train(["Which answer is better? Reply with the number only."] * 2, 280)
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=context, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LocalJudge(LlamaForCausalLM(config), tokenizer, {"name": "tiny"}, max_new_tokens=8, batch_size=2)


def test_a_tiny_model_is_unfit(tmp_path: Path) -> None:
    found = Judging(SINGLE, tiny(1024), tmp_path).run().metrics
    assert found["readable"].value == 0
    assert "unfit as a judge: 5 of 5" in found["readable"].details["verdict"]
    assert found["readable"].signature.startswith("judge: readable|name:tiny|max_new_tokens:8|")
    replies = [json.loads(line)["replies"][0] for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert all(replies)
    assert not any("grade" in reply for reply in replies)  # only what is new, not the prompt


def test_a_prompt_that_is_too_long_is_no_reply(tmp_path: Path) -> None:
    judge = tiny(1024)
    journal = Journal(tmp_path / "j.jsonl", judge.identity())
    assert [reply is None for reply in ask(judge, ["x" * 2000, "b", "a longer one"], journal)] == [True, False, False]
    found = Judging(SINGLE, tiny(64), tmp_path).run().metrics["readable"]
    assert (found.value, found.details["too_long"]) == (0, 5)
