"""The splits of labelled texts that a classifier is trained, validated and tested on."""

from collections.abc import Mapping
from pathlib import Path

from .labelled_texts import LabelledTexts, check_classes, deduplicate, read_labelled, split_rows


def load_splits(
    data: str,
    splits: Mapping[str, str],
    files: Mapping[str, str | None],
    columns: Mapping[str, str],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, LabelledTexts]:
    """The splits train, validation and, where there is one, test.

    Args:
        data: a data set with splits, or a file.
        splits: names of the splits train, validation and test in a data set.
        files: of validation and test, where `data` is a file. Without one for validation the file is split by a hash
            of the texts, without duplicates, and what was left out is printed.
        columns: `text_column` and `label_column`.
        fractions: shares of a file that validate and test.

    Raises:
        ValueError: as `read_labelled`; for an empty split, and for a training split without two labels.
    """
    train = read_labelled(data, splits["train"], **columns)
    check_classes(train, data)
    found = {"train": train}
    if not Path(data).is_file():
        for name in ("validation", "test"):
            found[name] = read_labelled(data, splits[name], **columns, names=train.names)
    elif files["validation"] is not None:
        for name, file in files.items():
            if file is not None:
                found[name] = read_labelled(file, **columns, names=train.names)
    else:
        kept, removed = deduplicate(train.texts, train.labels)
        unique = train.select(kept)
        rows = split_rows(unique.texts, unique.labels, fractions, seed)
        found = {name: unique.select(members) for name, members in rows.items()}
        check_classes(found["train"], f"the training split of {data}")
        print("Left out: " + ", ".join(f"{reason}: {count:,}" for reason, count in removed.items()))
    for name in ("validation", "test"):
        if name in found and not len(found[name]):
            raise ValueError(f"the split {name!r} is empty: give more texts or a larger fraction")
    if "validation" not in found:
        raise ValueError("there is nothing to validate on: give validation_fraction above 0, or --eval_data")
    return found
