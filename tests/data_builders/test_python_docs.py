"""data_builders/python_docs.py on the Python that runs the tests, built once."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, DatasetDict, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from data_builders import python_docs
from data_builders.docstrings import Entry, clean, read_library
from data_builders.passages import (
    STRANGE,
    WORDINGS,
    Mixer,
    Questions,
    parameters_of,
    passage_of,
    wordings,
)
from data_builders.python_docs import TURNS, PythonDocsArguments, beyond, details, main, split_modules, summary
from scratchgpt.data.passages import CHARACTERS, NOT_SAID

SPLITS = ["train", "validation", "test"]
NAMES = ("text", "chat", "classification", "passages", "reference")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python_docs") / "out"
    main(["--output_dir", str(folder)])
    return folder


@pytest.fixture(scope="session")
def data(folder: Path) -> dict[str, DatasetDict]:
    return {name: DatasetDict(load_from_disk(folder / name)) for name in NAMES}


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_more_than_two_megabytes_of_english(data: dict[str, DatasetDict]) -> None:
    texts = [text for split in data["text"].values() for text in split["text"]]
    assert sum(len(text.encode()) for text in texts) > 2_000_000
    words = Counter(re.findall(r"[a-z]+", " ".join(texts).lower()))
    assert next(iter(words.most_common(1)))[0] == "the"
    assert not re.search(r":(func|class|meth|mod):`|[Cc]opyright \(c\)", "".join(texts))


def test_splits_share_no_source_and_no_text(data: dict[str, DatasetDict]) -> None:
    side: dict[str, str] = {}
    for name, each in data.items():  # one side for all data sets but the one to look things up in
        assert list(each) == (SPLITS if name != "reference" else ["train"])
        for split in SPLITS if name != "reference" else []:
            assert {side.setdefault(source, split) for source in each[split]["source"] if source} == {split}
    for name in ("text", "classification"):
        texts = [text for split in data[name].values() for text in split["text"]]
        assert len(set(texts)) == len(texts)
    sides: dict[str, set[str]] = {}
    for split, rows in data["chat"].items():
        for messages in rows["messages"]:
            for message in messages[1::2]:
                sides.setdefault(message["content"], set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    sizes = {split: sum(map(len, data["text"][split]["text"])) for split in SPLITS}
    for split in ("validation", "test"):
        assert sizes[split] / sum(sizes.values()) == pytest.approx(0.1, abs=0.03)


def test_chats_are_questions_with_answers_from_the_docstrings(data: dict[str, DatasetDict]) -> None:
    documents = {row["source"]: one_line(row["text"]) for split in data["text"].values() for row in split}
    rows = [row for split in data["chat"].values() for row in split]
    assert len(rows) > 5000
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles in (["user", "assistant"], ["user", "assistant"] * 2)
        question, answer, *more = (message["content"].strip() for message in row["messages"])
        assert question[-1] in "?."
        if question.startswith(("Which module", "Where do I find")):
            name, module = re.search(r"(\w+) is in the module ([\w.]+)\.$", answer).groups()
            assert module == row["source"]
            assert name in question
        else:
            for each in (answer, *more[1::2]):
                assert one_line(each).rstrip(".") in documents[row["source"]]
                assert 20 <= len(each) <= 1000
    dedent = [
        row["messages"][1]["content"] for row in rows if re.search(r"\btextwrap\.dedent\b", str(row["messages"][0]))
    ]
    assert "Remove any common leading whitespace from every line in `text`." in dedent


def test_passages_hold_the_answers_and_training_has_no_wording_of_the_test(data: dict[str, DatasetDict]) -> None:
    kinds = Counter[str]()
    for split, rows in data["passages"].items():
        for row in rows.to_list():
            turns = [message["content"] for message in row["messages"]]
            assert turns[0].startswith(row["passage"] + "\n\n")
            assert len(row["passage"]) <= CHARACTERS
            for answer in turns[1::2]:
                assert answer in ("Yes.", "No.", NOT_SAID) or answer in row["passage"]
            if split == "train" and len(turns) == 2 * TURNS:
                assert NOT_SAID in turns[1::2]
            if split != "train":
                assert len(turns) == 2
                assert row["source"]
                kinds[row["kind"]] += split == "test"
    assert min(kinds[kind] for kind in WORDINGS) >= 5
    assert kinds.total() >= 500
    sources = {split: set(rows["source"]) - {""} for split, rows in data["passages"].items()}
    assert not sources["train"] & (sources["validation"] | sources["test"])
    invented = sum(source == "" for source in data["passages"]["train"]["source"])
    assert invented > len(data["passages"]["train"]) / 2
    for kind in WORDINGS:
        found = wordings(kind)
        texts = {which: {text for pattern in patterns for text in pattern} for which, patterns in found.items()}
        assert not texts["known"] & (texts["new"] | texts["strange"])
        assert len(found["strange"]) == STRANGE
        assert min(map(len, texts.values())) > 3
    assert set(data["reference"]["train"]["text"]) >= set(data["passages"]["test"]["passage"])


ENTRY = Entry(
    "os", "remove", "function", "(path, *, dir_fd=None)",
    "Remove a file from the directory.\n\nIt is the same as unlink.\n\nRaises IsADirectoryError for a directory.",
)  # fmt: skip
OTHER = Entry("json", "dumps", "function", "(obj, indent=None)", "Serialize an object to a string.")


def test_questions_of_a_passage_have_the_answers_that_stand_in_it() -> None:
    passage = passage_of(ENTRY)
    assert passage.startswith("os.remove(path, *, dir_fd=None)\nRemove a file from the directory.\n")
    asked = [
        (each.kind, each.answer, "indent" in each.text, "dumps" in each.text)
        for each in Questions(0, "new").about(ENTRY, passage, OTHER)
    ]
    assert sorted(asked) == sorted(
        [
            ("purpose", "Remove a file from the directory.", False, False),
            ("call", "os.remove(path, *, dir_fd=None)", False, False),
            ("parameter", "Yes.", False, False),
            ("parameter", "Yes.", False, False),
            ("default", "None", False, False),
            ("exception", "IsADirectoryError", False, False),
            ("module", "os", False, False),
            ("parameter", "No.", False, False),  # of obj
            ("not said", NOT_SAID, False, False),
            ("parameter", "No.", True, False),
            ("not said", NOT_SAID, True, False),
        ]
    )
    elsewhere = list(Questions(0, "new").elsewhere(passage, OTHER))
    assert {(each.kind, each.answer) for each in elsewhere} == {("not said", NOT_SAID)}
    assert all("dumps" in each.text for each in elsewhere)
    assert len(elsewhere) == len(WORDINGS), "what is asked of another function is refused, whatever its kind"
    assert sum("obj" in each.text for each in elsewhere) == 2  # the default and the parameter
    assert not list(Questions(0, "new").elsewhere(passage + "\nSee json.dumps.", OTHER))


def test_what_is_made_up_can_be_asked_about() -> None:
    entries = [entry for entry in read_library()["textwrap"] if entry.doc and entry.kind != "module"]
    mixer, known = Mixer(entries, 0), {entry.full_name for entry in entries}
    made = [mixer.entry(number) for number in range(40)]
    assert made == [Mixer(entries, 0).entry(number) for number in range(40)]
    assert len({entry.full_name for entry in made} - known) > 30
    for entry in made:
        assert entry.full_name.replace(".", "_").isidentifier()
        assert parameters_of(entry.signature) or entry.signature == "()"


def test_every_label_is_in_every_split(data: dict[str, DatasetDict]) -> None:
    each = data["classification"]
    label = each["train"].features["label"]
    assert isinstance(label, ClassLabel)
    assert label.names == list(python_docs.AREAS)
    totals = Counter(value for split in each.values() for value in split["label"])
    assert min(totals.values()) >= 100
    assert max(totals.values()) <= python_docs.PER_AREA
    for split in SPLITS:
        assert set(each[split]["label"]) == set(range(len(label.names)))
    for split in SPLITS:
        for row in each[split]:
            assert python_docs.area_of(row["source"]) == label.int2str(row["label"])
            words = set(re.findall(r"\w+", row["text"].lower()))
            assert words.isdisjoint(row["source"].lower().split(".")), "the text names its module"


def test_another_process_gives_the_same_rows(folder: Path) -> None:
    command = [sys.executable, "data_builders/python_docs.py", "--output_dir", "nowhere", "--dry_run", "True"]
    run = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        text=True,
        check=True,
    )
    records = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    assert re.findall(r"SHA-256 of the rows: (\w+)", run.stderr) == [record["sha256"] for record in records.values()]
    assert run.stdout.startswith("output_dir: nowhere\n")
    assert "nothing was written" in run.stderr
    assert not (Path(__file__).parents[2] / "nowhere").exists()


def test_cards_say_what_is_inside(folder: Path, data: dict[str, DatasetDict]) -> None:
    for name, each in data.items():
        card = (folder / name / "README.md").read_text(encoding="utf-8")
        record = json.loads((folder / name / "build.json").read_text(encoding="utf-8"))
        assert card.startswith("---\nlanguage: en\nlicense: psf-2.0\n")
        assert record["sha256"] in card
        assert f"| train | {each['train'].num_rows:,} |" in card
        assert {split: found["rows"] for split, found in record["splits"].items()} == each.num_rows
    assert "| graphical interfaces | " in (folder / "classification/README.md").read_text(encoding="utf-8")


def test_refuses_before_reading(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        main(["--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match=r"validation_fraction=0\.6, test_fraction=0\.5"):
        main(["--output_dir", str(tmp_path / "out"), "--validation_fraction", "0.6", "--test_fraction", "0.5"])
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@given(st.dictionaries(st.text(max_size=5), st.integers(1, 1000), min_size=40, max_size=60), st.integers(0, 9))
def test_split_modules_fills_each_area(sizes: dict[str, int], seed: int) -> None:
    areas = {name: "ab"[index % 2] for index, name in enumerate(sorted(sizes))}
    arguments = PythonDocsArguments(output_dir="", seed=seed)
    splits = split_modules(sizes, areas, arguments)
    assert splits == split_modules(dict(reversed(sizes.items())), areas, arguments)
    for area in "ab":
        total = sum(size for name, size in sizes.items() if areas[name] == area)
        for split in ("validation", "test"):
            part = sum(size for name, size in sizes.items() if areas[name] == area and splits[name] == split)
            assert part <= 0.12 * total


@pytest.mark.parametrize(
    ("doc", "brief", "more"),
    [
        ("Return it.", "", "Return it."),  # too short to be an answer
        ("Wrap a single paragraph.\n\nAnd say more.", "Wrap a single paragraph.", "And say more."),
        ("f(x) -> int\n\nReturn the number of things", "Return the number of things.", ""),
        ("Return the first of them,\nor else None.", "", ""),  # lines as short as these may be a list
        (
            "Return the first of all the things that match,\nor None.",
            "Return the first of all the things that match, or None.",
            "",
        ),
        (
            "Do all this as follows. For example:\n\n>>> f()",
            "Do all this as follows.",
            "Do all this as follows. For example:\n\n>>> f()",
        ),
        (">>> f()\n1", "", ""),
        ("TODO: write what this does here", "", "TODO: write what this does here"),
    ],
)
def test_summary_and_what_is_beyond_it(doc: str, brief: str, more: str) -> None:
    assert summary(doc) == brief
    assert beyond(brief, doc) == more


def test_details_are_bounded() -> None:
    paragraph = "A sentence of some length that is repeated. " * 10
    doc = "\n\n".join([paragraph.strip()] * 5)
    assert details(doc) == "\n\n".join([paragraph.strip()] * 2)
    assert details(doc.replace("\n\n", " ")) == ""


def test_clean_drops_markup_and_legal_notices() -> None:
    assert clean("See :class:`~a.B` and ``c`` there.\n\nCopyright (c) 2001 Someone.") == "See a.B and `c` there."
    assert clean("1 2 3 = 4 5 6 + 7 8 9 (x)") == ""
    assert clean("") == ""


def test_entries_have_signatures_and_public_names() -> None:
    library = {name: {entry.name: entry for entry in entries} for name, entries in read_library().items()}
    assert library["textwrap"]["dedent"].signature == "(text)"
    assert library["textwrap"]["TextWrapper.fill"].signature == "(text)"
    assert library["textwrap"]["TextWrapper.fill"].kind == "method"
    assert library["math"]["sin"].doc == "Return the sine of x (measured in radians)."
    assert library["math"]["sin"].signature == "(x, /)"
    assert library["builtins"]["dict.get"].full_name == "dict.get"
    assert library["builtins"]["dict.get"].signature == "(key, default=None, /)"
    assert library["decimal"]["Decimal.sqrt"].public
    assert library["os.path"][""].doc.startswith("Common operations on Posix pathnames.")
    assert library["io"][""].doc.startswith("The io module provides")
    assert not {"_pydecimal", "test", "idlelib"} & set(library)
