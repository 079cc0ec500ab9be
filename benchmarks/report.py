"""Write the measured results into README.md: `python benchmarks/report.py [--check]`.

Every benchmark appends one JSON object a line to `benchmarks/results/<benchmark>.jsonl`:

    {"benchmark": "Training step", "case": "(a) 4 layers, width 256", "candidate": "scratchgpt",
     "metric": "tokens/s", "value": 4210.0, "relative_to": "transformers GPT2 fp32", ...}

`case`, `candidate`, `metric` and `value` make the table: one for each benchmark and metric, a row for each candidate,
a column for each case. Where the same figure was measured again, the last line counts. `relative_to` names another
candidate; the ratio to it is then printed beside the value: `ratio` where the line has one (the median over rounds in
which both took turns), else that of the two values. `interval` [low, high] is printed behind the value, and `decimals`
says how many both have. Whatever else a line carries (counts, seed, versions, machine) stays in the file. Nothing
between the two markers in the README is typed by hand.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from records import RESULTS

README = RESULTS.parents[1] / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All figures in `folder`, in order; the last of those measured again.

    Raises:
        ValueError: for a line that is no JSON object with the fields the tables need.
    """
    figures: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                figure = json.loads(line)
                key = (figure["benchmark"], figure["metric"], figure["candidate"], figure["case"])
                float(figure["value"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file.name}, line {number}: not a result ({error!r}); see {__file__}") from error
            figures[key] = figure
    return list(figures.values())


def _number(value: float, decimals: int | None = None) -> str:
    if decimals is None:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def _text(figure: dict[str, Any]) -> str:
    value, *bounds = (_number(each, figure.get("decimals")) for each in (figure["value"], *figure.get("interval", ())))
    return f"{value} ({' to '.join(bounds)})" if bounds else value


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def table(figures: list[dict[str, Any]]) -> str:
    """A Markdown table of figures that share benchmark and metric: candidates × cases."""
    cells = {(figure["candidate"], figure["case"]): figure for figure in figures}
    cases = _unique([figure["case"] for figure in figures])
    rows = [["", *cases], ["---"] + ["---:"] * len(cases)]
    for candidate in _unique([figure["candidate"] for figure in figures]):
        row = [candidate]
        for case in cases:
            figure = cells.get((candidate, case))
            text = "–" if figure is None else _text(figure)
            reference = figure and cells.get((figure.get("relative_to"), case))
            if figure and reference and reference is not figure and reference["value"]:
                ratio = figure.get("ratio", figure["value"] / reference["value"])
                text += f" ({ratio:.2f}×)" if ratio < 100 else f" ({_number(ratio)}×)"
            row.append(text)
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def render(figures: list[dict[str, Any]]) -> str:
    """The results section: a heading and a table for each benchmark and metric."""
    if not figures:
        return "Nothing measured yet: `make bench`."
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for figure in figures:
        groups.setdefault((figure["benchmark"], figure["metric"]), []).append(figure)
    return "\n\n".join(f"**{benchmark}, {metric}**\n\n{table(group)}" for (benchmark, metric), group in groups.items())


def insert(readme: str, section: str) -> str:
    """`readme` with `section` between the two markers."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md needs the markers {BEGIN} and {END}, in this order")
    return f"{head}{BEGIN}\n\n{section}\n\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the measured results into README.md.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 where README.md is not up to date"
    )
    arguments = parser.parse_args()
    readme = README.read_text(encoding="utf-8")
    wanted = insert(readme, render(read_results(RESULTS)))
    if arguments.check:
        sys.exit(wanted != readme and "README.md does not show benchmarks/results: run python benchmarks/report.py")
    README.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
