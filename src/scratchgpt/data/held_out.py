"""From one source of texts to a training and a validation split: what is held out is never trained on.

One text is cut: its last tenth validates. Of several documents (files, or rows of a file) whole ones validate, drawn
by a hash of their content, so that the choice depends on neither their order nor their names, and equal documents are
on the same side. No document is held out that alone has more than a fifth of the text; where nothing else is left, the
last one is cut.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..hub.intermediates import made_once
from .corpus import describe_source
from .files import saved_splits
from .splits import draw
from .text import read_documents

SHARE = 0.1
"""Of the text, held out."""

MOST = 1_000_000
"""Characters held out at most: more of them make the validation loss hardly more certain."""


@dataclass(frozen=True)
class HeldOut:
    """Which documents validate: whole ones, or the end of one."""

    documents: frozenset[str]
    cut_documents: frozenset[str] = frozenset()
    """One, or several that are equal."""
    cut_at: int = 0
    """Characters of a cut document that are trained on."""

    def describe(self, num_documents: int) -> str:
        if self.cut_documents:
            return "the end of the text" if num_documents == 1 else f"the end of {min(self.cut_documents)}"
        return f"{len(self.documents):,} of {num_documents:,} documents, drawn by their content"


def choose_held_out(sizes: Mapping[str, int], digests: Mapping[str, str]) -> HeldOut:
    """
    Args:
        sizes: characters of each document, in order.
        digests: a hash of the content of each.

    Raises:
        ValueError: for a text that cannot be divided.
    """
    wanted = min(SHARE * sum(sizes.values()), MOST)
    by_digest: dict[str, list[str]] = {}
    for name, digest in digests.items():
        if sizes[name]:
            by_digest.setdefault(digest, []).append(name)
    chosen, held = set[str](), 0
    for digest in sorted(by_digest, key=lambda digest: (draw(digest), digest)):
        size = sum(sizes[name] for name in by_digest[digest])
        if held < wanted and held + size <= 2 * wanted:
            chosen.update(by_digest[digest])
            held += size
    if chosen and held >= wanted / 2:
        return HeldOut(frozenset(chosen))
    for name in reversed(list(sizes)):
        if sizes[name] > 1:
            at = sizes[name] - max(1, round(min(wanted, sizes[name] / 2)))
            return HeldOut(frozenset(), frozenset(by_digest[digests[name]]), at)
    if len(by_digest) < 2:
        raise ValueError("there is too little text to hold some of it out for validation: give more, or --eval_data")
    return HeldOut(frozenset(by_digest.popitem()[1]))


def split_texts(source: str, split: str, column: str, held_out: HeldOut, validation: bool) -> Iterator[dict[str, str]]:
    """The rows of one side, `{"text"}`. A cut is moved back to the beginning of a line, or of a word."""
    begin = 0
    current = None
    for name, text in read_documents(source, split, column):
        begin, current = (begin if name == current else 0), name
        if name not in held_out.cut_documents:
            part = text if (name in held_out.documents) == validation else ""
        else:
            at = _border(text, held_out.cut_at - begin)
            part = text[at:] if validation else text[:at]
        begin += len(text)
        if part:
            yield {"text": part}


def _border(text: str, at: int) -> int:
    """`at` or a little before: where a line begins, else a word."""
    if at <= 0 or at >= len(text):
        return max(0, min(at, len(text)))
    earliest = at - at // 20
    for border in ("\n", " "):
        found = text.rfind(border, earliest, at)
        if found >= 0:
            return found + 1
    return at


def has_split(source: str, split: str) -> bool:
    """Whether `source` is said to have `split`: of files it never is, of names on the Hub it is taken for granted."""
    path = Path(source)
    if not path.exists():
        return True
    return split in saved_splits(path)


def write_splits(source: str, split: str, column: str, directory: Path, say: Callable[[str], object]) -> None:
    """A saved data set with the splits train and validation, from `source`; reused while source and options are the
    same. Reads the source three times and never holds all of it.

    Raises:
        ValueError: as `read_texts` and `choose_held_out`, and where something else is in the way.
    """
    import datasets

    def make(folder: Path) -> dict[str, Any]:
        sizes: dict[str, int] = {}
        hashes: dict[str, Any] = {}
        for name, text in read_documents(source, split, column):
            sizes[name] = sizes.get(name, 0) + len(text)
            hashes.setdefault(name, hashlib.sha256()).update(text.encode("utf-8", "surrogatepass"))
        held_out = choose_held_out(sizes, {name: digest.hexdigest() for name, digest in hashes.items()})
        features = datasets.Features({"text": datasets.Value("string")})
        options = {"source": source, "split": split, "column": column, "held_out": held_out}
        datasets.disable_progress_bars()  # four of them, for what takes seconds
        parts: dict[Any, Any] = {
            name: datasets.Dataset.from_generator(
                split_texts,
                features=features,
                cache_dir=str(folder / "cache"),
                gen_kwargs={**options, "validation": name == "validation"},
                split=datasets.NamedSplit(name),
            )
            for name in ("train", "validation")
        }
        for name, data in parts.items():
            if not isinstance(data, datasets.Dataset) or not len(data):
                raise ValueError(f"there is too little text for the split {name}: give more, or --eval_data")
        datasets.DatasetDict({**parts}).save_to_disk(folder)
        datasets.enable_progress_bars()
        characters = {name: sum(len(text) for text in data["text"]) for name, data in parts.items()}
        return {"held_out": held_out.describe(len(sizes)), "characters": characters}

    inputs = {"source": describe_source(source, split), "split": split, "column": column, "share": SHARE}
    facts = made_once(directory, inputs, make)
    share = facts["characters"]["validation"] / sum(facts["characters"].values())
    say(
        f"Held out for validation: {facts['held_out']} ({share:.0%}, {facts['characters']['validation']:,} "
        f"characters), never trained on. --eval_data names another text. Both parts: {directory}"
    )
