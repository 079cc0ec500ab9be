"""evaluation/answers.py: which file can be scored, what is found, and how a killed run goes on."""

import copy
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from transformers import BloomConfig, BloomForCausalLM

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.chat import PLAIN_TEMPLATE, render_chats, stop_token_id
from scratchgpt.data.chat_rows import ChatRows
from scratchgpt.evaluation import answers as module
from scratchgpt.evaluation.answers import Answers, FinishedAnswers, ModelAnswers, Scoring, read_answers
from scratchgpt.evaluation.contamination import check_overlap
from scratchgpt.evaluation.journal import Journal
from scratchgpt.evaluation.responses import generate_responses
from scratchgpt.evaluation.results import Results
from scratchgpt.hub.training_texts import SketchBuilder, TrainingTexts
from scratchgpt.tokenizers import BPETokenizer, to_transformers

ROWS = [
    {"Instruction": "Add.", "Input": "2 and 2", "Response": "The sum is four.", "model_response": "The sum is 4."},
    {"Instruction": "Say yes.", "Input": "", "Response": "Yes", "model_response": ""},
    {"Instruction": "Count.", "Input": "", "Response": "1 2 3", "model_response": "1 2 3"},
]


def write(folder: Path, rows: list[Any], name: str = "answers.json") -> Path:
    file = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(json.dumps(rows) if name.endswith(".json") else lines)
    return file


@pytest.mark.parametrize("name", ["answers.json", "answers.jsonl"])
@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (["Instruction", "Input", "Response", "model_response"], {}),
        (["instruction", "input", "output", "model_response"], {}),
        (["INSTRUCTION", "INPUT", "Output", "Model_Response"], {}),
        (["instruction", "input", "gold", "said"], {"reference_column": "gold", "answer_column": "said"}),
        (["instruction", "input", "model_response", "output"],
         {"reference_column": "model_response", "answer_column": "output"}),
    ],
)  # fmt: skip
def test_columns(tmp_path: Path, columns: list[str], named: dict[str, str], name: str) -> None:
    rows = [dict(zip(columns, row.values(), strict=True)) for row in ROWS]
    found = read_answers(write(tmp_path, rows, name), **named)
    assert found.predictions == ["The sum is 4.", "", "1 2 3"]
    assert found.references == ["The sum is four.", "Yes", "1 2 3"]
    assert found.questions == ["Add.\n\n2 and 2", "Say yes.", "Count."]
    assert found.stopped is None


@pytest.mark.parametrize(
    ("rows", "named", "message"),
    [
        ([{"output": "a"}], {}, "no column 'model_response' for the answer: it has ['output']; name it with --"),
        ([{"model_response": "a"}], {}, "no column 'output' or 'response' or 'reference' for the reference"),
        ([{"model_response": "a", "output": "b"}], {"answer_column": "said"}, "no column 'said' for the answer"),
        ([{"model_response": "a", "output": "b", "Response": "c"}], {},
         "has 'output' and 'Response': say with --reference_column which is the reference"),
        ([*ROWS, {"Response": "a"}], {}, "row 4: 'model_response' is null, not text"),
        ([{"model_response": ["a"], "output": "b"}], {}, "row 1: 'model_response' is [\"a\"], not text"),
        ([*ROWS, {"Response": " \n", "model_response": "a"}], {}, "row 4: the reference is empty"),
        ([], {}, "holds no answers: there is nothing to score"),
        ([*ROWS, {"Response": "a", "model_response": math.nan}], {}, "row 4: 'model_response' is NaN, not text"),
        ([*ROWS, {"Response": math.nan, "model_response": "a"}], {}, "row 4: 'Response' is NaN, not text"),
        ([{"output": "a"}], {"answer_column": "output"}, "'output' cannot be both answer and reference; name the"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(tmp_path: Path, rows: list[Any], named: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_answers(write(tmp_path, rows), **named)
    assert "\n" not in str(error.value)


def test_other_mistakes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"--answers nowhere\.json is no file"):
        read_answers("nowhere.json")
    with pytest.raises(ValueError, match="2 answers and 1 references: give one for each"):
        Answers(["a", "b"], ["a"], ["", ""])
    with pytest.raises(ValueError, match="holds no answers"):
        Answers([], [], [])
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "sacrebleu" else object())
    with pytest.raises(ValueError, match=r"needs the package sacrebleu: pip install -e '.\[eval\]'"):
        FinishedAnswers(Answers(["a"], ["a"], [""])).check(None, None)


def test_scores_and_their_intervals() -> None:
    words = np.random.default_rng(0).choice(["red", "green", "blue", "the", "a"], size=(80, 2, 8))
    predictions, references = ([" ".join(row) for row in words[:, side]] for side in (0, 1))
    found = Scoring().score(Answers(predictions, references, [""] * 80, [i < 60 for i in range(80)]))
    bleu = found.metrics["bleu"]
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)
    # The interval is that of metrics computed anew for each resample, as sacrebleu's own bootstrap does.
    own = sacrebleu.BLEU().corpus_score(predictions, [references], n_bootstrap=1000)
    assert bleu.interval is not None
    assert (bleu.interval[1] - bleu.interval[0]) / 2 == pytest.approx(own._ci, rel=0.1)
    assert found.metrics["exact_stop_rate"].value == 0.75
    assert found.metrics["exact_match"].interval == pytest.approx((0, 0.0458), abs=1e-4)  # Wilson's, of 0 in 80
    for name, scores in found.items.items():
        assert sum(scores) / len(scores) == pytest.approx(found.metrics[name].value), name
    assert {"rougeL", "meteor", "token_f1_macro", "exact_match"} <= set(found.items)
    assert all(each.signature.count("version:") == 1 for each in found.metrics.values())
    again = Scoring().score(Answers(predictions, references, [""] * 80, [i < 60 for i in range(80)]))
    assert again == found


def test_no_interval_of_one_answer() -> None:
    found = Scoring().score(Answers(["a b"], ["a c"], [""]))
    assert found.metrics["rouge1"].interval is None
    assert found.metrics["rouge1"].value == 0.5


def test_five_hundred_answers_take_seconds() -> None:
    words = np.random.default_rng(0).choice([f"word{i}" for i in range(300)], size=(500, 2, 30))
    texts = [[" ".join(row) for row in words[:, side]] for side in (0, 1)]
    Scoring().signatures()  # imports
    start = time.perf_counter()
    Scoring().score(Answers(texts[0], texts[1], [""] * 500))
    assert time.perf_counter() - start < 20


def test_results_are_kept_until_answers_or_metrics_change(tmp_path: Path) -> None:
    suite = FinishedAnswers(read_answers(write(tmp_path, ROWS)))
    results = Results(tmp_path / "out", {"answers": "x"})
    assert not results.has(suite)
    results.record(suite, suite.run(None, None))
    assert Results(tmp_path / "out", {"answers": "x"}).has(suite)
    stored = json.loads((tmp_path / "out" / "results.json").read_text())["answers"]
    assert stored["token_f1"].keys() >= {"value", "count", "interval", "signature"}
    other = FinishedAnswers(read_answers(write(tmp_path, [{**ROWS[0], "model_response": "4"}, *ROWS[1:]])))
    assert not results.has(other)


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(["answer"], 262))


@pytest.fixture(scope="module")
def model(tokenizer) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.5, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    return ScratchGPTForCausalLM(config)


class Killed(Exception): ...


def asked(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": "a" * (1 + i % 7) + str(i)}] for i in range(count)]


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 1.5}], ids=["greedy", "sampled"])
def test_a_kill_loses_the_batch_under_way(model, tokenizer, tmp_path: Path, monkeypatch, sampling) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 8, "batch_size": 4, **sampling}
    whole = generate_responses(model, tokenizer, asked(20), **settings)
    generate, calls = model.generate, []

    def dies(**inputs: Any) -> torch.Tensor:
        calls.append(inputs)
        if len(calls) == 4:
            raise Killed
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", dies)
    file = tmp_path / "journal" / "answers.jsonl"
    with pytest.raises(Killed):
        generate_responses(model, tokenizer, asked(20), journal=Journal(file, {"model": 1}), **settings)
    assert len(file.read_text().splitlines()) == 12
    with file.open("a") as stream:
        stream.write('{"key": "cut of')
    assert generate_responses(model, tokenizer, asked(20), journal=Journal(file, {"model": 1}), **settings) == whole
    assert len(calls) == 4 + 2
    assert generate_responses(model, tokenizer, asked(20), journal=Journal(file, {"model": 1}), **settings) == whole
    assert len(calls) == 4 + 2
    generate_responses(model, tokenizer, asked(20), journal=Journal(file, {"model": 2}), **settings)
    assert len(calls) == 4 + 2 + 5


def test_a_model_answers_and_is_scored_like_a_file(model, tokenizer, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}", "input": "now", "output": f"{i} it is"} for i in range(12)]
    data = write(tmp_path, [*rows, {"instruction": "long " * 50, "input": "", "output": "x"}])
    suite = ModelAnswers(str(data), "train", tmp_path / "out", {"model": 1}, max_new_tokens=8, batch_size=4)
    suite.check(model.config, tokenizer)
    found = suite.run(model, tokenizer)
    assert found.metrics["bleu"].count == 12  # the long one leaves no room
    written = read_answers(tmp_path / "out" / "answers.jsonl")
    assert written.questions == [f"Say {i}\n\nnow" for i in range(12)]
    again = Scoring().score(written)
    assert again == found
    assert "exact_stop_rate" in found.metrics
    json.dumps(suite.identity())


@pytest.mark.parametrize("headings", [False, True], ids=["role tokens", "headings"])
def test_chats_that_were_trained_on_are_recognised(headings: bool, tokenizer, tmp_path: Path) -> None:
    """However short: question and answer are one document of the training text, as they are of the test's."""
    tokenizer = copy.deepcopy(tokenizer)
    if headings:
        tokenizer.chat_template = PLAIN_TEMPLATE
    rows = [{"instruction": f"What is {i} and {i}", "input": "", "output": f"{2 * i} it is"} for i in range(40)]
    suite = ModelAnswers(str(write(tmp_path, rows)), "train", tmp_path / "out", {})
    learned = [
        [*question.messages, {"role": "assistant", "content": question.reference}] for question in suite.questions[:30]
    ]
    builder = SketchBuilder()
    builder.add(ChatRows(render_chats(learned, tokenizer), 128, 0).texts(tokenizer))
    TrainingTexts((), is_complete=True).after(builder.sketch()).write(tmp_path)
    overlap = check_overlap(list(suite.texts(tokenizer)), tmp_path)
    assert overlap.seen.tolist() == [True] * 30 + [False] * 10


def test_a_sample_is_from_all_over(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}", "input": "", "output": " " if i % 2 else f"{i}"} for i in range(38)]
    data = write(tmp_path, rows)
    suite = ModelAnswers(str(data), "train", tmp_path / "out", {}, count=10)
    assert [each.reference for each in suite.questions] == [str(i) for i in (0, 2, 6, 10, 14, 18, 22, 26, 30, 34)]


def test_a_model_without_a_largest_position_answers(tokenizer, tmp_path: Path) -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2)).eval()
    assert len(generate_responses(bloom, tokenizer, asked(2), max_new_tokens=2)) == 2


def test_a_base_without_template_is_asked_in_headings(model, tokenizer, tmp_path: Path) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    data = write(tmp_path, [{"instruction": "Say", "input": "", "output": "it"}])
    suite = ModelAnswers(str(data), "train", tmp_path / "out", {}, max_new_tokens=4)
    suite.check(model.config, plain)
    assert suite.run(model, plain).metrics["bleu"].count == 1
    assert plain.chat_template is None
    plain.eos_token = None
    with pytest.raises(ValueError, match="no end-of-text token"):
        suite.check(model.config, plain)
    assert stop_token_id(tokenizer)
