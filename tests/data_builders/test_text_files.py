"""data_builders/text_files.py: what is left out, what stays, where it goes."""

import gzip
import json
import random
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.text_files import (
    Document,
    TextFilesArguments,
    bands,
    deduplicate,
    jaccard,
    main,
    shingles,
    split_documents,
)

WORDS = [f"{first}{second}" for first in ("ba", "de", "fi", "go", "lu") for second in ("ron", "sel", "tam", "vik")]


def text(seed: int, length: int = 200) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def arguments(**options: object) -> TextFilesArguments:
    return TextFilesArguments(**{"source": "", "output_dir": "", **options})  # pyright: ignore[reportArgumentType]


def kept(texts: list[str], **options: object) -> tuple[list[int], dict[str, int]]:
    """Which of `texts` stay, by position, and how many do not for each reason."""
    documents, removed = deduplicate(
        [Document(each, str(index)) for index, each in enumerate(texts)], arguments(**options)
    )
    return [int(document.source) for document in documents], dict(removed)


def changed(original: str, words: int) -> str:
    """`original` with so many words replaced, spread evenly."""
    parts = original.split()
    for index in range(words):
        parts[index * len(parts) // words] = f"other{index}"
    return " ".join(parts)


def test_exact_duplicates_differ_in_white_space_alone() -> None:
    a, b = text(1), text(2)
    assert kept([a, b, a, f"\n{a.replace(' ', '  ')}\n", b.upper()], near_duplicate_threshold=1) == (
        [0, 1, 4],
        {"too short": 0, "exact duplicate": 2, "near-duplicate": 0},
    )


def test_near_duplicates_go_and_the_first_stays() -> None:
    a, b = text(1), text(2)
    near, far = changed(a, 2), changed(a, 20)
    assert jaccard(shingles(a, 5), shingles(near, 5)) > 0.8 > jaccard(shingles(a, 5), shingles(far, 5))
    assert kept([a, b, near, far, a.upper()]) == (
        [0, 1, 3],
        {"too short": 0, "exact duplicate": 0, "near-duplicate": 2},
    )
    assert kept([near, a])[0] == [0]
    assert kept([a, far], near_duplicate_threshold=0.3)[0] == [0]
    assert kept([a, near], near_duplicate_threshold=1)[0] == [0, 1]


def test_few_near_duplicates_are_missed() -> None:
    """Of 200 pairs at a similarity of 0.85 to 0.95, where the threshold is 0.8."""
    pairs = [(text(seed, 300), changed(text(seed, 300), 2 + seed % 3)) for seed in range(200)]
    assert all(0.85 <= jaccard(shingles(a, 5), shingles(b, 5)) <= 0.97 for a, b in pairs)
    positions, removed = kept([each for pair in pairs for each in pair])
    assert set(range(0, 400, 2)) <= set(positions), "an unrelated text was left out"
    assert removed["near-duplicate"] >= 198


def test_unrelated_real_texts_stay(shared_data: Path) -> None:
    import zstandard

    with zstandard.open(shared_data / "text/c4_demo.jsonl.zst", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][:100]
    positions, _ = kept(texts)
    assert len(positions) >= 98


@pytest.mark.parametrize("num_perm", [16, 128, 256])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 0.999])
def test_bands_find_pairs_at_the_threshold(threshold: float, num_perm: int) -> None:
    count, size = bands(threshold, num_perm)
    assert count >= 2
    assert count * size <= num_perm
    assert 1 - (1 - threshold**size) ** count >= 0.99


@given(st.lists(st.text(alphabet="ab \n", min_size=0, max_size=12), max_size=30), st.sampled_from([0.5, 0.8, 1.0]))
def test_what_stays_is_unlike_and_all_is_counted(texts: list[str], threshold: float) -> None:
    positions, removed = kept(texts, min_characters=2, near_duplicate_threshold=threshold, shingle_size=2)
    assert len(positions) + sum(removed.values()) == len(texts)
    normalized = [" ".join(texts[position].split()) for position in positions]
    assert len(set(normalized)) == len(normalized)
    assert all(len(each) >= 2 for each in normalized)
    assert positions == sorted(positions)
    assert kept(texts, min_characters=2, near_duplicate_threshold=threshold, shingle_size=2) == (positions, removed)
    # What has gone for being like another is indeed like one that stays and stands before it.
    for position in set(range(len(texts))) - set(positions):
        own = " ".join(texts[position].split())
        assert len(own) < 2 or any(
            stays < position and jaccard(shingles(own, 2), shingles(texts[stays], 2)) >= threshold
            for stays in positions
        )


def test_documents_added_later_move_none() -> None:
    documents = [Document(text(seed), str(seed)) for seed in range(300)]
    options = arguments(validation_fraction=0.1, test_fraction=0.2, seed=3)
    before, after = split_documents(documents[:200], options), split_documents(documents[::-1], options)
    assert {name: len(part) / 300 for name, part in after.items()} == pytest.approx(
        {"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.06
    )
    for name, part in before.items():
        assert {document.source for document in part} <= {document.source for document in after[name]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Title\n\n" + text(1), encoding="utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress(text(2).encode()))
    rows = [{"text": text(seed)} for seed in range(3, 40)] + [{"text": text(3)}, {"text": "short"}]
    (folder / "sub/c.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    datasets.Dataset.from_dict({"text": [text(50), changed(text(2), 1)]}).to_parquet(folder / "sub/d.parquet")
    (folder / "image.png").write_bytes(b"\xff")
    return folder


def test_folder_of_everything(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["--source", str(folder), "--output_dir", str(tmp_path / "out"), "--test_fraction", "0.1"])
    data = datasets.load_from_disk(tmp_path / "out")
    assert list(data) == ["train", "validation", "test"]
    rows = {row["source"]: row["text"] for split in data.values() for row in split}
    assert len(rows) == 40
    assert rows["a.md"] == "# Title\n\n" + text(1)
    assert rows["b.txt.gz"] == text(2)
    assert rows["sub/c.jsonl#0"] == text(3)
    assert rows["sub/d.parquet#0"] == text(50)
    removed = {"too short": 1, "exact duplicate": 1, "near-duplicate": 1}
    assert json.loads((tmp_path / "out/build.json").read_text(encoding="utf-8"))["removed"] == removed
    for report in (capsys.readouterr().out, (tmp_path / "out/README.md").read_text(encoding="utf-8")):
        assert (
            "| kept | 40 |\n| too short | 1 |\n| exact duplicate | 1 |\n| near-duplicate | 1 |\n| all | 43 |" in report
        )
    assert str(tmp_path) not in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_same_input_same_bytes_and_dry_run_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def files(name: str) -> dict[str, bytes]:
        main(["--source", str(folder), "--output_dir", str(tmp_path / name), "--overwrite", "True"])
        out = tmp_path / name
        return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}

    once = files("out")
    assert once == files("out") == files("other")
    capsys.readouterr()
    main(["--source", str(folder), "--output_dir", str(tmp_path / "dry"), "--dry_run", "True"])
    assert not (tmp_path / "dry").exists()
    printed = capsys.readouterr()
    assert json.loads(once["build.json"])["sha256"] in printed.err
    (tmp_path / "again.yaml").write_text(printed.out, encoding="utf-8")  # it once had tables in it
    main([str(tmp_path / "again.yaml")])
    assert json.loads((tmp_path / "dry/build.json").read_text())["sha256"] in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--near_duplicate_threshold", "0"], "near_duplicate_threshold=0"),
        (["--num_perm", "1"], "num_perm=1: it must be at least 16"),
        (["--shingle_size", "0"], "shingle_size=0"),
        (["--min_characters", "100000"], r"is left \(too short: 43"),
        (["--test_fraction", "0.95"], r"test_fraction=0\.95"),
        (["--column", "content"], "no text in column 'content'"),
    ],
)
def test_bad_arguments_are_named(folder: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main(["--source", str(folder), "--output_dir", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_files_of_other_kinds_are_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a.pdf", "sub/B.PDF", "notes.docx"):
        (folder / name).write_bytes(b"%PDF")
    (folder / "LAST.TXT").write_text(text(77), encoding="utf-8-sig")
    main(["--source", str(folder), "--output_dir", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out/build.json").read_text())["other_files"] == {".docx": 1, ".pdf": 2, ".png": 1}
    assert "2 .pdf files are not read" in capsys.readouterr().out
    data = datasets.load_from_disk(tmp_path / "out")
    assert {row["source"]: row["text"] for split in data.values() for row in split}["LAST.TXT"] == text(77)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "does not exist"),
        ("a.pdf", b"%PDF", r"holds no \.txt"),
        ("a.txt", b"good text, then \xe4", r"a\.txt is not text in UTF-8.* at byte 16"),
        ("a.md", b"\xff", r"a\.md is not text in UTF-8.* at byte 0"),
        ("a.jsonl", b'{"text": "a"}\n' * 100_000 + b"\xff", r"a\.jsonl is not text in UTF-8.* at byte 1400000"),
        ("a.jsonl", b'{"text": "a"\n', "line 1: not JSON"),
        ("a.txt", b"a single document " * 9, r"1 documents are too few for 2 splits \(validation would be empty"),
        ("a.parquet", b"PAR1 not really", "is not a parquet file"),
        # Without a time of its own the compressed text would have that of its making, and so would the test's name.
        ("a.txt.gz", gzip.compress(b"some text" * 9, mtime=0)[:-9], "cannot be unpacked"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        main(["--source", str(tmp_path / name), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
