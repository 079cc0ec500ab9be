"""data_builders/pdf_reports.py: from files to a data set, whatever is among the files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

pytest.importorskip("pymupdf")

from data_builders.pdf.document import Section
from data_builders.pdf.passages import count_words, drop_duplicates, make_passages, sentences
from data_builders.pdf_reports import (
    SOME_SKIPPED,
    PDFReportsArguments,
    check,
    find_sources,
    main,
    read_manifest,
    split_documents,
)
from tests.conftest import REPOSITORY
from tests.data_builders.pdfs import FILLER, simple

RUN = ["--num_workers", "2", "--validation_fraction", "0.34", "--test_fraction", "0"]


def arguments(**options: Any) -> PDFReportsArguments:
    return PDFReportsArguments(**{"source": [], "output_dir": "out", **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pdfs")
    for number in range(3):
        simple(folder / f"report{number}.pdf", f"Report Number {number}", number)
    return folder


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From a folder that also holds what cannot be read."""
    mixed = tmp_path_factory.mktemp("mixed") / "sources"
    shutil.copytree(folder, mixed / "deep")
    (mixed / "empty.pdf").write_bytes(b"")
    (mixed / "page.pdf").write_text("<html><body>404</body></html>")
    (mixed / "notes.txt").write_text("not looked at")
    shutil.copy(folder / "report0.pdf", mixed / "zz_copy.pdf")
    output = mixed.parent / "out"
    assert main(["--source", str(mixed), "--output_dir", str(output), *RUN]) == SOME_SKIPPED
    return output


def test_what_is_built(built: Path) -> None:
    documents, passages = (load_from_disk(built / name) for name in ("documents", "passages"))
    rows = [row for split in documents.values() for row in split]
    assert sorted(row["id"] for row in rows) == [f"deep/report{n}" for n in range(3)]
    assert all(row["title"] == f"Report Number {row['id'][-1]}" for row in rows)
    assert all(row["text"].startswith(f"# {row['title']}\n\n## Abstract\n\n") for row in rows)
    assert {split: len(data) for split, data in documents.items()} == {"train": 2, "validation": 1}
    for split, data in passages.items():
        assert set(data["source"]) == set(documents[split]["source"])
        assert set(data["section"]) >= {"Abstract"}
    assert sum(len(data) for data in passages.values()) >= 9


def test_the_manifest_says_what_became_of_each_file(built: Path) -> None:
    manifest = {row["source"]: row for row in json.loads((built / "manifest.json").read_text())}
    assert {name: row["reason"] for name, row in manifest.items() if row["status"] == "skipped"} == {
        "empty.pdf": "empty file",
        "page.pdf": "an HTML page, not a PDF",
        "zz_copy.pdf": "the same file as deep/report0.pdf",
    }
    assert manifest["deep/report1.pdf"]["pages"] == 1
    assert len(manifest["deep/report1.pdf"]["sha256"]) == 64
    assert (built / "statistics.png").stat().st_size > 5000
    assert (built / "statistics.md").read_text().count("\n") == 5
    build = json.loads((built / "build.json").read_text())
    assert build["documents"]["files"] == list(manifest.values())
    assert str(built) not in (built / "build.json").read_text() + (built / "documents/README.md").read_text()
    assert "belong to the authors" in (built / "documents/README.md").read_text()


def test_the_same_files_give_the_same_fingerprint(built: Path, folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "elsewhere"
    shutil.copytree(folder, renamed / "deep")
    main(["--source", str(renamed), "--output_dir", str(tmp_path / "out"), "--num_workers", "1", *RUN[2:]])
    for name in ("documents", "passages"):
        first, second = (json.loads((each / "build.json").read_text())[name] for each in (built, tmp_path / "out"))
        assert first["sha256"] == second["sha256"]


def test_as_a_script_with_one_line_for_a_mistake(tmp_path: Path) -> None:
    script = REPOSITORY / "data_builders/pdf_reports.py"
    command = [sys.executable, script, "--source", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == [
        f"pdf_reports.py: {tmp_path / 'none'} does not exist: give a folder, .pdf files or a manifest as --source"
    ]
    assert list(tmp_path.iterdir()) == []


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 1 files could be read \(a.pdf: empty file\)"):
        main(["--source", str(tmp_path), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_manifest_of_the_37_reports() -> None:
    sources = read_manifest(REPOSITORY / "data_builders/reports.yaml", Path("x"))
    assert len(sources) == 37
    assert len({source.name for source in sources}) == 37
    assert sources[0].file == Path("x/2005.14165.pdf")
    assert all(source.url.startswith("https://arxiv.org/pdf/") and source.title for source in sources)


def test_the_manifest_holds_the_list_of_the_seed(shared_data: Path) -> None:
    listed = (shared_data / "seed/pdfs_list.txt").read_text()
    sources = read_manifest(REPOSITORY / "data_builders/reports.yaml", Path("x"))
    assert [word for word in listed.split() if word.startswith("https://")] == [source.url for source in sources]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no manifest"),
        ("reports: []", "is no manifest"),
        ("reports: [{title: a}]", "entry 1 has no `url`"),
        ("reports: [{url: 'https://a.org/../../b.pdf'}]", "plain file name"),
        ("reports: [{url: 'https://a.org/b.pdf'}, {url: 'https://c.org/b.pdf'}]", "has the file name of"),
        ("reports: {", "cannot be read as a manifest"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "m.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "m.yaml", tmp_path)


def test_links_that_cannot_be_followed_are_skipped(tmp_path: Path, folder: Path) -> None:
    manifest = {"reports": [{"title": "Gone", "url": "http://127.0.0.1:9/gone.pdf"}]}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest))
    # What is there already is not asked for again; a dry run asks for nothing.
    shutil.copy(folder / "report0.pdf", tmp_path / "gone.pdf")
    options = ["--download_dir", str(tmp_path), "--validation_fraction", "0", "--test_fraction", "0"]
    assert main(["--source", str(tmp_path / "m.yaml"), "--output_dir", str(tmp_path / "out"), *options]) == 0
    rows = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (rows[0]["title"], rows[0]["url"]) == ("Report Number 0", "http://127.0.0.1:9/gone.pdf")


def test_which_files(folder: Path, tmp_path: Path) -> None:
    assert [source.name for source in find_sources(arguments(source=[str(folder)], max_files=2))] == [
        "report0.pdf",
        "report1.pdf",
    ]
    files = [str(folder / "report0.pdf"), str(folder)]
    with pytest.raises(ValueError, match=r"two files are named report0\.pdf"):
        find_sources(arguments(source=files))
    with pytest.raises(ValueError, match=r"holds no \.pdf"):
        find_sources(arguments(source=[str(tmp_path)]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("header_threshold", 0),
        ("near_duplicate_threshold", 1.1),
        ("max_number_share", float("nan")),
        ("max_seconds", float("nan")),
        ("max_pages", 0),
        ("num_workers", 0),
        ("seconds_between_requests", -1),
        ("validation_fraction", 1.0),
        ("max_files", 0),
    ],
)
def test_numbers_that_mean_nothing(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        main(["--source", "a.pdf", "--output_dir", "out", f"--{name}={value}"])


def test_without_pymupdf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.pdf_reports.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r'pymupdf is missing: pip install "scratchgpt\[pdf\]"'):
        check(arguments(source=["a.pdf"]))


def test_splits() -> None:
    digests = {f"{n}.pdf": str(n) for n in range(20)}
    splits = split_documents(digests, arguments(validation_fraction=0.1, test_fraction=0.2))
    assert {name: len(files) for name, files in splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert sorted(file for files in splits.values() for file in files) == sorted(digests)
    with pytest.raises(ValueError, match="2 documents are too few"):
        split_documents({"a": "1", "b": "2"}, arguments())


def test_sentences() -> None:
    assert sentences("We use GPT-3 (Brown et al. 2020) here. See Fig. 2. It is 3.5 B. Smith said “Yes.” He left.") == [
        "We use GPT-3 (Brown et al. 2020) here.",
        "See Fig. 2.",
        "It is 3.5 B. Smith said “Yes.”",
        "He left.",
    ]


def test_passages_hold_the_section_and_nothing_twice() -> None:
    paragraphs = [f"Paragraph {n} begins. {FILLER}".strip() for n in range(9)] + [FILLER * 12]
    passages = list(make_passages(Section("1 A", 1, paragraphs), 100))
    assert " ".join(" ".join(passages).split()) == " ".join(" ".join(paragraphs).split())
    assert all(25 <= count_words(passage) <= 150 for passage in passages)


def test_near_duplicate_paragraphs_go() -> None:
    words = [f"word{n}" for n in range(60)]
    same, near, other = " ".join(words), " ".join([*words[:58], "x", "y"]), " ".join(words[::-1])
    short = "The results are as follows."
    documents = [[Section("", 1, [same, short])], [Section("", 1, [near, other, same.upper(), short])]]
    assert drop_duplicates(documents, 0.8) == [0, len(near) + len(same)]
    assert documents[1][0].paragraphs == [other, short]
