"""Sentiment of film reviews: SST-2, IMDB or Rotten Tomatoes, from the Hub or from files of that style.

    python data_builders/sentiment.py --name sst2 --output_dir data/sst2
    python data_builders/sentiment.py --name sst2 --source train.tsv --test dev.tsv --output_dir data/sst2
    python data_builders/sentiment.py --name imdb --source labelled.jsonl --unlabelled more.jsonl --output_dir data/im
    python data_builders/sentiment.py --name rotten_tomatoes --source rt.tsv --output_dir data/rt

Files are .csv, .tsv, .jsonl or .parquet with the columns of the original and labels 0 (negative) and 1 (positive). The
output directory holds two data sets: `classification` with the splits train, validation and test, and `text`, for
pretraining: the unlabelled reviews, if any, and the training texts. SST-2's test labels are not public, so its
published validation split is the test split here, as everywhere. Without `--test` the test split is cut from the rest.

Of texts equal but for white space and case the first stays, and those under two labels go. Texts whose words are the
same but for numbers are on one side of a split, which a hash of their words and the seed decides, within each class;
training texts that stand in the given test split are left out of everything else. HTML line breaks become new lines.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from scratchgpt.arguments import option, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, make_dataset, run_builder
from scratchgpt.data.files import source_name
from scratchgpt.data.labelled_texts import (
    LabelledTexts,
    check_classes,
    deduplicate,
    label_table,
    labelled_dataset,
    read_labelled,
    split_key,
    split_rows,
)
from scratchgpt.data.splits import check_fractions, draw
from scratchgpt.data.text import read_texts

NAMES = ["negative", "positive"]


@dataclass(frozen=True)
class Source:
    title: str
    hub: str
    column: str
    test: str | None
    """The Hub's split to test on; None: cut from the training split."""
    unlabelled: str | None
    reference: str


SOURCES = {
    "sst2": Source("SST-2", "stanfordnlp/sst2", "sentence", "validation", None, "Socher et al. 2013; GLUE's copy"),
    "imdb": Source("IMDB reviews", "stanfordnlp/imdb", "text", "test", "unsupervised", "Maas et al. 2011"),
    "rotten_tomatoes": Source(
        "Rotten Tomatoes", "cornell-movie-review-data/rotten_tomatoes", "text", "test", None, "Pang and Lee 2005"
    ),
}


@dataclass(kw_only=True)
class SentimentArguments(BuilderArguments):
    HELP_GROUPS = {"name": "Data", "validation_fraction": "Splits"}

    name: Literal["sst2", "imdb", "rotten_tomatoes"] = field(metadata={"help": "Which collection it is."})
    source: str | None = option(None, "File of labelled texts; default: the Hub's.")
    test: str | None = option(None, "File of the published test split.")
    unlabelled: str | None = option(None, "File of texts without labels, for pretraining.")
    column: str | None = option(None, "Column of the text; default: the collection's own.")
    validation_fraction: float = option(0.05, "Share that validates.", at_least=0, below=1)
    test_fraction: float = option(0.2, "Share that tests, where no test split is given.", at_least=0, below=1)
    balance: bool = option(False, "Train on as many texts of either label.")


def clean(text: str) -> str:
    """Without HTML line breaks."""
    return re.sub(r"(\s*<br\s*/?>\s*)+", "\n", text).strip()


def read_split(source: str, split: str, column: str) -> LabelledTexts:
    """Labels are 0 and 1, or already named (a ClassLabel of the Hub: neg, negative, pos, positive)."""
    data = read_labelled(source, split, column)
    aliases = {"0": 0, "neg": 0, "negative": 0, "1": 1, "pos": 1, "positive": 1}
    if unknown := [name for name in data.names if name not in aliases]:
        raise ValueError(f"{source} has unknown labels {unknown}; known are {list(aliases)}")
    numbers = [aliases[name] for name in data.names]
    return LabelledTexts([clean(text) for text in data.texts], [numbers[label] for label in data.labels], NAMES)


def build(arguments: SentimentArguments) -> dict[str, Built]:
    origin = SOURCES[arguments.name]
    column = arguments.column or origin.column
    own = arguments.source or origin.hub
    data = read_split(own, "train", column)
    kept, removed = deduplicate(data.texts, data.labels, NAMES)
    held_out: LabelledTexts | None = None
    if arguments.test is not None:
        held_out = read_split(arguments.test, "test", column)
    elif arguments.source is None and origin.test is not None:
        held_out = read_split(origin.hub, origin.test, column)
    fractions = {"validation": arguments.validation_fraction}
    if held_out is None:
        fractions["test"] = arguments.test_fraction
    else:
        keys = set(map(split_key, held_out.texts))
        clear = [row for row in kept if split_key(data.texts[row]) not in keys]
        removed["in the test split"] = len(kept) - len(clear)
        kept = clear
    check_fractions(**fractions)
    data, rows_of = data.select(kept), [f"{source_name(own)}#{row}" for row in kept]
    rows = split_rows(data.texts, data.labels, fractions, arguments.seed, arguments.balance)
    splits = {name: data.select(members) for name, members in rows.items()}
    source = {name: [rows_of[row] for row in members] for name, members in rows.items()}
    if held_out is not None:
        splits["test"] = held_out
        source["test"] = [f"{source_name(arguments.test or 'test')}#{row}" for row in range(len(held_out))]
    for name, split in splits.items():
        check_classes(split, f"the split {name!r}")

    unlabelled: list[tuple[str, str]] = []
    if arguments.unlabelled is not None:
        unlabelled = read_unlabelled(arguments.unlabelled, column, "train")
    elif arguments.source is None and origin.unlabelled is not None:
        unlabelled = read_unlabelled(origin.hub, column, origin.unlabelled)
    texts = plain_texts(splits, source, unlabelled, arguments.seed)
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in removed.items())
    description = (
        f"{origin.title} ({origin.reference}), built by `data_builders/sentiment.py`.\n\n{label_table(splits)}\n\n"
        f"Left out of training and validation: {reasons}. Texts whose words are the same but for numbers are on "
        "one side of the split; a hash of their words and the seed decides, within each class."
        + ("\n\n**Balanced**: the training split has as many texts of either label." if arguments.balance else "")
    )
    settings = {"builder": "sentiment", "name": arguments.name, "removed": removed, "balance": arguments.balance}
    settings |= {f"{name}_fraction": fraction for name, fraction in fractions.items()}
    return {
        "classification": Built(
            title=origin.title,
            description=description,
            data=labelled_dataset(splits, source),
            task="text-classification",
            build={**settings, "labels": {name: split.counts() for name, split in splits.items()}},
            language="en",
        ),
        "text": Built(
            title=f"{origin.title}: texts without labels",
            description="Unlabelled reviews, if any, and training texts: nothing of validation and test is in it.",
            data=make_dataset(texts),
            build=settings,
            language="en",
        ),
    }


def read_unlabelled(source: str, column: str, split: str) -> list[tuple[str, str]]:
    """Texts and where each comes from."""
    return [
        (clean(text), f"{source_name(source)}#{row}") for row, text in enumerate(read_texts(source, split, column))
    ]


def plain_texts(
    splits: dict[str, LabelledTexts], source: dict[str, list[str]], unlabelled: list[tuple[str, str]], seed: int
) -> dict[str, list[dict[str, str]]]:
    """Rows for pretraining: every text once, none of the labelled validation and test; one in fifty validates."""
    seen = {split_key(text) for name, data in splits.items() if name != "train" for text in data.texts}
    rows: dict[str, list[dict[str, str]]] = {"train": [], "validation": []}
    for text, where in [*unlabelled, *zip(splits["train"].texts, source["train"], strict=True)]:
        key = split_key(text)
        if key not in seen:
            seen.add(key)
            rows["validation" if draw(seed, "text", key) < 0.02 else "train"].append({"text": text, "source": where})
    return {split: members for split, members in rows.items() if members}


def main(argv: list[str] | None = None) -> None:
    run_builder(SentimentArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
