"""data_builders/shakespeare.py: the rows of the splits are the text, exactly."""

import hashlib
import json
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders import shakespeare
from data_builders.shakespeare import blocks, main

TEXT = "First Citizen:\r\nBefore we proceed any further, hear me speak – ünd more.\n" * 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "play.txt").write_bytes(TEXT.encode())
    return tmp_path / "play.txt"


def joined(folder: Path) -> dict[str, str]:
    return {name: "".join(split["text"]) for name, split in datasets.load_from_disk(folder).items()}


@pytest.mark.parametrize("block", [[], ["--block_characters", "100"]])
def test_rows_joined_are_the_text(source: Path, tmp_path: Path, block: list[str]) -> None:
    main(["--source", str(source), "--output_dir", str(tmp_path / "out"), *block])
    parts = joined(tmp_path / "out")
    assert parts["train"] == TEXT[: int(0.9 * len(TEXT))]
    assert parts["train"] + parts["validation"] == TEXT
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "license: unknown" in card
    assert "language" not in card.split("---")[1]
    record = json.loads((tmp_path / "out/build.json").read_text(encoding="utf-8"))
    assert record["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()


def test_same_input_same_bytes(source: Path, tmp_path: Path) -> None:
    def files(name: str) -> dict[str, bytes]:
        main(["--source", str(source), "--output_dir", str(tmp_path / name)])
        folder = tmp_path / name
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    assert files("a") == files("b")


def test_tiny_shakespeare_is_recognised(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "text/tinyshakespeare.txt"
    main(["--source", str(source), "--output_dir", str(tmp_path / "out")])
    parts = joined(tmp_path / "out")
    assert {name: len(text) for name, text in parts.items()} == {"train": 1_003_854, "validation": 111_540}
    assert "license: mit" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_hub_parts_are_put_together_and_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = {"train": {"text": [TEXT[:900]]}, "validation": {"text": [TEXT[900:950]]}, "test": {"text": [TEXT[950:]]}}

    def load(name: str, revision: str) -> dict:
        assert (name, revision) == ("karpathy/tiny_shakespeare", "refs/convert/parquet")
        return parts

    monkeypatch.setattr(shakespeare, "load_dataset", load)
    with pytest.raises(ValueError, match="not the text it was"):
        main(["--output_dir", str(tmp_path / "out")])
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(TEXT.encode()).hexdigest())
    main(["--output_dir", str(tmp_path / "out")])
    assert "".join(joined(tmp_path / "out").values()) == TEXT


def test_without_network_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read from the Hub; give a file with --source"):
        main(["--output_dir", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "cannot be read"),
        (b"", [], "is empty"),
        (b"abc\xff", [], "not text in UTF-8: convert it first .* at byte 3"),
        (b"a", [], "leaves a split empty"),
        (b"some text", ["--validation_fraction", "1.5"], r"validation_fraction=1\.5"),
        (b"some text", ["--block_characters", "0"], "block_characters=0"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, content: bytes | None, options: list[str], message: str) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        main(["--source", str(tmp_path / "a.txt"), "--output_dir", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


@given(st.text(min_size=1), st.one_of(st.none(), st.integers(1, 20)))
def test_blocks_lose_nothing(text: str, size: int | None) -> None:
    pieces = blocks(text, size)
    assert "".join(pieces) == text
    assert all(pieces)
    assert all(len(piece) == size for piece in pieces[:-1])
