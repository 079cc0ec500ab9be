"""Sketches of training texts, and what they find: every planted row, and next to nothing else."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchgpt.data.files import read_rows
from scratchgpt.evaluation.contamination import check_overlap
from scratchgpt.hub import training_texts
from scratchgpt.hub.fingerprints import BaseReference
from scratchgpt.hub.training_texts import RUN, Sketch, SketchBuilder, TrainingTexts, hash_texts, normalise

WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=6), min_size=3, max_size=40)


def sketch_of(*texts: str) -> Sketch:
    builder = SketchBuilder()
    builder.add(texts)
    return builder.sketch()


def sentence(seed: int, words: int = 30) -> str:
    generator = np.random.default_rng(seed)
    return " ".join(f"w{number}" for number in generator.integers(0, 5000, words))


def written_otherwise(words: list[str]) -> str:
    """The same words in other lines, in capitals, between other punctuation."""
    return "\n".join("  «" + "…  ".join(words[i : i + 5]).upper() + "»!" for i in range(0, len(words), 5))


@given(WORDS, st.integers(0, 3))
@settings(max_examples=50)
def test_every_planted_text_is_found_however_it_is_written(words: list[str], others: int) -> None:
    sketch = sketch_of(*(sentence(seed) for seed in range(others)), " ".join(words), sentence(99))
    assert sketch.seen([" ".join(words), written_otherwise(words), ", ".join(words)]).tolist() == [1, 1, 1]


@given(st.lists(st.text(max_size=60), max_size=8))
def test_hashes_of_texts_do_not_depend_on_their_neighbours(texts: list[str]) -> None:
    together = hash_texts(texts)
    for number, text in enumerate(texts):
        alone = hash_texts([text])
        assert together.documents[number] == alone.documents[0]
        assert together.num_words[number] == alone.num_words[0] == len(normalise(text.replace("\0", " ")).split())
        assert together.runs[together.owners == number].tolist() == alone.runs.tolist()
        assert len(alone.runs) == max(0, alone.num_words[0] - RUN + 1)


def test_a_passage_inside_of_a_document_is_found() -> None:
    document = sentence(1, 2000)
    passage = " ".join(document.split()[700:730])
    other = sentence(2)
    assert sketch_of(document, sentence(3)).seen([passage, other, f"{passage} {other}"]) == pytest.approx(
        [1, 0, 23 / 53]
    )


def test_what_many_documents_share_proves_nothing() -> None:
    licence = sentence(5, 60)
    sketch = sketch_of(*(f"{licence} {sentence(seed)}" for seed in range(100, 150)))
    assert len(sketch.common) == 60 - RUN + 1
    assert sketch.seen([f"{licence} {sentence(7)}", f"{licence} {sentence(110)}"]).tolist() == [0, 1]


def test_short_texts_are_found_whole_or_not_at_all() -> None:
    sketch = sketch_of("Sorry, I'll call later", "ok", sentence(1))
    assert sketch.seen(["sorry i'll CALL later", "sorry i'll call", "ok", "", "?!"]).tolist() == [1, 0, 0, 0, 0]


def test_a_short_passage_is_found_where_all_runs_are_kept() -> None:
    document = sentence(1, 400)
    words = document.split()
    eight, seven = " ".join(words[100:108]), " ".join(words[100:107])
    sketch = sketch_of(document)
    assert sketch.seen([eight, seven, sentence(2, 8)]).tolist() == [1, 0, 0]
    assert sketch.can_find([eight, seven, sentence(2, 8)]).tolist() == [True, False, True]


def test_of_what_is_too_short_to_be_found_nothing_is_claimed(tmp_path: Path) -> None:
    """Seven words inside of a document are no run: they do not make a test set clean."""
    document = sentence(1, 400)
    TrainingTexts((), is_complete=True).after(sketch_of(document)).write(tmp_path)
    short = [" ".join(document.split()[start : start + 7]) for start in range(0, 280, 7)]
    long = [sentence(2), " ".join(document.split()[:30])]
    overlap = check_overlap([*short * 5, *long], tmp_path)
    assert overlap.as_dict() == {"checked": True, "complete": True, "count": 202, "seen": 1, "only_whole": 200}
    assert overlap.clean.tolist() == [*[False] * 200, True, False]
    words = (
        "1 of 202 texts (0.5%) stand in the training text; 200 others could have been found as whole documents only"
    )
    assert str(overlap) == words
    assert overlap.is_contaminated


def test_long_texts_keep_a_sample_that_is_the_same_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [sentence(seed, 400) for seed in range(100)]
    whole = sketch_of(*texts)
    monkeypatch.setattr(training_texts, "KEPT", 4000)
    one, other = sketch_of(*texts), sketch_of(*reversed(texts))
    assert one.every == other.every == 16
    assert one.runs.tolist() == other.runs.tolist()
    assert set(one.runs.tolist()) < set(whole.runs.tolist())
    assert one.seen(texts).tolist() == [1] * 100
    passages = [" ".join(text.split()[50:250]) for text in texts]
    assert (one.seen(passages) >= 0.5).mean() > 0.9
    assert one.seen([sentence(seed, 400) for seed in range(200, 300)]).max() == 0


def test_a_model_carries_the_texts_of_those_before_it(tmp_path: Path) -> None:
    texts = TrainingTexts((), is_complete=True).after(sketch_of(sentence(1))).after(sketch_of(sentence(2)))
    texts.write(tmp_path)
    again = TrainingTexts.read(tmp_path)
    assert again is not None
    assert again.is_complete
    assert again.seen([sentence(1), sentence(2), sentence(3)]).tolist() == [1, 1, 0]
    overlap = check_overlap([sentence(2), sentence(3)], tmp_path)
    assert str(overlap) == "1 of 2 texts (50.0%) stand in the training text"
    assert overlap.as_dict() == {"checked": True, "complete": True, "count": 2, "seen": 1, "only_whole": 0}
    with pytest.raises(
        ValueError, match=r"^held_out is contaminated: 1 of 2 texts .* for example, \"w.* --allow_overlap"
    ):
        overlap.refuse("held_out")
    check_overlap([sentence(3)], tmp_path).refuse("held_out")


def test_a_model_without_a_record_is_not_called_clean(tmp_path: Path) -> None:
    overlap = check_overlap(["some text or other"], tmp_path)
    assert not overlap.is_checked
    assert str(overlap).startswith("not checked")
    assert overlap.as_dict() == {"checked": False}
    TrainingTexts((), is_complete=False).after(sketch_of(sentence(1))).write(tmp_path)
    assert "that of the model it began with is not known" in str(check_overlap([sentence(2)], tmp_path))


def test_of_an_adapter_without_a_record_its_base_is_asked(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    TrainingTexts((), is_complete=True).after(sketch_of(sentence(1))).write(base)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "base.json").write_text(json.dumps(asdict(BaseReference("../base", "", ""))))
    overlap = check_overlap([sentence(1), sentence(2)], adapter)
    assert overlap.seen.tolist() == [True, False]
    assert not overlap.is_complete


def test_a_record_of_another_version_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TrainingTexts((), is_complete=True).after(sketch_of(sentence(1))).write(tmp_path)
    monkeypatch.setattr(training_texts, "VERSION", 2)
    assert TrainingTexts.read(tmp_path) is None


def test_reviews_that_were_not_read_raise_no_alarm(shared_data: Path, tmp_path: Path) -> None:
    """And those that were are found, in other lines too: at most one in a hundred is wrong."""
    rows = (row["text"] for row in read_rows(shared_data / "text" / "imdb_unsup_25k.jsonl.zst"))
    reviews = list(dict.fromkeys(text for text, _ in zip(rows, range(6000), strict=False)))
    TrainingTexts((), is_complete=True).after(sketch_of(*reviews[:5000])).write(tmp_path)
    assert check_overlap(reviews[5000:], tmp_path).share <= 0.01
    assert check_overlap([written_otherwise(text.split()) for text in reviews[:500]], tmp_path).share == 1


@pytest.mark.parametrize("model", ["nobody/knows-this", "/no/such/directory", "no such name"])
def test_a_model_that_is_not_here_has_no_record(model: str) -> None:
    assert TrainingTexts.read(model) is None
