"""data/files.py: files as other programs write them, damage with its place, and nothing heavy imported for a file."""

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.data.files import load_split, open_text, read_rows, read_source, source_name

ROWS = [{"text": "Zoë said: é, 日本", "label": "spam"}, {"text": 'a "quote", two\nlines', "label": "ham"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def as_csv(rows: list[dict[str, str]], **options) -> str:
    target = io.StringIO()
    writer = csv.DictWriter(target, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("A.CSV", as_csv(ROWS)),
        ("quoted.csv", as_csv(ROWS, quoting=csv.QUOTE_ALL)),  # Export-Csv -Encoding UTF8
        ("powershell.csv", "#TYPE System.Object\r\n" + as_csv(ROWS, quoting=csv.QUOTE_ALL)),
        ("quoted.tsv", as_csv(ROWS, quoting=csv.QUOTE_ALL, delimiter="\t")),
        ("spaces.csv", as_csv(ROWS).replace("text,label", " text , label ")),
        ("a.Json", json.dumps(ROWS)),
        ("a.jsonl", JSONL),
        ("a.JSONL.GZ", JSONL),
        ("a.jsonl.Zst", JSONL),
        ("joined.jsonl", JSONL.replace("\n", "\n\ufeff", 1)),  # two files with marks, one behind the other
    ],
)
def test_files_as_other_programs_write_them(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    data = content.encode(encoding)
    pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.lower().rpartition(".")[2], bytes)
    (tmp_path / name).write_bytes(pack(data))
    assert list(read_rows(tmp_path / name)) == ROWS


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1), min_size=1),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([".csv", ".jsonl", ".jsonl.gz", ".json.zst"]),
)
def test_whatever_is_written_is_read(tmp_path_factory, texts: list[str], encoding: str, suffix: str) -> None:
    rows = [{"text": text} for text in texts]
    content = as_csv(rows, quoting=csv.QUOTE_ALL) if suffix == ".csv" else json.dumps(rows)
    if suffix.startswith(".jsonl"):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file = tmp_path_factory.mktemp("any") / f"a{suffix}"
    pack = {"gz": gzip.compress, "st": zstandard.compress}.get(suffix[-2:], bytes)
    file.write_bytes(pack(content.encode(encoding)))
    assert list(read_rows(file)) == rows


@given(st.integers(1, 400), st.sampled_from([".gz", ".zst"]))
def test_a_cut_file_is_never_taken_for_a_whole_one(tmp_path_factory, lost: int, suffix: str) -> None:
    rows = "".join(json.dumps({"text": f"row {i} {i * i}"}) + "\n" for i in range(300)).encode()
    whole = gzip.compress(rows) if suffix == ".gz" else zstandard.compress(rows)
    file = tmp_path_factory.mktemp("cut") / f"a.jsonl{suffix}"
    file.write_bytes(whole[:-lost])
    with pytest.raises(ValueError, match=f"a.jsonl{suffix} cannot be unpacked: .* copy it again"):
        list(read_rows(file))


def test_frames_behind_each_other_are_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(JSONL.encode()) * 2)
    assert list(read_rows(tmp_path / "a.jsonl.zst")) == ROWS * 2


def test_long_fields_are_read(tmp_path: Path) -> None:
    rows = [{"text": "word " * 100_000, "label": "x"}]
    (tmp_path / "a.csv").write_text(as_csv(rows), encoding="utf-8")
    assert list(read_rows(tmp_path / "a.csv")) == rows


def test_line_ends_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffa\r\nb\n".encode())
    with open_text(tmp_path / "a.txt") as text:
        assert text.read() == "a\nb\n"
    with open_text(tmp_path / "a.txt", newline="") as text:
        assert text.read() == "a\r\nb\n"


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
        (
            "a.csv",
            "text\nfine\nein Café\n".encode("cp1252"),
            "line 3, at byte 17; as Windows-1252 it reads 'ein Café'",
        ),
        ("a.csv", "text,label\n".encode("utf-16-le"), r"convert it first .*UTF-16"),
        ("a.jsonl", "x".encode("utf-16") + b"x", "is not text in utf-16, as its byte order mark says"),
        ("a.jsonl.gz", b"", "cannot be unpacked: there is nothing in it"),
        ("a.jsonl.zst", b"text", "cannot be unpacked"),
        ("a.csv", b"text,label, text\n", "line 1: the header has two columns named 'text': rename one"),
        ("a.jsonl", b'{"text": "a", "text": "b"}', "line 1: .*two columns named 'text'"),
        ("a.jsonl", b'{"text": "\\ud83d\\ude00"}\n{"text": ["\\ud83d"]}', r"line 2: \\ud83d is half a character"),
        ("a.json", b'[{"text": "a"}, {"text": "\\uDE00"}]', r"row 2: \\ude00 is half a character"),
        ("a.csv", b'text,label\nx,y\n"z,y\na,b\n', "line 3: a quote that is opened here is never closed"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^[^\n]*{name}[^\n]*{message}[^\n]*$"):
        list(read_rows(tmp_path / name))


def test_of_a_parquet_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}).to_parquet(file)
    assert list(read_rows(file)) == [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert list(read_rows(file, ["text"])) == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(ValueError, match=r"no column 'body'; it has \['text', 'label'\]"):
        list(read_rows(file, ["body"]))


@pytest.mark.parametrize("lost", [1, 8, 200, 4000])
def test_a_damaged_parquet_is_named(tmp_path: Path, lost: int) -> None:
    file = tmp_path / "a.parquet"
    Dataset.from_dict({"text": [f"text {i * i}" for i in range(5000)]}).to_parquet(file)
    content = file.read_bytes()
    file.write_bytes(content[:-lost])
    with pytest.raises(ValueError, match=r"a.parquet is not a parquet file, or a damaged one: copy it again"):
        list(read_rows(file))
    file.write_bytes(content[:100] + b"\xff" * lost + content[100 + lost :])
    with pytest.raises(ValueError, match=r"a.parquet is damaged after row 0: copy it again"):
        list(read_rows(file))


def test_columns_of_one_name_in_a_parquet_are_refused(tmp_path: Path) -> None:
    table = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet has two columns named 'text'"):
        list(read_rows(tmp_path / "a.parquet"))


def test_what_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    for missing in (str(tmp_path / "nothing"), "./nothing", "data/some/where", "missing folder", "train.CSV"):
        with pytest.raises(ValueError, match="is neither a file or saved data set here nor a name on the Hub"):
            load_split(missing, "train")
    DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "built" / "classification")
    with pytest.raises(ValueError, match=r"built is not a saved data set: name one of those in it, \['classification"):
        list(read_source(tmp_path / "built"))


def test_the_name_of_a_source_does_not_tell_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_name(tmp_path) == source_name(".") == tmp_path.name
    assert source_name(tmp_path / "gone.csv") == "gone.csv"
    assert source_name("owner/name") == "owner/name"


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
