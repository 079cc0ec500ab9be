"""BLiMP: pairs by hand, ties, means over paradigms, the forms of the files, and agreement with lm-eval."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from scratchgpt import ScratchGPTConfig
from scratchgpt.evaluation.blimp import BlimpSuite, read_pairs
from scratchgpt.evaluation.log_likelihoods import Scored
from scratchgpt.evaluation.results import DoesNotFit
from scratchgpt.tokenizers import BPETokenizer, to_transformers

OURS = [
    {
        "sentence_good": "The cats sleep.",
        "sentence_bad": "The cats sleeps.",
        "phenomenon": "agreement",
        "paradigm": "s",
    },
    {"sentence_good": "A cat sleeps.", "sentence_bad": "A cat sleep.", "phenomenon": "agreement", "paradigm": "s"},
    {"sentence_good": "He saw himself.", "sentence_bad": "He saw herself.", "phenomenon": "anaphor", "paradigm": "he"},
    {"sentence_good": "She slept.", "sentence_bad": "She slept.", "phenomenon": "anaphor", "paradigm": "she"},
]


class Lengths:
    """Likes sentences with few tokens."""

    context = 64

    def score(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[Scored]:
        assert all(count == len(tokens) - 1 and tokens[0] == sequences[0][0][0] for tokens, count in sequences)
        return [Scored(-float(count), False) for _, count in sequences]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train([row["sentence_good"] for row in OURS] * 9, vocab_size=300))


def write(folder: Path, rows: list[dict[str, Any]], name: str = "blimp/pairs.jsonl") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    """The mean of the three paradigms, not of the four pairs; equal log-likelihoods are half right."""
    write(tmp_path, OURS)
    published = [{"paradigm": "s", "lstm": 0.5}, {"paradigm": "he", "lstm": 0.6}]
    write(tmp_path, published, "blimp/published_accuracy.jsonl")
    sizes = [[len(tokenizer.tokenize(row[f"sentence_{side}"])) for side in ("good", "bad")] for row in OURS]
    right = [1.0 if good < bad else 0.5 if good == bad else 0.0 for good, bad in sizes]
    assert right[-1] == 0.5
    found = BlimpSuite(tmp_path).run(Lengths(), tokenizer)
    assert found.items["accuracy"] == right
    accuracy = found.metrics["accuracy"]
    assert accuracy.value == pytest.approx(np.mean([(right[0] + right[1]) / 2, right[2], right[3]]))
    assert np.average(right, weights=found.items["weights"]) == pytest.approx(accuracy.value)
    assert accuracy.count == 4
    assert accuracy.details["chance"] == 0.5
    assert accuracy.details["centred"] == pytest.approx(2 * accuracy.value - 1)
    assert accuracy.details["ties"] == right.count(0.5)
    assert accuracy.details["published"] == {"lstm": pytest.approx(0.55)}
    assert found.metrics["accuracy/anaphor/she"].value == 0.5
    assert found.metrics["accuracy/anaphor/she"].details["verdict"] == "not above chance"
    assert found.metrics["accuracy/agreement"].value == pytest.approx((right[0] + right[1]) / 2)


def test_who_cannot_tell_has_half(tokenizer: Any, tmp_path: Path) -> None:
    class Same(Lengths):
        def score(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[Scored]:
            return [Scored(-3.0 * (1 + 1e-8 * i), False) for i in range(len(sequences))]  # rounding is no preference

    found = BlimpSuite(write(tmp_path, OURS)).run(Same(), tokenizer).metrics["accuracy"]
    assert found.value == 0.5
    assert found.details["verdict"] == "not above chance"
    assert found.details["smallest_difference"] > 0


@pytest.mark.parametrize("form", ["file", "folder", "saved", "hub columns"])
def test_forms(form: str, tmp_path: Path) -> None:
    expected = read_pairs(write(tmp_path / "expected", OURS))
    if form == "file":
        write(tmp_path, OURS, "blimp_dev.jsonl")
    elif form == "folder":  # as in the authors' repository, a file for each paradigm
        write(tmp_path, OURS[:2], "blimp/data/s.jsonl")
        write(tmp_path, OURS[2:], "blimp/data/then.jsonl")
    elif form == "saved":
        datasets.DatasetDict({"train": datasets.Dataset.from_list(OURS)}).save_to_disk(tmp_path / "blimp")
    else:
        names = {"phenomenon": "linguistics_term", "paradigm": "UID"}
        write(tmp_path, [{names.get(key, key): value for key, value in row.items()} for row in OURS])
    assert read_pairs(tmp_path) == expected


def test_a_sample_is_from_all_over(tmp_path: Path) -> None:
    rows = [{**OURS[0], "sentence_good": f"The {i} cats sleep."} for i in range(100)]
    pairs = BlimpSuite(write(tmp_path, rows), 4).pairs
    assert [pair.good for pair in pairs] == [f"The {i} cats sleep." for i in (0, 25, 50, 75)]
    assert list(BlimpSuite(tmp_path, 1).texts(None)) == ["The 0 cats sleep."]


def test_mistakes(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the column 'paradigm', and it has"):
        BlimpSuite(write(tmp_path, [{key: row[key] for key in row if key != "paradigm"} for row in OURS]))
    for nothing in (None, 5, " "):
        with pytest.raises(ValueError, match="row 2: 'sentence_bad' holds no text"):
            BlimpSuite(write(tmp_path, [OURS[0], {**OURS[0], "sentence_bad": nothing}]))
    with pytest.raises(ValueError, match="no folder"):
        BlimpSuite(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="blimp is neither here nor to be had from the Hub"):
        BlimpSuite()
    long = BlimpSuite(write(tmp_path, [{**OURS[0], "sentence_bad": "The cats " + "sleep " * 70}]))
    with pytest.raises(DoesNotFit, match="is longer than the model's context of 64 tokens"):
        long.check(ScratchGPTConfig(max_position_embeddings=64), tokenizer)


def test_the_real_pairs(shared_data: Path) -> None:
    suite = BlimpSuite(shared_data / "eval")
    assert len(suite.pairs) == 53_600
    assert len({pair.paradigm for pair in suite.pairs}) == len(suite.published) == 67
    assert len(BlimpSuite(shared_data / "eval", 40).pairs) == 67 * 40
