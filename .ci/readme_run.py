"""Runs the README's first commands as they are printed, and puts their output and the plot of the run into the README.

    python .ci/readme_run.py      about a quarter of an hour

The commands are the bash blocks from the one that makes my.txt up to the marker <!-- run:begin -->. They run in an
empty folder with links to the scripts. What is between the markers afterwards is what they printed, with progress bars
left out and long outputs cut in the middle; docs/images/run.png is the loss.png of the run.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- run:begin -->", "<!-- run:end -->"
LINES = 14
"""What is shown of a command's output, at most: so many lines of its beginning and of its end."""


def run(command: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    print(f"$ {command}", flush=True)
    done = subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"ended with {done.returncode}: {command}")
    print(done.stdout, flush=True)
    return done.stdout.strip()


def shortened(output: str) -> str:
    lines = output.splitlines()
    if len(lines) > 2 * LINES:
        lines = [*lines[:LINES], f"[… {len(lines) - 2 * LINES} lines left out …]", *lines[-LINES:]]
    return "\n".join(lines)


def main() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head, _, rest = readme.partition(BEGIN)
    blocks = re.findall(r"^```bash\n(.*?)^```$", head, re.MULTILINE | re.DOTALL)
    blocks = [block.strip() for block in blocks if "pip install" not in block]
    with tempfile.TemporaryDirectory() as name:
        for linked in ("recipes", "data_builders"):
            (Path(name) / linked).symlink_to(ROOT / linked)
        outputs = [run(block, Path(name)) for block in blocks]
        images = ROOT / "docs" / "images"
        images.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(name) / "runs" / "mine" / "loss.png", images / "run.png")
    shown = [
        f"$ {block}\n{shortened(output)}".strip() for block, output in zip(blocks, outputs, strict=True) if output
    ]
    section = "What these commands printed:\n\n```text\n" + "\n\n".join(shown) + "\n```"
    readme = f"{head}{BEGIN}\n{section}\n{END}{rest.partition(END)[2]}"
    (ROOT / "README.md").write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
