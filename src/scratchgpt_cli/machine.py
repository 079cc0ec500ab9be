"""`scratchgpt doctor`: what the machine has, what is installed, and the settings that a run would choose here."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import psutil
import torch
from packaging.requirements import Requirement

from scratchgpt.performance import configure_process
from scratchgpt.training.run_identity import PACKAGES

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
"""As /proc/cpuinfo calls them, those that decide how fast matrices are multiplied."""

FOR_DEVELOPERS = {"bench", "dev"}


def report() -> str:
    """Sections of `name: value` lines."""
    sections = {
        "This machine": machine(),
        "Versions": {"python": platform.python_version(), **{name: installed(name) for name in versions()}},
        "Extras": extras(),
        "Settings that suit the CPU": dict(settings("cpu")),
    }
    if torch.cuda.is_available():
        sections["Settings that suit the GPU"] = dict(settings("cuda"))
    blocks = [
        "\n".join([title, *(f"  {name + ':':{2 + max(map(len, facts))}}{value}" for name, value in facts.items())])
        for title, facts in sections.items()
    ]
    return "\n\n".join(blocks)


def machine() -> dict[str, str]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(".")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": f"{cores} for this process, {psutil.cpu_count(logical=False) or 'unknown'} physical; torch computes "
        f"with {torch.get_num_threads()} threads",
        "instructions": f"torch uses {torch.backends.cpu.get_cpu_capability()}; the CPU has {cpu_instructions()}",
        "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available{memory_limit()}",
        "disk here": f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free",
        "GPU": "none that torch sees",
    }
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        key = "GPU" if number == 0 else f"GPU {number + 1}"
        facts[key] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}"
    return facts


def cpu_instructions() -> str:
    try:
        found = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "what this system does not say"
    return ", ".join(name for name in INSTRUCTIONS if name in found) or "none of " + ", ".join(INSTRUCTIONS)


def memory_limit() -> str:
    """What the container allows, where there is a limit (control groups, version 2)."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return f", at most {int(limit) / 2**30:.1f} GiB for this container" if limit.isdecimal() else ""


def versions() -> list[str]:
    return sorted({*PACKAGES, "tokenizers", "datasets", "safetensors", "huggingface-hub"} - {"bitsandbytes"})


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def extras() -> dict[str, str]:
    """Of each extra, whether everything it needs is there; if not, what is missing and the command."""
    try:
        names = sorted(set(metadata("scratchgpt").get_all("Provides-Extra") or ()) - FOR_DEVELOPERS)
    except PackageNotFoundError:
        return {"unknown": "scratchgpt itself is not installed: pip install -e . in the repository"}
    return {name: status(name) for name in names}


def status(extra: str) -> str:
    needed = [
        requirement
        for requirement in map(Requirement, requires("scratchgpt") or ())
        if requirement.marker and not requirement.marker.evaluate() and requirement.marker.evaluate({"extra": extra})
    ]
    lacking = [
        f"{one.name}{f' {one.specifier} (here: {found})' if found != 'not installed' else ''}"
        for one, found in ((one, installed(one.name)) for one in needed)
        if found == "not installed" or not one.specifier.contains(found, prereleases=True)
    ]
    return f'missing {", ".join(lacking)}: pip install "scratchgpt[{extra}]"' if lacking else "installed"


def settings(device: str) -> Iterator[tuple[str, str]]:
    """What a training run would choose by itself, and why."""
    for reason in configure_process(device).reasons:
        name, _, why = reason.partition(": ")
        yield name, why
