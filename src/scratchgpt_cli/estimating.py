"""`scratchgpt plan`: what a run of `scratchgpt pretrain` takes, before it is begun.

    scratchgpt plan modern_124m --tokens 2e9 --machine h100x8
    scratchgpt plan --preset modern --hidden_size 256 --num_hidden_layers 6 --num_attention_heads 4 --tokens 1e7
    scratchgpt plan my.yaml                       # on this machine, which is timed for some seconds

It takes the options of `pretrain`, or its YAML file, reads no data, and prints parameters, FLOPs per token, memory of
a process by part, tokens a second, hours, and the largest batch that fits: an estimate, with the arithmetic
(`scratchgpt.training.estimates`). A vocabulary that is not given is the tokenizer's, or GPT-2's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import psutil
import torch

from scratchgpt.arguments import option, parse_arguments
from scratchgpt.modeling_scratchgpt import ScratchGPTForCausalLM
from scratchgpt.training import estimates
from scratchgpt.training.estimates import MACHINES, Run
from scratchgpt.training.metrics import flops_per_token
from scratchgpt.training.plan import in_words
from scratchgpt.training.pretraining import PretrainArguments, model_config
from scratchgpt.training.step import autocast_dtype

GPT2_VOCABULARY = 50257


@dataclass
class PlanArguments(PretrainArguments):
    """Those of pretraining, and what to plan."""

    HELP_GROUPS = {"tokens": "Training"}

    data: str = option("none", "Not read.")
    tokens: float | None = option(None, "Tokens to train on; default: what max_steps read.", at_least=1)
    machine: str = option("this", f"this, or one of {', '.join(MACHINES)}; h100x8: eight of them.")


def plan(argv: Sequence[str]) -> str:
    """The whole text.

    Raises:
        ValueError: for options that no run can have, and for an unknown machine.
    """
    arguments = parse_arguments(PlanArguments, argv, __doc__, "scratchgpt plan")
    kind, processes = machine_of(arguments.machine)
    config: Any = model_config(arguments, tokenizer_of(arguments))
    if arguments.context_length is None and arguments.model_name_or_path is None:
        arguments = replace(arguments, context_length=config.max_position_embeddings)
    device = torch.device("cuda" if kind or torch.cuda.is_available() else "cpu")
    bf16 = arguments.mixed_precision != "no" if kind else autocast_dtype(arguments, device) is not None
    run = Run(
        config, arguments.per_device_train_batch_size, arguments.context_length or config.max_position_embeddings,
        arguments.gradient_accumulation_steps, arguments.optimizer, bf16, arguments.compile, device.type == "cpu",
        arguments.gradient_checkpointing, arguments.ema_decay is not None, processes,
    )  # fmt: skip
    tokens = arguments.tokens or arguments.max_steps * run.tokens_per_step
    number = sum(estimates.parameters(config).values())
    flops = flops_per_token(config, number, run.length)
    if kind:
        measured, available = None, estimates.USABLE * kind.memory
        rate = processes * kind.flops * estimates.ASSUMED_MFU / flops
        speed = (
            f"{kind.name} × {processes}: {processes} × {kind.flops / 1e12:,.1f} TFLOP/s ({kind.source}) × "
            f"{estimates.ASSUMED_MFU:.1%} assumed\n  (what 124M reached on an H200; that {processes} are as fast as "
            f"{processes} times one is assumed too) ÷ {flops / 1e6:,.1f} MFLOPs = {rate:,.0f} tokens/s"
        )
        if not bf16:
            raise ValueError("the table of machines is for bf16: leave out --mixed_precision no")
    else:
        measured = estimates.short_run(run, device)
        rate = measured.tokens_per_second(run)
        memory = (
            psutil.virtual_memory().available if run.on_cpu else torch.cuda.get_device_properties(device).total_memory
        )
        available = memory if run.on_cpu else estimates.USABLE * memory
        speed = (
            f"This machine: {measured.roof / 1e9:,.0f} GFLOP/s in a matrix product; a few steps were timed "
            f"({measured.measured}),\n  {measured.took:.0f} s in all: "
            f"{measured.pass_seconds:.3f} s a pass of {run.tokens:,} tokens, "
            f"{measured.update_seconds:.3f} s an update\n  = {rate:,.0f} tokens/s "
            f"({rate * flops / measured.roof:.1%} of the matrix product's FLOPs)"
        )
    sections = [
        "An estimate: nothing was trained.",
        parameters_section(config, arguments.preset),
        f"FLOPs per token, forward and backward: {flops / 1e6:,.1f} million\n"
        f"  6 for each weight that multiplies + 6 · layers · heads · head_dim · length = 6 × "
        f"{config.num_hidden_layers} × {config.num_attention_heads} × {config.head_dim} × {run.length:,}\n"
        "  (Chowdhery et al. 2022, appendix B: 6·N + 12·L·H·Q·T; attention is causal, so half of its 12)",
        memory_section(run, measured, available),
        speed,
        f"{tokens:,.0f} tokens ÷ {run.tokens_per_step:,} a step = {tokens / run.tokens_per_step:,.0f} steps; "
        f"÷ {rate:,.0f} tokens/s = {in_words(tokens / rate)}, evaluations and checkpoints not counted",
    ]
    return "\n\n".join(sections)


def machine_of(name: str) -> tuple[estimates.Machine | None, int]:
    """The kind, None for this one, and how many."""
    found = re.fullmatch(r"(\w+?)(?:x([1-9]\d{0,4}))?", name)
    if name == "this":
        return None, 1
    if not found or found[1] not in MACHINES:
        raise ValueError(f"--machine {name}: give this, or one of {', '.join(MACHINES)}, and x8 for eight")
    return MACHINES[found[1]], int(found[2] or 1)


def tokenizer_of(arguments: PlanArguments) -> Any:
    """The tokenizer, or one that is as large as GPT-2's."""
    if arguments.tokenizer is None:
        return type("Tokenizer", (SimpleNamespace,), {"__len__": lambda _: GPT2_VOCABULARY})(
            bos_token_id=None, eos_token_id=None, pad_token_id=None
        )
    from transformers import AutoTokenizer

    from scratchgpt.hub.names import local_copy

    return AutoTokenizer.from_pretrained(local_copy(arguments.tokenizer, weights=False))


def parameters_section(config: Any, preset: str) -> str:
    with torch.device("meta"):
        assert sum(p.numel() for p in ScratchGPTForCausalLM(config).parameters()) == sum(
            estimates.parameters(config).values()
        )
    parts = estimates.parameters(config)
    shape = (
        f"{config.num_hidden_layers} layers, width {config.hidden_size:,}, {config.num_attention_heads} heads of "
        f"{config.head_dim}, MLP {config.intermediate_size:,}, vocabulary {config.vocab_size:,}"
    )
    lines = [f"  {part + ':':18}{number:14,}" for part, number in parts.items()]
    return "\n".join([f"Parameters ({preset}; {shape}): {sum(parts.values()):,}", *lines])


def memory_section(run: Run, measured: estimates.Measured | None, available: float) -> str:
    """A column for each way to have less of it."""
    heap = measured.heap if measured else 1.0
    ways = {"checkpointed": replace(run, checkpointing=True)}
    if not run.checkpointing:
        ways = {"as it is": run, **ways}
    if run.processes > 1:
        ways |= {f"FSDP, {way}": replace(one, sharded=True) for way, one in ways.items()}
    columns = {way: estimates.memory(one) for way, one in ways.items()}
    copies = " + bf16 copies" if run.bf16 else ""
    notes = {
        "weights": f"4 bytes × {sum(estimates.parameters(run.config).values()):,}",
        "gradients": "as much",
        "optimizer": "8 bytes a weight" if run.optimizer == "adamw" else "8 bytes a weight, 4 in the layers' matrices",
        "DDP's buckets": "the gradients once more",
        "activations": f"{run.tokens:,} tokens × {run.config.num_hidden_layers} layers × "
        f"{estimates.activation_bytes(run)[0]:,} bytes{copies}",
        "logits": "a chunk, its softmax, the head's gradient",
        "peak": "below" + (f"; × {heap:.2f}: holes in the heap, compiler (measured)" if run.on_cpu else ""),
    }
    accumulated = "; gradients add up over passes" if run.accumulation > 1 else ""
    lines = [
        f"Memory of a process, GB, for a pass of {run.rows:,} × {run.length:,} tokens{accumulated}",
        f"  {'':13}" + "".join(f"  {way:>8}" for way in ways),
    ]
    for part, note in notes.items():
        if any(column[part] for column in columns.values()):
            factor = heap / 1e9 if part == "peak" else 1 / 1e9
            values = "".join(f"  {factor * column[part]:{max(8, len(way))}.3f}" for way, column in columns.items())
            lines.append(f"  {part:13}{values}  {note}")
    base = measured.process_bytes if measured and run.on_cpu else 0.0
    most = {way: estimates.largest_rows(one, available - base, heap) for way, one in ways.items()}
    fitting = "".join(f"  {rows:{max(8, len(way))},}" for way, rows in most.items())
    taken = f", {base / 1e9:.1f} of it Python and its libraries" if base else ""
    lines.append(f"  largest batch{fitting}  rows, in {available / 1e9:.1f} GB{taken}")
    lines.append(
        "  peak = weights + optimizer + DDP's buckets + the larger of: activations + logits (+ gradients, where they\n"
        "  add up over passes), and gradients + twice the head's"
    )
    return "\n".join(lines)
