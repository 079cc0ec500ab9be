"""What the builders of chat data sets share: rows of any chat schema → `{"messages"}` in splits without overlap.

Rows are kept together that a model must not find on both sides of a split: those with one `document`, which the
builder names (an instruction, a passage). A conversation that occurs twice, white space and case aside, stays once.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import DatasetDict, Features, Value

from ..arguments import option
from .builder import BuilderArguments, make_dataset
from .chat_sources import describe_unused, read_row, sound_conversations
from .splits import assign, check_fractions, draw


@dataclass(kw_only=True)
class ChatBuilderArguments(BuilderArguments):
    """The options of the builders of conversations: one source, split by a hash of the documents."""

    HELP_GROUPS = {"source": "Data", "validation_fraction": "Splits"}

    source: str | None = option(None, "A .json, .jsonl or .parquet file, or a Hub name; by default the original.")
    validation_fraction: float = option(0.05, "Share of the documents that validate.", at_least=0, below=1)
    test_fraction: float = option(0.0, "Share of the documents that are kept for testing.", at_least=0, below=1)


def build_chats(
    rows: Iterable[Mapping[str, Any]],
    document: Callable[[Mapping[str, Any]], str],
    arguments: ChatBuilderArguments,
    carry: Collection[str] = (),
) -> tuple[DatasetDict, dict[str, dict[str, int]]]:
    """Conversations in splits, columns `messages`, `source` (a name for the document) and those carried.

    Args:
        document: what a row belongs to, as text; rows with the same are in the same split. Where it is empty, the
            first message is taken.
        carry: columns of text that are kept.

    Returns:
        The data set, and what `build.json` says of it: `left_out`, how many rows for which reason, and
        `unused_columns`, in how many rows each had a value.

    Raises:
        ValueError: for shares that leave nothing for training, columns of no known schema, and an empty split.
    """
    fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
    check_fractions(validation_fraction=fractions["validation"], test_fraction=fractions["test"])
    message = {"role": Value("string"), "content": Value("string")}
    columns = ("source", *carry)
    features = Features({"messages": [message], **{column: Value("string") for column in columns}})
    left_out: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    found: dict[str, tuple[str, dict[str, Any]]] = {}  # by what makes two conversations equal: document and row
    for row in rows:
        messages, columns = read_row(row)
        unused.update(column for column in columns if column not in carry)
        kept, reasons = sound_conversations([messages])
        left_out += reasons
        if not kept:
            continue
        key = json.dumps([[m["role"], " ".join(m["content"].split()).casefold()] for m in kept[0]])
        if key in found:
            left_out["a duplicate"] += 1
            continue
        name = " ".join(str(document(row) or kept[0][0]["content"]).split()).casefold()
        source = hashlib.sha256(name.encode()).hexdigest()[:12]
        found[key] = name, {"messages": kept[0], "source": source, **{column: row[column] for column in carry}}
    names = list(dict.fromkeys(name for name, _ in found.values()))
    split_of = dict(zip(names, assign([draw(arguments.seed, name) for name in names], fractions), strict=True))
    splits: dict[str, list[dict[str, Any]]] = {"train": [], **{name: [] for name, share in fractions.items() if share}}
    for name, row in found.values():
        splits[split_of[name]].append(row)
    if empty := [name for name, members in splits.items() if not members]:
        raise ValueError(
            f"{len(found)} conversations of {len(names)} documents are too few for {len(splits)} splits ({empty} "
            "would be empty): give more, or fractions of 0 for none"
        )
    return make_dataset(splits, features), {"left_out": dict(left_out), "unused_columns": dict(unused)}


def describe_counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Sentences for the card on what `build_chats` counted."""
    left_out, unused = counts["left_out"], counts["unused_columns"]
    reasons = ", ".join(f"{count:,} rows ({reason})" for reason, count in sorted(left_out.items()))
    columns = f" Columns that are not used: {describe_unused(unused)}." if unused else ""
    return (f"Left out: {reasons}." if reasons else "No row was left out.") + columns
