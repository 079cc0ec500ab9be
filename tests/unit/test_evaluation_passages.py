"""The suite passages against answers that are known, and the mistakes in its data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.passages import NOT_SAID, with_passage
from scratchgpt.evaluation import passages
from scratchgpt.evaluation.passages import PassageSuite, first_sentence
from scratchgpt.evaluation.report import passages_section
from scratchgpt.evaluation.responses import Response
from scratchgpt.tokenizers import BPETokenizer, to_transformers

TOPICS = ("apples", "bridges", "candles", "dragons", "engines", "flowers")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train(["Make apples of wood."], 270))


def make_model(tokenizer: Any, context: int) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=context, **ids,
    )  # fmt: skip
    return ScratchGPTForCausalLM(config)


def row(topic: str, kind: str = "purpose", wording: str = "new") -> dict[str, Any]:
    passage = f"{topic}.make(size=3)\nMake {topic} of wood. They are sold later."
    answers = {"purpose": f"Make {topic} of wood.", "call": f"{topic}.make(size=3)", "not said": NOT_SAID}
    question = {"purpose": f"What does {topic}.make do?", "call": f"How do I call {topic}.make?"}
    asked = question.get(kind, f"Who bought the {topic}?")
    return {
        "messages": [
            {"role": "user", "content": with_passage(passage, asked)},
            {"role": "assistant", "content": answers[kind]},
        ],
        "passage": passage, "kind": kind, "wording": wording, "source": topic,
    }  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [row(topic, kind) for topic in TOPICS for kind in ("purpose", "call", "not said")]
    DatasetDict({"test": Dataset.from_list(rows)}).save_to_disk(tmp_path / "data")
    return tmp_path / "data"


def suite(data: Path, tmp_path: Path, **options: Any) -> PassageSuite:
    return PassageSuite(str(data), "test", tmp_path, {}, max_new_tokens=4, **options)


def test_each_number_is_what_was_answered(
    data: Path, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that always copies the first sentence, and says so where the question names something else."""

    def answers(model: Any, tokenizer: Any, chats: Sequence[Any], *_: Any, **__: Any) -> list[Response]:
        texts = []
        for (message,) in chats:
            passage, _, question = message["content"].rpartition("\n\n")
            known = bool(passage) and passage.split(".")[0] in question
            texts.append(first_sentence(passage) if known and "Who" not in question else NOT_SAID)
        return [Response(text, [], True) for text in texts]

    monkeypatch.setattr(passages, "generate_responses", answers)
    found = suite(data, tmp_path).run(make_model(tokenizer, 512), tokenizer).metrics
    values = {name: each.value for name, each in found.items()}
    assert values == pytest.approx(
        {
            "exact_match": 2 / 3,  # all but the calls
            "token_f1": values["token_f1"],
            "exact_match_first_sentence": 1 / 3,
            "exact_match/purpose": 1.0,
            "exact_match/call": 0.0,
            "exact_match/not said": 1.0,
            "exact_match/new wording": 2 / 3,
            **{name: value for name, value in values.items() if name.startswith("token_f1/")},
            "found": 1.0,
            "exact_match_found": 0.5,
            "exact_match_without": 0.0,
            "not_said_wrong": 1.0,
        }
    )
    assert values["token_f1/purpose"] == 1
    assert 0 < values["token_f1"] < 1
    assert found["exact_match"].count == 18
    assert found["found"].count == 12
    low, high = found["exact_match"].interval or (0, 0)
    assert low == pytest.approx(high) == pytest.approx(2 / 3)  # each document has the same share
    lines = [json.loads(line) for line in (tmp_path / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 18
    assert set(lines[0]) == {"kind", "instruction", "output", "model_response"}
    page = passages_section([{"model": {"name": "runs/chat"}, "passages": {n: m.as_dict() for n, m in found.items()}}])
    assert "66.7%" in page[1]
    assert "| purpose | 100.0%" in page[3]
    assert "100.0%" in page[2]


def test_a_model_answers(data: Path, tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="leaves room"):
        suite(data, tmp_path).check(make_model(tokenizer, 32).config, tokenizer)
    model = make_model(tokenizer, 256)
    asked = suite(data, tmp_path, count=6)
    asked.check(model.config, tokenizer)
    first = asked.run(model, tokenizer)
    assert first.metrics["exact_match"].count == 6
    assert asked.run(model, tokenizer).items == first.items
    assert asked.identity() != suite(data, tmp_path).identity()


def test_a_document_at_a_time_is_resampled() -> None:
    asked = [passages.Asked("?", "p", "r", "kind", source) for source in "aabb"]
    measured = passages._mean([1, 1, 0, 0], asked)
    assert measured.value == 0.5
    assert measured.interval == (0.0, 1.0)
    assert passages._mean([1, 0], asked[:2]).interval is None


def test_the_first_sentence() -> None:
    assert first_sentence("f(x)\nDo it now. And then stop.") == "Do it now."
    assert first_sentence("f(x)\nDo it now") == "Do it now"
    assert first_sentence("f(x)") == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda row: row.pop("kind"), "has no column 'kind'"),
        (
            lambda row: row.update(passage="Something else."),
            "row 1: the first message does not begin with the passage",
        ),
    ],
)
def test_other_data_is_refused(tmp_path: Path, change: Any, complaint: str) -> None:
    changed = row("apples")
    change(changed)
    (tmp_path / "data.jsonl").write_text(json.dumps(changed) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        PassageSuite(str(tmp_path / "data.jsonl"), "train", tmp_path, {})
