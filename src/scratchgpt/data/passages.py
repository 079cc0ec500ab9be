"""Passages of documents, found by what a question has in common with them, and how a model is shown one.

    passages = Passages.read("docs")                 # a folder of texts, a file, or a data set
    found = passages.find("What does json.loads do?")
    text = with_passage(found.text, "What does json.loads do?")

A question finds the passage that shares most of the weight of its words: a word weighs the more the fewer passages
have it (inverse document frequency, Spärck Jones 1972), and words in a passage's first line, where its name stands,
count twice. A name with dots, such as json.loads, is a word, and so are its parts; words like "the" are none.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .text import read_documents

NOT_SAID = "That is not said here."
"""The answer to a question that the passage does not answer."""

CHARACTERS = 420
"""Of a passage, at most: with a question and its answer it fits into a context of 256 tokens."""

FITS = 0.25
"""Of the weight of a question's words, a passage that fits has so much."""

WORD = re.compile(r"\w+(?:\.\w+)*")


def with_passage(passage: str, question: str) -> str:
    """What the user says: the passage, then the question."""
    return f"{passage}\n\n{question}"


def words_of(text: str) -> list[str]:
    """In small letters, without the commonest of English; of `json.loads` the whole and the parts."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found = []
    for word in WORD.findall(text.lower()):
        parts = word.split(".")
        found += [word, *parts] if len(parts) > 1 else [word]
    return [word for word in found if word not in ENGLISH_STOP_WORDS]


def cut(text: str, characters: int = CHARACTERS) -> Iterator[str]:
    """The passages of a document: whole paragraphs, as many as fit; of a longer one whole sentences, or words."""
    kept = ""
    for piece in _pieces(text, characters):
        if kept and len(kept) + 1 + len(piece) > characters:
            yield kept
            kept = ""
        kept = f"{kept}\n{piece}" if kept else piece
    if kept:
        yield kept


def _pieces(text: str, characters: int) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        lines = "\n".join(line.strip() for line in paragraph.strip().split("\n"))
        if len(lines) <= characters:
            yield from [lines] if lines else []
            continue
        kept = ""
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(lines.split())):
            for part in re.findall(rf".{{1,{characters}}}(?:\s|$)|.{{{characters}}}", sentence):
                if kept and len(kept) + 1 + len(part.strip()) > characters:
                    yield kept
                    kept = ""
                kept = f"{kept} {part.strip()}".strip()
        if kept:
            yield kept


@dataclass(frozen=True)
class Passage:
    """A piece of a document."""

    text: str
    source: str
    """The file or row that it comes from."""


class Passages:
    """Passages to find one in.

    Raises:
        ValueError: where there are none.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = list(passages)
        if not any(words_of(each.text) for each in self.passages):
            raise ValueError("there is no passage to find: the documents are empty")

    @classmethod
    def read(cls, source: str | Path, split: str = "train", characters: int = CHARACTERS) -> "Passages":
        """Cuts every document of a source into passages.

        Args:
            source: as of `read_documents`: a folder of texts, a file or a data set.

        Raises:
            ValueError: as `read_documents`, and where it is empty.
        """
        documents = read_documents(source, split)
        try:
            return cls(Passage(piece, name) for name, text in documents for piece in cut(text, characters))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @cached_property
    def _index(self) -> tuple[dict[str, int], np.ndarray, Any, Any, np.ndarray]:
        """The words, their weights [V], which passages [P, V] and first lines have them (sparse), and the passages'
        lengths [P]."""
        from sklearn.feature_extraction.text import CountVectorizer

        analyzer: Any = words_of
        counter = CountVectorizer(analyzer=analyzer, binary=True)
        texts: Any = counter.fit_transform([each.text for each in self.passages])
        first_lines = counter.transform([each.text.split("\n", 1)[0] for each in self.passages])
        count = len(self.passages)
        weights = np.log((1 + count) / (1 + np.asarray(texts.sum(axis=0))[0])) + 1
        lengths = np.array([len(each.text) for each in self.passages])
        return counter.vocabulary_, weights**2, texts, first_lines, lengths

    def prompt(self, question: str) -> tuple[Passage, str]:
        """The passage nearest to a question, and what a model is asked then.

        Raises:
            ValueError: where none fits.
        """
        found = self.find(question)
        if found is None:
            raise ValueError("no passage of the documents fits the question: name what it is about, as they do")
        return found, with_passage(found.text, question)

    def find(self, question: str) -> Passage | None:
        """The passage nearest to a question, of several the shortest; None where not even that one fits."""
        known, weights, texts, first_lines, lengths = self._index
        words = set(words_of(question))
        wanted = np.zeros(len(weights))
        here = [known[word] for word in words if word in known]
        wanted[here] = weights[here]
        total = wanted.sum() + (len(words) - len(here)) * weights.max()  # a word of no passage weighs most
        shared = texts @ wanted
        best = int(np.lexsort((lengths, -(shared + first_lines @ wanted)))[0])
        return self.passages[best] if shared[best] > 0 and shared[best] >= FITS * total else None
