"""A step of DPO beside TRL's: memory and speed: `python benchmarks/preferences.py [--rounds 5]`.

The same model (4 layers, width 256, vocabulary 50,304), the same batch (4 pairs of 256 tokens, half of each the
prompt), fp32, one thread, AdamW. A step is loss, backward pass and the optimizer's step: of our task, and of TRL's
`DPOTrainer.compute_loss`, with the reference computed in every step, as it does by default, or before. Each candidate
lives in a process of its own, a fresh one in every round, and they take turns. Reported are

- memory of a step, MB: the most that was held in steps, beyond what was held before the first one and the optimizer's
  state (Linux: VmHWM, proc(5)), the median over the rounds
- tokens/s: tokens of both answers with their prompts, by CPU time, the median over the rounds
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from records import RESULTS, append, machine

# The parent must stay small: a child's peak memory starts from its parent's. Only workers import torch.

CANDIDATES = {
    "scratchgpt": ("ours", "full"),
    "TRL": ("trl", "full"),
    "TRL, reference precomputed": ("trl_precomputed", "full"),
    "scratchgpt, LoRA": ("ours", "lora"),
    "TRL, LoRA": ("trl", "lora"),
    "TRL, LoRA, reference precomputed": ("trl_precomputed", "lora"),
}
"""Name → whose step, and what is tuned."""
BASES = {"full": "TRL", "lora": "TRL, LoRA"}
LAYERS, WIDTH, HEADS, VOCAB_SIZE = 4, 256, 8, 50304
PAIRS, LENGTH, PROMPT = 4, 256, 128
SEED = 0


def held_mb(name: str) -> float:
    """Memory of this process: VmRSS now, VmHWM at most since the last `forget_peak`."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024 / 1e6


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def our_step(model: Any, ids: Any, reference: Any, _: str) -> Callable[[], Any]:
    """The loss by the task of recipes/finetune_preference.py."""
    import torch

    from scratchgpt.training.tasks.preference import PreferenceArguments, PreferenceTuning

    arguments: Any = PreferenceArguments(nll_weight=0.0)
    rows: Any = None
    task = PreferenceTuning(rows, rows, rows, arguments)
    targets = ids[:, 1:].clone()
    targets[:, : PROMPT - 1] = -100
    batch = {"input_ids": ids[:, :-1], "shift_labels": targets, "reference": reference}
    return lambda: task.loss(model, batch, torch.tensor(PAIRS))


def trl_step(model: Any, ids: Any, reference: Any, kind: str) -> Callable[[], Any]:
    """The loss by TRL's trainer."""
    import copy

    import torch
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from scratchgpt.tokenizers import BPETokenizer, to_transformers

    tokenizer = to_transformers(BPETokenizer.train(["one two three"] * 9, vocab_size=280))
    folder = tempfile.mkdtemp()
    settings = DPOConfig(
        output_dir=folder, max_length=None, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False
    )
    pairs = Dataset.from_list([{"prompt": "one", "chosen": " two", "rejected": " three"}])
    own = None if "peft" in type(model).__module__ else copy.deepcopy(model)
    trainer = DPOTrainer(model=model, ref_model=own, args=settings, train_dataset=pairs, processing_class=tokenizer)
    mask = torch.zeros_like(ids)
    mask[:, PROMPT:] = 1
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
    if kind == "trl_precomputed":
        trainer.precompute_ref_logps, trainer.ref_model = True, None
        inputs |= {"ref_chosen_logps": reference[:, 0], "ref_rejected_logps": reference[:, 1]}
    return lambda: trainer.compute_loss(model, inputs)


def measure(kind: str, tuning: Any, steps: int) -> dict[str, float]:
    """The measurements of one candidate, in a process of its own."""
    import torch

    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
    from scratchgpt.adapters import AdapterArguments, add_adapter
    from scratchgpt.training.optimizers import build_optimizers

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model: Any = ScratchGPTForCausalLM(
        ScratchGPTConfig.from_preset(
            "modern", vocab_size=VOCAB_SIZE, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            max_position_embeddings=LENGTH,
        )
    )  # fmt: skip
    if tuning == "lora":
        model = add_adapter(model, AdapterArguments())
    ids = torch.randint(0, VOCAB_SIZE, (2 * PAIRS, LENGTH))
    ids[PAIRS:, :PROMPT] = ids[:PAIRS, :PROMPT]
    reference = torch.full((PAIRS, 2), -float(LENGTH))
    optimizers = build_optimizers(model, optimizer="adamw", learning_rate=1e-4, weight_decay=0.0)
    loss = (our_step if kind == "ours" else trl_step)(model, ids, reference, kind)
    model.train()
    before = held_mb("VmRSS")
    forget_peak()
    started = 0.0
    for step in range(steps + 1):
        if step == 1:  # the first one makes the optimizer's state
            started = time.process_time()
        loss().backward()
        optimizers.step()
        optimizers.zero_grad()
    seconds = (time.process_time() - started) / steps
    state = sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad) / 1e6
    return {"memory": held_mb("VmHWM") - before - state, "tokens/s": 2 * PAIRS * LENGTH / seconds}


def run_worker(kind: str, tuning: str, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", kind, tuning, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{kind} {tuning} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="A step of DPO beside TRL's.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "preferences.jsonl")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        kind, tuning, steps = arguments.worker
        print(json.dumps(measure(kind, tuning, int(steps))))
        return
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(arguments.rounds):
        rounds.append({name: run_worker(*which, arguments.steps) for name, which in CANDIDATES.items()})
        print(f"round {number + 1}: {rounds[-1]}", flush=True)
    shape = f"4 layers, width 256, vocabulary 50,304, {PAIRS} pairs × {LENGTH} tokens"
    lines = []
    for candidate, (_, tuning) in CANDIDATES.items():
        for metric, label in (("memory", "memory of a step, MB"), ("tokens/s", "tokens/s")):
            base = BASES[tuning]
            lines.append(
                {
                    "benchmark": f"A step of DPO: {shape}",
                    "candidate": candidate,
                    "metric": label,
                    "case": "fp32, one thread",
                    "value": round(statistics.median(each[candidate][metric] for each in rounds), 1),
                    "relative_to": base,
                    "ratio": round(
                        statistics.median(each[candidate][metric] / each[base][metric] for each in rounds), 3
                    ),
                    "rounds": arguments.rounds,
                    "steps": arguments.steps,
                    "seed": SEED,
                    **machine("torch", "transformers", "trl", "peft"),
                }
            )
    append(lines, arguments.output)


if __name__ == "__main__":
    main()
