"""staging.py: a directory is there whole or not at all, and nothing is replaced unasked."""

from pathlib import Path

import pytest

from scratchgpt.hub.staging import check_output, check_writable, staged_directory


def write(target: Path, content: str | None, overwrite: bool = False) -> None:
    with staged_directory(target, overwrite, marker="result") as folder:
        (folder / "half").write_text("")
        (folder / "result").write_text(content)  # pyright: ignore[reportArgumentType]: None is for the failure


def test_success_leaves_the_directory_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "deep/out", "1")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["out"]
    with pytest.raises(ValueError, match=r"not empty.*--overwrite"):
        write(tmp_path / "deep/out", "2")
    write(tmp_path / "deep/out", "3", overwrite=True)
    assert (tmp_path / "deep/out/result").read_text() == "3"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["out"]


def test_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "out", "1")
    for target in (tmp_path / "out", tmp_path / "new"):
        with pytest.raises(TypeError):
            write(target, None, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/result").read_text() == "1"


def test_only_earlier_results_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(ValueError, match="holds no result"):
        write(tmp_path, "1", overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        write(tmp_path / "precious", "1")
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_whether_files_can_be_written_is_found_without_leaving_any(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "deep" / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    for name in ("file", "file/run", "deep/" + "n" * 300):
        with pytest.raises(ValueError, match=r"cannot be written to \(.+\): give another directory"):
            check_writable(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be written"):
        check_output(tmp_path / "file" / "out", overwrite=False, marker="result")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
