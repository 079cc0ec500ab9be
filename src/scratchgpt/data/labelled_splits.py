"""The splits of labelled texts that a classifier is trained, validated and tested on."""

from dataclasses import dataclass
from pathlib import Path

from ..arguments import option, required
from .labelled_texts import LabelledTexts, check_classes, deduplicate, read_labelled, split_rows
from .splits import check_fractions


@dataclass
class LabelledDataArguments:
    """Which labelled texts. Recipes inherit this."""

    HELP_GROUPS = {"data": "Data", "validation_fraction": "Splits"}

    data: str = required('Data set of schema {"text", "label"}: Hub name, folder or file.')
    eval_data: str | None = option(None, "File to validate on, where data is a file.")
    test_data: str | None = option(None, "File to test on, where data is a file.")
    train_split: str = option("train", "Split to train on, where data has splits.")
    eval_split: str = option("validation", "Split to validate on.")
    test_split: str = option("test", "Split to test on.")
    text_column: str = option("text", "Column that holds the text.")
    label_column: str = option("label", "Column that holds the label.")
    validation_fraction: float = option(0.1, "Share that validates, where data is one file.", at_least=0, below=1)
    test_fraction: float = option(0.1, "Share that tests, where data is one file.", at_least=0, below=1)


def load_splits(arguments: LabelledDataArguments, seed: int) -> dict[str, LabelledTexts]:
    """The splits train, validation and, where there is one, test.

    One file without another to validate on is split by a hash of the texts and the seed, without duplicates; what was
    left out is printed.

    Raises:
        ValueError: as `read_labelled` and `check_fractions`; for an empty split, and for a training split without two
            labels.
    """
    fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
    check_fractions(validation_fraction=fractions["validation"], test_fraction=fractions["test"])
    columns = {"text_column": arguments.text_column, "label_column": arguments.label_column}
    train = read_labelled(arguments.data, arguments.train_split, **columns)
    check_classes(train, arguments.data)
    found = {"train": train}
    if not Path(arguments.data).is_file():
        for name, split in (("validation", arguments.eval_split), ("test", arguments.test_split)):
            found[name] = read_labelled(arguments.data, split, **columns, names=train.names)
    elif arguments.eval_data is not None:
        for name, file in (("validation", arguments.eval_data), ("test", arguments.test_data)):
            if file is not None:
                found[name] = read_labelled(file, **columns, names=train.names)
    else:
        kept, removed = deduplicate(train.texts, train.labels, train.names)
        unique = train.select(kept)
        rows = split_rows(unique.texts, unique.labels, fractions, seed)
        found = {name: unique.select(members) for name, members in rows.items()}
        check_classes(found["train"], f"the training split of {arguments.data}")
        print("Left out: " + ", ".join(f"{reason}: {count:,}" for reason, count in removed.items()))
    for name in ("validation", "test"):
        if name in found and not len(found[name]):
            raise ValueError(f"the split {name!r} is empty: give more texts or a larger fraction")
    if "validation" not in found:
        raise ValueError("there is nothing to validate on: give validation_fraction above 0, or --eval_data")
    return found
