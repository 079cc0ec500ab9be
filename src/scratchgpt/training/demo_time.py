"""How long `make demo` will take on this machine, from a few seconds of measuring; where too long, fewer steps.

    python -m scratchgpt.training.demo_time recipes/configs/pretrain/demo.yaml runs/demo/base_options

Steps of the demo's base on random tokens are timed, not compiled. What follows is rough, within a third:

    base   = max_steps · measured step / COMPILED_GAIN + compiling
    demo   = base + OTHERS · base                              (tokenizer, classifier, chat model)

Where the demo would take longer than TOO_LONG, the base gets as many steps as make it LIMIT. The second file holds the
options that say so, empty where there is nothing to change: the demo is always what it was on a machine fast enough.
"""

import sys
import time
from pathlib import Path

import torch
import yaml

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..performance import configure_process
from .plan import in_words, shortened

VOCAB_SIZE = 4096
"""Of the demo's tokenizer."""

COMPILED_GAIN = {torch.bfloat16: 1.6, None: 1.2}
"""How much faster a compiled step is than the one measured here, in bf16 and in fp32."""

COMPILING = 40.0
OTHERS = 0.38
"""Of the base's time: 5 minutes beside 13 on a processor without bf16."""

LIMIT, TOO_LONG = 600.0, 720.0
"""Seconds. A demo between the two stays as it is."""


def step_seconds(options: dict, device: str = "cpu") -> float:
    """The fastest of a few steps, forward and backward, of the model that `options` of recipes/pretrain.py name."""
    dtype = configure_process(device).autocast_dtype
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    config = ScratchGPTConfig.from_preset(
        options["preset"],
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=options["context_length"],
        **{name: options[name] for name in shape},
    )
    model = ScratchGPTForCausalLM(config).to(device)
    rows = (options["per_device_train_batch_size"], options["context_length"])
    ids = torch.randint(VOCAB_SIZE, rows, device=device)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - started)
    return min(times[1:])


def demo_steps(options: dict, step: float) -> tuple[list[int], float]:
    """max_steps, warmup_steps and decay_steps of the base, and the seconds of the whole demo.

    Args:
        step: seconds of a compiled step.
    """
    numbers = [options[name] for name in ("max_steps", "warmup_steps", "decay_steps")]
    others = OTHERS * numbers[0] * step
    whole = numbers[0] * step + COMPILING + others
    if whole <= TOO_LONG:
        return numbers, whole
    # The others take what they take; a base of fewer than a quarter of the steps would not be worth showing.
    left = max(LIMIT - COMPILING - others, numbers[0] * step / 4)
    steps = shortened(numbers[0], numbers[1], numbers[2], step, left)
    return steps, steps[0] * step + COMPILING + others


def main(config: str, output: str) -> None:
    options = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert device is not None
    measured = step_seconds(options, device.type)
    step = measured / COMPILED_GAIN[configure_process(device).autocast_dtype]
    (max_steps, warmup_steps, decay_steps), seconds = demo_steps(options, step)
    tokens = options["per_device_train_batch_size"] * options["context_length"]
    print(f"make demo will take about {in_words(seconds)} on this machine ({tokens / step:,.0f} tokens per second).")
    line = ""
    if max_steps < options["max_steps"]:
        line = f"--max_steps={max_steps} --warmup_steps={warmup_steps} --decay_steps={decay_steps}"
        print(
            f"The base gets {max_steps} steps instead of {options['max_steps']}: all of them would take too long here."
        )
    file = Path(output)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
