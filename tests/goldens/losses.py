"""Thirty steps of every recipe that trains, and the numbers that they gave: `python tests/goldens/losses.py`.

That command writes losses.json anew, in half a minute, and prints how far the old numbers are off. It is for a change
that is meant to change them; the commit says why. `tests/recipes/test_golden_losses.py` compares.

The runs are tiny, in fp32 whatever the processor, on one thread, not compiled, and with matrix products in full
precision (`highest`). What may still differ between processors and versions of torch is the order of additions.
Largest relative differences, measured with torch 2.13 on an AMD Zen 5:

    what differs                                 loss: AdamW   classifier   Muon    its gradient norm
    same settings again                          0             0            0       0
    only AVX2, or no vector instructions at all  1e-6          2e-5         3e-4    1e-2
    two threads                                  6e-7          1e-6         0       0
    matrix products `medium`, as the recipes do  6e-7          7e-6         2e-4    9e-3
    bf16 (mixed_precision)                       4e-3          5e-2         8e-4    3e-2

(`ATEN_CPU_CAPABILITY`, `DNNL_MAX_CPU_ISA` and `MKL_CBWR` hide instructions.) Muon differs the most because it computes
its orthogonal matrices in bf16 where the processor has that. `TOLERANCE` lies ten times above what was measured in
fp32, and below bf16 but for Muon.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_suffix(".json")
STEPS = 30

TOLERANCE = 2e-4
"""Relative, for every number that is not a count; counts are exact."""
MUON_TOLERANCE, MUON_GRAD_NORM_TOLERANCE = 3e-3, 1e-1

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SENTENCES = [f"After {a} comes {b}, and before {b} stands {a}: naïvely counted." for a, b in pairwise(WORDS)]


@contextlib.contextmanager
def exact_process() -> Iterator[None]:
    """One thread, and matrix products in full precision, although recipes ask for faster ones."""
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        with mock.patch("torch.set_float32_matmul_precision"):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def options(output: Path, **more: object) -> list[str]:
    common = {
        "output_dir": output,
        "max_steps": STEPS,
        "logging_steps": 1,
        "eval_steps": STEPS // 2,
        "save_steps": STEPS,
        "compile": False,
        "mixed_precision": "no",
    }
    return [f"--{name}={value}" for name, value in {**common, **more}.items()]


def numbers(output: Path) -> dict[str, Any]:
    """What a run published, but for times and memory."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((output / "results.json").read_text())
    names = ("loss", "grad_norm", "learning_rate")
    found = {name: [line[name] for line in lines if name in line] for name in names}
    found["eval_loss"] = [line["eval_loss"] for line in lines if "eval_loss" in line]
    found |= {f"final_{name}": value for name, value in results["final"].items() if isinstance(value, int | float)}
    return found | {name: results[name] for name in ("num_targets", "num_parameters")}


def write_base(folder: Path) -> Path:
    """An untrained model with a tokenizer that knows the roles."""
    import torch

    from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
    from scratchgpt.hub.model_directory import save_model
    from scratchgpt.tokenizers import BPETokenizer, to_transformers

    tokenizer = to_transformers(BPETokenizer.train(SENTENCES * 3, vocab_size=300))
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(ScratchGPTForCausalLM(config), tokenizer, folder / "base")
    return folder / "base"


def write_text(folder: Path) -> dict[str, object]:
    """Documents of one to five sentences; returns what names them to recipes/pretrain.py."""
    texts = [" ".join(SENTENCES[(i + j) % len(SENTENCES)] for j in range(i % 5 + 1)) for i in range(60)]
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return {
        "data": folder / "text.jsonl",
        "eval_data": folder / "text.jsonl",
        "eval_split": "train",
        "cache_dir": folder / "cache",
        "tokenizer": write_base(folder),
        "context_length": 32,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }


def train_tokenizer(folder: Path) -> dict[str, Any]:
    from recipes import train_tokenizer

    write_text(folder)
    data = f"--data={folder / 'text.jsonl'}"
    train_tokenizer.main([data, "--vocab_size=300", f"--output_dir={folder / 'tokenizer'}"])
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    report = json.loads((folder / "tokenizer" / "report.json").read_text(encoding="utf-8"))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    return {"merges": merges, "report": report["tokenizers"]["bpe"]}


def pretrain_adamw(folder: Path) -> dict[str, Any]:
    """GPT-2's mathematics, cosine."""
    from recipes import pretrain

    more = {"preset": "gpt2", "per_device_train_batch_size": 4, "learning_rate": 0.01, "warmup_steps": 3}
    pretrain.main(options(folder / "run", **write_text(folder), **more))
    return numbers(folder / "run")


def pretrain_muon(folder: Path) -> dict[str, Any]:
    """Everything else that the loop can do: Muon, averaged weights, accumulation, masked documents, dropout, wsd."""
    from recipes import pretrain

    pretrain.main(
        options(
            folder / "run", **write_text(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2,
            optimizer="muon", learning_rate=0.003, lr_schedule="wsd", decay_steps=10, warmup_steps=2, ema_decay=0.9,
            mask_documents=True, stride=16, hidden_dropout=0.1, attention_dropout=0.1, num_key_value_heads=2, seed=1,
        )
    )  # fmt: skip
    return numbers(folder / "run")


def instruct(folder: Path, tuning: str) -> dict[str, Any]:
    from recipes import finetune_instruct

    chats = [
        {"messages": [{"role": "user", "content": f"After {a}?"}, {"role": "assistant", "content": f"It is {b}."}]}
        for a, b in pairwise(WORDS)
    ]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats * 4)), encoding="utf-8")
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, chats[::2])), encoding="utf-8")
    finetune_instruct.main(
        options(
            folder / "run", model_name_or_path=write_base(folder), data=folder / "chats.jsonl", tuning=tuning,
            eval_data=folder / "held_out.jsonl", eval_split="train", per_device_train_batch_size=2,
            learning_rate=0.003, lr_schedule="linear", lora_r=4, load_best_at_end=False,
        )
    )  # fmt: skip
    untuned = json.loads((folder / "run" / "untuned.json").read_text())
    return numbers(folder / "run") | {"untuned_loss": untuned["loss"]}


def instruct_full(folder: Path) -> dict[str, Any]:
    return instruct(folder, "full")


def instruct_lora(folder: Path) -> dict[str, Any]:
    return instruct(folder, "lora")


def preference(folder: Path) -> dict[str, Any]:
    """DPO by an adapter, with the term for the chosen answer."""
    from recipes import finetune_preference

    pairs = [{"prompt": f"After {a}?", "chosen": f"It is {b}.", "rejected": f"No {a}."} for a, b in pairwise(WORDS)]
    for name, part in (("pairs", pairs * 2), ("held_out", pairs[::2])):
        (folder / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    finetune_preference.main(
        options(
            folder / "run", model_name_or_path=write_base(folder), data=folder / "pairs.json", lora_r=4,
            eval_data=folder / "held_out.json", eval_split="train", per_device_train_batch_size=2,
            learning_rate=0.003, load_best_at_end=False, eval_answers=0,
        )
    )  # fmt: skip
    return numbers(folder / "run")


def reinforcement(folder: Path, **more: object) -> dict[str, Any]:
    """From a model that has just learned to end its answers; two steps from each sampling, all weights.

    A last bit could change which token is sampled, and with it everything after.
    """
    from recipes import reinforce

    instruct(folder, "full")
    rows = [{"question": f"After {a}?", "answer": f"It is {b}."} for a, b in pairwise(WORDS)]
    (folder / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    reinforce.main(
        options(
            folder / "rewards", model_name_or_path=folder / "run" / "final", data=folder / "questions.json",
            eval_data=folder / "questions.json", eval_split="train", tuning="full", per_device_train_batch_size=3,
            group_size=4, learning_rate=0.003, load_best_at_end=False, response_tokens=12, steps_per_sampling=2,
            reward="format", answer_format="(?s).*e.*", **more,
        )
    )  # fmt: skip
    return numbers(folder / "rewards")


def reinforce_grpo(folder: Path) -> dict[str, Any]:
    return reinforcement(folder, kl_weight=0.05)


def reinforce_rejection(folder: Path) -> dict[str, Any]:
    return reinforcement(folder, method="rejection")


def classifier(folder: Path) -> dict[str, Any]:
    """With dropout, balanced weights and R-Drop."""
    from recipes import finetune_classifier

    lines = ["label\ttext"]
    for i in range(90):
        text = " ".join(SENTENCES[(i + j) % 9] for j in range(i % 3 + 1))
        lines.append(f"{'long' if i % 3 else 'short'}\t{WORDS[i % 10]} {WORDS[i // 10]}: {text}")
    for name, part in (("train", lines), ("held_out", lines[:31])):
        (folder / f"{name}.tsv").write_text("\n".join(part), encoding="utf-8")
    held_out = folder / "held_out.tsv"
    finetune_classifier.main(
        options(
            folder / "run", data=folder / "train.tsv", eval_data=held_out, test_data=held_out, baselines="none",
            model_name_or_path=write_base(folder), per_device_train_batch_size=8, learning_rate=0.003,
            class_weights="balanced", r_drop=1, lr_schedule="constant", max_grad_norm=0.5,
        )
    )  # fmt: skip
    return numbers(folder / "run")


RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    run.__name__: run
    for run in (
        *(train_tokenizer, pretrain_adamw, pretrain_muon, instruct_full, instruct_lora, preference),
        *(reinforce_grpo, reinforce_rejection, classifier),
    )
}


def measure(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, exact_process():
        return json.loads(json.dumps(RUNS[name](Path(folder))))


def deviation(found: Any, stored: Any) -> float:
    """The largest relative difference of any two numbers; infinite where anything else differs."""
    if isinstance(stored, dict) and isinstance(found, dict) and stored.keys() == found.keys():
        return max((deviation(found[key], value) for key, value in stored.items()), default=0.0)
    if isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        return max((deviation(a, b) for a, b in zip(found, stored, strict=True)), default=0.0)
    if isinstance(stored, float) and isinstance(found, float):
        return abs(found - stored) / max(abs(stored), 1e-3)
    return 0.0 if found == stored else float("inf")


def tolerance(name: str, key: str) -> float:
    if name != "pretrain_muon":
        return TOLERANCE
    return MUON_GRAD_NORM_TOLERANCE if key == "grad_norm" else MUON_TOLERANCE


def main() -> None:
    old = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    found = {name: measure(name) for name in RUNS}
    for name, values in found.items():
        for key, value in values.items():
            print(f"{name} {key}: {deviation(value, old.get(name, {}).get(key)):.1e} off", file=sys.stderr)
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        + "\n}"
        for name, values in found.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", MPLBACKEND="Agg")
    sys.path[:0] = [str(ROOT)]
    main()
