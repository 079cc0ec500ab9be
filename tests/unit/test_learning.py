"""The learning benchmark: equal budgets, results that follow from the runs, and all of it on a small text."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import learning, report


def results(loss: float, num_tokens: int = 111540) -> dict[str, Any]:
    return {
        "final": {"loss": loss, "num_tokens": num_tokens},
        "num_parameters": 800_000,
        "steps": 2000,
        "num_targets": 1_536_000,
        "identity": {"mixed_precision": "None"},
    }


def test_a_row_has_mean_deviation_and_counts() -> None:
    measurements = learning.summarise("ours", [0, 1, 2], [results(loss) for loss in (1.5, 1.6, 1.7)])
    assert {measurement["case"]: pytest.approx(measurement["value"]) for measurement in measurements} == {
        "mean of 3 seeds": 1.6,
        "standard deviation": 0.1,  # of a sample: divided by n - 1
        "validation characters": 111540,
        "parameters": 800_000,
    }
    assert "| ours | 1.6 | 0.1 | 111,540 | 800,000 |" in report.render(measurements)


def test_runs_on_other_text_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        learning.summarise("ours", [0, 1], [results(1.5), results(1.5, num_tokens=64)])


def test_candidates_have_the_same_budget() -> None:
    names = sorted({name for name, *_ in learning.CANDIDATES.values()})
    configs = [yaml.safe_load((learning.CONFIGS / f"{name}.yaml").read_text()) for name in names]
    for config in configs:
        assert config["max_steps"] * config["per_device_train_batch_size"] * config["context_length"] == 2000 * 12 * 64
    same = ("data", "tokenizer", "hidden_size", "num_hidden_layers", "num_attention_heads")
    assert len({tuple(config[name] for name in same) for config in configs}) == 1


@pytest.mark.slow
def test_the_whole_benchmark_on_a_small_text(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("".join(f"Line {i} of a play.\n" for i in range(200)))
    output = tmp_path / "learning.jsonl"
    small = ["--source", str(tmp_path / "small.txt"), "--seeds", "0", "1", "--jobs", "1", "--output", str(output)]
    short = ["--max_steps", "4", "--warmup_steps", "1", "--compile", "False", "--sample_tokens", "2"]
    learning.main([*small, "--", *short])
    measurements = [json.loads(line) for line in output.read_text().splitlines()]
    means = {
        measurement["candidate"]: measurement
        for measurement in measurements
        if measurement["case"] == "mean of 2 seeds"
    }
    assert set(means) == set(learning.CANDIDATES)
    for measurement in means.values():
        assert measurement["steps"] == 4
        assert len(set(measurement["losses"])) == 2  # the seeds are different runs
        assert 1 < measurement["value"] < 5
