"""Passages of documents: cut within their length, found by what a question shares with them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgpt.data.passages import Passage, Passages, cut, with_passage, words_of

LOADS = "json.loads(s, *, cls=None)\nDeserialize a string that holds a JSON document. Raises JSONDecodeError."
DUMPS = "json.dumps(obj, *, indent=None)\nSerialize an object to a string. What json.loads reads again."
JOIN = "os.path.join(a, *p)\nJoin two or more pathname components, inserting '/' as needed."
PASSAGES = Passages([Passage(text, f"row {number}") for number, text in enumerate((LOADS, DUMPS, JOIN), 1)])


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What does json.loads do?", LOADS),  # named in the first line, though another mentions it
        ("what is the default of INDENT in json.dumps", DUMPS),
        ("How do I join the components of a path?", JOIN),
        ("which function raises JSONDecodeError?", LOADS),
    ],
)
def test_a_question_finds_its_passage(question: str, text: str) -> None:
    found = PASSAGES.find(question)
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize("question", ["Who won the world cup?", "hello", "?", "what is the", "héllo 🙂"])
def test_where_none_fits_none_is_found(question: str) -> None:
    assert PASSAGES.find(question) is None


def test_one_common_word_among_many_strange_ones_does_not_fit() -> None:
    assert PASSAGES.find("string quartets by Haydn, Mozart, Beethoven and Schubert") is None


def test_names_with_dots_are_words_and_so_are_their_parts() -> None:
    assert words_of("What does json.loads() do, and the os.path?") == [
        "does", "json.loads", "json", "loads", "os.path", "os", "path"
    ]  # fmt: skip


def test_the_passage_comes_first() -> None:
    assert with_passage("A passage.", "A question?") == "A passage.\n\nA question?"


@given(st.text(st.sampled_from("ab. \n"), max_size=400), st.integers(5, 60))
def test_passages_are_bounded_and_lose_nothing(text: str, characters: int) -> None:
    pieces = list(cut(text, characters))
    assert all(0 < len(piece) <= characters for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_paragraphs_stay_whole_where_they_fit() -> None:
    assert list(cut("One two.\n\nThree four.\n\nFive six seven.", 22)) == ["One two.\nThree four.", "Five six seven."]


def test_a_folder_is_read_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{LOADS}\n\n{JOIN}\n", encoding="utf-8")
    found = Passages.read(tmp_path, characters=110).find("json.loads?")
    assert found == Passage(LOADS, str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"there is no passage to find: the documents are empty"):
        Passages.read(tmp_path)
