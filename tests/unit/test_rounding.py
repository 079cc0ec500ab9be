"""What rounding costs: nothing where nothing is rounded, and on a model's own text what theory says."""

import math

import pytest
import torch

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.evaluation.rounding import NUM_TEXTS, rounding_cost, written
from scratchgpt.evaluation.text import Text
from scratchgpt.tokenizers import CharTokenizer, to_transformers


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(CharTokenizer.train(["abcdefgh"]), model_max_length=32)


def build(tokenizer, bias: float = 0.0) -> ScratchGPTForCausalLM:
    """Each letter is as likely as any other, but for an a, which is exp(bias) times as likely."""
    config = ScratchGPTConfig.from_preset(
        "gpt2", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = ScratchGPTForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
        model.model.norm.bias.fill_(1.0)
        letters = tokenizer.convert_tokens_to_ids(list("abcdefgh"))
        model.lm_head.weight[:] = -100 / 16
        model.lm_head.weight[letters] = 0
        model.lm_head.weight[letters[0]] = bias / 16
    return model


def test_nothing_costs_nothing(tokenizer) -> None:
    model = build(tokenizer)
    state = torch.get_rng_state()
    cost = rounding_cost(model, model, tokenizer)
    assert torch.equal(torch.get_rng_state(), state)
    assert cost.before == cost.after
    assert cost.before.value == pytest.approx(3, abs=1e-4)  # eight letters
    assert "(+0.0000) on 496 bytes of text that the model wrote itself" in str(cost)
    assert written(model, tokenizer) == written(model, tokenizer)
    assert len(written(model, tokenizer)) == NUM_TEXTS


def test_the_cost_on_its_own_text_is_the_divergence(tokenizer) -> None:
    """Of even letters, from those of which an a is twice as likely: (log 9 - log 8 - log 2 / 8) / log 2."""
    cost = rounding_cost(build(tokenizer), build(tokenizer, math.log(2)), tokenizer)
    share = "".join(written(build(tokenizer), tokenizer)).count("a") / cost.before.count
    assert cost.after.value - cost.before.value == pytest.approx(math.log2(9 / 8) - share, abs=1e-4)
    assert share == pytest.approx(1 / 8, abs=0.05)
    assert cost.as_dict()["after"]["count"] == cost.before.count


def test_a_text_of_ones_own(tokenizer, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("aab")
    cost = rounding_cost(build(tokenizer), build(tokenizer, math.log(2)), tokenizer, Text(str(tmp_path / "t.txt")))
    assert cost.before.value == pytest.approx(3, abs=1e-4)
    assert cost.after.value == pytest.approx(math.log2(9) - 2 / 3, abs=1e-4)
    assert str(cost).endswith("t.txt, split train")
