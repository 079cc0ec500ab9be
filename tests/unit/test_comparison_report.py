"""evaluation/comparison_report.py and its data and plots: what a page says, and what is not compared."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from scratchgpt.evaluation.comparison_report import PAGE, write_report
from scratchgpt.evaluation.results import Measurement, Results, SuiteResult
from scratchgpt.evaluation.statistics import mean_interval, wilson_interval
from scratchgpt_cli.commands import main


@dataclass
class Named:
    """A suite, as far as `Results.record` asks."""

    name: str
    data: str = "the same"

    def identity(self) -> dict[str, Any]:
        return {"data": self.data}

    def check(self, config: Any, tokenizer: Any) -> None: ...

    def texts(self) -> list[str]:
        return []

    def run(self, model: Any, tokenizer: Any) -> SuiteResult:
        raise NotImplementedError


def right(share: float, count: int = 400) -> list[float]:
    """So many right, and those the same ones."""
    return [float(i < share * count) for i in range(count)]


def measured(
    directory: Path,
    blimp: Sequence[float] | None = None,
    text: Sequence[float] | None = None,
    data: str = "the same",
    **model: Any,
) -> Path:
    """Results of a model, as `recipes/evaluate.py` leaves them."""
    results = Results(directory, {"name": str(directory), "weights": directory.as_posix(), **model})
    if blimp is not None:
        interval = wilson_interval(round(sum(blimp)), len(blimp))
        verdict = "above chance" if interval[0] > 0.5 else "not above chance"
        details = {"chance": 0.5, "verdict": verdict, "published": {"GPT-2": 0.83}}
        found = Measurement(float(np.mean(blimp)), len(blimp), interval, "blimp|version:1", details)
        part = Measurement(0.4, 20, (0.2, 0.6), "blimp|version:1", {"chance": 0.5})
        metrics = {"accuracy": found, "accuracy/ellipsis": part, "accuracy/ellipsis/one": part}
        results.record(Named("blimp", data), SuiteResult(metrics, {"accuracy": list(blimp)}))
    if text is not None:
        found = Measurement(float(np.mean(text)), 1000, (1.0, 2.0), "bits_per_byte|stride:8|version:1")
        results.record(Named("text"), SuiteResult({"bits_per_byte": found}, {"bits_per_byte": list(text)}))
    return directory


def noisy(level: float, sign: int = 1) -> list[float]:
    return [level + sign * (0.01 if i % 2 else -0.01) for i in range(60)]


def test_a_page_says_who_is_better_and_where_one_cannot_tell(tmp_path: Path) -> None:
    directories = [
        measured(tmp_path / "large", right(0.8), noisy(1.1), parameters=100),
        measured(tmp_path / "small", right(0.6), noisy(1.5), parameters=10),
        measured(tmp_path / "other", right(0.605), noisy(1.5, -1), parameters=20),
        measured(tmp_path / "bad", right(0.5), noisy(1.9), parameters=5),
    ]
    summary = write_report(directories, tmp_path / "out").splitlines()
    assert summary == [
        "- **blimp (accuracy)**: large (80.0 %) is better than all others; other (60.5 %) is better than bad (50.0 %)"
        "; small (60.0 %) is better than bad (50.0 %); you cannot tell other from small; bad is not above chance "
        "(50.0 %).",
        "- **text (bits_per_byte)**: large (1.1000) is better than all others; small (1.5000) is better than bad "
        "(1.9000); other (1.5000) is better than bad (1.9000); you cannot tell small from other.",
    ]
    page = (tmp_path / "out" / PAGE).read_text(encoding="utf-8")
    assert "\n".join(summary) in page
    assert "| small | 60.0 % (55.1 to 64.7) | 1.5000 (1.0000 to 2.0000) |" in page
    assert "Published for blimp: GPT-2 83.0 %." in page
    assert "| ellipsis | 40.0 % (20.0 to 60.0) |" in page
    assert "ellipsis/one" not in page
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert len(found) == 12
    one = next(each for each in found if (each["suite"], each["first"], each["second"]) == ("blimp", "large", "small"))
    assert (one["difference"], one["count"], one["different"]) == (pytest.approx(0.2), 400, True)
    assert one["verdict"] == "large is better than small"
    text = next(each for each in found if (each["suite"], each["second"]) == ("text", "small"))
    assert text["difference"] < 0 and text["verdict"] == "large is better than small"  # noqa: PT018
    # No suite says "better" where the interval holds 0.
    assert all(each["different"] != (each["interval"][0] <= 0 <= each["interval"][1]) for each in found)


def test_pictures_are_drawn_where_there_is_something_to_draw(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text('{"num_targets": 5000, "num_parameters": 30}')
    (run / "arguments.yaml").write_text("preset: modern\nmodel_name_or_path: null\n")
    first = measured(tmp_path / "a", right(0.8), name=str(run / "final"))
    second = measured(tmp_path / "b", right(0.6), parameters=10)
    write_report([first, second], tmp_path)
    drawn = {file.name for file in tmp_path.glob("*.png")}
    assert drawn == {"scores.png", "score_by_parameters.png", "win_rates.png"}  # the tokens of one are known only
    assert all(imread(tmp_path / name).std() > 0.01 for name in drawn)
    assert "| a | 1 | 30 | 5,000 |" in (tmp_path / PAGE).read_text(encoding="utf-8")
    # What was tuned has read more than its own run tells.
    (run / "arguments.yaml").write_text("preset: modern\nmodel_name_or_path: runs/base\n")
    write_report([first, second], tmp_path)
    assert {file.name for file in tmp_path.glob("*.png")} == {"scores.png", "win_rates.png"}
    assert "| a | 1 | not known | not known |" in (tmp_path / PAGE).read_text(encoding="utf-8")


def test_all_scores_of_answers_are_there_and_a_judges(tmp_path: Path) -> None:
    """Only the first metric is compared: of the others, BLEU with its parts among them, the scores are shown."""
    for name, level in (("base", 0.1), ("tuned", 0.3)):
        found = {
            "bleu": Measurement(100 * level, 60, (1.0, 2.0), "bleu"),
            "rougeL": Measurement(level, 60, (level - 0.05, level + 0.05), "rouge"),
            "distinct_1": Measurement(0.5, 99, None, "distinct"),
        }
        Results(tmp_path / name, {"weights": name}).record(
            Named("answers"), SuiteResult(found, {"rougeL": noisy(level)})
        )
        judged = SuiteResult({"score": Measurement(50 + 100 * level, 60, (55.0, 85.0), "judge")})
        Results(tmp_path / name / "judge", {"name": "a judge"}).record(Named("judge"), judged)
    write_report([tmp_path / "base", tmp_path / "tuned"], tmp_path)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "tuned (0.3000) is better than base (0.1000)" in page
    assert "| bleu | 10.0000 (1.0000 to 2.0000) | 30.0000 (1.0000 to 2.0000) |" in page
    assert "| distinct_1 | 0.5000 | 0.5000 |" in page
    assert "| judge | 60.0000 (55.0000 to 85.0000) | 80.0000 (55.0000 to 85.0000) |" in page
    (tmp_path / "base" / "judge" / "results.json").unlink()
    write_report([tmp_path / "base", tmp_path / "tuned"], tmp_path)
    assert "| judge |" not in (tmp_path / PAGE).read_text(encoding="utf-8"), "a score beside nothing"


def test_seeds_of_one_recipe_are_one_row(tmp_path: Path) -> None:
    shares = (0.7, 0.72, 0.71)
    directories = [
        *(measured(tmp_path / f"mine_seed{i}-final", right(share), parameters=7) for i, share in enumerate(shares)),
        measured(tmp_path / "theirs", right(0.5), parameters=9),
    ]
    summary = write_report(directories, tmp_path)
    assert "mine (71.0 %) is better than theirs (50.0 %)" in summary
    _, low, high = mean_interval(shares)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert f"| mine | 71.0 % ({100 * low:.1f} to {100 * high:.1f}) |" in page
    assert "| mine | 3 | 7 |" in page


def test_a_recipe_with_several_seeds_alone_is_a_row(tmp_path: Path) -> None:
    directories = [measured(tmp_path / "mine" / f"seed_{i}", right(0.7 + i / 100)) for i in range(2)]
    assert "mine (70.5 %); there is nothing to compare it with" in write_report(directories, tmp_path)


def test_seeds_move_scores(tmp_path: Path) -> None:
    # Two runs of one recipe are as far apart as the recipes: the items alone would call them different.
    directories = [measured(tmp_path / f"a_seed{i}", right(share)) for i, share in enumerate((0.6, 0.8))]
    directories += [measured(tmp_path / f"b_seed{i}", right(share)) for i, share in enumerate((0.7, 0.9))]
    assert "you cannot tell b (80.0 %) and a (70.0 %) apart" in write_report(directories, tmp_path)


def test_weights_make_a_mean_of_parts(tmp_path: Path) -> None:
    # Bits per byte: of short documents the first has fewer, of the long ones, which are most of the text, more.
    short, long = noisy(1.0)[:30], noisy(2.0)[:30]
    directories = [measured(tmp_path / "a", None, short + long), measured(tmp_path / "b", None, noisy(1.6))]
    for directory in directories:
        file = directory / "items" / "text.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": [10] * 30 + [1000] * 30}))
    summary = write_report(directories, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))[0]
    assert found["difference"] == pytest.approx((10 * -0.6 + 1000 * 0.4) / 1010)
    assert "b (1.6000) is better than a" in summary


def test_what_is_not_the_same_is_not_compared(tmp_path: Path) -> None:
    good = measured(tmp_path / "good", right(0.7), noisy(1.0))
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="blimp: good and other were measured on different data or with different se"):
        write_report([good, measured(tmp_path / "other", right(0.7), data="another")], out)
    with pytest.raises(ValueError, match="two models or more"):
        write_report([good], out)
    with pytest.raises(ValueError, match="each directory once"):
        write_report([good, good], out)
    with pytest.raises(ValueError, match="empty holds no results of an evaluation"):
        write_report([good, tmp_path / "empty"], out)
    with pytest.raises(ValueError, match="nothing to compare"):
        write_report([measured(tmp_path / "pairs", right(0.7)), measured(tmp_path / "texts", None, noisy(1.0))], out)
    with pytest.raises(ValueError, match=r"blimp: not compared, .* \(there are 300 to 400\)"):
        write_report([good, measured(tmp_path / "fewer", right(0.7, 300))], out)
    with pytest.raises(ValueError, match="s_seed1 and s_seed2 differ in size"):
        write_report([measured(tmp_path / f"s_seed{i}", right(0.7), parameters=i) for i in (1, 2)], out)
    with pytest.raises(ValueError, match="are the same weights"):
        write_report([measured(tmp_path / f"w_seed{i}", right(0.7), weights="one") for i in (1, 2)], out)
    damaged = measured(tmp_path / "damaged", right(0.7))
    (damaged / "items" / "blimp.json").unlink()
    with pytest.raises(ValueError, match=r"blimp\.json is missing"):
        write_report([good, damaged], out)
    assert not out.exists()


def test_the_rest_is_compared_where_one_suite_cannot_be(tmp_path: Path) -> None:
    directories = [measured(tmp_path / name, right(0.7, count), [1.0]) for name, count in (("a", 400), ("b", 400))]
    summary = write_report(directories, tmp_path).splitlines()
    assert summary[0] == "- **blimp (accuracy)**: you cannot tell a (70.0 %) and b (70.0 %) apart."
    assert summary[1] == "- **text**: not compared, since one item, or document, cannot tell anything: give more."


def test_items_that_a_model_has_read_in_training_are_named(tmp_path: Path) -> None:
    directories = [measured(tmp_path / name, right(share)) for name, share in (("a", 0.9), ("b", 0.7))]
    file = tmp_path / "a" / "results.json"
    overlap = {"overlap": {"blimp": {"checked": True, "complete": True, "count": 400, "seen": 100}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | overlap))
    assert "; a has read 25.0% of these items in training." in write_report(directories, tmp_path)


def test_somebody_elses_page_is_kept(tmp_path: Path) -> None:
    directories = [measured(tmp_path / name, right(0.7)) for name in "ab"]
    (tmp_path / PAGE).write_text("my notes")
    with pytest.raises(ValueError, match="is not the page of a comparison"):
        write_report(directories, tmp_path)
    assert (tmp_path / PAGE).read_text() == "my notes"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    measured(Path("runs/a"), right(0.9))
    measured(Path("runs/b"), right(0.7))
    main(["compare", "runs/a", "runs/b"])
    assert "a (90.0 %) is better than b (70.0 %)" in capsys.readouterr().out
    assert Path("comparison", PAGE).is_file()
    with pytest.raises(SystemExit):
        main(["compare", "runs/a", "runs/c", "--output", "other"])
    assert "runs/c holds no results of an evaluation" in capsys.readouterr().err
    assert not Path("other").exists()
