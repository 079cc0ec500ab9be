"""data_builders/instructions.py: pairs without a teacher, by a local one, and by a loopback endpoint."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from datasets import Features, Value, load_from_disk

from data_builders import text_files
from data_builders.instructions import (
    PROMPTS,
    InstructionsArguments,
    ask,
    build,
    check_fitness,
    fill_in,
    load,
    main,
    plan,
    read_prompts,
)
from data_builders.teaching.extractive import NUMBER, _fits_gap, make_pairs, opening
from data_builders.teaching.filters import (
    COPY,
    DUPLICATE,
    LENGTH,
    TALK,
    TRUNCATED,
    UNSUPPORTED,
    Filters,
    Seen,
    copied_share,
)
from data_builders.teaching.reading import with_passages
from data_builders.teaching.teacher import Answer, EndpointTeacher, Journal
from data_builders.teaching.terms import acronyms, is_term, mentions, names
from scratchgpt.data.builder import make_dataset
from scratchgpt.data.passages import NOT_SAID
from scratchgpt.evaluation.passages import read_asked

BODY = (
    "Group Relative Policy Optimization (GRPO) lowers the cost of training. GRPO is a method that drops the "
    "critic model. However, the reward still decides the direction of the optimization in every single step. "
    "We train the RMSNorm variant on 512 accelerators with a rate of 3.5%. The throughput of the RMSNorm "
    "variant grows by 12.5% against the baseline that was measured before. Nothing else was changed between "
    "the two runs of this comparison."
)
TEXT = "\n\n".join(
    ["# A Report", "## Abstract", "We present a report on rewards.", "## 1 Reward Modeling", BODY, "## 2 Method", BODY]
)
CAPTIONS = ["Figure 2: The reward rises during the whole of training. It never falls.", "Table 1: Scores."]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """What pdf_reports.py writes, of three reports."""
    text = Value("string")
    columns = {"id": text, "title": text, "text": text, "captions": [text], "source": text}
    passage_columns = {"id": text, "title": text, "section": text, "text": text, "source": text}
    documents, passages = {}, {}
    for number, split in enumerate(("train", "validation", "test")):
        common = {"title": f"Report {number}", "source": f"{number}.pdf"}
        body = TEXT.replace("GRPO", f"GRPO{number}").replace("12.5", f"12.{number}")
        documents[split] = [{"id": str(number), "text": body, "captions": CAPTIONS, **common}]
        passages[split] = [
            {"id": f"{number}#{n}", "section": f"{n + 1} Part", "text": f"Passage {number}.{n}. {BODY}", **common}
            for n in range(3)
        ]
    make_dataset(documents, Features(columns)).save_to_disk(tmp_path / "reports/documents")
    make_dataset(passages, Features(passage_columns)).save_to_disk(tmp_path / "reports/passages")
    return tmp_path / "reports"


def arguments(source: Path, **options: Any) -> InstructionsArguments:
    return InstructionsArguments(**{"source": str(source), "output_dir": str(source.parent / "chat"), **options})


def test_pairs_without_a_teacher() -> None:
    pairs = {(pair.task, pair.question): pair for pair in make_pairs("A Report", TEXT, CAPTIONS, 0)}
    by_task = Counter(task for task, _ in pairs)
    assert set(by_task) == {"abstract", "section", "acronym", "term", "figure", "gap", "sentence"}
    answers = {pair.task: pair.answer for pair in pairs.values()}
    assert answers["abstract"] == "We present a report on rewards."
    assert answers["acronym"] == "GRPO stands for Group Relative Policy Optimization."
    assert answers["term"] == "GRPO is a method that drops the critic model."
    assert answers["figure"] == "The reward rises during the whole of training. It never falls."
    for pair in pairs.values():
        if pair.task in ("abstract", "section", "term", "sentence"):
            assert pair.answer in " ".join([BODY, "We present a report on rewards."])
        assert bool(pair.passage) == (pair.task in ("gap", "sentence"))
    gap = next(pair for pair in pairs.values() if pair.task == "gap")
    number = gap.answer.split(":")[0]
    assert gap.question.split("“")[1].replace("___", number) in gap.answer + "”"


def test_a_question_has_the_passage_that_answers_it_or_the_answer_is_that_none_is_there() -> None:
    text = "\n\n".join(
        f"Thing{n} is a method that {'very ' * 20}slowly drops part {n} of the whole." for n in range(60)
    )
    pairs = list(with_passages(make_pairs("A Report", text, [], 0), text, 0))
    assert len({pair.passage for pair in pairs}) > 20
    said = [pair for pair in pairs if pair.answer != NOT_SAID]
    assert all(pair.answer in pair.passage for pair in said)
    refused = [pair for pair in pairs if pair.answer == NOT_SAID]
    assert 5 <= len(refused) <= 25
    answers = {pair.question: pair.answer for pair in make_pairs("A Report", text, [], 0)}
    assert all(answers[pair.question] not in pair.passage and pair.task == "not said" for pair in refused)


def test_an_acronym_is_answered_by_the_passage_that_explains_it() -> None:
    pairs = with_passages(make_pairs("A Report", TEXT, CAPTIONS, 0), TEXT, 0)
    (pair,) = (pair for pair in pairs if "short for" in pair.question or "stand for" in pair.question)
    assert pair.answer == NOT_SAID or "Group Relative Policy Optimization (GRPO)" in pair.passage


@pytest.mark.parametrize("kind", ["reports", "texts"])
def test_the_build_with_passages_can_be_measured_by_the_suite(reports: Path, tmp_path: Path, kind: str) -> None:
    source = reports
    if kind == "texts":
        folder, source = tmp_path / "notes", tmp_path / "texts"
        folder.mkdir()
        for number in range(8):
            wrapped = TEXT.replace("GRPO", f"GRPO{number}").replace(". ", ".\n")
            (folder / f"note {number}.md").write_text(wrapped)
        options = ["--near_duplicate_threshold", "1", "--test_fraction", "0.3"]
        text_files.main(["--source", str(folder), "--output_dir", str(source), *options])
    main(["--source", str(source), "--output_dir", str(tmp_path / "read"), "--with_passage", "True"])
    asked = read_asked(tmp_path / "read", "test")
    assert {"sentence"} < {each.kind for each in asked}
    refused = [row for rows in load_from_disk(tmp_path / "read").values() for row in rows if row["kind"] == "not said"]
    assert len(refused) > 1 or kind == "reports"
    assert all(each.reference in each.passage or not each.is_answered or each.kind == "acronym" for each in asked)


def test_no_question_about_however() -> None:
    questions = " ".join(pair.question.split("\n")[0] for pair in make_pairs("A Report", TEXT, CAPTIONS, 0))
    assert "However" not in questions


def test_gaps_are_numbers_that_say_something() -> None:
    fits = {
        "We train the large model on 512 accelerators for a week.": ["512"],
        "As others did before us [12, 13], we train on 2,048 of them.": ["2,048"],
        "The sizes are 7B/13B/65B in the version of the year 2023 here.": [],
        "We show what came of it for all of them in Tables 11 and 12.": [],
        "It departs at 10:40 every day but on days of AIME’24 and others.": [],
        "We follow Yuan 2.0 and Table 12 and say no more about it.": [],
    }
    for sentence, numbers in fits.items():
        assert [match[0] for match in NUMBER.finditer(sentence) if _fits_gap(sentence, match)] == numbers


def test_a_version_is_no_mention() -> None:
    assert [mentions("Qwen2", text) for text in ("Qwen2.5 is", "Qwen2-VL is", "It is Qwen2.", "Qwen2 is")] == [
        0,
        0,
        1,
        1,
    ]


def test_an_answer_ends_with_a_sentence() -> None:
    assert opening(["One two three. Four five six. Seven eight nine."], 7) == "One two three. Four five six."
    assert opening(["We use the following:", "- a thing"], 50) == ""
    assert opening(["A first. We use the following:"], 50) == "A first."


def test_an_answer_holds_no_torn_list_and_no_torn_formula() -> None:
    phases = ["We begin. It has these phases:", "- One of them.", "- Two more.", "Then it ends."]
    assert opening(phases, 9) == "We begin."
    assert opening(phases, 11) == "We begin."
    assert opening(phases, 13) == "\n\n".join(phases[:3])
    assert opening(phases[1:], 4) == ""
    assert opening(["We are first here. The solution is of the form", "Here Z is a sum."], 50) == "We are first here."
    assert (
        opening(["There are two ways.", "Curriculum Sampling. We sample by difficulty."], 6) == "There are two ways."
    )


def test_terms() -> None:
    assert acronyms("the Chain-of-Thought (CoT) of Large Language Models (LLMs) and a thing (ABC)") == {
        "CoT": "Chain-of-Thought",
        "LLMs": "Large Language Models",
    }
    found = names(["We use RMSNorm and RMSNorm (Zhang and Sennrich, 2019). However, GPT-3 is like GPT-3 in Table 3."])
    assert set(found) == {"RMSNorm", "GPT-3"}
    assert not any(map(is_term, ("However", "Table 3", "7B", "A", "III", "2019", "Section 4")))


def test_the_build_without_a_teacher(reports: Path) -> None:
    main(["--source", str(reports), "--output_dir", str(reports.parent / "chat")])
    data = load_from_disk(reports.parent / "chat")
    assert {split: set(rows["source"]) for split, rows in data.items()} == {
        "train": {"0.pdf"},
        "validation": {"1.pdf"},
        "test": {"2.pdf"},
    }
    questions = [row["messages"][0]["content"] for rows in data.values() for row in rows]
    assert len(questions) == len(set(questions))
    card = (reports.parent / "chat/README.md").read_text()
    assert "| a duplicate |" in card
    assert build(arguments(reports)).data["train"]._fingerprint == build(arguments(reports)).data["train"]._fingerprint


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("GRPO lowers the training cost because it drops the critic model.", ""),
        ("GRPO lowers the training cost because it drops the", TRUNCATED),
        ("It lowers cost.", LENGTH),
        ("Note: GRPO lowers the training cost because it drops the critic model.", TALK),
        ("The excerpt says that GRPO lowers the training cost because it drops the critic model.", TALK),
        ("Sure! GRPO lowers the training cost because it drops the critic model.", TALK),
        ("GRPO is a method that drops the critic model. However, the reward still decides the direction.", COPY),
        ("Penguins live in Antarctica, where they eat krill and fish in cold water.", UNSUPPORTED),
        ("GRPO lowers the training cost by 77% because it drops the critic model.", UNSUPPORTED),
    ],
)
def test_filters(answer: str, reason: str) -> None:
    assert Filters().judge(answer, BODY, finished=True) == reason


def test_filters_of_what_may_be_copied_or_was_cut() -> None:
    copied = "GRPO is a method that drops the critic model. However, the reward still decides the direction."
    assert Filters().judge(copied, BODY, finished=True, may_copy=True) == ""
    assert Filters().judge(copied, BODY, finished=False, may_copy=True) == TRUNCATED
    assert copied_share("a b c d e f g h x", "a b c d e f g h y") == 8 / 9
    seen = Seen()
    assert seen.is_new("What is it?", "A thing.")
    assert not seen.is_new("what is it", "Another thing.")
    assert not seen.is_new("And this?", "a thing")


def test_plan(reports: Path) -> None:
    options = arguments(reports)
    passages = load(reports, "passages", {"id"})
    prompts = read_prompts(PROMPTS, options.tasks)
    requests = list(plan(passages, prompts, options))
    assert len(requests) == 18
    assert [request.question for request in requests] == [
        request.question for request in plan(passages, prompts, options)
    ]
    assert {request.task for request in requests} == set(options.tasks)
    for request in requests:
        text = json.dumps([request.prompt, request.question], ensure_ascii=False)
        assert "{title}" not in text
        assert "However" not in request.question.split("\n")[0]
    assert fill_in("{a} {b}", {"a": "{b}"}) == "{b} {b}"


class Recorded:
    """A teacher that answers from the passage, and may be interrupted."""

    name, batch_size = "recorded", 1

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked = 0
        self.stop_after = stop_after

    def answer(self, requests: Sequence[list[dict[str, str]]], seed: int) -> list[Answer]:
        if self.asked == self.stop_after:
            raise KeyboardInterrupt
        self.asked += 1
        return [Answer(f"Answer {self.asked}: {seed}", True) for _ in requests]


def test_a_kill_loses_the_request_under_way_alone(reports: Path, tmp_path: Path) -> None:
    options = arguments(reports)
    requests = list(plan(load(reports, "passages", {"id"}), read_prompts(PROMPTS, options.tasks), options))
    file = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        ask(requests, Recorded(stop_after=5), Journal(file), options)
    with file.open("a") as stream:
        stream.write('{"key": "torn')
    teacher = Recorded()
    ask(requests, teacher, Journal(file), options)
    assert teacher.asked == len(requests) - 5
    assert {request.key for request in requests} == set(Journal(file).answers)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["seed"] for row in rows}) == len(rows) == len(requests)
    teacher = Recorded()
    ask(requests, teacher, Journal(file), options)
    assert teacher.asked == 0


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible server that fails once and then answers with a sentence of what it was sent."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *parts: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "authorization": self.headers.get("Authorization"), **body})
            if len(asked) == 1:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            request = body["messages"][-1]["content"]
            which = request.split("Passage ")[1].split(".")[:2]
            name = ".".join(which)
            text = f"Passage {name} says that in training the critic model drops, at lower cost {len(asked)}."
            reply = {
                "id": "1",
                "created": 0,
                "model": body["model"],
                "object": "chat.completion",
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
            content = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()
        thread.join()


def test_an_endpoint_as_teacher(
    reports: Path, endpoint: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = endpoint
    monkeypatch.setenv("TEACHER_API_KEY", "a-key")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # its client refuses even this machine
    options = {"endpoint": url, "teacher": "big-model", "requests_per_minute": 1e6, "pairs_per_passage": 1}
    options |= {"min_accepted": 0.2, "min_support": 0.4}
    built = build(arguments(reports, **options))
    assert {request["path"] for request in asked} == {"/v1/chat/completions"}
    assert {request["authorization"] for request in asked} == {"Bearer a-key"}
    assert {request["model"] for request in asked} == {"big-model"}
    assert len(asked) == 10  # one failed, and was asked again
    assert built.build["teacher"] == "big-model"
    assert sum(split.num_rows for split in built.data.values()) + sum(built.build["rejected"].values()) == 9
    rows = [row for split in built.data.values() for row in split]
    assert all(row["passage_id"].split("#")[0] + ".pdf" == row["source"] for row in rows)
    build(arguments(reports, **options))
    assert len(asked) == 10
    journal = (reports.parent / "chat_journal.jsonl").read_text()
    assert "a-key" not in journal
    assert url not in json.dumps(built.build)


def test_requests_are_rate_limited() -> None:
    pauses: list[float] = []
    teacher = EndpointTeacher("http://127.0.0.1:9/v1", "m", 5, 0.0, 30, attempts=3, sleep=pauses.append)
    with pytest.raises(ValueError, match="the teacher did not answer"):
        teacher.answer([[{"role": "user", "content": "hello"}]], 0)
    assert [pause for pause in pauses if pause > 1.9 and pause <= 2.0][:1]
    assert len(pauses) == 4  # two of the rate, two between the tries


def test_a_local_teacher(reports: Path, tmp_path: Path) -> None:
    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
    from scratchgpt.tokenizers import GPT2_PATTERN, BPETokenizer, to_transformers

    tokenizer = to_transformers(BPETokenizer.train([BODY] * 3, 300, GPT2_PATTERN), model_max_length=4096)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    model = ScratchGPTForCausalLM(config)
    model.save_pretrained(tmp_path / "teacher")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "teacher")
    options = {"teacher": str(tmp_path / "teacher"), "max_requests": 4, "max_new_tokens": 4, "batch_size": 2}
    with pytest.raises(ValueError, match="has no chat template"):
        build(arguments(reports, **options))
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "teacher")
    # An untrained model is no teacher, and the message says how small it is.
    with pytest.raises(ValueError, match=r"teacher is unfit as a teacher: 0 of 4 .* below 3 most are unfit"):
        build(arguments(reports, **options))
    assert len(Journal(reports.parent / "chat_journal.jsonl").answers) == 4
    assert not (reports.parent / "chat").exists()


def test_fitness() -> None:
    check_fitness("t", 5, Counter({TALK: 5}), 0.5, None)
    with pytest.raises(
        ValueError, match=r"t is unfit as a teacher: 4 of 10 answers passed \(talks about the task: 6\)"
    ):
        check_fitness("t", 4, Counter({TALK: 6}), 0.5, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs_per_passage": 0}, "pairs_per_passage=0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"requests_per_minute": 0}, "requests_per_minute=0"),
        ({"min_support": 1.5}, "min_support=1.5"),
        ({"max_answer_words": 3}, "max_answer_words=3"),
        ({"endpoint": "http://x/v1"}, "--endpoint needs --teacher"),
    ],
)
def test_numbers_that_mean_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    command = ["--source", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        main([*command, *(f"--{name}={value}" for name, value in options.items())])


def test_a_folder_or_prompts_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no documents/"):
        build(arguments(tmp_path))
    (tmp_path / "p.yaml").write_text("tasks: {summarise: {request: a}}")
    with pytest.raises(ValueError, match="no task 'term'"):
        read_prompts(tmp_path / "p.yaml", ["term"])
    with pytest.raises(ValueError, match="needs `request` and `questions`"):
        read_prompts(tmp_path / "p.yaml", ["summarise"])


def test_what_is_left_out_is_counted(reports: Path) -> None:
    built = build(arguments(reports))
    assert built.build["rejected"][DUPLICATE] > 0
    assert set(built.build["rejected"]) >= {TRUNCATED, UNSUPPORTED}
