"""data/held_out.py: what validates is not trained on, and the choice is the same every time."""

import hashlib
import json
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.data.held_out import HeldOut, choose_held_out, has_split, split_texts, write_splits


def write(source: Path, folder: Path) -> tuple[list[str], list[str], list[str]]:
    """The texts of both splits, and what was said."""
    said: list[str] = []
    write_splits(str(source), "train", "text", folder, lambda text: said.append(str(text)))
    data = datasets.load_from_disk(folder)
    assert isinstance(data, datasets.DatasetDict)
    return list(data["train"]["text"]), list(data["validation"]["text"]), said


def test_the_end_of_one_text_validates(tmp_path: Path) -> None:
    text = "".join(f"line {i} of the text\n" for i in range(500))
    (tmp_path / "my.txt").write_text(text)
    train, validation, said = write(tmp_path / "my.txt", tmp_path / "data")
    assert "".join(train + validation) == text
    assert validation[0].startswith("line ")
    assert len(validation[0]) == pytest.approx(len(text) / 10, rel=0.1)
    assert "the end of the text (10%" in said[0]


def test_a_cut_in_a_later_block_of_a_large_file(tmp_path: Path) -> None:
    text = "".join(f"line {i} of a text of several blocks\n" for i in range(80_000))
    (tmp_path / "my.txt").write_text(text)
    train, validation, _ = write(tmp_path / "my.txt", tmp_path / "data")
    assert len(train) > 2
    assert "".join(train + validation) == text


def test_of_several_documents_whole_ones_validate_wherever_they_stand(tmp_path: Path) -> None:
    rows = [f"document {i} " * 9 for i in range(200)] + ["twice " * 9] * 2
    for name, order in (("one", rows), ("other", rows[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in order))
    train, validation, said = write(tmp_path / "one.jsonl", tmp_path / "data1")
    assert sorted(train + validation) == sorted(rows)
    assert not set(train) & set(validation)
    assert 10 < len(validation) < 41
    assert "of 202 documents" in said[0]
    assert set(write(tmp_path / "other.jsonl", tmp_path / "data2")[1]) == set(validation)


def test_a_folder_of_markdown(tmp_path: Path) -> None:
    """Before: the folder was said to hold no texts."""
    (tmp_path / "notes").mkdir()
    for i in range(30):
        (tmp_path / "notes" / f"{i}.md").write_text(f"# Note {i}\n" + "words " * 40)
    train, validation, said = write(tmp_path / "notes", tmp_path / "data")
    assert len(train) + len(validation) == 30
    assert len(validation) >= 2
    assert "of 30 documents" in said[0]


def test_it_is_made_again_only_from_another_text_or_when_damaged(tmp_path: Path) -> None:
    source, folder = tmp_path / "my.txt", tmp_path / "data"
    source.write_text("some words\n" * 100)
    write(source, folder)
    times = [(folder / "made_from.json").stat().st_mtime_ns]

    def again() -> None:
        write(source, folder)
        times.append((folder / "made_from.json").stat().st_mtime_ns)

    again()
    assert times[1] == times[0]
    source.write_text("other words\n" * 100)
    again()
    assert times[2] != times[1]
    next((folder / "train").glob("*.arrow")).write_bytes(b"damaged")
    again()
    assert times[3] != times[2]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("some words\n" * 100)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write(tmp_path / "my.txt", tmp_path / "data")


def test_too_little_text(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("a")
    with pytest.raises(ValueError, match="too little text"):
        write(tmp_path / "my.txt", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_which_sources_have_a_validation_split(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "both")
    data.save_to_disk(tmp_path / "single")
    (tmp_path / "my.txt").write_text("a")
    found = {name: has_split(str(tmp_path / name), "validation") for name in ("both", "single", "my.txt", "")}
    assert found == {"both": True, "single": False, "my.txt": False, "": False}
    assert not has_split(str(tmp_path / "both"), "test")
    assert has_split("owner/name", "validation")


@given(st.lists(st.text("ab \n", max_size=40), min_size=1, max_size=30))
def test_every_character_is_on_one_side(texts: list[str]) -> None:
    sizes = {str(i): len(text) for i, text in enumerate(texts)}
    digests = {str(i): hashlib.sha256(text.encode()).hexdigest() for i, text in enumerate(texts)}
    if max(sizes.values(), default=0) < 2 and len({text for text in texts if text}) < 2:
        with pytest.raises(ValueError, match="too little text"):
            choose_held_out(sizes, digests)
        return
    found = choose_held_out(sizes, digests)
    held = sum(sizes[name] for name in found.documents)
    held += sum(sizes[name] - found.cut_at for name in found.cut_documents)
    assert 0 < held < sum(sizes.values())
    for touched in (found.documents, found.cut_documents):  # equal documents are on the same side, or cut alike
        inside = {digests[name] for name in touched}
        assert inside & {digests[name] for name in digests if name not in touched} == set()


def test_a_cut_without_lines_or_spaces(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("x" * 100)
    held_out = HeldOut(frozenset(), str(tmp_path / "my.txt"), 90)
    parts = [list(split_texts(str(tmp_path / "my.txt"), "train", "text", held_out, side)) for side in (False, True)]
    assert parts == [[{"text": "x" * 90}], [{"text": "x" * 10}]]
