"""Nothing that a builder or train_tokenizer writes tells in which folders it ran."""

import importlib
import json
import os
from pathlib import Path

import pytest

from recipes import train_tokenizer

WORDS = [
    "apple",
    "bridge",
    "cloud",
    "desk",
    "eagle",
    "forest",
    "garden",
    "house",
    "island",
    "jungle",
    "kettle",
    "lamp",
]
LABELLED = [(label, f"{word} {label} film") for word in WORDS for label in ("0", "1")]
FILES = {
    "texts/a.txt": "one " * 30,
    "texts/b.txt": "two three " * 30,
    "texts/c.pdf": "%PDF",
    "chats.jsonl": "".join(json.dumps({"instruction": f"{w}?", "input": "", "output": w}) + "\n" for w in WORDS),
    "passages.jsonl": "".join(json.dumps({"instruction": f"{w}?", "context": w, "response": w}) + "\n" for w in WORDS),
    "sms": "".join(f"{('ham', 'spam')[int(label)]}\t{text}\n" for label, text in LABELLED),
    "films.tsv": "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in LABELLED),
    "more.txt": "unlabelled film\n",
}


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("data_builders.text_files", {"source": "texts"}),
        ("data_builders.text_files", {"source": "texts/"}),
        ("data_builders.alpaca", {"source": "chats.jsonl"}),
        ("data_builders.dolly", {"source": "passages.jsonl"}),
        ("data_builders.sms_spam", {"source": "sms"}),
        ("data_builders.sentiment", {"source": "films.tsv", "test": "films.tsv", "unlabelled": "more.txt"}),
        ("data_builders.shakespeare", {"source": "texts/b.txt"}),
        ("recipes.train_tokenizer", {"data": "texts", "eval_data": "texts/b.txt"}),
    ],
)
def test_no_file_names_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, arguments: dict[str, str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, content in FILES.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(content, encoding="utf-8")
    command = ["--output_dir", str(tmp_path / "home" / "out")]
    for name, value in arguments.items():
        command += [f"--{name}", f"{tmp_path}/home/{value}"]
    command += {"train_tokenizer": ["--vocab_size", "300"], "sentiment": ["--name", "imdb"]}.get(
        program.partition(".")[2], []
    )
    if program.endswith("sentiment"):  # a text of the test split is not trained on
        (tmp_path / "home/films.tsv").rename(tmp_path / "home/test.tsv")
        (tmp_path / "home/films.tsv").write_text(FILES["films.tsv"].replace("film", "picture"), encoding="utf-8")
        command[command.index("--test") + 1] = str(tmp_path / "home/test.tsv")
    importlib.import_module(program).main(command)
    written = [file for file in (tmp_path / "home/out").rglob("*") if file.is_file()]
    assert len(written) > 3
    for file in written:
        assert str(tmp_path).encode() not in file.read_bytes(), file


@pytest.mark.parametrize(("home", "written"), [("", "~/a.txt"), ("elsewhere", "a.txt")])
def test_the_arguments_that_are_kept_work_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, written: str
) -> None:
    """A path in one's home directory is written without its name, one in the working directory relative to that."""
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.chdir(tmp_path if home else os.sep)
    (tmp_path / "a.txt").write_text("one two " * 30)
    command = ["--data", str(tmp_path / "a.txt"), "--output_dir", str(tmp_path / "t"), "--vocab_size", "270"]
    train_tokenizer.main(command)
    assert f"data: {written}\n" in (tmp_path / "t/arguments.yaml").read_text()
    train_tokenizer.main([str(tmp_path / "t/arguments.yaml"), "--output_dir", str(tmp_path / "again")])
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (tmp_path / "t/tokenizer.json").read_bytes()
