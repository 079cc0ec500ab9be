"""evaluation/response_comparison.py: which questions are asked, and what is written."""

import json
from pathlib import Path

import pytest
import torch

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.chat import render_chat
from scratchgpt.evaluation.response_comparison import choose_questions, compare_responses
from scratchgpt.tokenizers import BPETokenizer, to_transformers

CHATS = [
    [{"role": "user", "content": "a" * (i + 1)}, {"role": "assistant", "content": f"answer {i}"}] for i in range(20)
]


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(["answer"], 262))


def make_model(tokenizer, seed: int) -> ScratchGPTForCausalLM:
    torch.manual_seed(seed)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, initializer_range=0.5, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    return ScratchGPTForCausalLM(config)


def test_questions_are_spread_and_leave_room(tokenizer) -> None:
    chosen = choose_questions(CHATS, tokenizer, 5, longest=10**6)
    assert [question.reference for question in chosen] == [f"answer {i}" for i in range(0, 10, 2)]
    lengths = [len(render_chat(q.messages, tokenizer, add_generation_prompt=True).input_ids) for q in chosen]
    assert choose_questions(CHATS, tokenizer, 5, longest=lengths[1]) == chosen[:2]


def test_every_model_answers_the_same_questions(tokenizer, tmp_path: Path, capsys) -> None:
    models = {"base": make_model(tokenizer, 0), "tuned": make_model(tokenizer, 1)}
    compare_responses(models, tokenizer, CHATS, 3, 4, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "responses.jsonl").read_text().splitlines()]
    scores = json.loads((tmp_path / "responses.json").read_text())
    assert [line["reference"] for line in lines] == ["answer 0", "answer 3", "answer 6"]
    assert all(line["responses"].keys() == scores.keys() == models.keys() for line in lines)
    assert {score["num_responses"] for score in scores.values()} == {3}
    assert "tuned: ROUGE-L" in capsys.readouterr().out


def test_nothing_is_written_where_no_question_fits(tokenizer, tmp_path: Path, capsys) -> None:
    long = [[{"role": "user", "content": "long " * 20}, {"role": "assistant", "content": "yes"}]]
    compare_responses({"base": make_model(tokenizer, 0)}, tokenizer, long, 3, 4, tmp_path)
    assert "no question of the validation split is at most 12 tokens long" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
