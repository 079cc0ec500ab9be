"""How large a model, and how many steps, for this text on this machine in so many minutes.

The arithmetic:

    FLOPs per token = 6 · (body + vocabulary · width) + 6 · layers · width · context      (forward and backward)
    body            = 12 · layers · width²                                                (attention 4, gated MLP 8)
    affordable      = seconds · measured FLOPs per second / FLOPs per token
    tokens read     = the smaller of affordable and MAX_PASSES · tokens of the text

The size is the largest on the ladder `SIZES` that still reads TOKENS_PER_PARAMETER tokens for each parameter of its
body. Compute-optimal training reads 20 (Hoffmann et al. 2022), which leaves little of a model for a run of minutes. In
a minute on one core, a body that read 14 tokens a parameter reached 2.27 bits per byte of Shakespeare, one that read
0.6 only 2.53.

Reading a text up to 4 times is nearly as good as new text, and after some 16 times little is left to learn from it
(Muennighoff et al. 2023).

Then a few real steps of that model are timed (`loop.measure`), and the steps follow from them:

    seconds = first + steps · step + EVALUATIONS · (tokens evaluated · seconds per token + checkpoint) + end

Everything here is a pure function of what was measured.
"""

import math
from dataclasses import dataclass

TOKENS_PER_PARAMETER = 3
MAX_PASSES = 10
EVALUATIONS = 8
EVALUATED = 0.02
"""Tokens of an evaluation as a share of those trained on: all evaluations take about a twentieth of the time."""

STEPS = 500
"""The batch grows with the number of tokens so that there are about this many steps, or more."""

FEWEST_STEPS = 10
COMPILED_AGAIN = 0.2
"""What the first step takes when the measuring has compiled the same one: torch finds most of it in its cache."""

MEMORY_GROWTH = 1.1
"""What the run holds at most, beside the measuring: the allocator keeps some of what that used."""

END_SECONDS = 1.0
"""For the plots and the results, beside the last checkpoint."""

REFERENCE = (128, 4)
"""Width and layers of the model that is measured first: large enough to show what the machine can do."""

COMPILED_GAIN = 2.0
"""How much faster a compiled step is; only the size follows from it, the steps from what is measured."""

WORTH_COMPILING = 60.0
"""Seconds: a run that is done sooner is not compiled, which takes half a minute by itself."""

SIZES = (
    (64, 2), (96, 3), (128, 4), (192, 4), (256, 4), (256, 6), (320, 6), (384, 6), (512, 8), (640, 10), (768, 12),
)  # fmt: skip
"""Width and layers, smallest first; the last is GPT-2's."""


@dataclass(frozen=True)
class Size:
    """Shape of a model and of its batches."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    context_length: int
    batch_size: int

    @property
    def tokens_per_step(self) -> int:
        return self.context_length * self.batch_size


@dataclass(frozen=True)
class Measured:
    """Of real steps of a run."""

    first_step_seconds: float
    step_seconds: float
    eval_seconds_per_token: float
    save_seconds: float
    memory_mb: float
    """The most that the process ever held, the measuring included, which does all that the run does."""


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how often to look."""

    max_steps: int
    warmup_steps: int
    decay_steps: int
    eval_steps: int
    eval_tokens: int | None
    """None: all of them."""
    seconds: float
    """Predicted, from the first step to the written model."""


def vocabulary_size(num_bytes: int) -> int:
    """Tokens for a text of so many bytes: a power of two near twice the square root, from 512 to 16,384."""
    return min(16384, max(512, 2 ** round(math.log2(2 * math.sqrt(max(num_bytes, 1))))))


def flops_per_token(width: int, layers: int, vocab_size: int, context_length: int) -> float:
    """See the top of the module."""
    return 6 * (12 * layers * width**2 + vocab_size * width) + 6 * layers * width * context_length


def context_length(num_tokens: int, width: int) -> int:
    """Short rows for little text, so that there are many; long ones for a model that can use them."""
    if num_tokens < 100_000:
        return 64
    return 256 if width < 512 else 512


def choose_size(num_tokens: int, vocab_size: int, flops_per_second: float, seconds: float) -> Size:
    """
    Args:
        num_tokens: of the training text.
        flops_per_second: that training reaches on this machine.
    """
    found = SIZES[0]
    for width, layers in SIZES:
        if _tokens(num_tokens, vocab_size, width, layers, flops_per_second, seconds) >= (
            TOKENS_PER_PARAMETER * 12 * layers * width**2
        ):
            found = width, layers
    return make_size(num_tokens, *found, _tokens(num_tokens, vocab_size, *found, flops_per_second, seconds))


def make_size(num_tokens: int, width: int, layers: int, tokens: float) -> Size:
    """A model with the batch that fits the text, and the tokens that will be read of it."""
    length = context_length(num_tokens, width)
    most = (4096 if width < 512 else 16384) // length
    rows = 2 ** round(math.log2(min(max(tokens / STEPS / length, 4), most)))
    rows = max(1, min(rows, num_tokens // length))  # never one twice in a step
    return Size(width, layers, max(1, width // (32 if width < 256 else 64)), length, rows)


def _tokens(
    num_tokens: int, vocab_size: int, width: int, layers: int, flops_per_second: float, seconds: float
) -> float:
    """That can be read in the time, or are worth reading."""
    flops = flops_per_token(width, layers, vocab_size, context_length(num_tokens, width))
    return min(seconds * flops_per_second / flops, MAX_PASSES * num_tokens)


def choose_schedule(
    num_tokens: int, num_eval_tokens: int, tokens_per_step: int, measured: Measured, seconds: float
) -> Schedule:
    """As many steps as there is time for, but no more than MAX_PASSES passes.

    Args:
        num_tokens, num_eval_tokens: of the training and the validation text.
    """
    most = max(1, math.ceil(MAX_PASSES * num_tokens / tokens_per_step))
    first = COMPILED_AGAIN * measured.first_step_seconds
    fixed = first + (EVALUATIONS + 1) * measured.save_seconds + END_SECONDS
    evaluating = EVALUATIONS * EVALUATED * tokens_per_step * measured.eval_seconds_per_token
    steps = int((seconds - fixed) / (measured.step_seconds + evaluating))
    steps = min(most, max(steps, FEWEST_STEPS))
    evaluated = min(num_eval_tokens, max(2048, int(EVALUATED * steps * tokens_per_step)))
    eval_steps = math.ceil(steps / EVALUATIONS)
    evaluations = math.ceil(steps / eval_steps)
    total = (
        first
        + (steps - 1) * measured.step_seconds
        + evaluations * (evaluated * measured.eval_seconds_per_token + measured.save_seconds)
        + measured.save_seconds
        + END_SECONDS
    )
    eval_tokens = evaluated if evaluated < num_eval_tokens else None
    return Schedule(steps, min(steps - 1, max(1, steps // 20)), max(1, steps // 2), eval_steps, eval_tokens, total)


def in_words(seconds: float) -> str:
    """`85 seconds`, `9.6 minutes`, `3.2 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def shortened(max_steps: int, warmup_steps: int, decay_steps: int, step_seconds: float, seconds: float) -> list[int]:
    """The three numbers of steps, scaled down together where `max_steps` would take longer than `seconds`."""
    share = min(1.0, seconds / (max_steps * step_seconds))
    return [max(1, int(number * share)) if number else 0 for number in (max_steps, warmup_steps, decay_steps)]
