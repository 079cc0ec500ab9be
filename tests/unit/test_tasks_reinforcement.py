"""Advantages and losses by hand, what is kept, and what a sampling puts into the rows."""

from collections import Counter
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.packing import IGNORE_INDEX, StatefulRows
from scratchgpt.data.prompts import Prompt
from scratchgpt.data.sampled_rows import SampledRows
from scratchgpt.evaluation.checked_answers import CheckedResult, measure_answers
from scratchgpt.evaluation.responses import Response
from scratchgpt.evaluation.rewards import Rewards
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training.run_identity import run_identity
from scratchgpt.training.tasks.reinforcement import (
    ReinforceArguments,
    Reinforcement,
    _length_correlation,
    advantages,
    first_right,
    policy_losses,
)

WORDS = "one two three four five six seven eight".split()


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], [2, 0, 0, 0]])
    expected = torch.tensor([[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0], [1.5, -0.5, -0.5, -0.5]])
    torch.testing.assert_close(advantages(rewards), expected)
    scaled = advantages(rewards, scale=True)
    torch.testing.assert_close(scaled[0], expected[0] / (3**-0.5 + 1e-4))
    torch.testing.assert_close(scaled[2], expected[2] / (1 + 1e-4))
    assert scaled[1].abs().max() == 0  # nothing is divided by nothing


@given(st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=1, max_size=5), st.floats(-9, 9))
def test_advantages_sum_to_nothing_and_a_constant_changes_nothing(rewards: list[list[float]], more: float) -> None:
    values = torch.tensor(rewards, dtype=torch.float64)
    found = advantages(values)
    assert found.sum(-1).abs().max() < 1e-9
    torch.testing.assert_close(advantages(values + more), found, rtol=1e-9, atol=1e-9)


def test_clip_higher_by_hand() -> None:
    """Ratios of 0.5, 1.1, 1.27 and 1.5 for a good answer and for a bad one; 0.2 below and 0.28 above."""
    ratios = torch.tensor([[0.5, 1.1, 1.27, 1.5]] * 2)
    old = torch.full((2, 4), -1.0)
    found = (old + ratios.log()).requires_grad_()
    arguments = ReinforceArguments()
    losses = policy_losses(found, torch.tensor([2.0, -1.0]), arguments, old)
    # A good answer: min(ρ, clip ρ) · 2; a bad one: max(ρ, clip ρ).
    expected = torch.tensor([[-1.0, -2.2, -2.54, -2.56], [0.8, 1.1, 1.27, 1.5]])
    torch.testing.assert_close(losses.detach(), expected)
    losses.sum().backward()
    # d(ρ A)/d log π = ρ A; nothing where it is clipped.
    torch.testing.assert_close(found.grad, torch.tensor([[-1.0, -2.2, -2.54, 0], [0, 1.1, 1.27, 1.5]]))


def test_on_policy_the_gradient_is_that_of_the_policy_gradient() -> None:
    found = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], requires_grad=True)
    losses = policy_losses(found, torch.tensor([0.25, -0.75]), ReinforceArguments())
    torch.testing.assert_close(losses.detach(), torch.tensor([[-0.25, -0.25], [0.75, 0.75]]))
    losses.sum().backward()
    torch.testing.assert_close(found.grad, torch.tensor([[-0.25, -0.25], [0.75, 0.75]]))


def test_the_divergence_and_rejection_by_hand() -> None:
    found, reference = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]])
    losses = policy_losses(found, torch.tensor([0.0]), ReinforceArguments(kl_weight=0.1), None, reference)
    kl = 0.1 * (torch.tensor(-0.5).exp() - 1 + 0.5)
    torch.testing.assert_close(losses, torch.tensor([[float(kl), 0.0]]))
    kept = policy_losses(found.repeat(2, 1), torch.tensor([1.0, 0.0]), ReinforceArguments(method="rejection"))
    torch.testing.assert_close(kept, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))


def test_different_right_answers_are_kept() -> None:
    right = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    texts = [["a", "b", "b", "c"], ["a", "b", "c", "d"], ["d", "d", "d", "d"]]
    assert first_right(right, texts, 1) == [[1], [], [0]]
    assert first_right(right, texts, 3) == [[1, 3], [], [0]]


def test_the_correlation_with_length() -> None:
    lengths = torch.tensor([[1, 2, 3], [7, 5, 6]])
    assert _length_correlation({"rewards": lengths.float(), "lengths": lengths}) == pytest.approx(1)
    assert _length_correlation({"rewards": -lengths.float(), "lengths": lengths}) == pytest.approx(-1)
    assert _length_correlation({"rewards": torch.ones(2, 3), "lengths": lengths}) == 0


# With a model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train([" ".join(WORDS)] * 9, vocab_size=300))


@pytest.fixture
def model(tokenizer: Any) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    return ScratchGPTForCausalLM(
        ScratchGPTConfig.from_preset(
            "modern", vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, initializer_range=0.3, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def task_of(tokenizer: Any, **changed: Any) -> Reinforcement:
    prompts = [Prompt([{"role": "user", "content": word}], {"answer": "e"}) for word in WORDS]
    rows = [SampledRows(prompts, tokenizer, 64, 8) for _ in range(2)]
    arguments = ReinforceArguments(
        per_device_train_batch_size=3, group_size=4, response_tokens=8, **{"reward": ["format"], **changed}
    )
    return Reinforcement(*rows, tokenizer, arguments, True, rewards=Rewards(["format"], pattern=".*e.*(?s:.*)"))


def test_a_step_samples_as_seed_and_step_say(model: Any, tokenizer: Any) -> None:
    """And the steps of one sampling read its parts; what they read survives a checkpoint."""
    accelerator, task = Accelerator(cpu=True), task_of(tokenizer, steps_per_sampling=2)
    assert isinstance(task.train_rows, StatefulRows)

    def samples(step: int, seed: int = 5) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        again = task_of(tokenizer, steps_per_sampling=2)
        again.prepare(model, step, accelerator)
        return again.train_rows.samples

    torch.manual_seed(5)
    measures = task.prepare(model, 4, accelerator)
    first = task.train_rows.samples
    assert first.keys() == samples(4).keys()
    assert all(torch.equal(values, samples(4)[name]) for name, values in first.items())
    assert not torch.equal(first["ids"], samples(4, seed=6)["ids"])
    assert task.prepare(model, 5, accelerator) == measures  # it is the same sampling
    assert task.train_rows.samples is first

    size, width = 3, first["ids"].shape[-1]
    assert first["ids"].shape == (2 * size, 4, width)
    for step in (4, 5):
        slots = task.train_rows.indices(step, size, 0)
        batch = task.train_rows.batch(slots)
        asked = task.train_rows.prompts_of(step, size, 0)
        for row in range(size * 4):
            number = asked[row // 4]
            prompt = task.train_rows.prompt_ids[number]
            assert batch["input_ids"][row, : len(prompt)].tolist() == prompt
            targets = batch["shift_labels"][row]
            place = (step - 4) * size + row // 4
            length = int(first["lengths"][place, row % 4])
            ids = first["ids"][place, row % 4, len(prompt) : len(prompt) + length]
            assert torch.equal(targets[targets != IGNORE_INDEX], ids.long())
        # Sampled on policy: what the model says now is what it said then.
        assert torch.equal(batch["old"] != 0, batch["shift_labels"] != IGNORE_INDEX)
        loss = task.loss(model, batch, task.num_targets(batch))
        mean = (batch["advantages"][:, None] * (batch["shift_labels"] != IGNORE_INDEX)).sum() / task.num_targets(batch)
        torch.testing.assert_close(loss, -mean, rtol=1e-4, atol=1e-5)

    other = task_of(tokenizer, steps_per_sampling=2)
    other.train_rows.load_state_dict(task.train_rows.state_dict())
    other.prepare(model, 5, accelerator)
    slots = other.train_rows.indices(5, size, 0)
    for name, values in other.train_rows.batch(slots).items():
        assert torch.equal(values, task.train_rows.batch(slots)[name]), name


def test_every_token_counts_the_same_or_every_answer(model: Any, tokenizer: Any) -> None:
    accelerator, losses = Accelerator(cpu=True), {}
    for normalized in (False, True):
        task = task_of(tokenizer, length_normalization=normalized)
        torch.manual_seed(1)
        task.prepare(model, 0, accelerator)
        batch = task.train_rows.batch(task.train_rows.indices(0, 3, 0))
        is_target = batch["shift_labels"] != IGNORE_INDEX
        advantage = batch["advantages"]
        losses[normalized] = float(task.loss(model, batch, task.num_targets(batch)))
        weights = torch.ones(len(advantage)) if normalized else is_target.sum(-1)
        assert losses[normalized] == pytest.approx(-float((advantage * weights).sum() / weights.sum()), abs=1e-5)
    assert losses[True] == pytest.approx(0, abs=1e-5)
    assert abs(losses[False]) > 1e-3


def test_rejection_learns_from_right_answers_that_end_alone(model: Any, tokenizer: Any) -> None:
    task = task_of(tokenizer, method="rejection", keep=2)
    samples = {
        "ids": torch.arange(2 * 4 * 9, dtype=torch.int32).view(2, 4, 9),
        "starts": torch.tensor([3, 3]),
        "lengths": torch.tensor([[1, 2, 3, 4], [5, 6, 1, 2]]),
        "rewards": torch.tensor([[0.0, 1, 1, 1], [0, 0, 1, 0]]),
        "ended": torch.tensor([[1, 1, 0, 1], [1, 1, 0, 1]]),
    }
    before = samples["ids"].clone()
    task._weigh(samples, [["a", "b", "c", "d"], ["a", "b", "c", "d"]])
    assert samples["lengths"].tolist() == [[2, 4], [0, 0]]  # the only right one of the second has no end
    assert samples["advantages"].tolist() == [[1, 1], [0, 0]]
    assert torch.equal(samples["ids"][0], before[0, [1, 3]])
    batch = task.train_rows.rows_of(samples)
    assert (batch["shift_labels"] != IGNORE_INDEX).sum(-1).tolist() == [2, 4, 0, 0]
    nothing = {name: values[1:] for name, values in samples.items()}
    batch = task.train_rows.rows_of(nothing)
    loss = task.loss(model, batch, task.num_targets(batch))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())


def test_what_a_run_depends_on_names_the_reward(model: Any, tokenizer: Any) -> None:
    task = task_of(tokenizer)
    record = run_identity(task.arguments, task, model, tokenizer, task.train_rows.fingerprint(), {})
    assert record["task"]["rewards"] == task.rewards.fingerprint()
    task.rewards = Rewards(["exact_match"])
    other = run_identity(task.arguments, task, model, tokenizer, task.train_rows.fingerprint(), {})
    assert other["task"]["rewards"] != record["task"]["rewards"]


def test_an_evaluation_counts_and_tells_what_was_sampled(model: Any, tokenizer: Any) -> None:
    accelerator, task = Accelerator(cpu=True), task_of(tokenizer, eval_questions=5)
    torch.manual_seed(0)
    task.prepare(model, 0, accelerator)
    result = task.evaluate(model, accelerator)
    assert result.num_questions == 5
    assert "sampled 12 answers" in result.summary()
    assert "of 3 groups" in result.summary()
    assert task.train_rows.tally == Counter()
    assert "sampled" not in task.evaluate(model, accelerator).summary()


def result_of(rewards: list[float], tokens: int, stopped: bool, right: int) -> CheckedResult:
    prompts = [Prompt([{"role": "user", "content": "?"}], {"answer": "5"})] * len(rewards)
    answers = [Response("5" if i < right else "6", [1] * tokens, stopped) for i in range(len(rewards))]
    return measure_answers(prompts, answers, torch.tensor(rewards).double().numpy(), 1.0)


def test_alarms() -> None:
    before = result_of([0.0] * 10 + [1.0] * 10, 4, True, 10)
    assert before.exact == before.right == 0.5
    assert before.alarms == []
    for found, words in (
        (result_of([1.0] * 20, 4, True, 20), []),
        (result_of([1.0] * 20, 8, True, 20), ["grown from 4.0 to 8.0 tokens"]),
        (result_of([1.0] * 20, 4, False, 20), ["fewer answers end by themselves, 0.0% after 100.0%"]),
        (result_of([1.0] * 20, 4, True, 0), ["fewer answers are right by the letter, 0.0% after 50.0%"]),
        (result_of([0.0] * 20, 40, False, 0), []),  # worse in everything is no way round
    ):
        found.before = before
        assert len(found.alarms) == len(words)
        assert all(word in alarm for word, alarm in zip(words, found.alarms, strict=True))
        assert found.summary().count("ALARM") == len(words)
        assert found.as_dict()["reference_loss"] == -0.5
