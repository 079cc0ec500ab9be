"""Each function against a computation by hand, on models of four families."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.inspection import (
    ablation,
    attention,
    attention_of_position,
    depth_norms,
    induction,
    logit_lens,
    next_token,
    size,
    surprise,
    token_labels,
    tokenizations,
    without_heads,
)
from scratchgpt.inspection.parts import parts_of
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer, to_transformers

TEXT = "the cat saw the cat, and the dog saw the café"
LAYERS, HEADS, CONTEXT = 3, 4, 48

TOKENIZER = to_transformers(BPETokenizer.train([TEXT.replace("é", "e")] * 5, vocab_size=290))
VOCAB = len(TOKENIZER)
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}

LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": CONTEXT, "head_dim": 16, **TOKENS,
}  # fmt: skip
OWN: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip

MODELS: dict[str, Callable[[], Any]] = {
    "scratchgpt gpt2": lambda: ScratchGPTForCausalLM(ScratchGPTConfig(**OWN)),
    "scratchgpt modern": lambda: ScratchGPTForCausalLM(
        ScratchGPTConfig.from_preset("modern", **OWN, num_key_value_heads=2, tie_word_embeddings=False)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, n_embd=32, n_layer=LAYERS, n_head=HEADS, **TOKENS)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**LLAMA)),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    """With weights so large that attention is not even."""
    torch.manual_seed(0)
    made = MODELS[request.param]()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.mul_(6)
    return made.train()


def ids_of(text: str) -> torch.Tensor:
    return TOKENIZER(text, return_tensors="pt")["input_ids"]


def by_hand(model: Any, text: str, **kwargs: Any) -> Any:
    """What the model returns by its own means, with plain attention."""
    before, was_training = model.config._attn_implementation, model.training
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model.eval()(input_ids=ids_of(text), **kwargs)
    model.set_attn_implementation(before)
    model.train(was_training)
    return output


def test_attention(model: Any) -> None:
    implementation = model.config._attn_implementation
    expected = by_hand(model, TEXT, output_attentions=True).attentions
    for layer in (0, 1, -1):
        seen = attention(model, TOKENIZER, TEXT, layer)
        torch.testing.assert_close(seen.weights, expected[layer][0])
        torch.testing.assert_close(seen.weights.sum(-1), torch.ones(HEADS, len(seen.labels)))
    assert seen.labels == token_labels(TOKENIZER, ids_of(TEXT)[0].tolist())
    assert (model.config._attn_implementation, model.training) == (implementation, True)


def test_attention_of_one_position(model: Any) -> None:
    expected = by_hand(model, TEXT, output_attentions=True).attentions
    for position in (4, -1):
        seen = attention_of_position(model, TOKENIZER, TEXT, position)
        rows = torch.stack([each[0, :, position, : len(seen.labels)] for each in expected])
        torch.testing.assert_close(seen.weights, rows)


def test_the_lens_ends_in_the_models_own_answer(model: Any) -> None:
    seen, logits = logit_lens(model, TOKENIZER, TEXT), by_hand(model, TEXT).logits[0]
    probability, best = logits.softmax(-1).max(-1)
    torch.testing.assert_close(seen.probabilities[-1], probability)
    assert seen.guesses[-1] == token_labels(TOKENIZER, best.tolist())
    came = ids_of(TEXT)[0, 1:]
    order = logits[:-1].argsort(-1, descending=True)
    assert seen.ranks[-1].tolist() == ((order == came[:, None]).int().argmax(-1) + 1).tolist()
    # Any other row: that layer's hidden states through the last norm and the head.
    hidden = by_hand(model, TEXT, output_hidden_states=True).hidden_states
    parts = parts_of(model)
    with torch.no_grad():
        for row in (0, 1, 2):
            expected = parts.head(parts.norm(hidden[row]))[0].softmax(-1).max(-1).values
            torch.testing.assert_close(seen.probabilities[row], expected)


def test_surprise_sums_to_the_loss(model: Any) -> None:
    seen = surprise(model, TOKENIZER, TEXT)
    loss = by_hand(model, TEXT, labels=ids_of(TEXT)).loss
    assert float(seen.bits[1:].sum()) * math.log(2) == pytest.approx(float(loss) * (len(seen.labels) - 1), rel=1e-5)
    assert seen.mean * math.log(2) == pytest.approx(float(loss), rel=1e-5)
    assert math.isnan(seen.bits[0])


def test_ablating_a_head_is_zeroing_its_columns(model: Any) -> None:
    parts = parts_of(model)
    whole = surprise(model, TOKENIZER, TEXT).mean
    found = ablation(model, TOKENIZER, TEXT)
    assert found.scores.shape == (LAYERS, HEADS)
    with without_heads(model, {1: [2], -1: [0, 3]}):
        changed = surprise(model, TOKENIZER, TEXT)
        attention(model, TOKENIZER, TEXT, 2)
    kept = [parts.outputs[layer].weight.clone() for layer in (1, 2)]
    for layer, heads in ((1, [2]), (2, [0, 3])):
        for head in heads:
            _silence(parts.outputs[layer], head)
    torch.testing.assert_close(changed.bits, surprise(model, TOKENIZER, TEXT).bits, equal_nan=True)
    with torch.no_grad():
        for layer, weight in zip((1, 2), kept, strict=True):
            parts.outputs[layer].weight.copy_(weight)
    _silence(parts.outputs[0], 1)
    assert float(found.scores[0, 1]) == pytest.approx(surprise(model, TOKENIZER, TEXT).mean - whole, abs=1e-5)


@torch.no_grad()
def _silence(output: Any, head: int) -> None:
    if isinstance(output, torch.nn.Linear):  # [out, in]
        output.weight.unflatten(1, (HEADS, -1))[:, head] = 0
    else:  # GPT-2's Conv1D: [in, out]
        output.weight.unflatten(0, (HEADS, -1))[head] = 0


def copier(vocab_size: int, context: int) -> Any:
    """Two layers that copy, constructed: the first notes at each token which one stands before it, the second looks
    for a token that has noted the one that it stands on."""
    width = 2 * vocab_size + context
    config = ScratchGPTConfig(
        vocab_size=vocab_size, hidden_size=width, num_hidden_layers=2, num_attention_heads=1, intermediate_size=1,
        max_position_embeddings=context, norm_type="rmsnorm", use_bias=False,
    )  # fmt: skip
    made = ScratchGPTForCausalLM(config)
    token, before, place = slice(0, vocab_size), slice(vocab_size, 2 * vocab_size), slice(2 * vocab_size, width)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.zero_()
        made.model.embed_tokens.weight[:, token] = torch.eye(vocab_size)
        made.model.embed_positions.weight[:, place] = torch.eye(context)
        first, second = (layer.self_attn for layer in made.model.layers)
        first.q_proj.weight[place, place] = 20 * torch.eye(context).roll(-1, 0)
        first.k_proj.weight[place, place] = torch.eye(context)
        first.v_proj.weight[token, token] = torch.eye(vocab_size)
        first.o_proj.weight[before, token] = torch.eye(vocab_size)
        second.q_proj.weight[token, token] = 20 * torch.eye(vocab_size)
        second.k_proj.weight[token, before] = torch.eye(vocab_size)
    return made


def test_a_copier_is_found() -> None:
    scores = induction(copier(vocab_size=300, context=32), length=16).scores
    assert scores.shape == (2, 1)
    assert scores[1, 0] > 0.9
    assert scores[0, 0] < 0.1


def test_random_weights_do_not_copy(model: Any) -> None:
    torch.manual_seed(1)
    scores = induction(type(model)(model.config), length=24)
    assert float(scores.scores.abs().max()) < 0.1


def test_next_token_is_what_generate_draws_from(model: Any) -> None:
    logits = by_hand(model, TEXT).logits[0, -1]
    seen = next_token(model, TOKENIZER, TEXT, (0.5, 1, 2), show=VOCAB)
    for temperature, values in zip((0.5, 1, 2), seen.probabilities.values(), strict=True):
        torch.testing.assert_close(torch.tensor(values), (logits / temperature).softmax(-1)[seen.ids])
    assert list(seen.probabilities) == ["temperature 0.5", "temperature 1", "temperature 2"]

    probabilities = logits.softmax(-1)
    (few,) = next_token(model, TOKENIZER, TEXT, top_k=3, show=4).probabilities.values()
    top = probabilities.topk(3).values
    torch.testing.assert_close(torch.tensor(few[:3]), top / top.sum())
    assert few[3] == 0

    ordered = probabilities.sort(descending=True).values
    kept = int((ordered.cumsum(0) - ordered < 0.6).sum())
    (nucleus,) = next_token(model, TOKENIZER, TEXT, top_p=0.6, show=VOCAB).probabilities.values()
    assert sum(each > 0 for each in nucleus) == kept
    (likely,) = next_token(model, TOKENIZER, TEXT, min_p=0.2, show=VOCAB).probabilities.values()
    assert sum(each > 0 for each in likely) == int((probabilities >= 0.2 * probabilities.max()).sum())


def test_size(model: Any) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    found = size(model, CONTEXT)
    assert sum(found.parameters.values()) == sum(each.numel() for each in model.parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (found.parameters["head"] == 0) == tied
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(input_ids=torch.zeros(1, CONTEXT, dtype=torch.long))
    parts = parts_of(model)
    width = parts.outputs[0].weight.shape[1 if isinstance(parts.outputs[0], torch.nn.Linear) else 0]
    # The counter sees whole squares of attention; half of them are masked. The tables of frequencies are no weights.
    whole = counter.get_total_flops() / CONTEXT - 4 * LAYERS * width * (CONTEXT - 1) / 2
    assert sum(found.flops.values()) == pytest.approx(whole, rel=2e-3)


def test_depth_norms(model: Any) -> None:
    found = depth_norms(model, TOKENIZER, TEXT)
    hidden = by_hand(model, TEXT, output_hidden_states=True).hidden_states
    expected = [float(each.square().mean().sqrt()) for each in hidden]
    assert found.hidden[:-1] == pytest.approx(expected[:-1], rel=1e-4)  # the last is after the norm there
    first = [weight for weight in parts_of(model).attentions[0].parameters() if weight.ndim == 2]
    square = sum(float(each.detach().square().sum()) for each in first) / sum(each.numel() for each in first)
    assert found.weights["attention"][0] == pytest.approx(square**0.5, rel=1e-5)
    assert all(len(each) == LAYERS for each in (*found.weights.values(), *found.added.values()))
    # Where attention adds nothing, the rest adds what is between the hidden states.
    with torch.no_grad():
        for output in parts_of(model).outputs:
            for parameter in output.parameters():
                parameter.zero_()
    silent = depth_norms(model, TOKENIZER, TEXT)
    hidden = by_hand(model, TEXT, output_hidden_states=True).hidden_states
    between = [float((after - before).square().mean().sqrt()) for before, after in pairwise(hidden[:-1])]
    assert silent.added["attention adds"] == [0.0] * LAYERS
    assert silent.added["the rest adds"][:-1] == pytest.approx(between, rel=1e-4)


def test_figures(tmp_path: Path) -> None:
    """That each is drawn, whatever signs the tokens hold; people look at them in the documentation."""
    model, text = MODELS["scratchgpt modern"](), "$a_1$ costs \\alpha, é\n" * 2
    drawn = [
        attention(model, TOKENIZER, text, 0), attention_of_position(model, TOKENIZER, text), size(model),
        logit_lens(model, TOKENIZER, text), next_token(model, TOKENIZER, text, (0.5, 1)), induction(model, length=8),
        surprise(model, TOKENIZER, text), tokenizations({"mine": TOKENIZER}, text), ablation(model, TOKENIZER, text),
        depth_norms(model, TOKENIZER, text),
    ]  # fmt: skip
    for number, each in enumerate(drawn):
        file = tmp_path / f"{number}.png"
        each.figure().savefig(file)
        assert imread(file)[..., :3].std() > 0.02, type(each).__name__


def test_labels_can_be_read() -> None:
    words = to_transformers(RegexTokenizer.train(["the café, a cat"] * 3, vocab_size=300))
    assert token_labels(words, words("the café")["input_ids"])[:2] == ["the", "·café"]
    assert "".join(token_labels(TOKENIZER, TOKENIZER("a\n é\t\x07")["input_ids"])) == "a↵·⟨C3⟩⟨A9⟩⇥⟨07⟩"
    assert token_labels(TOKENIZER, [TOKENIZER.eos_token_id]) == ["<|endoftext|>"]


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P", "S"]) | st.just(" "), max_size=40))
def test_labels_spell_the_text(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_labels(TOKENIZER, ids)) == text.replace(" ", "·")


def test_tokenizers_beside_each_other() -> None:
    words = to_transformers(RegexTokenizer.train([TEXT] * 3, vocab_size=300))
    found = tokenizations({"words": words, "pieces": TOKENIZER}, TEXT)
    assert {name: len(each) for name, each in found.labels.items()} == {
        name: len(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
        for name, tokenizer in (("words", words), ("pieces", TOKENIZER))
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda model: attention(model, TOKENIZER, TEXT, LAYERS), "there is no layer 3: give one from 0 to 2"),
        (lambda model: attention(model, TOKENIZER, "", 0), "the text has 0 tokens, and at least 1"),
        (lambda model: surprise(model, TOKENIZER, "a"), "the text has 1 tokens, and at least 2"),
        (lambda model: surprise(model, TOKENIZER, "word " * 60), "and the model reads 48"),
        (lambda model: attention_of_position(model, TOKENIZER, TEXT, 99), "there is no token 99"),
        (lambda model: next_token(model, TOKENIZER, TEXT, ()), "give at least one temperature"),
        (lambda model: next_token(model, TOKENIZER, TEXT, (0.0,)), "temperature"),
        (lambda model: next_token(model, TOKENIZER, TEXT, top_p=2), "top_p"),
        (lambda model: induction(model, length=25), "two halves of it must fit into 48"),
        (lambda model: ablation(torch.nn.Linear(1, 1), TOKENIZER, TEXT), "config"),
        (lambda model: tokenizations({}, TEXT), "at least one tokenizer"),
    ],
)
def test_mistakes(wrong: Callable[[Any], Any], said: str) -> None:
    with pytest.raises((ValueError, AttributeError), match=said):
        wrong(MODELS["scratchgpt modern"]())


def test_what_fails_inside_leaves_the_model_as_it_was() -> None:
    model = MODELS["scratchgpt modern"]().train()
    with pytest.raises(RuntimeError, match="stop"), without_heads(model, {0: [1]}):
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="no head 9"), without_heads(model, {0: [9]}):
        pass
    hooks = [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not hooks
    assert model.training
