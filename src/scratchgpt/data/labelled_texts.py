"""Labelled texts: reading them, checking them, and splitting them so that no text is on two sides.

A source is the name of a data set on the Hub, a folder written by `Dataset.save_to_disk`, or one file with named
columns (see `files`). Labels are text, whole numbers, or a `ClassLabel`; white space around one means nothing.

Two texts count as the same for a split when their words are the same, in whatever case and punctuation and with
whatever digits (`split_key`): mass messages differ in a telephone number. Which split a text goes to follows from a
hash of that key, within its class, so that the shares of the classes are kept.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import load_split, read_rows
from .splits import draw, fill, split_at


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and, for each, the number of its label in `names`."""

    texts: list[str]
    labels: list[int]
    names: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """How many texts each label has; 0 is an answer."""
        found = Counter(self.labels)
        return {name: found[number] for number, name in enumerate(self.names)}

    def select(self, rows: Sequence[int]) -> "LabelledTexts":
        return LabelledTexts([self.texts[i] for i in rows], [self.labels[i] for i in rows], self.names)


def split_key(text: str) -> str:
    """The words of `text` without case, punctuation and the values of numbers."""
    return re.sub(r"\d+", "0", " ".join(re.findall(r"\w+", text.casefold()))) or text


def read_labelled(
    source: str | Path,
    split: str = "train",
    text_column: str = "text",
    label_column: str = "label",
    names: Sequence[str] | None = None,
) -> LabelledTexts:
    """Reads all of `source`.

    Args:
        split: of a data set that has splits; files have none.
        names: the labels that there are, in order. Default: those of the ClassLabel, or all that occur, sorted
            (numbers by value).

    Raises:
        ValueError: for a source that does not exist, is not UTF-8 or has no such split or column, for a row without
            text or label (with its place), for a label that is not among `names`, and where there are no rows.
    """
    texts: list[str] = []
    values: list[str] = []
    path = Path(source)
    declared: list[str] | None = None
    if path.is_file():
        where, rows = str(path), read_rows(path)
    else:
        data = load_split(source, split)
        where, rows = f"{source}, split {split!r}", data
        feature = data.features.get(label_column)
        declared = list(feature.names) if _is_class_label(feature) else None
    for number, row in enumerate(rows, start=1):
        for column in (text_column, label_column):
            if column not in row:
                raise ValueError(f"{where} has no column {column!r}; it has {list(row)}: name yours")
        text, value = row[text_column], row[label_column]
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # what pandas makes of whole numbers beside an empty field
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}, row {number}: no text in column {text_column!r}, but {text!r}")
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
            raise ValueError(f"{where}, row {number}: no label in column {label_column!r}, but {value!r}")
        texts.append(text)
        if declared is not None and isinstance(value, int) and value >= 0:
            value = declared[value]
        values.append(str(value).strip())
    if not texts:
        raise ValueError(f"{where} has no rows: there is nothing to train or evaluate on")
    known = list(names or declared or sorted(set(values), key=_label_order))
    numbers = {name: number for number, name in enumerate(known)}
    if unknown := sorted(set(values) - set(known)):
        first = next(number for number, value in enumerate(values, start=1) if value not in numbers)
        raise ValueError(f"{where} has unknown labels {unknown} (the first in row {first}); known are {known}")
    return LabelledTexts(texts, [numbers[value] for value in values], known)


def fingerprint_texts(data: LabelledTexts) -> str:
    """SHA-256 over texts and labels, in order."""
    digest = hashlib.sha256(json.dumps(data.names).encode())
    for text, label in zip(data.texts, data.labels, strict=True):
        digest.update(json.dumps([text, label]).encode())
    return digest.hexdigest()


def check_classes(data: LabelledTexts, where: str) -> None:
    """
    Raises:
        ValueError: unless there are two labels or more and each has a text.
    """
    if len(data.names) < 2:
        raise ValueError(f"{where} has one label only, {data.names}: there is nothing to tell apart")
    if missing := [name for name, count in data.counts().items() if count == 0]:
        raise ValueError(f"{where} has no text labelled {missing}: give some, or leave the label out everywhere")


def _is_class_label(feature: Any) -> bool:
    from datasets import ClassLabel

    return isinstance(feature, ClassLabel)


def _label_order(value: str) -> tuple[bool, int, str]:
    number = re.fullmatch(r"-?\d+", value)
    return number is None, int(value) if number else 0, value


def deduplicate(
    texts: Sequence[str], labels: Sequence[int], names: Sequence[str] | None = None
) -> tuple[list[int], dict[str, int]]:
    """Which rows stay, in order: the first of those equal but for white space and case.

    A text that stands under two labels tells neither: all of its rows are left out.

    Args:
        names: of the labels, for errors.

    Returns:
        The numbers of the rows, and how many were left out for each reason.

    Raises:
        ValueError: for a label that is left without texts, since all of them stand under another label too.
    """
    found: dict[str, set[int]] = defaultdict(set)
    keys = [" ".join(text.split()).casefold() for text in texts]
    for key, label in zip(keys, labels, strict=True):
        found[key].add(label)
    kept: list[int] = []
    seen: set[str] = set()
    removed = {"duplicate": 0, "under two labels": 0}
    for row, key in enumerate(keys):
        if len(found[key]) > 1:
            removed["under two labels"] += 1
        elif key in seen:
            removed["duplicate"] += 1
        else:
            seen.add(key)
            kept.append(row)
    if gone := sorted(set(labels) - {labels[row] for row in kept}):
        raise ValueError(
            f"every text labelled {[names[label] if names else label for label in gone]} stands under another label "
            f"too ({removed['under two labels']:,} of {len(texts):,} rows have a text with two labels): keep one"
        )
    return kept, removed


def split_rows(
    texts: Sequence[str], labels: Sequence[int], fractions: Mapping[str, float], seed: int, balanced: bool = False
) -> dict[str, list[int]]:
    """Numbers of the rows of each split, in order; what the fractions leave is `train`.

    Rows with the same `split_key` stay together. Within each class their groups are put in the order of a hash of
    key and seed, and cut where the fractions say: the shares of the classes are the same everywhere, as far as whole
    groups allow. A split has at least one group of each class, where there are enough.

    Args:
        balanced: train on as many rows of each class as the rarest has (see `balance`).

    Raises:
        ValueError: for a split that would be empty.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        groups[split_key(text)].append(row)
    by_label: dict[int, list[str]] = defaultdict(list)
    for key, rows in groups.items():
        by_label[labels[rows[0]]].append(key)
    splits: dict[str, list[int]] = {"train": [], **{name: [] for name, fraction in fractions.items() if fraction}}
    for keys in by_label.values():
        total, place = sum(len(groups[key]) for key in keys), 0
        members: dict[str, list[str]] = {name: [] for name in splits}
        for key in sorted(keys, key=lambda key: (draw(seed, key), key)):
            members[split_at((place + len(groups[key]) / 2) / total, fractions)].append(key)
            place += len(groups[key])
        fill(members)
        for name, chosen in members.items():
            splits[name] += [row for key in chosen for row in groups[key]]
    if empty := [name for name, rows in splits.items() if not rows]:
        raise ValueError(
            f"the split {empty[0]!r} would be empty: the {len(texts):,} texts have the same words as {len(groups)} of "
            "them, apart from digits, case and punctuation, and texts with the same words stay together. Give texts "
            "that differ more, files of their own to validate and test on, or fractions of 0"
        )
    splits = {name: sorted(rows) for name, rows in splits.items()}
    if balanced:
        train = splits["train"]
        chosen = balance([labels[row] for row in train], [texts[row] for row in train], seed)
        splits["train"] = [train[index] for index in chosen]
    return splits


def balance(labels: Sequence[int], texts: Sequence[str], seed: int) -> list[int]:
    """Numbers of as many rows of each class as the rarest has, chosen by a hash of text and seed; in order."""
    by_label: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_label[label].append(row)
    fewest = min(map(len, by_label.values()))
    chosen = [
        sorted(rows, key=lambda row: (draw(seed, "balance", texts[row]), row))[:fewest] for rows in by_label.values()
    ]
    return sorted(row for rows in chosen for row in rows)


def labelled_dataset(splits: Mapping[str, LabelledTexts], source: Mapping[str, Sequence[str]]) -> Any:
    """A DatasetDict of schema {"text", "label": ClassLabel, "source"}.

    Args:
        source: of each split, where each of its texts comes from.
    """
    from datasets import ClassLabel, Features, Value

    from .builder import make_dataset

    rows = {
        name: [
            {"text": text, "label": label, "source": origin}
            for text, label, origin in zip(data.texts, data.labels, source[name], strict=True)
        ]
        for name, data in splits.items()
    }
    names = next(iter(splits.values())).names
    return make_dataset(
        rows, Features({"text": Value("string"), "label": ClassLabel(names=names), "source": Value("string")})
    )


def label_table(splits: Mapping[str, LabelledTexts]) -> str:
    """How many texts of each label each split has, in Markdown."""
    lines = [f"| label | {' | '.join(splits)} |", f"| --- | {' | '.join(['---:'] * len(splits))} |"]
    counts = [data.counts() for data in splits.values()]
    for name in counts[0]:
        lines.append(f"| {name} | {' | '.join(f'{count[name]:,}' for count in counts)} |")
    return "\n".join(lines)
