"""metrics.py: FLOPs against a sum by hand and torch's own counter; memory against the kernel's record; the history of
a run survives kills and full disks, and trackers get numbers."""

import json
import resource
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.training.metrics import (
    MetricsLogger,
    Throughput,
    flops_per_token,
    peak_memory_mb,
    read_metrics,
    scalars,
)

LINES = [{"step": step, "loss": 1.0 / step} for step in range(1, 6)]
WHOLE = "".join(json.dumps(line) + "\n" for line in LINES)


@pytest.mark.parametrize(
    "end", ["", "\n", "\n\n  \n", '{"step": 6, "lo', "{", '"text"\n', '{"loss": 1}\n', "\x00" * 40]
)
def test_a_line_that_was_cut_short_blocks_nothing(tmp_path: Path, end: str) -> None:
    """A torn or blank last line made resuming impossible, though every checkpoint was whole."""
    file = tmp_path / "metrics.jsonl"
    file.write_text(WHOLE + end)
    assert read_metrics(file) == LINES
    logger = MetricsLogger(tmp_path, 4, 10, is_main=True)
    assert read_metrics(file) == LINES[:4]
    logger.log(5, loss=0.5)
    assert read_metrics(file) == [*LINES[:4], {"step": 5, "loss": 0.5}]
    assert file.read_text().count("\n") == 5


def test_a_failing_rewrite_leaves_the_history(tmp_path: Path) -> None:
    """It was rewritten in place: a kill or a full disk at that moment lost all of it."""
    file = tmp_path / "metrics.jsonl"
    file.write_text(WHOLE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            MetricsLogger(tmp_path, 4, 10, is_main=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_full_disk_costs_a_line_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = MetricsLogger(tmp_path, 0, 10, is_main=True)
    logger.log(1, loss=1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))
    try:
        logger.log(2, loss=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "lacks step 2" in caplog.text
    logger.log(3, loss=0.25)
    assert [line["step"] for line in read_metrics(logger.file)] == [1, 3]


def test_trackers_get_numbers_only() -> None:
    """A classifier's evaluation has dicts of dicts, which TensorBoard cannot take."""
    values = {"loss": 1.5, "per_label": {"ham": {"f1": 0.5, "num_texts": 3}}, "confusion": [[1, 2]], "samples": ["a"]}
    assert scalars(values) == {"loss": 1.5, "per_label/ham/f1": 0.5, "per_label/ham/num_texts": 3}
    assert scalars({"f1_of": "spam", "roc_auc": None}) == {}


def test_throughput_begins_anew_each_time() -> None:
    throughput = Throughput()
    throughput.add(30, 1.0)
    throughput.add(10, 1.0)
    assert throughput.take() == 20
    throughput.add(5, 0.5)
    assert throughput.take() == 10


def config(preset: str = "gpt2", **changed: object) -> ScratchGPTConfig:
    shape = {
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    }
    return ScratchGPTConfig.from_preset(preset, **{**shape, **changed})


def test_flops_by_hand() -> None:
    # Two layers: four projections 32 × 32 and two of 32 × 128, with biases; two norms. One more norm; the tied table.
    layer = 4 * (32 * 32 + 32) + (32 * 128 + 128) + (128 * 32 + 32) + 2 * (2 * 32)
    multiplying = 2 * layer + 2 * 32 + 96 * 32
    model = ScratchGPTForCausalLM(config())
    num_parameters = sum(p.numel() for p in model.parameters())
    assert num_parameters == multiplying + 16 * 32  # and the positions, which are only looked up
    attention = 2 * 4 * 8 * 16 * 6  # layers · heads · width of a head · length, 12 halved
    assert flops_per_token(model.config, num_parameters, 16) == 6 * multiplying + attention


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("gpt2", {}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("modern", {}),
        ("modern", {"tie_word_embeddings": False, "num_key_value_heads": 2, "head_dim": 16}),
    ],
)
def test_flops_are_those_that_torch_counts(preset: str, changed: dict) -> None:
    """torch counts matrix products alone, and all of the attention; norms, biases and the causal half are the rest."""
    length = 16
    model = ScratchGPTForCausalLM(config(preset, **changed)).train()
    model.set_attn_implementation("eager")
    ids = torch.randint(0, 96, (2, length))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, return_logits=True).loss.backward()
    counted = counter.get_total_flops() / ids.numel()
    half_attention = 6 * 2 * 4 * model.config.head_dim * length
    vectors = 6 * sum(p.numel() for p in model.parameters() if p.ndim == 1)
    num_parameters = sum(p.numel() for p in model.parameters())
    assert flops_per_token(model.config, num_parameters, length) == counted - half_attention + vectors


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the kernel's record is Linux's")
def test_peak_memory_is_the_kernels() -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert peak_memory_mb(torch.device("cpu")) == pytest.approx(int(status["VmHWM"].split()[0]) * 1024 / 1e6, rel=0.01)
