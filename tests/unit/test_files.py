"""data/files.py: damaged files are named, columns are chosen, and nothing heavy is imported for a file."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from scratchgpt.data.files import read_rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR", "not a parquet file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-4], "cannot be unpacked"),
        ("a.csv.gz", b"a,b\n", "cannot be unpacked"),
        ("a.csv.gz", gzip.compress(b"a,b\n" * 99, mtime=0)[:12] + b"\xff" * 20, "cannot be unpacked"),
        ("a.json", b"[1,", "not JSON"),
        ("a.json", b"[1]", "a list of objects"),
        ("a.tsv", "ä".encode("latin-1"), "not text in UTF-8: convert it first .* at byte 0"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} .*{message}"):
        list(read_rows(tmp_path / name))


def test_of_a_parquet_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}).to_parquet(file)
    assert list(read_rows(file)) == [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert list(read_rows(file, ["text"])) == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(ValueError, match=r"no column 'body'; it has \['text', 'label'\]"):
        list(read_rows(file, ["body"]))


def test_a_file_is_read_without_the_library_for_data_sets(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": chat, "text": "a", "label": "b"}) + "\n")
    program = (
        "import sys\n"
        "from scratchgpt.data.chat_sources import read_chats\n"
        "from scratchgpt.data.labelled_texts import read_labelled\n"
        "from scratchgpt.data.text import read_texts\n"
        "read_chats(sys.argv[1]), read_labelled(sys.argv[1]), list(read_texts(sys.argv[1]))\n"
        "assert 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.jsonl")], check=True)
