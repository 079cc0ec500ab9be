"""Write the measured results into README.md and docs: `python benchmarks/report.py [--check]`.

Every benchmark appends one JSON object a line to `benchmarks/results/<benchmark>.jsonl`:

    {"benchmark": "Training step", "case": "(a) 4 layers, width 256", "candidate": "scratchgpt",
     "metric": "tokens/s", "value": 4210.0, "relative_to": "transformers GPT2 fp32", ...}

`case`, `candidate`, `metric` and `value` make the table: one for each benchmark and metric, a row for each candidate,
a column for each case. Where something was measured again, the last line counts. `relative_to` names another
candidate; the ratio to it is then printed beside the value. It is `ratio` where the line has one (the median over
rounds in which both took turns), else the quotient of the two values. `interval` [low, high] is printed after the
value, and `decimals` says how many decimals both have. What else a line carries (counts, seed, versions, machine)
stays in the file. docs/results.md has all tables, the README the few results that `SUMMARY` names, and
docs/planning.md what `scratchgpt plan` says to the commands in `PLANS`. Nothing between the two markers of a page is
typed by hand.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from records import RESULTS

ROOT = RESULTS.parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

SUMMARY = (
    # what the README says was measured; benchmark, metric, case; our candidate, and the one beside it
    ("Training a 6-layer model on two CPU cores, tokens/s",
     "Training step", "tokens/s", "(b) 6 layers, width 384, vocabulary 4,096, 16 × 256 tokens",
     "scratchgpt modern", "nanoGPT bf16 compiled"),
    ("Memory of that, MB",
     "Training step", "peak memory, MB", "(b) 6 layers, width 384, vocabulary 4,096, 16 × 256 tokens",
     "scratchgpt modern", "nanoGPT bf16 compiled"),
    ("Writing with GPT-2 124M, one text at a time, tokens/s",
     "Decoding, GPT-2 124M, 128 new tokens", "tokens/s", "batch 1",
     "scratchgpt bf16", "transformers GPT2 bf16, static cache, compiled"),
    ("TinyShakespeare after nanoGPT's CPU budget, nats per character (lower is better)",
     "Learning per token", "nats per character of the last 10 % of TinyShakespeare", "mean of 3 seeds",
     "modern preset", "gpt2 preset, nanoGPT's settings"),
    ("SMS spam, accuracy in % on held-out messages",
     "SMS spam", "held-out messages, mean of 5 seeds and its 95 % interval", "accuracy, %",
     "scratchgpt, all weights", "TF-IDF logistic regression (char_wb)"),
    ("Training a tokenizer on 25 MB, CPU seconds (lower is better)",
     "Tokenizer training", "CPU seconds", "25 MB of reviews", "scratchgpt", "rustbpe"),
)  # fmt: skip


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All measurements in `folder`, in order; the last of those measured again.

    Raises:
        ValueError: for a line that is not a JSON object with the fields that the tables need.
    """
    measurements: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                measurement = json.loads(line)
                key = (measurement["benchmark"], measurement["metric"], measurement["candidate"], measurement["case"])
                float(measurement["value"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file.name}, line {number}: not a result ({error!r}); see {__file__}") from error
            measurements[key] = measurement
    return list(measurements.values())


def _number(value: float, decimals: int | None = None) -> str:
    if decimals is None:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def _text(measurement: dict[str, Any]) -> str:
    value, *bounds = (
        _number(each, measurement.get("decimals")) for each in (measurement["value"], *measurement.get("interval", ()))
    )
    return f"{value} ({' to '.join(bounds)})" if bounds else value


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def table(measurements: list[dict[str, Any]]) -> str:
    """A Markdown table of measurements that share benchmark and metric: candidates × cases."""
    cells = {(measurement["candidate"], measurement["case"]): measurement for measurement in measurements}
    cases = _unique([measurement["case"] for measurement in measurements])
    rows = [["", *cases], ["---"] + ["---:"] * len(cases)]
    for candidate in _unique([measurement["candidate"] for measurement in measurements]):
        row = [candidate]
        for case in cases:
            measurement = cells.get((candidate, case))
            text = "–" if measurement is None else _text(measurement)
            reference = measurement and cells.get((measurement.get("relative_to"), case))
            if measurement and reference and reference is not measurement and reference["value"]:
                ratio = measurement.get("ratio", measurement["value"] / reference["value"])
                text += f" ({ratio:.2f}×)" if ratio < 100 else f" ({_number(ratio)}×)"
            row.append(text)
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def render(measurements: list[dict[str, Any]]) -> str:
    """The results section: a heading and a table for each benchmark and metric."""
    if not measurements:
        return "Nothing measured yet: `make bench`."
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for measurement in measurements:
        groups.setdefault((measurement["benchmark"], measurement["metric"]), []).append(measurement)
    return "\n\n".join(f"**{benchmark}, {metric}**\n\n{table(group)}" for (benchmark, metric), group in groups.items())


def summary(measurements: list[dict[str, Any]]) -> str:
    """The README's table: the results that `SUMMARY` names, each with the candidate beside it.

    Raises:
        ValueError: where one of them has not been measured.
    """
    cells = {
        tuple(measurement[key] for key in ("benchmark", "metric", "case", "candidate")): measurement
        for measurement in measurements
    }
    rows = [["", "scratchgpt", "for comparison"], ["---", "---:", "---:"]]
    for label, *where, ours, theirs in SUMMARY:
        if missing := [candidate for candidate in (ours, theirs) if (*where, candidate) not in cells]:
            raise ValueError(f"{' / '.join(where)}: no result of {missing[0]}; measure it, or change SUMMARY")
        mine, other = cells[(*where, ours)], cells[(*where, theirs)]
        rows.append([label, f"{_text(mine)}, {ours}", f"{_text(other)}, {theirs}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


PLANS = (
    "modern_124m --tokens 1e10 --machine h100x8",
    "--preset modern-xl --vocab_size 50304 --context_length 1024 --per_device_train_batch_size 8 "
    "--gradient_accumulation_steps 8 --tokens 3e10 --machine h100x8",
)


def plans(_: list[dict[str, Any]]) -> str:
    """What `scratchgpt plan` says to the commands in `PLANS`."""
    from scratchgpt_cli.commands import with_own_configuration
    from scratchgpt_cli.estimating import plan

    texts = [(command, plan(with_own_configuration("pretrain", command.split()))) for command in PLANS]
    return "\n\n".join(f"```bash\nscratchgpt plan {command}\n```\n\n```text\n{text}\n```" for command, text in texts)


def insert(page: str, section: str) -> str:
    """`page` with `section` between the two markers."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the markers {BEGIN} and {END}, in this order")
    return f"{head}{BEGIN}\n\n{section}\n\n{END}{tail}"


PAGES = {ROOT / "README.md": summary, ROOT / "docs" / "results.md": render, ROOT / "docs" / "planning.md": plans}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the measured results into README.md and docs/results.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is not up to date")
    arguments = parser.parse_args()
    measurements = read_results(RESULTS)
    for page, section in PAGES.items():
        text = page.read_text(encoding="utf-8")
        wanted = insert(text, section(measurements))
        if not arguments.check:
            page.write_text(wanted, encoding="utf-8")
        elif wanted != text:
            sys.exit(f"{page.name} does not show benchmarks/results: run python benchmarks/report.py")


if __name__ == "__main__":
    main()
