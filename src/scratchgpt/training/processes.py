"""The processes of a run: how accelerate is set up for them, and what they tell each other."""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin, PartialState
from accelerate.tracking import get_available_trackers

from ..hub.staging import check_writable
from ..performance import cpu_name, make_deterministic
from .arguments import TrainingArguments
from .resuming import find_checkpoint
from .terminal import survive_lost_output

KERNEL_VARIABLES = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE"),
    *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "TORCH_BLAS_PREFER_CUBLASLT"),
)
"""Environment variables that choose other kernels, and with them other last bits."""


def build_accelerator(arguments: TrainingArguments) -> Accelerator:
    """Accelerate for this process, as `accelerate launch`, `torchrun` or plain `python` started it.

    From here on the run does not depend on its terminal (see `terminal`).

    Raises:
        ValueError: for a tracker that is not installed, processes that accelerate did not notice (each would train
            on its own), FSDP1, mixed precision by accelerate, and an output directory that cannot be written or
            holds checkpoints one did not ask to go on from.
    """
    survive_lost_output()
    available = [str(tracker) for tracker in get_available_trackers()]
    missing = [name for name in arguments.report_to if name not in available]
    if missing:  # which accelerate would leave out silently
        raise ValueError(f"--report_to {missing[0]} needs a package: pip install {missing[0]}")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    trackers: list[Any] = list(arguments.report_to)
    accelerator = Accelerator(
        # On a machine without an accelerator several processes must be told so, or each believes it is alone.
        cpu=started > 1 and not torch.accelerator.is_available(),
        log_with=trackers or None,
        project_dir=arguments.output_dir,
    )
    if accelerator.num_processes != started:
        raise ValueError(f"{started} processes were started, but accelerate sees {accelerator.num_processes}")
    if started > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
        if accelerator.distributed_type == DistributedType.MULTI_CPU:
            # accelerate turns FSDP on for accelerators only, and silently takes DDP elsewhere; it has no public way to
            # say otherwise.
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
            accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        if not accelerator.is_fsdp2:
            raise ValueError("sharded training is FSDP2: launch with recipes/accelerate/fsdp2.yaml")
    if accelerator.mixed_precision != "no":
        raise ValueError("give --mixed_precision to the recipe, and leave that of accelerate at no")
    if arguments.deterministic:
        make_deterministic(accelerator.device)
    if accelerator.is_main_process:  # what cannot end well is not begun
        check_writable(arguments.output_dir)
        if arguments.resume_from_checkpoint is None:
            find_checkpoint(None, Path(arguments.output_dir), accelerator.print)
    return accelerator


def environment_of(accelerator: Accelerator) -> dict[str, Any]:
    """On what a run computes, as far as it changes the last bits of the numbers."""
    device = accelerator.device
    on_cpu = device.type == "cpu"
    return {
        "world_size": accelerator.num_processes,
        "device": cpu_name() if on_cpu else torch.get_device_module(device).get_device_name(),
        "instructions": torch.backends.cpu.get_cpu_capability() if on_cpu else None,
        "threads": torch.get_num_threads() if on_cpu else None,
        "cuda": None if on_cpu else f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
        "kernel_variables": {name: os.environ[name] for name in KERNEL_VARIABLES if name in os.environ},
    }


def total(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """The sum of `tensor` over the processes."""
    if accelerator.num_processes == 1:
        return tensor
    summed = accelerator.reduce(tensor.to(accelerator.device), "sum")
    assert isinstance(summed, torch.Tensor)
    return summed


def anywhere(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` is set in any process: they must agree before they act."""
    return flag if accelerator.num_processes == 1 else bool(total(accelerator, torch.tensor(float(flag))).item())
