"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no scheduler state.

`step` counts the optimizer steps already taken: the first step uses `learning_rate(0)`, the last one
`learning_rate(max_steps - 1)`. With W warm-up steps, N steps in all, D decay steps, the peak p and the final f:

    warm-up    s < W        p · (s + 1) / (W + 1)                               linear; never 0, reaches p at s = W
    cosine     W ≤ s ≤ N    f + (p − f) · (1 + cos(π·x)) / 2                    x = (s − W) / (N − W)
    linear     W ≤ s ≤ N    p + (f − p) · x                                     x as above
    wsd        W ≤ s        p, and over the last D steps p + (f − p) · x        x = (s − (N − D)) / D
    constant   W ≤ s        p

`f` is reached at s = N, one past the last step: with f = 0 no step is wasted on a rate of 0. Beyond N it stays f.

Sources: cosine annealing from Loshchilov and Hutter 2017 (SGDR, without restarts); warm-up, stable, decay from Hu et
al. 2024 (MiniCPM), with the linear decay that Hägele et al. 2024 compare.
"""

import math
from typing import Literal, get_args

Schedule = Literal["cosine", "linear", "wsd", "constant"]


def check_schedule(
    *, schedule: Schedule, max_steps: int, warmup_steps: int, peak: float, final: float = 0.0, decay_steps: int = 0
) -> None:
    """Makes sure that these numbers are a schedule; recipes call it before anything expensive.

    Raises:
        ValueError: names the numbers that do not go together.
    """
    if schedule not in get_args(Schedule):
        raise ValueError(f"Unknown schedule {schedule!r}: choose from {', '.join(get_args(Schedule))}")
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps}: at least 1 is needed")
    if not 0 <= warmup_steps < max_steps:
        raise ValueError(f"warmup_steps={warmup_steps} must be at least 0 and below max_steps={max_steps}")
    if not (math.isfinite(peak) and peak > 0):
        raise ValueError(f"The peak learning rate is {peak}: it must be positive and finite")
    if not 0 <= final <= peak:
        raise ValueError(f"The final learning rate {final} must lie between 0 and the peak {peak}")
    if schedule == "wsd":
        if not 1 <= decay_steps <= max_steps - warmup_steps:
            raise ValueError(
                f"wsd decays over the last decay_steps={decay_steps}: give between 1 and max_steps - warmup_steps = "
                f"{max_steps - warmup_steps}"
            )
    elif decay_steps:
        raise ValueError(f"decay_steps={decay_steps} belongs to schedule=wsd; {schedule} needs decay_steps=0")


def learning_rate(
    step: int,
    *,
    schedule: Schedule,
    max_steps: int,
    warmup_steps: int,
    peak: float,
    final: float = 0.0,
    decay_steps: int = 0,
) -> float:
    """The learning rate of the optimizer step that follows `step` finished ones.

    With `peak=1` and `final` as a share of the peak this is the factor for `Optimizers.set_learning_rate`.

    Args:
        decay_steps: length of the decay of `wsd`; 0 for the others.
        final: ignored by `constant`.

    Raises:
        ValueError: as `check_schedule`, and for a negative step.
    """
    check_schedule(
        schedule=schedule,
        max_steps=max_steps,
        warmup_steps=warmup_steps,
        peak=peak,
        final=final,
        decay_steps=decay_steps,
    )
    if step < 0:
        raise ValueError(f"step={step}: steps are counted from 0")
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    if step >= max_steps:
        return final
    decay_start = max_steps - decay_steps if schedule == "wsd" else warmup_steps
    if step <= decay_start:
        return peak
    progress = (step - decay_start) / (max_steps - decay_start)
    share = (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress
    return min(peak, final + (peak - final) * share)  # min: rounding must not lift it above the peak
