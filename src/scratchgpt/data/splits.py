"""What decides to which split a document goes: its content and the seed, not its place."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: the same in every process, on every machine, in any order."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign(places: Sequence[float], fractions: Mapping[str, float]) -> list[str]:
    """The split of each document, by its place in [0, 1); what the fractions leave is `train`.

    Documents that are added later move none. Where a split would be empty, the largest one gives it a document, the
    nearest in order: two documents are enough for training and validation, whatever the fraction.

    Args:
        places: a `draw` for each document.
        fractions: by the name of the split; 0 for none.
    """
    splits: dict[str, list[int]] = {name: [] for name in ("train", *(name for name in fractions if fractions[name]))}
    for document in sorted(range(len(places)), key=lambda document: (places[document], document)):
        splits[split_at(places[document], fractions)].append(document)
    fill(splits)
    found = {document: name for name, members in splits.items() for document in members}
    return [found[document] for document in range(len(places))]


def hold_out(items: Sequence[T], keys: Sequence[str], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """The items for training, and those for validation, by a hash of their keys: no key is in both.

    Either may be empty.
    """
    unique = list(dict.fromkeys(keys))
    found = dict(zip(unique, assign([draw(seed, key) for key in unique], {"validation": fraction}), strict=True))
    training, validation = (
        [item for item, key in zip(items, keys, strict=True) if found[key] == name] for name in ("train", "validation")
    )
    return training, validation


def split_at(place: float, fractions: Mapping[str, float]) -> str:
    """The split at `place` in [0, 1), where the fractions lie one after the other and `train` has the rest."""
    bound = 0.0
    for name, fraction in fractions.items():
        bound += fraction
        if place < bound:
            return name
    return "train"


def fill(splits: Mapping[str, list[T]]) -> None:
    """Gives each empty split, in order, a member of the largest one while that has two; a single one trains.

    Args:
        splits: their members in the order of their hashes. `train` is at the end: it gets the last one.
    """
    for name, members in splits.items():
        largest = max(splits.values(), key=len)
        if not members and len(largest) > (0 if name == "train" else 1):
            members.append(largest.pop(-1 if name == "train" else 0))


def check_fractions(**fractions: float) -> None:
    """
    Raises:
        ValueError: unless each is in [0, 1) and something is left for training.
    """
    if any(not 0 <= fraction < 1 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        named = ", ".join(f"{name}={fraction}" for name, fraction in fractions.items())
        raise ValueError(f"{named}: each must be 0 or more, and together less than 1")
