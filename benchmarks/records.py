"""What every benchmark writes: one JSON object a line for each measurement, with the machine it was made on.

`report.py` says which fields there are.
"""

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

SHARED_DATA = Path(os.environ.get("SCRATCHGPT_SHARED_DATA", RESULTS.parents[2] / "shared" / "data"))
"""The folder of real data, if there is one."""


def machine(*packages: str) -> dict[str, Any]:
    """The machine, the date and the versions of `packages`, for the reader of a result file."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {package: version(package) for package in packages} | {"python": platform.python_version()},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def append(measurements: Iterable[dict[str, Any]], file: Path) -> None:
    """Adds a line for each measurement to `file`, creating it if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(measurement, ensure_ascii=False) + "\n" for measurement in measurements)
