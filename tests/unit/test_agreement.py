"""evaluation/agreement.py: as scipy and scikit-learn say it, on real scores, and which files are read."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import cohen_kappa_score

from scratchgpt.evaluation.agreement import Agreement, agreement, read_verdicts


@pytest.mark.parametrize("model", ["1", "2"])
def test_two_judges_of_the_same_answers(shared_data: Path, model: str) -> None:
    scores = shared_data / "instruct" / "rasbt" / "scores"
    one, other = (read_verdicts(scores / f"{name}-model-{model}-response.json") for name in ("gpt4", "llama3-8b"))
    if model == "2":
        with pytest.raises(ValueError, match="100 and 99 verdicts: both must judge the same items"):
            agreement(one, other)
        one = one[:99]
    found = agreement(one, other)
    a, b = np.array(json.loads((scores / f"gpt4-model-{model}-response.json").read_text())[: len(one)]), np.array(
        json.loads((scores / f"llama3-8b-model-{model}-response.json").read_text())
    )  # fmt: skip
    expected = {
        "pearson": pearsonr(a, b)[0],
        "spearman": spearmanr(a, b)[0],
        "kappa": cohen_kappa_score(a >= 50, b >= 50),
        "agreement": ((a >= 50) == (b >= 50)).mean(),
    }
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, abs=1e-12)
    for each in found.values():
        assert each.count == len(a)
        assert each.interval is not None
        assert each.interval[0] < each.value < each.interval[1]
    # An interval of r by Fisher's z is of the same width, though scores are not normal.
    low, high = np.tanh(np.arctanh(expected["pearson"]) + np.array([-1, 1]) * 1.96 / np.sqrt(len(a) - 3))
    assert found["pearson"].interval == pytest.approx((low, high), abs=0.06)


def test_letters() -> None:
    """Kappa by hand: of 4 items 3 alike; by chance 2/4 · 2/4 + 1/4 · 1/4 + 1/4 · 1/4 = 3/8."""
    found = agreement(["A", "A", "B", "tie", None], ["A", "B", "A", "tie", "B"])
    assert set(found) == {"kappa", "agreement"}
    assert found["agreement"].value == 0.5
    assert found["kappa"].value == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    assert found["kappa"].details == {"left_out": 1}


def test_what_does_not_exist_is_left_out() -> None:
    assert set(agreement([80, 80, 80], [10, 50, 90])) == {"kappa", "agreement"}  # no correlation with a constant
    assert set(agreement([80, 80], [90, 90])) == {"agreement"}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ([1.0, 2.0], ["A", "B"], "one gives scores and the other letters"),
        ([1.0, None], [None, 2.0], "only 0 items have verdicts of both"),
    ],
)
def test_what_cannot_be_compared(one: list, other: list, said: str) -> None:
    with pytest.raises(ValueError, match=f"x and y: {said}"):
        Agreement({"x": one, "y": other}).run()


def test_table() -> None:
    suite = Agreement({"x": [1.0, 60.0, 90.0, 70.0], "y": [5.0, 60.0, 80.0, 20.0], "z": [50.0, 50.0, 50.0, 50.0]})
    lines = suite.table().splitlines()
    assert len(lines) == 2 + 3
    assert lines[2].startswith("| x and y | 4 | 0.")
    assert " to " in lines[2]
    assert lines[3].startswith("| x and z | 4 | – | – | 0.00 (")
    assert suite.run().metrics["x and y: agreement"].value == 0.75


def test_files_of_verdicts(tmp_path: Path) -> None:
    def read(name: str, text: str, column: str | None = None) -> list:
        (tmp_path / name).write_text(text)
        return list(read_verdicts(tmp_path / name, column))

    assert read("a.json", "[1, 2.5, null]") == [1, 2.5, None]
    assert read("a.json", '["a", "Tie", "B"]') == ["A", "tie", "B"]
    assert read("a.jsonl", '{"verdict": "A", "score": 3}\n{"verdict": null, "score": 4}\n') == ["A", None]
    assert read("a.jsonl", '{"verdict": "A", "score": 3}\n', "score") == [3]
    assert read("a.csv", "score\n7\n\n8.5\n") == [7, 8.5]
    for text, said in (
        ('[{"points": 3}]', r"has no column 'verdict' or 'score': it has \['points'\]; name it with --verdict_column"),
        ('[1, "good"]', 'row 2: "good" is neither a number nor A, B or tie'),
        ("[1, true]", "row 2: true is neither"),
        ('[1, "A"]', "scores and letters"),
    ):
        with pytest.raises(ValueError, match=said):
            read("a.json", text)
    with pytest.raises(ValueError, match=r"a.json is not JSON: .*line 1"):
        read("a.json", "[1,")
    with pytest.raises(ValueError, match=r"none.json is no file"):
        read_verdicts(tmp_path / "none.json")
