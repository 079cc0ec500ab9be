"""What every test gets: no network, no telemetry, one seed, few threads, and the folder of shared data."""

import os
from pathlib import Path

# Read by the libraries when they are imported, hence before any of them; subprocesses inherit it.
os.environ.update(
    DO_NOT_TRACK="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_OFFLINE="1",
    WANDB_MODE="disabled",
)

# The suite is about the CPU; CUDA_VISIBLE_DEVICES=0 make test tries it on a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: `SCRATCHGPT_SHARED_DATA`, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("SCRATCHGPT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no shared data: set SCRATCHGPT_SHARED_DATA or put it at ../shared/data")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    from transformers import set_seed

    set_seed(0)
