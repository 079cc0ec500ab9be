"""Every line of the GPU benchmark runs, at a tiny size and on the CPU: a lent GPU is no place to find a typo."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_runs(tmp_path: Path) -> None:
    output = tmp_path / "gpu.jsonl"
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--rounds", "1", "--output", str(output)]
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}  # compiling is tested elsewhere, and takes minutes
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for part in ("step", "loss", "attention", "memory", "decoding"):
        assert f"\n{part}: " in run.stdout
    assert "scratchgpt modern, Muon" in run.stdout
    assert "scratchgpt int8" in run.stdout
    assert not output.exists()  # nothing of this is a result
