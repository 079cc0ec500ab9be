"""What a model was trained on, as a sketch: small enough to be kept with it, and enough to find test rows in it.

A sketch has a hash of every document and hashes of runs of eight words, both over words as `normalise` leaves them:
case, punctuation and line breaks do not count. Long texts keep a sample of the runs, the same for everybody: those
whose hash ends in enough zeros (Broder 1997). Runs that many documents share (licences, templates, headings) are kept
apart, as common; they prove nothing.

    builder = SketchBuilder()
    builder.add(["First document …", "second …"])
    builder.sketch().seen(["A text of a test set …"])

A model directory has the sketches of all its training texts, those of the models it began with included, in one file.

About 8 bytes a document and, beyond a million words, at least 4 bytes for every 64th word.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers.utils.hub import cached_file

from .names import HUB_NAME

FILE = "training_texts.safetensors"
PROBLEMS = ("missing_entries", "connection_errors", "gated_repo")
VERSION = 1

RUN = 8
"""Words of a run."""

KEPT = 1 << 20
"""Runs that any sketch may keep: 4 MB."""

ENOUGH_RUNS = 3
"""Of a text, for a share of them to mean anything; of all runs, the few of a short text are enough."""

WORDS_PER_RUN = 64
"""Beyond that one run is kept for so many words."""

COMMON = 10
"""A run in more documents than this, or than `COMMON_SHARE` of them, is common."""
COMMON_SHARE = 0.001

CHUNK = 1 << 21
"""Characters that are hashed at a time."""

_BYTE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_WORD = np.uint64(0xBF58476D1CE4E5B9)

_NO_WORD = re.compile(r"[^\w\0]+")


def normalise(text: str) -> str:
    """Words in small letters with a space between them; compatibility forms (NFKC) are one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _NO_WORD.sub(" ", text.casefold())


@dataclass(frozen=True)
class Hashed:
    """Hashes of some texts."""

    documents: np.ndarray
    """uint64 [texts]: of all words of each, in order; 0 for a text without words."""
    num_words: np.ndarray
    """int64 [texts]."""
    runs: np.ndarray
    """uint64: of each run of `RUN` words within a text."""
    owners: np.ndarray
    """int64, as long as `runs`: which text each is in."""


def hash_texts(texts: Sequence[str]) -> Hashed:
    """Without a Python loop over words: polynomial hashes as differences of prefix sums (Rabin and Karp 1987)."""
    # A word more at each end of all, so that the first and the last text need no care.
    joined = normalise("\0".join(text.replace("\0", " ") for text in texts))
    content = np.frombuffer(joined.encode("utf-8", "replace"), dtype=np.uint8)
    is_word = np.concatenate([[False], content > 32, [False]])
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    starts, ends = edges[::2], edges[1::2]
    powers = _powers(_BYTE, len(content) + 1)
    sums = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum((content.astype(np.uint64) + np.uint64(1)) * powers[:-1])]
    )
    words = _mix((sums[ends] - sums[starts]) * _powers(_INVERSE, len(content) + 1)[starts])
    owner = np.cumsum(content == 0)[starts] if len(starts) else np.zeros(0, np.int64)
    num_words = np.bincount(owner, minlength=len(texts)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(num_words)[:-1]]) if len(texts) else np.zeros(0, np.int64)
    in_text = _powers(_WORD, int(num_words.max(initial=0)) + 1)
    terms = words * in_text[np.arange(len(words)) - first[owner]]
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
    documents = _mix(totals[first + num_words] - totals[first])
    documents[num_words == 0] = 0
    runs = np.zeros(max(0, len(words) - RUN + 1), dtype=np.uint64)
    for i in range(RUN):
        runs = runs * _WORD + words[i : i + len(runs)]
    inside = owner[: len(runs)] == owner[RUN - 1 :] if len(runs) else np.zeros(0, bool)
    return Hashed(documents, num_words, _mix(runs[inside]), owner[: len(runs)][inside])


def _powers(base: np.uint64, count: int) -> np.ndarray:
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Every bit depends on every bit (the finaliser of SplitMix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


@dataclass(frozen=True)
class Sketch:
    """Of one text that a model was trained on."""

    documents: np.ndarray
    """uint64, sorted: of every document."""
    runs: np.ndarray
    """uint32, sorted: the upper halves of the runs that are kept."""
    common: np.ndarray
    """uint32, sorted: those of the runs that many documents have."""
    every: int
    """One run of so many is kept: those whose hash is a multiple of it, which is a power of two."""
    num_documents: int
    num_words: int

    def seen(self, texts: Sequence[str]) -> np.ndarray:
        """float [texts]: how much of each text is here, 0 to 1. 1 for a whole document.

        The share of its runs that are found, common ones left out of both counts; 0 for a text that `can_find` says
        is too short.
        """
        return self.look_up(texts)[0]

    def can_find(self, texts: Sequence[str]) -> np.ndarray:
        """bool [texts]: whether a text would be found inside of a longer document, and not only as a whole one.

        For that it needs `ENOUGH_RUNS` that are kept and not common; where all runs are kept, one of eight words.
        """
        return self.look_up(texts)[1]

    def look_up(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What `seen` and `can_find` return."""
        hashed = hash_texts(texts)
        kept = self.is_kept(hashed.runs)
        short, owners = (hashed.runs[kept] >> np.uint64(32)).astype(np.uint32), hashed.owners[kept]
        rare = ~_among(short, self.common)
        total = np.bincount(owners[rare], minlength=len(texts))
        found = np.bincount(owners[rare & _among(short, self.runs)], minlength=len(texts))
        have = np.bincount(hashed.owners, minlength=len(texts))
        enough = total >= (np.clip(have, 1, ENOUGH_RUNS) if self.every == 1 else ENOUGH_RUNS)
        shares = np.where(enough, found / np.maximum(total, 1), 0.0)
        whole = (hashed.num_words >= 3) & _among(hashed.documents, self.documents)
        return np.where(whole, 1.0, shares), enough

    def is_kept(self, runs: np.ndarray) -> np.ndarray:
        return (runs & np.uint64(self.every - 1)) == 0


def _among(values: np.ndarray, sorted_values: np.ndarray) -> np.ndarray:
    if not len(sorted_values):
        return np.zeros(len(values), dtype=bool)
    where = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    return sorted_values[where] == values


@dataclass
class SketchBuilder:
    """Makes a sketch of any number of texts, in memory for the sketch and one chunk of text."""

    documents: list[np.ndarray] = field(default_factory=list)
    runs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of each run: in how many documents it is, about: a document in two chunks counts twice."""
    every: int = 1
    num_documents: int = 0
    num_words: int = 0

    def add(self, texts: Iterable[str]) -> None:
        """Documents, in any order; those of more than `CHUNK` characters are hashed by parts."""
        chunk, size = [], 0
        for text in texts:
            for start in range(0, max(len(text), 1), CHUNK):
                chunk.append(text[start : start + CHUNK])
                size += len(chunk[-1]) + 1
                if size >= CHUNK:
                    self._add(chunk)
                    chunk, size = [], 0
        if chunk:
            self._add(chunk)

    def _add(self, texts: list[str]) -> None:
        hashed = hash_texts(texts)
        self.documents.append(hashed.documents[hashed.num_words > 0])
        self.num_documents += len(texts)
        self.num_words += int(hashed.num_words.sum())
        kept = (hashed.runs & np.uint64(self.every - 1)) == 0
        runs, owners = hashed.runs[kept], hashed.owners[kept]
        order = np.lexsort((owners, runs))
        runs, owners = runs[order], owners[order]
        new = np.ones(len(runs), dtype=bool)
        new[1:] = (runs[1:] != runs[:-1]) | (owners[1:] != owners[:-1])
        found, counts = np.unique(runs[new], return_counts=True)
        runs, places = np.unique(np.concatenate([self.runs, found]), return_inverse=True)
        self.counts = np.bincount(places, np.concatenate([self.counts, counts]), len(runs)).astype(np.int64)
        self.runs = runs
        while len(self.runs) > max(KEPT, self.num_words // WORDS_PER_RUN):
            self.every *= 2
            kept = (self.runs & np.uint64(self.every - 1)) == 0
            self.runs, self.counts = self.runs[kept], self.counts[kept]

    def sketch(self) -> Sketch:
        common = self.counts > max(COMMON, COMMON_SHARE * self.num_documents)
        short = (self.runs >> np.uint64(32)).astype(np.uint32)
        documents = np.unique(np.concatenate([*self.documents, np.zeros(0, np.uint64)]))
        return Sketch(
            documents, np.unique(short[~common]), np.unique(short[common]), self.every, self.num_documents,
            self.num_words,
        )  # fmt: skip


@dataclass(frozen=True)
class TrainingTexts:
    """The sketches that a model carries: of its own training text and of those of the models it began with."""

    sketches: tuple[Sketch, ...]
    is_complete: bool
    """False where it began with a model that says nothing about its training text."""

    def after(self, sketch: Sketch) -> "TrainingTexts":
        """Those of a model that goes on from this one."""
        return TrainingTexts((*self.sketches, sketch), self.is_complete)

    def seen(self, texts: Sequence[str]) -> np.ndarray:
        """As `Sketch.seen`, the most of any sketch."""
        return self.look_up(texts)[0]

    def look_up(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `Sketch.look_up`: the most of any sketch, and whether every sketch could have found it."""
        found = [sketch.look_up(texts) for sketch in self.sketches]
        if not found:
            return np.zeros(len(texts)), np.ones(len(texts), dtype=bool)
        shares, enough = zip(*found, strict=True)
        return np.max(shares, axis=0), np.all(enough, axis=0)

    def write(self, directory: Path) -> None:
        """`training_texts.safetensors`."""
        arrays, facts = dict[str, np.ndarray](), list[dict[str, int]]()
        for number, sketch in enumerate(self.sketches):
            arrays |= {f"{number}.{name}": vars(sketch)[name] for name in ("documents", "runs", "common")}
            facts.append({name: vars(sketch)[name] for name in ("every", "num_documents", "num_words")})
        about = {"version": VERSION, "run": RUN, "is_complete": self.is_complete, "sketches": facts}
        save_file(arrays, directory / FILE, metadata={"format": "np", "sketches": json.dumps(about)})

    @classmethod
    def of(cls, model: Any) -> "TrainingTexts":
        """Those that a model in memory began with: of the directory that it was loaded from."""
        source = model.config._name_or_path
        if not source:
            return cls((), is_complete=True)
        return cls.read(source) or cls((), is_complete=False)

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> "TrainingTexts | None":
        """Those of a model directory or Hub name; None where there are none, or of another version."""
        file = Path(directory) / FILE
        if not Path(directory).exists() and HUB_NAME.fullmatch(str(directory)):
            silently = dict.fromkeys((f"_raise_exceptions_for_{each}" for each in PROBLEMS), False)
            file = Path(cached_file(str(directory), FILE, **silently) or file)
        if not file.is_file():
            return None
        with safe_open(file, framework="np") as stream:
            about: dict[str, Any] = json.loads((stream.metadata() or {}).get("sketches", "{}"))
        if (about.get("version"), about.get("run")) != (VERSION, RUN):
            return None
        arrays = load_file(file)
        sketches = (
            Sketch(arrays[f"{number}.documents"], arrays[f"{number}.runs"], arrays[f"{number}.common"], **facts)
            for number, facts in enumerate(about["sketches"])
        )
        return cls(tuple(sketches), about["is_complete"])
