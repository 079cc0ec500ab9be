"""How long `make demo` will take on this machine, from a few seconds of measuring; where too long, fewer steps.

    python -m scratchgpt.training.demo_time runs/demo/options recipes/configs/pretrain/demo.yaml \\
        recipes/configs/finetune_instruct/demo.yaml

Steps of the demo's base on random tokens are timed, not compiled. What follows is rough, within a third:

    a step  = measured forward and backward pass / COMPILED_GAIN + measured optimizer
    a stage = max_steps · step + COMPILING                                  (base and chat model: the same shape)
    demo    = both stages + OTHERS · the base's steps                       (tokenizer, classifier, measuring)

Where the demo would take longer than LIMIT, both stages get as many steps as fit, but no fewer than LEAST of theirs:
with less, the chat model does not learn to copy, and then the demo takes longer. The first argument is a folder, which
gets for each stage a file named after its recipe with the options that say so, empty where there is nothing to change:
the demo is always what it was on a machine fast enough.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..performance import configure_process
from .optimizers import build_optimizers
from .plan import in_words, shortened

VOCAB_SIZE = 4096
"""Of the demo's tokenizer."""

COMPILED_GAIN = {torch.bfloat16: 1.3, None: 1.2}
"""How much faster a compiled step is than the one measured here, in bf16 and in fp32."""

COMPILING = 40.0
"""Seconds, of each stage."""
OTHERS = 0.9
"""Of the base's time."""

LIMIT = 1200.0
"""Seconds."""

LEAST = (0.25, 0.5)
"""Share of its steps that the base gets at least, and the chat model."""


def step_seconds(options: dict, device: str = "cpu") -> float:
    """A step, compiled, of the model that `options` of recipes/pretrain.py name: the fastest of a few."""
    dtype = configure_process(device).autocast_dtype
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    config = ScratchGPTConfig.from_preset(
        options["preset"],
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=options["context_length"],
        **{name: options[name] for name in shape},
    )
    model: Any = ScratchGPTForCausalLM(config)
    model.to(device)
    rows = (options["per_device_train_batch_size"], options["context_length"])
    ids = torch.randint(VOCAB_SIZE, rows, device=device)
    optimizers = build_optimizers(model, optimizer=options["optimizer"], learning_rate=options["learning_rate"])
    passes, updates = [], []
    for _ in range(4):
        started = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        loss.item()  # waits for the device
        passes.append(time.perf_counter() - started)
        started = time.perf_counter()
        optimizers.step()
        next(model.parameters()).sum().item()
        updates.append(time.perf_counter() - started)
    return min(passes[1:]) / COMPILED_GAIN[dtype] + min(updates[1:])


def demo_steps(stages: Sequence[dict], step: float) -> tuple[list[list[int]], float]:
    """max_steps, warmup_steps and decay_steps of base and chat model, and the seconds of the whole demo.

    Args:
        stages: the options of both.
        step: seconds of a compiled step.
    """
    numbers = [[stage[name] for name in ("max_steps", "warmup_steps", "decay_steps")] for stage in stages]
    fixed = len(stages) * COMPILING + OTHERS * numbers[0][0] * step
    steps = sum(stage[0] for stage in numbers)
    whole = steps * step + fixed
    if whole <= LIMIT:
        return numbers, whole
    share = (LIMIT - fixed) / (steps * step)  # the others take what they take
    fewer = [
        shortened(a, b, c, step, max(share, least) * a * step) for (a, b, c), least in zip(numbers, LEAST, strict=True)
    ]
    return fewer, sum(stage[0] for stage in fewer) * step + fixed


def main(folder: str, *configs: str) -> None:
    stages = [yaml.safe_load(Path(config).read_text(encoding="utf-8")) for config in configs]
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert device is not None
    step = step_seconds(stages[0], device.type)
    numbers, seconds = demo_steps(stages, step)
    tokens = stages[0]["per_device_train_batch_size"] * stages[0]["context_length"]
    print(f"make demo will take about {in_words(seconds)} on this machine ({tokens / step:,.0f} tokens per second).")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for config, stage, (max_steps, warmup_steps, decay_steps) in zip(configs, stages, numbers, strict=True):
        line = ""
        if max_steps < stage["max_steps"]:
            line = f"--max_steps={max_steps} --warmup_steps={warmup_steps} --decay_steps={decay_steps}"
            print(f"{stage['output_dir']} gets {max_steps} steps instead of {stage['max_steps']}: more take too long.")
        file = Path(folder, Path(config).parent.name)
        file.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
