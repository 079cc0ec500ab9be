"""evaluation/responses.py: answers cut by token position, and what is counted of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Tokenizer

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.chat import render_chat, stop_token_id
from scratchgpt.evaluation.answers import with_chat_template
from scratchgpt.evaluation.responses import (
    Response,
    generate_responses,
    last_questions,
    score_responses,
)
from scratchgpt.inference.answer_settings import answer_settings
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer, to_transformers

TEXTS = ["What is the sum of two and two? The sum is four. naïve 日本 <|end|> questions are welcome!\n"] * 3


@pytest.fixture(scope="module", params=["bpe", "words", "unk"])
def tokenizer(request):
    if request.param == "bpe":
        return to_transformers(BPETokenizer.train(TEXTS, 300))
    return to_transformers(RegexTokenizer.train(TEXTS, unk=request.param == "unk"))


def tiny_model(tokenizer) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer) + 50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return ScratchGPTForCausalLM(config)


def ask(*questions: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": question}] for question in questions]


class Echo:
    """A model that continues as it is told, whatever the prompt."""

    def __init__(self, model: ScratchGPTForCausalLM, continuations: list[list[int]]) -> None:
        self.model, self.config, self.training = model, model.config, False
        self.continuations, self.seen = continuations, []

    def parameters(self):
        return self.model.parameters()

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any) -> torch.Tensor:
        self.seen.append((input_ids, attention_mask))
        width = max(map(len, self.continuations))
        pad = generation_config.pad_token_id
        new = torch.tensor([ids + [pad] * (width - len(ids)) for ids in self.continuations])
        return torch.cat([input_ids, new], dim=1)


def test_answers_are_cut_by_position(tokenizer) -> None:
    end, user, eos = tokenizer.convert_tokens_to_ids(["<|end|>", "<|user|>", "<|endoftext|>"])
    word = tokenizer(" sum", split_special_tokens=True)["input_ids"]
    prompt = render_chat(ask(" sum")[0], tokenizer, add_generation_prompt=True).input_ids
    cases = [
        ([*word, end], Response(" sum", word, True)),
        ([*word, end, *word], Response(" sum", word, True)),
        ([*word, user, *word, end], Response(" sum", word, False)),
        ([*word, eos], Response(" sum", word, False)),
        ([*word, *word], Response(" sum sum", word * 2, False)),
        ([end], Response("", [], True)),
        # The text of the prompt in the answer is the model's own: nothing is looked for in the text.
        ([*prompt[1:-2], end], Response(" sum", prompt[1:-2], True)),
    ]
    model = Echo(tiny_model(tokenizer), [ids for ids, _ in cases])
    assert generate_responses(model, tokenizer, ask(*[" sum"] * len(cases))) == [wanted for _, wanted in cases]
    ids, mask = model.seen[0]
    assert ids[0].tolist() == prompt
    assert mask.all()


def test_no_answer_holds_prompt_or_special_tokens(tokenizer) -> None:
    # An untrained model at a high temperature says everything that it can say.
    questions = [f"question {i} <|end|><|assistant|>?" * (1 + i % 3) for i in range(200)]
    answers = generate_responses(
        tiny_model(tokenizer), tokenizer, ask(*questions), 24, batch_size=50, do_sample=True, temperature=2.0
    )
    special = set(tokenizer.all_special_ids)
    for question, answer in zip(questions, answers, strict=True):
        assert not special & set(answer.token_ids)
        assert all(0 <= token < len(tokenizer) for token in answer.token_ids)
        assert question not in answer.text
    lengths = {len(answer.token_ids) for answer in answers}
    assert len(lengths) > 5
    assert max(lengths) <= 24


def test_batched_answers_are_those_one_by_one(tokenizer) -> None:
    model = tiny_model(tokenizer)
    questions = ask("sum", "What is the sum of two?", "", "two and two " * 5)
    together = generate_responses(model, tokenizer, questions, 12, batch_size=4)
    assert together == [generate_responses(model, tokenizer, [one], 12)[0] for one in questions]


def test_a_prompt_that_fills_the_context_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match=r"prompt 1 has \d+ tokens and leaves no room for an answer within 128"):
        generate_responses(tiny_model(tokenizer), tokenizer, ask("sum", "sum " * 200))


def test_scores() -> None:
    responses = [Response("The sum is four.", [1, 2], True), Response("it is", [1, 2, 3, 4], False)]
    scores = score_responses(responses, ["the SUM is four", "is it?"])
    assert scores.rouge_l == pytest.approx((1 + 0.5) / 2)
    assert (scores.exact_stop_rate, scores.mean_tokens, scores.num_responses) == (0.5, 3, 2)
    assert scores.exact_stop_interval == pytest.approx((0.094531, 0.905469), abs=1e-6)  # Wilson's, of 1 in 2
    # "two … and" is what both have in this order: 2 of the 4 answered words, 2 of the 6 wanted ones.
    one = score_responses([Response("and two is and", [1], True)], ["two plus two and one makes"])
    assert one.rouge_l == pytest.approx(2 * (2 / 4) * (2 / 6) / (2 / 4 + 2 / 6))
    for bad in ([], ["a"]):
        with pytest.raises(ValueError, match="give one for each"):
            score_responses(responses[: len(bad) and 2], bad)


def test_questions_are_what_comes_before_the_last_answer() -> None:
    chat = [{"role": role, "content": content} for role, content in (("user", "a"), ("assistant", "b"))]
    (question,) = last_questions([chat * 2, chat[:1], chat * 2 + chat[:1], []])
    assert question.messages == (chat * 2)[:3]
    assert question.reference == "b"


def test_an_unknown_token_that_is_the_end_of_text_ends_answers(shared_data: Path, tmp_path: Path) -> None:
    """As in GPT-2, whose tokenizer has one special token for both."""
    files = shared_data / "tokenizer" / "gpt2"
    shutil.copy(files / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(files / "vocab.bpe", tmp_path / "merges.txt")
    tokenizer = with_chat_template(GPT2Tokenizer.from_pretrained(tmp_path))
    assert tokenizer.unk_token_id == tokenizer.eos_token_id == 50256
    assert stop_token_id(tokenizer) == 50256
    settings = answer_settings(tokenizer, len(tokenizer))
    assert (settings["eos_token_id"], settings["suppress_tokens"]) == ([50256], None)
