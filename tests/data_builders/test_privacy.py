"""Nothing that a builder or train_tokenizer writes tells in which folders it ran."""

import importlib
import json
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
def test_no_file_names_the_folders(tmp_path: Path, program: str, arguments: dict[str, str]) -> None:
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


def test_the_report_of_a_tokenizer_says_what_it_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two " * 30)
    train_tokenizer.main(
        ["--data", str(tmp_path / "a.txt"), "--output_dir", str(tmp_path / "t"), "--vocab_size", "270"]
    )
    assert json.loads((tmp_path / "t/report.json").read_text())["arguments"]["data"] == "a.txt"
