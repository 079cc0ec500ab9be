"""The chunked loss is the plain one: value, gradients, and the memory it saves."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scratchgpt import loss_scratchgpt
from scratchgpt.loss_scratchgpt import linear_cross_entropy, linear_log_probabilities

pytestmark = pytest.mark.gpu


def plain_loss(hidden, head, targets, num_items=None):
    total = F.cross_entropy(head(hidden).flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="sum")
    return total / ((targets != -100).sum() if num_items is None else num_items)


def gradients(loss_function, hidden, head, *arguments, scale=1.0):
    hidden.grad = head.weight.grad = None
    loss = loss_function(hidden, head, *arguments)
    (loss * scale).backward()
    return loss.detach(), hidden.grad, head.weight.grad


@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 17),
    vocab_size=st.integers(2, 40),
    chunk_tokens=st.integers(1, 60),
    ignored=st.floats(0, 0.9),
    num_items=st.sampled_from([None, 7, "tensor"]),
    seed=st.integers(0, 2**16),
)
def test_value_and_gradients_are_those_of_the_plain_loss(
    batch, length, vocab_size, chunk_tokens, ignored, num_items, seed
):
    torch.manual_seed(seed)
    hidden = torch.randn(batch, length, 8, requires_grad=True)
    head = nn.Linear(8, vocab_size, bias=False)
    targets = torch.randint(vocab_size, (batch, length))
    targets[torch.rand(batch, length) < ignored] = -100
    targets[0, 0] = 0  # at least one target: a mean over none is not a number in either
    num_items = torch.tensor(5) if num_items == "tensor" else num_items
    expected = gradients(plain_loss, hidden, head, targets, num_items, scale=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scratchgpt, "CHUNK_BYTES", 4 * vocab_size * chunk_tokens)
        actual = gradients(linear_cross_entropy, hidden, head, targets, num_items, scale=0.5)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("num_items", [None, 7])
def test_heads_that_are_more_than_a_matrix_have_the_same_loss(num_items):
    """An adapted head, or one with a bias, is called as the module it is."""

    class Adapted(nn.Linear):
        def forward(self, input):
            return super().forward(input) + input.sum(-1, keepdim=True) * self.weight[:, 0]

    hidden, targets = torch.randn(2, 5, 8), torch.randint(24, (2, 5))
    targets[0, 1] = -100
    for head in (Adapted(8, 24, bias=False), nn.Linear(8, 24)):
        expected = plain_loss(hidden, head, targets, num_items)
        torch.testing.assert_close(linear_cross_entropy(hidden, head, targets, num_items), expected)


def test_compiled_equals_eager(monkeypatch):
    monkeypatch.setattr(loss_scratchgpt, "CHUNK_BYTES", 4 * 24 * 10)  # chunks of 9, 9 and 6 tokens
    monkeypatch.setattr(loss_scratchgpt, "ROWS_BYTES", 4 * 24 * 4)  # rows of 4, 4 and 1, or 4 and 2
    hidden, head = torch.randn(2, 12, 8, requires_grad=True), nn.Linear(8, 24, bias=False)
    targets = torch.randint(24, (2, 12))
    targets[0, 5] = -100
    expected = gradients(plain_loss, hidden, head, targets)
    actual = gradients(torch.compile(linear_cross_entropy, fullgraph=True), hidden, head, targets)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-6, rtol=1e-5)


def test_no_tokens_give_no_gradient():
    head = nn.Linear(8, 24, bias=False)
    linear_cross_entropy(torch.empty(0, 8), head, torch.empty(0, dtype=torch.long), num_items_in_batch=1).backward()
    assert torch.equal(head.weight.grad, torch.zeros(24, 8))


def test_two_versions_of_the_file_live_in_one_process():
    spec = importlib.util.spec_from_file_location("saved.with-another.loss", loss_scratchgpt.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    hidden, head, targets = torch.randn(1, 4, 8), nn.Linear(8, 10, bias=False), torch.tensor([[1, 2, 3, -100]])
    other.loss_and_gradients.register_kernel("cpu")(
        lambda *_: (torch.tensor(7.0), torch.empty(0, 8), torch.empty(0, 8))
    )
    assert other.linear_cross_entropy(hidden, head, targets) * 3 == 7
    torch.testing.assert_close(linear_cross_entropy(hidden, head, targets), plain_loss(hidden, head, targets))


@pytest.mark.parametrize(("train_hidden", "train_weight"), [(True, False), (False, True), (False, False)])
def test_frozen_sides_get_no_gradient(train_hidden, train_weight):
    hidden, head = torch.randn(2, 6, 8, requires_grad=train_hidden), nn.Linear(8, 20, bias=False)
    head.weight.requires_grad_(train_weight)
    targets = torch.randint(20, (2, 6))
    loss = linear_cross_entropy(hidden, head, targets)
    torch.testing.assert_close(loss, plain_loss(hidden, head, targets))
    assert loss.requires_grad == (train_hidden or train_weight)
    if loss.requires_grad:
        loss.backward()
    assert (hidden.grad is not None) == train_hidden
    assert (head.weight.grad is not None) == train_weight


def test_bf16_autocast_stays_close_to_fp32():
    torch.manual_seed(0)
    hidden, head = torch.randn(4, 64, 64, requires_grad=True), nn.Linear(64, 500, bias=False)
    targets = torch.randint(500, (4, 64))
    expected = gradients(plain_loss, hidden, head, targets)
    with torch.autocast("cpu", torch.bfloat16):
        actual = gradients(linear_cross_entropy, hidden, head, targets)
    torch.testing.assert_close(actual[0], expected[0], atol=1e-2, rtol=1e-2)
    for a, e in zip(actual[1:], expected[1:], strict=True):
        assert a.dtype == e.dtype
        assert F.cosine_similarity(a.flatten(), e.flatten(), dim=0) > 0.999


def largest_allocation(function, *arguments):
    """Bytes of the largest tensor that `function` makes."""
    with torch.profiler.profile(profile_memory=True) as profile:
        function(*arguments)
    return max(event.self_cpu_memory_usage for event in profile.events())


def test_logits_of_the_whole_batch_never_exist(monkeypatch):
    hidden, head = torch.randn(4, 256, 8, requires_grad=True), nn.Linear(8, 1000, bias=False)
    targets = torch.randint(1000, (4, 256))
    monkeypatch.setattr(loss_scratchgpt, "CHUNK_BYTES", 4 * 1000 * 128)
    assert largest_allocation(lambda: linear_cross_entropy(hidden, head, targets).backward()) <= 4 * 1000 * 128
    # The measure itself: the plain loss does make them.
    assert largest_allocation(lambda: plain_loss(hidden, head, targets).backward()) >= 4 * 1000 * 1024


# Log-probabilities


def plain_log_probabilities(hidden, head, targets):
    nats = F.cross_entropy(head(hidden).flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="none")
    return -nats.view(targets.shape)


def sequence_loss(function, hidden, head, targets):
    """A loss that is not linear in the sums of the sequences, as those of preferences are not."""
    return -F.logsigmoid(function(hidden, head, targets).sum(-1)).sum()


@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 17),
    vocab_size=st.integers(2, 40),
    chunk_tokens=st.integers(1, 60),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_log_probabilities_and_their_gradients_are_the_plain_ones(
    batch, length, vocab_size, chunk_tokens, ignored, seed
):
    torch.manual_seed(seed)
    hidden = torch.randn(batch, length, 8, requires_grad=True)
    head = nn.Linear(8, vocab_size, bias=False)
    targets = torch.randint(vocab_size, (batch, length))
    targets[torch.rand(batch, length) < ignored] = -100
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scratchgpt, "CHUNK_BYTES", 4 * vocab_size * chunk_tokens)
        found = linear_log_probabilities(hidden, head, targets)
        actual = gradients(lambda *given: sequence_loss(linear_log_probabilities, *given), hidden, head, targets)
    torch.testing.assert_close(found, plain_log_probabilities(hidden, head, targets), atol=1e-6, rtol=1e-5)
    expected = gradients(lambda *given: sequence_loss(plain_log_probabilities, *given), hidden, head, targets)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("train_hidden", "train_weight"), [(True, False), (False, True)])
def test_log_probabilities_give_gradients_where_they_are_wanted(train_hidden, train_weight, bias):
    hidden, head = torch.randn(2, 6, 8, requires_grad=train_hidden), nn.Linear(8, 20, bias=bias)
    head.requires_grad_(train_weight)
    targets = torch.randint(20, (2, 6))
    linear_log_probabilities(hidden, head, targets).sum().backward()
    assert (hidden.grad is not None) == train_hidden
    assert (head.weight.grad is not None) == train_weight


def test_compiled_log_probabilities_equal_eager_ones():
    hidden, head = torch.randn(2, 12, 8, requires_grad=True), nn.Linear(8, 24, bias=False)
    targets = torch.randint(24, (2, 12))
    targets[0, 5:] = -100
    expected = gradients(lambda *given: sequence_loss(plain_log_probabilities, *given), hidden, head, targets)
    compiled = torch.compile(linear_log_probabilities, fullgraph=True)
    actual = gradients(lambda *given: sequence_loss(compiled, *given), hidden, head, targets)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-6, rtol=1e-5)


def test_log_probabilities_need_the_logits_of_a_chunk_only(monkeypatch):
    hidden, head = torch.randn(4, 256, 8, requires_grad=True), nn.Linear(8, 1000, bias=False)
    targets = torch.randint(1000, (4, 256))
    monkeypatch.setattr(loss_scratchgpt, "CHUNK_BYTES", 4 * 1000 * 128)
    made = largest_allocation(lambda: sequence_loss(linear_log_probabilities, hidden, head, targets).backward())
    assert made <= 4 * 1000 * 128
    plain = largest_allocation(lambda: sequence_loss(plain_log_probabilities, hidden, head, targets).backward())
    assert plain >= 4 * 1000 * 1024
