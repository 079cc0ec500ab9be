"""metrics.py: the history of a run survives kills and full disks, and trackers get numbers."""

import json
import resource
from pathlib import Path

import pytest

from scratchgpt.training.metrics import MetricsLogger, Throughput, read_metrics, scalars

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
