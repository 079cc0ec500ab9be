"""What makes training fast for a whole process: recipes call it, importing it changes nothing.

    settings = configure_process()
    print(settings)                                            # what was set, and why
    model.set_attn_implementation(settings.attention)          # "blockwise" on the CPU, "sdpa" elsewhere
    step = torch.compile(model, dynamic=False)                 # model and loss in one graph
    with torch.autocast("cpu", settings.autocast_dtype, enabled=settings.autocast_dtype is not None):
        loss = step(input_ids=ids, labels=ids).loss            # never the logits

with `torch.optim.AdamW(..., fused=True)`. docs/experiments.md has what each of these brings, and what brings nothing.
"""

import ctypes
import os
import platform
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .attention import blockwise_attention_forward

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4

# Relative error of an fp32 product of size 512 is 3e-7; in TF32 it is 3e-4, in bf16 2e-3.
FP32_TOLERANCE = 1e-5


@dataclass(frozen=True)
class ProcessSettings:
    """What `configure_process` chose; its string says why."""

    matmul_precision: str
    """For `torch.set_float32_matmul_precision`, already set."""

    keeps_freed_memory: bool
    """Whether the allocator was told to keep large buffers for the next step."""

    autocast_dtype: torch.dtype | None
    """For `torch.autocast`; None where low precision would be slower than fp32."""

    attention: str
    """For `model.set_attn_implementation`."""

    reasons: tuple[str, ...]
    """One sentence for each field above."""

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def configure_process(device: torch.device | str = "cpu") -> ProcessSettings:
    """Sets matmul precision and allocator for training on `device`, and recommends autocast type and attention.

    To be called once, before the first large tensor. The allocator keeps freed memory in the process from then on.
    """
    device_type = torch.device(device).type
    precision, why_precision = set_matmul_precision(device_type)
    keeps_memory, why_memory = keep_freed_memory()
    dtype, why_dtype = choose_autocast_dtype(device_type)
    AttentionInterface.register("blockwise", blockwise_attention_forward)
    AttentionMaskInterface.register("blockwise", sdpa_mask)
    attention, why_attention = "sdpa", "torch has fused kernels for this device"
    if device_type == "cpu":
        attention, why_attention = "blockwise", "compiled, it takes less than half the time of torch's CPU kernel"
    reasons = (
        f"matmul precision: {precision} ({why_precision})",
        f"keeps freed memory: {'yes' if keeps_memory else 'no'} ({why_memory})",
        f"autocast: {dtype} ({why_dtype})",
        f"attention: {attention} ({why_attention})",
    )
    return ProcessSettings(precision, keeps_memory, dtype, attention, reasons)


def make_deterministic(device: torch.device | str) -> None:
    """Has a GPU take kernels that give the same bits every time; a CPU does so by itself.

    To be called before the first product, because cuBLAS reads its variable then. Embeddings' gradients, for example,
    are otherwise added up in whatever order the threads come.
    """
    if torch.device(device).type == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore - only finds faults, and costs time


def set_matmul_precision(device_type: str) -> tuple[str, str]:
    """Sets and returns the precision of fp32 matrix products, and the reason.

    On the CPU `medium` takes oneDNN's AVX-512 kernels, 2.3 times as fast as the default on AMD and as accurate. Where
    it would round to bf16 instead (CPUs with AMX), one product shows it and the precision goes back to `highest`.
    """
    if device_type != "cpu":
        torch.set_float32_matmul_precision("high")
        return "high", "TF32, where the GPU has it"
    torch.set_float32_matmul_precision("medium")
    error = matmul_error()
    if error < FP32_TOLERANCE:
        return "medium", f"faster kernels, still fp32: relative error {error:.1e}"
    torch.set_float32_matmul_precision("highest")
    warnings.warn(
        f"Matmul precision 'medium' has a relative error of {error:.1e} on this CPU; back to 'highest'.", stacklevel=2
    )
    return "highest", f"'medium' is not fp32 here: relative error {error:.1e}"


def matmul_error(size: int = 512) -> float:
    """Relative error, in the Frobenius norm, of an fp32 product of two random matrices against fp64."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    return ((a @ b - exact).norm() / exact.norm()).item()


def keep_freed_memory() -> tuple[bool, str]:
    """Tells glibc's malloc to keep large buffers when they are freed; returns whether it did, and the reason.

    By default every buffer above 32 MB goes back to the kernel, which clears it again page by page at its next use:
    13 to 52 % of a step with a vocabulary of 50,000 (mallopt(3)).
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False, "only glibc's allocator can be told to"
    libc = ctypes.CDLL(None)
    done = libc.mallopt(M_MMAP_MAX, 0) == 1 and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1
    return done, "no page faults for the same buffers in every step" if done else "mallopt refused"


@cache
def choose_autocast_dtype(device_type: str) -> tuple[torch.dtype | None, str]:
    """bf16 where the hardware multiplies it, else None; and the reason."""
    if device_type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU multiplies bf16"
        return None, "the GPU does not multiply bf16"
    cpuinfo = Path("/proc/cpuinfo")
    if device_type == "cpu" and cpuinfo.exists():
        found = {"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split())  # x86, x86, ARM
        if found:
            return torch.bfloat16, f"the CPU has {', '.join(sorted(found))}"
    return None, f"no bf16 instructions known of on this {device_type}"


def cpu_name() -> str:
    """What the processor calls itself; oneDNN chooses kernels by its instructions and the sizes of its caches."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if cpuinfo.exists() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    found = [f"{name} {said[name]}" for name in ("cpu family", "model", "CPU part") if name in said]
    return ", ".join([said.get("model name") or platform.processor() or platform.machine(), *found])


def check_device(name: str) -> None:
    """Makes sure that `name` is a device of torch's, and that this machine has it.

    Raises:
        ValueError: for another word (gpu, say), and for a device that is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name} is no device: give cpu, cuda (cuda:1 for the second), mps or xpu") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts that it has it
        raise ValueError(f"device={name} is not to be had here ({str(error).splitlines()[0]}): give cpu") from error
