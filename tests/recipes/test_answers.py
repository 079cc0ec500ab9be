"""A thousand answers of tuned models, for each kind of tokenizer: nothing in them but the answer."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import load_from_disk
from transformers import AutoTokenizer

from data_builders import alpaca
from recipes import finetune_instruct
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.adapters import load_base
from scratchgpt.data.chat import render_chats, stop_token_id
from scratchgpt.data.chat_rows import ChatRows
from scratchgpt.evaluation.language_modelling import evaluate_language_model, token_byte_counts
from scratchgpt.evaluation.responses import generate_responses, last_questions, score_responses
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer, to_transformers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def make_tokenizer(kind: str, texts: list[str], shared_data: Path) -> ScratchGPTTokenizer:
    if kind == "gpt2":
        folder = shared_data / "tokenizer" / "gpt2"
        return ScratchGPTTokenizer.from_gpt2(folder / "encoder.json", folder / "vocab.bpe")
    return to_transformers(BPETokenizer.train(texts, 1024) if kind == "bpe" else RegexTokenizer.train(texts, 2048))


@pytest.fixture(scope="module", params=["bpe", "words", "gpt2"])
def tuned(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory) -> Path:
    """A small model, tuned on 1,100 instructions from nothing; its run directory."""
    folder = tmp_path_factory.mktemp(request.param)
    source = shared_data / "instruct" / "rasbt" / "instruction-data.json"
    alpaca.main(["--source", str(source), "--output_dir", str(folder / "data"), "--validation_fraction", "0.1"])
    texts = [message["content"] for chat in load_from_disk(folder / "data")["train"]["messages"] for message in chat]
    tokenizer = make_tokenizer(request.param, texts, shared_data)
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=-(-len(tokenizer) // 64) * 64, hidden_size=128, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    save_model(ScratchGPTForCausalLM(config), tokenizer, folder / "base")
    finetune_instruct.main([
        f"--{name}={value}" for name, value in {
            "model_name_or_path": folder / "base", "data": folder / "data", "output_dir": folder / "run",
            "tuning": "full", "learning_rate": 0.003, "max_steps": 150, "eval_steps": 50, "save_steps": 150,
            "per_device_train_batch_size": 8, "context_length": 128, "compile": False, "num_responses": 0,
        }.items()
    ])  # fmt: skip
    return folder / "run"


def test_a_thousand_answers(tuned: Path) -> None:
    model = ScratchGPTForCausalLM.from_pretrained(tuned / "final")
    tokenizer = AutoTokenizer.from_pretrained(tuned / "final")
    questions = last_questions(load_from_disk(tuned.parent / "data")["train"]["messages"])
    questions += last_questions(load_from_disk(tuned.parent / "data")["validation"]["messages"])
    questions = questions[:1000]
    assert len(questions) == 1000
    prompts = render_chats([question.messages for question in questions], tokenizer, add_generation_prompt=True)
    answers = generate_responses(
        model, tokenizer, [q.messages for q in questions], 48, batch_size=50, do_sample=True, temperature=1.0
    )
    special, names = set(tokenizer.all_special_ids), tokenizer.all_special_tokens
    for question, prompt, answer in zip(questions, prompts, answers, strict=True):
        assert not special & set(answer.token_ids)
        assert not any(name in answer.text for name in names)
        assert question.messages[-1]["content"] not in answer.text
        assert tokenizer.decode(prompt.input_ids) not in answer.text
        assert len(answer.token_ids) <= 48
        assert answer.text == tokenizer.decode(answer.token_ids)
    scores = score_responses(answers, [question.reference for question in questions])
    print(f"{tuned.parent.name}: {scores.exact_stop_rate:.1%} of {len(answers)} answers end by the stop token")
    assert scores.exact_stop_rate > 0.5
    assert stop_token_id(tokenizer) in model.generation_config.eos_token_id


def test_four_bits_cost_little(tuned: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tuned / "final")
    chats = render_chats(load_from_disk(tuned.parent / "data")["validation"]["messages"], tokenizer)
    rows = ChatRows(chats, 128, tokenizer.pad_token_id)
    full, quantised = (load_base(tuned / "final", four_bit=four_bit).eval() for four_bit in (False, True))
    counts = token_byte_counts(tokenizer, full.config.vocab_size)
    accelerator = Accelerator(cpu=True)
    reference, result = (evaluate_language_model(m, rows, counts, 8, accelerator) for m in (full, quantised))
    print(f"{tuned.parent.name}: perplexity {reference.perplexity:.2f} in fp32, {result.perplexity:.2f} in four bits")
    assert result.perplexity != reference.perplexity
    assert result.perplexity < 1.05 * reference.perplexity
