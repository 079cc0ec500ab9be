"""data/text.py: one reader for every place a text data set may be."""

import gzip
import json
from pathlib import Path

import datasets
import pytest
import zstandard

from scratchgpt.data.text import BLOCK, read_texts

TEXTS = ["first\ntext", "zweiter Täxt", ""]


def test_every_form_gives_the_same_texts(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(TEXTS)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(lines))
    data = datasets.Dataset.from_dict({"text": TEXTS})
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(tmp_path / "splits")
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "saved", "splits"):
        assert list(read_texts(tmp_path / name)) == TEXTS
    assert list(read_texts(tmp_path / "splits", split="test")) == TEXTS[1:2]


def test_text_files_come_in_blocks_of_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scratchgpt.data.text.BLOCK", 10)
    content = "".join(f"line {i}\n" for i in range(20)) + "no end"
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    blocks = list(read_texts(tmp_path / "a.txt"))
    assert "".join(blocks) == content
    assert len(blocks) > 5
    assert all(block.endswith("\n") for block in blocks[:-1])


def test_folder_of_files_is_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c.txt").write_text("three")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n')
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "notes.md").write_text("no data")
    assert list(read_texts(tmp_path)) == ["one", "two", "three"]
    assert list(read_texts(tmp_path / "notes.md")) == ["no data"]


def test_a_folder_of_saved_data_sets_is_no_text(tmp_path: Path) -> None:
    """What stands there in .md files are their cards."""
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})}).save_to_disk(tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("A card")
    with pytest.raises(ValueError, match=r"is not a saved data set but has one in it: name .*mine$"):
        list(read_texts(tmp_path))


def test_a_file_that_is_named_may_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.CSV").write_text('\ufefftext,id\n"first\ntext",1\nzweiter Täxt,2\n', encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps([{"text": text} for text in TEXTS]), encoding="utf-8")
    assert list(read_texts(tmp_path / "a.CSV")) == TEXTS[:2]
    assert list(read_texts(tmp_path / "a.json")) == TEXTS
    with pytest.raises(ValueError, match="holds neither"):  # in a folder they may be anything
        list(read_texts(tmp_path))


def test_suffixes_in_capitals_marks_and_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "A.TXT").write_bytes("\ufeffone".encode())
    (tmp_path / "B.JSONL.GZ").write_bytes(gzip.compress(b'\xef\xbb\xbf{"text": "two"}\n'))
    (tmp_path / "c.txt").write_text("three", encoding="utf-16")
    (tmp_path / "._c.txt").write_bytes(b"\0\5\x16\7")  # what macOS puts beside files on foreign disks
    assert list(read_texts(tmp_path)) == ["one", "two", "three"]


def test_bad_sources_are_named(tmp_path: Path) -> None:
    def error(name: str, **options: str) -> str:
        with pytest.raises(ValueError, match=name.partition(".")[0]) as raised:
            list(read_texts(tmp_path / name, **options))
        return str(raised.value)

    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    assert "line 2: not JSON" in error("bad.jsonl")
    (tmp_path / "column.jsonl").write_text('{"content": "a"}\n')
    assert "no text in column 'text'; it has ['content']" in error("column.jsonl")
    (tmp_path / "number.jsonl").write_text('{"text": 1}\n')
    assert "row 1: column 'text' holds int" in error("number.jsonl")
    (tmp_path / "latin.txt").write_bytes("ä".encode("latin-1"))
    assert "at byte 0" in error("latin.txt")
    (tmp_path / "late.txt").write_bytes("ä".encode() * BLOCK + b"a\xffb")
    assert f"at byte {2 * BLOCK + 1}" in error("late.txt")
    (tmp_path / "end.txt").write_bytes(b"abc" + "ä".encode()[:1])
    assert "at byte 3" in error("end.txt")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n')[:-4])
    assert "cannot be unpacked" in error("cut.jsonl.gz")
    (tmp_path / "broken.zst.parquet").write_bytes(b"PAR")
    assert "not a parquet file" in error("broken.zst.parquet")
    (tmp_path / "image.png").write_bytes(b"")
    assert "not .txt, .jsonl or .parquet" in error("image.png")
    (tmp_path / "empty").mkdir()
    assert "holds neither" in error("empty")
    data = datasets.Dataset.from_dict({"content": ["a"]})
    data.save_to_disk(tmp_path / "other")
    assert "it has ['content']" in error("other")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "splits")
    assert "no split 'test'; it has ['train']" in error("splits", split="test")
    datasets.Dataset.from_dict({"text": ["a", None]}).to_parquet(tmp_path / "null.parquet")
    assert "NoneType" in error("null.parquet")
    assert "neither a file or saved data set here" in error("nowhere")
