"""Memory for tuning a 124M base: all weights, LoRA, QLoRA: `python benchmarks/tuning_memory.py`.

The base has GPT-2's shape and random weights. Each candidate loads it in a process of its own, as
recipes/finetune_instruct.py does, and makes a few training steps with AdamW. Reported are (on a GPU, of the device)

- loading, MB: the most memory held until the model stood ready, beyond what it took to import the libraries; the file
  that is being read counts, as it is mapped into memory
- training, MB: likewise, from there on
- weights, MB: what weights and adapter take as they stand
- trained, %: the share of the parameters that is trained
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from records import RESULTS, append, machine

# The parent must stay small: a child's peak memory starts from its parent's. Only workers import torch.

CANDIDATES = {
    "all weights": ("full", True),
    "LoRA": ("lora", True),
    "LoRA, role tokens left as they are": ("lora", False),
    "QLoRA": ("qlora", True),
    "QLoRA, role tokens left as they are": ("qlora", False),
}
"""Name → `--tuning` and `--train_role_tokens`."""
ROLE_IDS = [50258, 50259, 50260, 50261]
VOCAB_SIZE = 50304
SEED = 0


def write_base(directory: str, length: int) -> None:
    import torch

    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM

    torch.manual_seed(SEED)
    config = ScratchGPTConfig.from_preset("gpt2", vocab_size=VOCAB_SIZE, max_position_embeddings=length)
    ScratchGPTForCausalLM(config).save_pretrained(directory)


def reset_peak_mb(device: Any) -> float:
    """Most memory held since the last call."""
    import torch

    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / 1e6
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (Linux, proc(5))
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def measure(
    directory: str, tuning: Any, role_tokens: int, batch_size: int, length: int, steps: int
) -> dict[str, float]:
    """The measurements of one candidate, in a process of its own."""
    import peft  # noqa: F401  # its libraries are no part of the measurement, nor are the optimizer's
    import torch

    from scratchgpt.adapters import AdapterArguments, add_adapter, load_base
    from scratchgpt.performance import configure_process
    from scratchgpt.training.optimizers import build_optimizers

    if tuning == "qlora":
        import bitsandbytes  # noqa: F401
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = configure_process(device)
    imported = reset_peak_mb(device)
    torch.manual_seed(SEED)
    model = load_base(directory, four_bit=tuning == "qlora").to(device)
    if tuning != "full":
        model = add_adapter(model, AdapterArguments(tuning=tuning), ROLE_IDS if role_tokens else [])
    optimizers = build_optimizers(model, optimizer="adamw", learning_rate=1e-4, weight_decay=0.0)
    ids = torch.randint(0, 50257, (batch_size, length), device=device)
    loading = reset_peak_mb(device) - imported
    started = time.perf_counter()
    for _ in range(steps):
        with torch.autocast(device.type, settings.autocast_dtype, enabled=settings.autocast_dtype is not None):
            loss = model.train()(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizers.step()
        optimizers.zero_grad()
    seconds = (time.perf_counter() - started) / steps
    parameters = list(model.parameters())
    quantised = [vars(p).get("quant_state") for p in parameters]
    total = sum(p.numel() if q is None else q.shape.numel() for p, q in zip(parameters, quantised, strict=True))
    return {
        "loading, MB": loading,
        "training, MB": reset_peak_mb(device) - imported,
        "weights, MB": sum(p.numel() * p.element_size() for p in parameters) / 1e6,
        "trained, %": 100 * sum(p.numel() for p in parameters if p.requires_grad) / total,
        "seconds_per_step": seconds,
    }


def run_worker(*arguments: str) -> str:
    """The last line that a worker prints."""
    command = [sys.executable, __file__, "--worker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of tuning a 124M base.")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "tuning_memory.jsonl")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        kind, directory, *numbers = arguments.worker
        if kind == "base":
            write_base(directory, int(numbers[0]))
        else:
            print(json.dumps(measure(directory, kind, *map(int, numbers))))
        return
    size = [str(arguments.batch_size), str(arguments.length), str(arguments.steps)]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        run_worker("base", folder, str(arguments.length))
        for candidate, (tuning, role_tokens) in CANDIDATES.items():
            measurements = json.loads(run_worker(tuning, folder, str(int(role_tokens)), *size))
            print(candidate, measurements, flush=True)
            common = {
                "benchmark": f"Tuning a 124M base, {arguments.batch_size} × {arguments.length} tokens",
                "candidate": candidate,
                "metric": "memory",
                "seconds_per_step": round(measurements["seconds_per_step"], 2),
                "steps": arguments.steps,
                "seed": SEED,
                **machine("torch", "transformers", "peft"),
            }
            for case in ("loading, MB", "training, MB", "weights, MB", "trained, %"):
                reference = {"relative_to": "all weights"} if case in ("training, MB", "weights, MB") else {}
                lines.append({**common, "case": case, "value": round(measurements[case], 2), **reference})
    append(lines, arguments.output)


if __name__ == "__main__":
    main()
