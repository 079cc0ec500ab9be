"""staging.py: a directory is there whole or not at all, and nothing is replaced unasked."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from scratchgpt.hub.staging import (
    check_output,
    check_writable,
    clear_leftovers,
    replaced_file,
    staged_directory,
)


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


def test_writers_of_the_same_directory_take_turns(tmp_path: Path) -> None:
    """Threads here; processes in test_corpus.py."""
    inside, most, failures = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        try:
            for number in range(20):
                with staged_directory(tmp_path / "out", True, marker="result") as folder:
                    inside += 1
                    most = max(most, inside)
                    assert not list(folder.iterdir())
                    (folder / "result").write_text(str(number))
                    inside -= 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert most == 1
    assert (tmp_path / "out/result").is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def killed_while_writing(target: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with staged_directory(target, True, marker="result") as folder:
            (folder / "half").write_text("")
            os.write(writer, b"1")
            time.sleep(60)
    os.read(reader, 1)
    clear_leftovers(target.parent)  # while somebody writes, nothing is left over
    assert (target.parent / f".{target.name}.new" / "half").exists()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "out")
    write(tmp_path / "out", "1")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    killed_while_writing(tmp_path / "other")
    clear_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "out", "1")
    (tmp_path / "out").rename(tmp_path / ".out.0123abcd.old")
    with pytest.raises(TypeError):
        write(tmp_path / "out", None, overwrite=True)
    assert (tmp_path / "out/result").read_text() == "1"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    for content in ("old", "new"):
        with replaced_file(file) as new:
            assert new.suffix == ".csv"
            new.write_text(content)
    assert file.read_text() == "new"
    with pytest.raises(TypeError), replaced_file(file) as new:
        new.write_text(None)  # pyright: ignore[reportArgumentType]: the failure
    assert file.read_text() == "new"
    (tmp_path / "plain").write_text("")
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "plain"]
