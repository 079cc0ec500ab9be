"""Runs the contract and unit tests in several environments, and writes docs/versions.md.

    python .ci/versions.py .venv-oldest/bin/python .venv-newest/bin/python     # or: make test-versions

The first environment also saves a model of each preset with its tokenizer. Every environment loads them in a process
that cannot import scratchgpt, and has to continue a text with the same tokens.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("transformers", "tokenizers", "huggingface_hub", "torch", "peft", "trl", "accelerate", "datasets", "lm_eval")
SUITES = ("tests/contracts", "tests/unit")

SAVE = """
import sys, torch
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.tokenizers import BPETokenizer, to_transformers

tokenizer = to_transformers(BPETokenizer.train(["To be, or not to be, that is the question."] * 8, vocab_size=280))
for preset in ("gpt2", "modern"):
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        preset, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )
    ScratchGPTForCausalLM(config).save_pretrained(f"{sys.argv[1]}/{preset}")
    tokenizer.save_pretrained(f"{sys.argv[1]}/{preset}")
"""
# `-I` leaves out PYTHONPATH and the current folder; the editable install of the environment is taken off the path.
LOAD = """
import json, sys
sys.path[:] = [path for path in sys.path if not path.endswith("/src")]
from transformers import AutoModelForCausalLM, AutoTokenizer

found = {}
for preset in ("gpt2", "modern"):
    model = AutoModelForCausalLM.from_pretrained(f"{sys.argv[1]}/{preset}", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(f"{sys.argv[1]}/{preset}", trust_remote_code=True)
    batch = tokenizer(["To be, or", "To be, or not to be"], return_tensors="pt", padding=True, padding_side="left")
    found[preset] = model.generate(**batch, max_new_tokens=16, do_sample=False).tolist()
assert "scratchgpt" not in sys.modules
print(json.dumps(found))
"""
VERSIONS = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {SHOWN!r}}}))"


def run(python: str, *arguments: str, **options: str) -> str:
    """Standard output of `python arguments`, in the repository, without a network."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **options}
    command = [python, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def run_tests(python: str, folder: Path) -> tuple[dict[str, int], list[str]]:
    """How many tests ran, failed and were skipped; and the names of those that failed."""
    report = folder / "report.xml"
    workers = os.environ.get("WORKERS", "2")
    command = [python, "-m", "pytest", "-q", "-n", workers, f"--junitxml={report}", *SUITES]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")})
    suite = ElementTree.parse(report).getroot()[0]
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = [case for case in suite if case.find("failure") is not None or case.find("error") is not None]
    return counts, sorted(f"{case.attrib['classname']}::{case.attrib['name']}" for case in bad)


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    text = cpuinfo.read_text()
    name = next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return f"{name}, {'with' if 'avx512_bf16' in text else 'without'} avx512_bf16"


def main(pythons: list[str]) -> int:
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(pythons[0], "-c", SAVE, str(folder), PYTHONPATH=str(ROOT / "src"))
        expected = None
        for python in pythons:
            versions = json.loads(run(python, "-c", VERSIONS))
            found = json.loads(run(python, "-I", "-c", LOAD, str(folder), HF_MODULES_CACHE=str(folder / "modules")))
            expected = expected or found
            counts, bad = run_tests(python, folder)
            passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
            same = "same tokens" if found == expected else "**other tokens**"
            failed += bad + ([] if found == expected else [f"{versions['transformers']}: other tokens"])
            cells = [versions[name] for name in SHOWN] + [same, str(passed), str(len(bad)), str(counts["skipped"])]
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], *bad, sep="\n", flush=True)
    header = [*SHOWN, "model saved by the first row", "passed", "failed", "skipped"]
    lines = [
        "# Versions",
        "",
        "What was run with what: written by `make test-versions`, which runs the contract and unit tests "
        f"({' and '.join(SUITES)}) in one environment for each row. The model is loaded in a process without this "
        "package and continues two texts greedily, left-padded in one batch.",
        "",
        f"{datetime.date.today()}, Python {platform.python_version()}, {processor()}.",
        "",
        "| " + " | ".join(header) + " |",
        "| " + " | ".join(["---"] * len(header)) + " |",
        *rows,
        *(["", "Failed:", ""] + [f"- {name}" for name in sorted(set(failed))] if failed else []),
        "",
        "`make test-oldest` and `make test-newest` run the whole suite on the lowest versions that `pyproject.toml` "
        "allows, and on whatever is newest on the day; CI runs the contract tests on both. torch is the same in all "
        "of them: other versions of it were not tried.",
    ]
    (ROOT / "docs" / "versions.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
