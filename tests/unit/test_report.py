"""The results in README.md and docs/results.md come from the result files, as they are."""

import json
from pathlib import Path

import pytest

from benchmarks import report


def measurement(candidate: str, case: str, value: float, **more: object) -> dict[str, object]:
    return {"benchmark": "Step", "metric": "tokens/s", "candidate": candidate, "case": case, "value": value, **more}


def test_table_has_ratios_and_gaps() -> None:
    measurements = [
        measurement("ours", "a", 3000, relative_to="theirs"),
        measurement("theirs", "a", 1000),
        measurement("theirs", "b", 7),
    ]
    assert report.render(measurements).splitlines() == [
        "**Step, tokens/s**",
        "",
        "|  | a | b |",
        "| --- | ---: | ---: |",
        "| ours | 3,000 (3.00×) | – |",
        "| theirs | 1,000 | 7 |",
    ]


def test_rates_have_their_decimals_and_intervals() -> None:
    # Three digits would make 98.46 % the 98.5 % that it is not.
    rate = measurement("ours", "a", 98.46, decimals=2, interval=[97.5, 99.404])
    assert report.render([rate]).endswith("| ours | 98.46 (97.50 to 99.40) |")


def test_the_last_measurement_counts(tmp_path: Path) -> None:
    lines = [json.dumps(measurement("ours", "a", value)) for value in (1.0, 2.0)]
    (tmp_path / "step.jsonl").write_text("\n".join(lines) + "\n")
    assert [entry["value"] for entry in report.read_results(tmp_path)] == [2.0]


@pytest.mark.parametrize("line", ["{", "[]", '{"benchmark": "Step"}'])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "step.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"step\.jsonl, line 1"):
        report.read_results(tmp_path)


def test_only_the_section_changes() -> None:
    assert report.insert(f"head\n{report.BEGIN}\nold\n{report.END}\ntail\n", "new") == (
        f"head\n{report.BEGIN}\n\nnew\n\n{report.END}\ntail\n"
    )
    with pytest.raises(ValueError, match="markers"):
        report.insert("no markers", "new")


def test_the_summary_has_both_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SUMMARY", (("Speed", "Step", "tokens/s", "a", "ours", "theirs"),))
    both = [measurement("ours", "a", 3000), measurement("theirs", "a", 1000)]
    assert report.summary(both).splitlines()[2] == "| Speed | 3,000, ours | 1,000, theirs |"
    with pytest.raises(ValueError, match="Step / tokens/s / a: no result of theirs"):
        report.summary(both[:1])


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_the_pages_show_the_result_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert report.insert(text, report.PAGES[page](report.read_results(report.RESULTS))) == text
