"""What the builders of chat data sets share: rows of any chat schema → `{"messages"}` in splits without overlap.

Rows are kept together that a model must not find on both sides of a split: those with one `document`, which the
builder names (an instruction, a passage). A conversation that occurs twice, white space and case aside, stays once.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import DatasetDict, Features, Value

from ..arguments import option
from .builder import BuilderArguments, make_dataset
from .chat_sources import sound_conversations, to_messages
from .splits import check_fractions, draw


@dataclass(kw_only=True)
class ChatBuilderArguments(BuilderArguments):
    """The options of the builders of conversations: one source, split by a hash of the documents."""

    source: str | None = option(None, "A .json, .jsonl or .parquet file, or a Hub name; by default the original.")
    validation_fraction: float = option(0.05, "Share of the documents that validate.", at_least=0, below=1)
    test_fraction: float = option(0.0, "Share of the documents that are kept for testing.", at_least=0, below=1)


def build_chats(
    rows: Iterable[Mapping[str, Any]],
    document: Callable[[Mapping[str, Any]], str],
    arguments: ChatBuilderArguments,
    carry: Iterable[str] = (),
) -> tuple[DatasetDict, dict[str, int]]:
    """Conversations in splits, columns `messages`, `source` (a name for the document) and those carried.

    Args:
        document: what a row belongs to, as text; rows with the same are in the same split.
        carry: columns of text that are kept.

    Returns:
        The data set, and how many rows were left out for which reason.

    Raises:
        ValueError: for shares that leave nothing for training, columns of no known schema, and an empty split.
    """
    fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
    check_fractions(validation_fraction=fractions["validation"], test_fraction=fractions["test"])
    message = {"role": Value("string"), "content": Value("string")}
    columns = ("source", *carry)
    features = Features({"messages": [message], **{column: Value("string") for column in columns}})
    splits: dict[str, list[dict[str, Any]]] = {"train": [], **{name: [] for name, share in fractions.items() if share}}
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for row in rows:
        kept, reasons = sound_conversations([to_messages(row)])
        left_out += reasons
        if not kept:
            continue
        key = json.dumps([[m["role"], " ".join(m["content"].split()).casefold()] for m in kept[0]])
        if key in seen:
            left_out["a duplicate"] += 1
            continue
        seen.add(key)
        name = " ".join(document(row).split()).casefold()
        place, split = draw(arguments.seed, name), "train"
        for candidate, share in fractions.items():
            if place < share:
                split = candidate
                break
            place -= share
        source = hashlib.sha256(name.encode()).hexdigest()[:12]
        splits[split].append({"messages": kept[0], "source": source, **{column: row[column] for column in carry}})
    if empty := [name for name, found in splits.items() if not found]:
        raise ValueError(f"{sum(map(len, splits.values()))} conversations leave {empty} empty: choose other shares")
    return make_dataset(splits, features), dict(left_out)


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """A sentence for the card."""
    if not left_out:
        return "No row was left out."
    return "Left out: " + ", ".join(f"{count:,} rows ({reason})" for reason, count in sorted(left_out.items())) + "."
