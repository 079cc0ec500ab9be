"""The losses of preferences by their formulas, what padding changes (nothing), and what an evaluation measures."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.adapters import AdapterArguments, add_adapter
from scratchgpt.data.packing import IGNORE_INDEX
from scratchgpt.data.preference_rows import PreferenceRows
from scratchgpt.data.preferences import Pair
from scratchgpt.evaluation.preferences import draw_tokens, measure_pairs, pair_log_probabilities, reference_of
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training.tasks.preference import PreferenceArguments, PreferenceTuning, preference_losses

WORDS = "one two three four five six seven eight nine ten".split()
PAIRS = [
    Pair([{"role": "user", "content": f"{a} {b}?"}], f"{b} {a}.", f"no {a}, and no {b}." * (1 + i % 3))
    for i, (a, b) in enumerate((a, b) for a in WORDS[:5] for b in WORDS[5:])
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train([" ".join(WORDS)] * 9, vocab_size=300))


@pytest.fixture
def model(tokenizer: ScratchGPTTokenizer) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    return ScratchGPTForCausalLM(
        ScratchGPTConfig.from_preset(
            "modern", vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=128, initializer_range=0.3, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


@pytest.fixture
def rows(tokenizer: ScratchGPTTokenizer, model: ScratchGPTForCausalLM) -> PreferenceRows:
    rows = PreferenceRows(PAIRS, tokenizer, 128)
    rows.reference = reference_of(model, rows, 4, True, CPU)
    return rows


def task_of(rows: PreferenceRows, tokenizer: Any, draws: Any = None, **changed: Any) -> PreferenceTuning:
    arguments = PreferenceArguments(per_device_train_batch_size=4, response_tokens=4, **changed)
    return PreferenceTuning(rows, rows, tokenizer, arguments, True, draws)


def disturbed(model: ScratchGPTForCausalLM, size: float = 0.02) -> ScratchGPTForCausalLM:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))
    return model


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, LONG, SHORT = -6.0, -12.0, -8.0, -9.0, 4, 3
AHEAD = (CHOSEN - REF_CHOSEN) - (REJECTED - REF_REJECTED)
AHEAD_PER_TOKEN = (CHOSEN - REF_CHOSEN) / LONG - (REJECTED - REF_REJECTED) / SHORT
SIMPO = 2.5 * (CHOSEN / LONG - REJECTED / SHORT) - 0.7


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"loss": "sigmoid", "beta": 0.3}, -log_sigmoid(0.3 * AHEAD)),
        ({"loss": "sigmoid"}, -log_sigmoid(0.1 * AHEAD)),
        ({"loss": "sigmoid", "beta": 0.3, "length_normalization": True}, -log_sigmoid(0.3 * AHEAD_PER_TOKEN)),
        (
            {"loss": "sigmoid", "beta": 0.3, "label_smoothing": 0.1},
            -0.9 * log_sigmoid(0.3 * AHEAD) - 0.1 * log_sigmoid(-0.3 * AHEAD),
        ),
        ({"loss": "ipo", "beta": 0.5}, (AHEAD_PER_TOKEN - 1) ** 2),
        ({"loss": "ipo", "beta": 0.5, "length_normalization": False}, (AHEAD - 1) ** 2),
        ({"loss": "simpo", "beta": 2.5, "simpo_margin": 0.7}, -log_sigmoid(SIMPO)),
        (
            {"loss": "simpo", "beta": 2.5, "simpo_margin": 0.7, "label_smoothing": 0.2},
            -0.8 * log_sigmoid(SIMPO) - 0.2 * log_sigmoid(-SIMPO),
        ),
        ({"loss": "sigmoid", "beta": 0.3, "nll_weight": 0.5}, -log_sigmoid(0.3 * AHEAD) - 0.5 * CHOSEN / LONG),
    ],
)
def test_every_loss_is_its_formula(changed: dict[str, Any], expected: float) -> None:
    arguments = PreferenceArguments(**{"nll_weight": 0.0, **changed})
    found, reference = torch.tensor([[CHOSEN, REJECTED]]), torch.tensor([[REF_CHOSEN, REF_REJECTED]])
    losses = preference_losses(found, reference, torch.tensor([[LONG, SHORT]]), arguments)
    assert losses.tolist() == pytest.approx([expected], rel=1e-6)


def test_smoothing_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match="label_smoothing is for --loss sigmoid or simpo"):
        PreferenceArguments(loss="ipo", label_smoothing=0.1)


def test_padding_makes_no_difference(tokenizer, model, rows: PreferenceRows) -> None:
    """A short pair beside a long one, and alone."""
    disturbed(model)
    task = task_of(rows, tokenizer)
    short, long = int(rows.lengths[:, 1].argmin()), int(rows.lengths[:, 1].argmax())
    alone, beside = rows.batch([short]), rows.batch([short, long])
    for name in ("input_ids", "shift_labels"):  # 40 positions more
        beside[name] = torch.nn.functional.pad(beside[name], (0, 40), value=5 if name == "input_ids" else IGNORE_INDEX)
    assert beside["input_ids"].shape[1] > alone["input_ids"].shape[1]
    found = pair_log_probabilities(model, beside, True)
    torch.testing.assert_close(found[:1], pair_log_probabilities(model, alone, True), rtol=1e-5, atol=1e-5)
    other = rows.batch([long])
    gradients = []
    for batches in ([beside], [alone, other]):
        for batch in batches:
            task.loss(model, batch, torch.tensor(2)).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_model_that_shows_its_logits_has_the_same_log_probabilities(model, rows: PreferenceRows) -> None:
    batch = rows.batch(np.arange(5))
    fused = pair_log_probabilities(model, batch, True)
    torch.testing.assert_close(pair_log_probabilities(model, batch, False), fused, rtol=1e-5, atol=1e-5)


def test_the_reference_of_an_adapter_is_the_base_without_it(model, rows: PreferenceRows) -> None:
    adapted: Any = add_adapter(model, AdapterArguments(lora_r=2))
    disturbed(adapted)
    batch = rows.batch(np.arange(len(rows)))
    with torch.no_grad():
        moved = pair_log_probabilities(adapted, batch, True)
        with adapted.disable_adapter():
            off = pair_log_probabilities(adapted, batch, True)
    torch.testing.assert_close(off, batch["reference"], rtol=1e-5, atol=1e-5)
    assert (moved - off).abs().max() > 1e-2


def test_the_reference_itself_has_not_moved(tokenizer, model, rows: PreferenceRows) -> None:
    draws = draw_tokens(model, rows, 0, CPU)
    result = task_of(rows, tokenizer, draws, eval_answers=3).evaluate(model, Accelerator(cpu=True))
    assert result.loss == pytest.approx(result.reference_loss, abs=1e-5)
    assert [result.kl, result.margin, result.chosen_change] == pytest.approx([0, 0, 0], abs=1e-4)
    assert result.num_pairs == len(rows)
    assert result.num_answers == 3
    assert not result.is_falling
    assert rows.reference is not None
    assert result.ranked_right == pytest.approx(
        np.mean(rows.reference[:, 0] / rows.lengths[:, 0] > rows.reference[:, 1] / rows.lengths[:, 1])
    )


def test_the_divergence_is_that_of_the_distributions(model, rows: PreferenceRows) -> None:
    """Over 30 draws of each token the mean is within a few standard errors of the exact sum over the vocabulary."""
    exact, before = [], {}
    for i, (chosen, _) in enumerate(rows.sequences):
        with torch.no_grad():
            before[i] = model(torch.from_numpy(chosen[None, :-1].astype(np.int64))).logits[0].log_softmax(-1)
    draws = [draw_tokens(model, rows, seed, CPU) for seed in range(30)]
    disturbed(model, 0.03)
    for i, (chosen, _) in enumerate(rows.sequences):
        with torch.no_grad():
            after = model(torch.from_numpy(chosen[None, :-1].astype(np.int64))).logits[0].log_softmax(-1)
        start = rows.starts[i] - 1
        exact.append((before[i].exp() * (before[i] - after)).sum(-1)[start:].sum().item())
    accelerator = Accelerator(cpu=True)
    found = [measure_pairs(model, rows, each, len(rows), 4, True, accelerator)[:, 2].sum().item() for each in draws]
    error = float(np.std(found, ddof=1)) / math.sqrt(len(found))
    assert abs(np.mean(found) - sum(exact)) < 5 * error
    assert error < 0.1 * sum(exact)


def test_the_alarm_rings_when_the_chosen_answers_fall(tokenizer, model, rows: PreferenceRows) -> None:
    draws, accelerator = draw_tokens(model, rows, 0, CPU), Accelerator(cpu=True)
    task = task_of(rows, tokenizer, draws, nll_weight=0.0, beta=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = rows.batch(np.arange(len(rows)))
    for _ in range(30):  # both answers less likely, the rejected one more so
        optimizer.zero_grad()
        found = pair_log_probabilities(model, batch, True)
        (found[:, 0].mean() * 0.02 + found[:, 1].mean() * 0.05).backward()
        optimizer.step()
    result = task.evaluate(model, accelerator)
    assert result.chosen_change < -0.1
    assert result.is_falling
    assert "ALARM" in result.summary()
    assert result.as_dict()["is_falling"]


def test_less_of_the_split_is_evaluated_when_asked(tokenizer, model, rows: PreferenceRows) -> None:
    draws = draw_tokens(model, rows, 0, CPU)
    first = sum(len(ids) for ids in rows.sequences[0])
    task = task_of(rows, tokenizer, draws, eval_tokens=first + 1, eval_answers=0)
    result = task.evaluate(model, Accelerator(cpu=True))
    assert result.num_pairs == 2
    assert result.answer_tokens is None
