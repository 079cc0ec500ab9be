"""Cross-entropy of a linear head without its logits: N tokens × V vocabulary never stand in memory.

This is a Hub file: it is copied verbatim into every saved model, so it imports torch and the standard library.

The logits of a batch are the largest tensor of a small model's training step by far (2,048 tokens × 50,304 ids in
fp32: 412 MB, and their gradient as much again). But the gradient of the loss with respect to the logits is known as
soon as they are: softmax − one-hot. So the forward pass walks over the tokens in chunks and makes the gradients of
the hidden states and of the weight on the spot; the backward pass only scales them. (The idea is in Liger-Kernel, Hsu
et al. 2024, and Cut Your Losses, Wijmans et al. 2024.) One buffer holds the logits of a chunk, then their gradient.

Where a loss is made of the log-probabilities of whole sequences (preferences), what each token counts is known only
when all are: then the backward pass computes the logits of each chunk a second time (`linear_log_probabilities`).
"""

import functools
import re

import torch
import torch.nn.functional as F
from torch import nn

CHUNK_BYTES = 24 * 2**20  # logits of one chunk, in the type they are computed in; where the weight takes more, as much

GPU_CHUNK_BYTES = 256 * 2**20  # the same on GPUs, whose products want more rows, and which have no cache to stay in

ROWS_BYTES = 16 * 2**20  # on the CPU: logits in fp32 of the rows that are turned into gradients together

WEIGHT_ROWS = 4096  # on the CPU: rows of the weight whose gradient is computed, then added, together


def logits_to_gradient(logits_nV: torch.Tensor, targets_n: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """The summed cross-entropy; `logits_nV` becomes its gradient, in place: softmax − one-hot."""
    targets_n1 = targets_n.unsqueeze(-1)
    counts_n1 = targets_n1 != ignore_index
    float_nV = logits_nV.float()
    # The exponentials serve the sum and the softmax: they are the costliest pass over the logits.
    max_n1 = float_nV.amax(-1, keepdim=True)
    exp_nV = (float_nV - max_n1).exp()
    sum_n1 = exp_nV.sum(-1, keepdim=True)
    target_logits_n1 = float_nV.gather(-1, targets_n1 * counts_n1)
    one_hot_nV = (torch.arange(logits_nV.shape[1], device=logits_nV.device) == targets_n1) & counts_n1
    logits_nV.copy_(exp_nV * (counts_n1 / sum_n1) - one_hot_nV.float())
    return ((max_n1 + sum_n1.log() - target_logits_n1) * counts_n1).sum()


@functools.cache
def compiled_logits_to_gradient():
    """`logits_to_gradient`, compiled: made at its first use, because torch.compile imports the whole compiler."""
    return torch.compile(logits_to_gradient)


def _power_of_two(number: int) -> int:
    """The largest that is not above `number`; at least 1."""
    return 1 << max(0, number.bit_length() - 1)


# Named after this copy of the file: saved models bring theirs, perhaps of another version, into the same process.
LIBRARY = re.sub(r"\W", "_", __name__)


@torch.library.custom_op(LIBRARY + "::linear_cross_entropy", mutates_args=())
def loss_and_gradients(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    ignore_index: int,
    grad_hidden: bool,
    grad_weight: bool,
    compiled: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum over tokens of the cross-entropy, and its gradients by `hidden_ND` and `weight_VD`; empty where unwanted.

    Opaque to the compiler, which would unroll the chunks, give the gradient of the logits a buffer of its own, and put
    the additions off to the end, keeping every chunk's V × D product until then.
    """
    vocab_size = weight_VD.shape[0]
    on_cpu = hidden_ND.device.type == "cpu"
    chunk_bytes = max(CHUNK_BYTES if on_cpu else GPU_CHUNK_BYTES, weight_VD.numel() * hidden_ND.itemsize)
    num_chunks = max(1, -(-len(hidden_ND) * vocab_size * hidden_ND.itemsize // chunk_bytes))
    chunk = max(1, -(-len(hidden_ND) // num_chunks))
    # A power of two, and chunks that are made of it: one shape to compile.
    rows = min(chunk, _power_of_two(ROWS_BYTES // (4 * vocab_size) if on_cpu else chunk))
    chunk = -(-chunk // rows) * rows if on_cpu else rows
    to_gradient = compiled_logits_to_gradient() if compiled else logits_to_gradient
    loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
    grad_hidden_ND = torch.empty_like(hidden_ND if grad_hidden else hidden_ND[:0])
    # Its first chunk writes, later ones add.
    allocate = torch.empty_like if len(hidden_ND) else torch.zeros_like
    grad_weight_VD = allocate(weight_VD if grad_weight else weight_VD[:0], dtype=torch.float32)
    # The first call of a compiled model comes with other dispatch keys than all later ones (torch checks what the
    # operator aliases). Inference tensors have the same keys in both, so `logits_to_gradient` is compiled once.
    with torch.inference_mode():
        targets_N = targets_N.clone()
        # What goes at the end is made last: freed, it leaves one hole in the heap, which the backward pass can use.
        weight_VD = weight_VD.to(hidden_ND.dtype)
        buffer_nV = hidden_ND.new_empty(chunk, vocab_size)
        for start in range(0, len(hidden_ND), chunk):
            hidden_nD, targets_n = hidden_ND[start : start + chunk], targets_N[start : start + chunk]
            logits_nV = torch.mm(hidden_nD, weight_VD.t(), out=buffer_nV[: len(hidden_nD)])
            for some_logits, some_targets in zip(logits_nV.split(rows), targets_n.split(rows), strict=True):
                loss += to_gradient(some_logits, some_targets, ignore_index)
            if grad_hidden:
                torch.mm(logits_nV, weight_VD, out=grad_hidden_ND[start : start + chunk])
            if grad_weight:
                add_weight_gradient(grad_weight_VD, logits_nV, hidden_nD, first=start == 0)
    return loss, grad_hidden_ND, grad_weight_VD


def add_weight_gradient(
    grad_weight_VD: torch.Tensor, grad_logits_nV: torch.Tensor, hidden_nD: torch.Tensor, first: bool
) -> None:
    """Adds what the tokens of a chunk give; the first chunk writes instead."""
    # By parts on the CPU: the whole product would be another V × D.
    parts = WEIGHT_ROWS if hidden_nD.device.type == "cpu" else len(grad_weight_VD)
    for total, grad in zip(grad_weight_VD.split(parts), grad_logits_nV.t().split(parts), strict=True):
        product = grad @ hidden_nD
        total.copy_(product) if first else total.add_(product)


@loss_and_gradients.register_fake
def _(hidden_ND, weight_VD, targets_N, ignore_index, grad_hidden, grad_weight, compiled):
    return (
        hidden_ND.new_empty((), dtype=torch.float32),
        torch.empty_like(hidden_ND if grad_hidden else hidden_ND[:0]),
        torch.empty_like(weight_VD if grad_weight else weight_VD[:0], dtype=torch.float32),
    )


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum over tokens of the cross-entropy; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, targets_N, ignore_index, compute_dtype, grad_hidden, grad_weight):
        loss, grad_hidden_ND, grad_weight_VD = loss_and_gradients(
            hidden_ND.to(compute_dtype),
            weight_VD,
            targets_N,
            ignore_index,
            grad_hidden,
            grad_weight,
            compiled=torch.compiler.is_compiling(),
        )
        ctx.save_for_backward(grad_hidden_ND if grad_hidden else None, grad_weight_VD if grad_weight else None)
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        grads = (
            None if grad is None else (grad * grad_loss).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return *grads, None, None, None, None, None


def is_plain(head: nn.Module) -> bool:
    """Whether a head is its matrix and no more. An adapted or sharded one must be called as the module it is, and
    then its logits exist."""
    return type(head) is nn.Linear and type(head.weight) is nn.Parameter and head.bias is None


def linear_cross_entropy(
    hidden: torch.Tensor,
    head: nn.Linear,
    targets: torch.Tensor,
    num_items_in_batch: int | torch.Tensor | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Mean cross-entropy of `head(hidden)` against `targets`: a scalar, in nats, fp32.

    Args:
        hidden: [..., D]. head: linear layer D → V without bias. targets: [...] ids, or `ignore_index` (negative).
        num_items_in_batch: divisor of the sum; default: the number of targets that are not ignored.
    """
    device = hidden.device
    hidden_ND, targets_N = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(device)
    if num_items_in_batch is None:
        num_items_in_batch = (targets_N != ignore_index).sum()
    elif isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(device)
    if not is_plain(head):
        total = F.cross_entropy(head(hidden_ND).float(), targets_N, ignore_index=ignore_index, reduction="sum")
        return total / num_items_in_batch
    weight_VD = head.weight
    autocast = torch.is_autocast_enabled(device.type)
    compute_dtype = torch.get_autocast_dtype(device.type) if autocast else weight_VD.dtype
    wants_grad = torch.is_grad_enabled()
    with torch.autocast(device.type, enabled=False):
        total = _LinearCrossEntropy.apply(
            hidden_ND,
            weight_VD,
            targets_N,
            ignore_index,
            compute_dtype,
            wants_grad and hidden.requires_grad,
            wants_grad and weight_VD.requires_grad,
        )
    return total / num_items_in_batch


def log_probability_chunks(
    hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, ignore_index: int
) -> tuple[torch.Tensor, ...]:
    """The places of the targets that count, a chunk at a time: logits are made for these only."""
    on_cpu = hidden_ND.device.type == "cpu"
    chunk = (CHUNK_BYTES if on_cpu else GPU_CHUNK_BYTES) // (len(weight_VD) * 4)
    return (targets_N != ignore_index).nonzero().squeeze(-1).split(max(1, chunk))


@torch.library.custom_op(LIBRARY + "::linear_log_probabilities", mutates_args=())
def log_probabilities(
    hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each target its log-probability, and the log of the sum of exponentials; 0 where there is no target."""
    found_N, log_sum_N = (hidden_ND.new_zeros(len(hidden_ND), dtype=torch.float32) for _ in range(2))
    weight_VD = weight_VD.to(hidden_ND.dtype)
    for where_n in log_probability_chunks(hidden_ND, weight_VD, targets_N, ignore_index):
        logits_nV = (hidden_ND[where_n] @ weight_VD.t()).float()
        log_sum_N[where_n] = log_sum_n = logits_nV.logsumexp(-1)
        found_N[where_n] = logits_nV.gather(-1, targets_N[where_n].unsqueeze(-1)).squeeze(-1) - log_sum_n
    return found_N, log_sum_N


@log_probabilities.register_fake
def _(hidden_ND, weight_VD, targets_N, ignore_index):
    return tuple(hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32) for _ in range(2))


@torch.library.custom_op(LIBRARY + "::linear_log_probabilities_backward", mutates_args=())
def log_probability_gradients(
    grad_N: torch.Tensor,
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    log_sum_N: torch.Tensor,
    ignore_index: int,
    grad_hidden: bool,
    grad_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients by `hidden_ND` and `weight_VD`, of (one-hot − softmax) · `grad_N` of each token; empty if unwanted."""
    grad_hidden_ND = torch.zeros_like(hidden_ND if grad_hidden else hidden_ND[:0])
    grad_weight_VD = torch.zeros_like(weight_VD if grad_weight else weight_VD[:0], dtype=torch.float32)
    weight_VD = weight_VD.to(hidden_ND.dtype)
    chunks = log_probability_chunks(hidden_ND, weight_VD, targets_N, ignore_index)
    for number, where_n in enumerate(chunks):
        hidden_nD, grad_n1 = hidden_ND[where_n], grad_N[where_n].unsqueeze(-1)
        grad_nV = (hidden_nD @ weight_VD.t()).float().sub_(log_sum_N[where_n].unsqueeze(-1)).exp_().mul_(-grad_n1)
        grad_nV.scatter_add_(-1, targets_N[where_n].unsqueeze(-1), grad_n1)
        grad_nV = grad_nV.to(hidden_ND.dtype)
        if grad_hidden:
            grad_hidden_ND[where_n] = grad_nV @ weight_VD
        if grad_weight:
            add_weight_gradient(grad_weight_VD, grad_nV, hidden_nD, first=number == 0)
    return grad_hidden_ND, grad_weight_VD


@log_probability_gradients.register_fake
def _(grad_N, hidden_ND, weight_VD, targets_N, log_sum_N, ignore_index, grad_hidden, grad_weight):
    return (
        torch.empty_like(hidden_ND if grad_hidden else hidden_ND[:0]),
        torch.empty_like(weight_VD if grad_weight else weight_VD[:0], dtype=torch.float32),
    )


class _LinearLogProbabilities(torch.autograd.Function):
    """Of each target its log-probability; the backward pass computes the logits again."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, targets_N, ignore_index, compute_dtype):
        found_N, log_sum_N = log_probabilities(hidden_ND.to(compute_dtype), weight_VD, targets_N, ignore_index)
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, log_sum_N)
        ctx.ignore_index, ctx.compute_dtype = ignore_index, compute_dtype
        return found_N

    @staticmethod
    def backward(ctx, grad_N):
        hidden_ND, weight_VD, targets_N, log_sum_N = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        grads = log_probability_gradients(
            grad_N.contiguous(),
            hidden_ND.to(ctx.compute_dtype),
            weight_VD,
            targets_N,
            log_sum_N,
            ctx.ignore_index,
            *wanted,
        )
        inputs = (hidden_ND, weight_VD)
        found = (g.to(x.dtype) if want else None for g, x, want in zip(grads, inputs, wanted, strict=True))
        return *found, None, None, None


def linear_log_probabilities(
    hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor, ignore_index: int = -100
) -> torch.Tensor:
    """Log-probability of each target under `head(hidden)`: [...], in nats, fp32; 0 where there is no target.

    Args:
        hidden: [..., D]. head: linear layer D → V without bias. targets: [...] ids, or `ignore_index` (negative).
    """
    device = hidden.device
    hidden_ND, targets_N = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(device)
    if not is_plain(head):
        logits_NV = head(hidden_ND).float()
        return -F.cross_entropy(logits_NV, targets_N, ignore_index=ignore_index, reduction="none").view(targets.shape)
    autocast = torch.is_autocast_enabled(device.type)
    compute_dtype = torch.get_autocast_dtype(device.type) if autocast else head.weight.dtype
    with torch.autocast(device.type, enabled=False):
        found_N = _LinearLogProbabilities.apply(hidden_ND, head.weight, targets_N, ignore_index, compute_dtype)
    return found_N.view(targets.shape)
