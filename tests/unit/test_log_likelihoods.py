"""Log-likelihoods of many sequences are those of each by itself, whatever the batch, the padding and the order."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.evaluation import log_likelihoods
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods, Scored
from scratchgpt.inference.decoding import prepare_for_decoding

VOCAB, CONTEXT = 61, 24
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GROUPED: dict[str, Any] = {"num_key_value_heads": 1, "intermediate_size": 48}


def make(name: str) -> Any:
    torch.manual_seed(0)
    if name.startswith("ours"):
        shape = {key: value for key, value in SHAPE.items() if key != "initializer_range"}
        model = ScratchGPTForCausalLM(ScratchGPTConfig.from_preset(name.removeprefix("ours-"), **shape))
        for parameter in model.parameters():
            parameter.data *= 4  # far from uniform: attention matters
        return model.eval()
    if name == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT, "initializer_range": 0.2}
        return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, bos_token_id=0, eos_token_id=0, **shape)).eval()
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**SHAPE, **GROUPED, head_dim=16)).eval()
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **GROUPED)).eval()


NAMES = ["ours-gpt2", "ours-modern", "gpt2", "qwen3", "llama"]


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


@torch.no_grad()
def by_itself(model: Any, tokens: list[int], count: int) -> Scored:
    """One sequence, one plain forward pass, nothing clever."""
    log_probs = model(torch.tensor([tokens[:-1]])).logits[0].double().log_softmax(-1)[-count:]
    targets = torch.tensor(tokens[-count:])
    values = log_probs.gather(1, targets[:, None])[:, 0]
    return Scored(float(values.sum()), bool((values == log_probs.amax(dim=1)).all()))


@st.composite
def sequences(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    """Some share a beginning with the one before; some are equal, or one is the other's beginning."""
    token = st.integers(0, VOCAB - 1)
    found: list[tuple[list[int], int]] = []
    for _ in range(draw(st.integers(1, 8))):
        start = found[-1][0][: draw(st.integers(0, CONTEXT))] if found and draw(st.booleans()) else []
        rest = draw(st.lists(token, min_size=0 if len(start) > 1 else 2, max_size=CONTEXT + 1 - len(start)))
        tokens = start + rest
        found.append((tokens, draw(st.integers(1, len(tokens) - 1))))
    return found


@pytest.mark.parametrize("trees", [False, True])
@given(sequences=sequences(), max_tokens=st.sampled_from([1, 30, 100, 4096]), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_as_a_plain_forward_pass_gives(
    model: Any, trees: bool, sequences: list[tuple[list[int], int]], max_tokens: int, seed: int
) -> None:
    scorer = LogLikelihoods(model, trees, max_tokens)
    found = scorer.score(sequences)
    for (tokens, count), each in zip(sequences, found, strict=True):
        expected = by_itself(model, tokens, count)
        assert each.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-5, abs=1e-4)
        assert each.is_greedy == expected.is_greedy
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = scorer.score([sequences[i] for i in order])
    for i, each in zip(order, shuffled, strict=True):
        assert each.log_likelihood == pytest.approx(found[i].log_likelihood, rel=1e-5, abs=1e-4)


def test_greedy_choices_are_seen(model: Any) -> None:
    """Else `is_greedy` would be false everywhere, on random tokens."""
    tokens = [0, 5]
    with torch.no_grad():
        for _ in range(4):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    greedy, other = LogLikelihoods(model).score([(tokens, 4), ([*tokens[:-1], (tokens[-1] + 1) % VOCAB], 4)])
    assert greedy.is_greedy
    assert not other.is_greedy


def test_trees_are_found_to_work(model: Any) -> None:
    """And a row may be longer than the context, since its branches begin where the trunk ends."""
    scorer = LogLikelihoods(model)
    assert scorer.trees
    trunk = [7] * (CONTEXT - 3)
    together = [([*trunk, 1, 2, token], 2) for token in range(8)]
    for (tokens, count), each in zip(together, scorer.score(together), strict=True):
        assert each.log_likelihood == pytest.approx(by_itself(model, tokens, count).log_likelihood, rel=1e-5, abs=1e-4)


def test_a_shared_beginning_is_computed_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = type(model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(self, *args, **kwargs)

    scorer = LogLikelihoods(model)
    monkeypatch.setattr(type(model), "forward", counted)
    trunk = list(range(15))
    scorer.score([([*trunk, 20, 21], 2), ([*trunk, 30, 31], 2), ([*trunk, 40, 41], 2)])
    assert shapes == [(1, 15 + 3)]


@pytest.mark.parametrize("broken", ["mask", "positions"])
def test_no_trees_where_they_would_be_wrong(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes no mask for each query, or no positions, is seen through."""
    model = make("gpt2")
    forward = GPT2LMHeadModel.forward

    def deaf(self: Any, **kwargs: Any) -> Any:
        kwargs.pop("attention_mask" if broken == "mask" else "position_ids", None)
        return forward(self, **kwargs)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", deaf)
    assert not LogLikelihoods(model).trees


def test_a_sliding_window_is_kept() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SHAPE, **GROUPED, sliding_window=4)).eval()
    scorer = LogLikelihoods(model)
    assert not scorer.trees
    tokens = list(range(20))
    (found,) = scorer.score([(tokens, 6)])
    assert found.log_likelihood == pytest.approx(by_itself(model, tokens, 6).log_likelihood, rel=1e-5)


def test_a_model_that_cannot_leave_out_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = {key: value for key, value in SHAPE.items() if key != "initializer_range"}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**config, intermediate_size=48)).eval()
    scorer = LogLikelihoods(model)
    scorer.keeps = False
    sequences = [(list(range(20)), 6), ([3, 1, 4, 1, 5], 2)]
    for (tokens, count), each in zip(sequences, scorer.score(sequences), strict=True):
        assert each.log_likelihood == pytest.approx(by_itself(model, tokens, count).log_likelihood, rel=1e-5)


@pytest.mark.parametrize("bits", [None, 8])
def test_as_it_is_loaded_for_the_recipe(bits: int | None) -> None:
    """With the layers and the attention of `load_for_decoding`, and in bf16."""
    model = prepare_for_decoding(make("ours-modern").to(torch.bfloat16), bits)
    sequences = [([*range(12), 5, 6], 4), ([*range(12), 9], 1), ([3, 1, 4, 1, 5], 2)]
    for trees in (False, True):
        for (tokens, count), each in zip(sequences, LogLikelihoods(model, trees).score(sequences), strict=True):
            expected = by_itself(model, tokens, count).log_likelihood
            assert each.log_likelihood == pytest.approx(expected, rel=0.05, abs=0.3)


def test_batches_hold_little(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens, and few logits: a batch of more than one row stays below both limits."""
    monkeypatch.setattr(log_likelihoods, "MAX_LOGITS", 40 * VOCAB)
    scorer = LogLikelihoods(model, trees=False, max_tokens=50)
    sequences = [([1] * (2 + i % 20), 1 + i % 5 if i % 20 > 4 else 1) for i in range(60)]
    batches = list(scorer._batches(sorted(scorer._rows(sequences, False), key=lambda row: row.shape, reverse=True)))
    assert sum(len(batch) for batch in batches) == 60
    assert max(len(batch) for batch in batches) > 1
    for batch in batches:
        width, first = max(len(row.tokens) for row in batch), min(row.first for row in batch)
        assert len(batch) == 1 or (len(batch) * width <= 50 and len(batch) * (width - first) <= 40)


def test_a_handful_of_tokens() -> None:
    """Bases of DNA, say: the sequences by which trees are tried out must differ."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1, n_positions=CONTEXT)).eval()
    (found,) = LogLikelihoods(model).score([([0, 1, 2, 3], 3)])
    assert found.log_likelihood == pytest.approx(by_itself(model, [0, 1, 2, 3], 3).log_likelihood, rel=1e-5)


def test_who_sees_the_next_token_is_refused() -> None:
    """BERT is loaded as a causal language model, with a warning, and attends to both sides."""
    shape = {key: value for key, value in SHAPE.items() if key not in ("bos_token_id", "eos_token_id")}
    model = BertLMHeadModel(BertConfig(**shape, intermediate_size=48)).eval()
    with pytest.raises(ValueError, match=r"BertLMHeadModel sees what comes after a token.*causal language model"):
        LogLikelihoods(model)
    LogLikelihoods(BertLMHeadModel(BertConfig(**shape, intermediate_size=48, is_decoder=True)).eval())


def test_what_is_no_number_is_no_score() -> None:
    model = make("gpt2")
    with torch.no_grad():
        model.transformer.wpe.weight[20] = torch.inf
    assert LogLikelihoods(model).score([([1, 2, 3], 2)])
    with pytest.raises(ValueError, match="infinite or not a number in float32: give --dtype float32"):
        LogLikelihoods(model).score([([1, 2, 3], 2), ([1] * 23, 1)])
