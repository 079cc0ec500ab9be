"""The SMS Spam Collection (Almeida and Hidalgo 2011): 5,574 text messages, each spam or not ("ham").

    python data_builders/sms_spam.py --output_dir data/sms_spam
    python data_builders/sms_spam.py --source SMSSpamCollection --output_dir data/sms_spam --dry_run True
    python data_builders/sms_spam.py --source SMSSpamCollection --output_dir data/sms_spam --balance True

`--source` is the file as UCI publishes it: a message a line, `ham` or `spam`, a tab, the text; no header. Without it,
the Hub's copy. The output directory holds two data sets: `classification` with labels, and `text`, the same training
and validation messages without labels, for pretraining.

Of messages that are equal but for white space and case the first stays. Messages whose words are the same but for
numbers are on one side of the split, which a hash of their words and the seed decides, within each class.
"""

from dataclasses import dataclass
from pathlib import Path

from scratchgpt.arguments import option, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, make_dataset, run_builder
from scratchgpt.data.files import open_text
from scratchgpt.data.labelled_texts import (
    LabelledTexts,
    check_classes,
    deduplicate,
    label_table,
    labelled_dataset,
    read_labelled,
    split_rows,
)
from scratchgpt.data.splits import check_fractions

HUB = "ucirvine/sms_spam"
NAMES = ["ham", "spam"]


@dataclass(kw_only=True)
class SmsSpamArguments(BuilderArguments):
    HELP_GROUPS = {"source": "Data", "validation_fraction": "Splits"}

    source: str | None = option(None, f"File of messages; default: {HUB} on the Hub.")
    validation_fraction: float = option(0.05, "Share of the messages that validates.", at_least=0, below=1)
    test_fraction: float = option(0.15, "Share of the messages that tests.", at_least=0, below=1)
    balance: bool = option(False, "Train on as many ham messages as there are spam messages; others stay.")


def read_messages(source: str | None) -> LabelledTexts:
    """
    Raises:
        ValueError: for a file that is missing, not UTF-8 or has a line of another form; says which.
    """
    if source is None:
        return read_labelled(HUB, text_column="sms", names=NAMES)
    file = Path(source)
    if not file.is_file():
        raise ValueError(f"{file} is no file: give the SMS Spam Collection as --source")
    texts, labels = [], []
    with open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            label, tab, text = line.rstrip("\n").partition("\t")
            if (label := label.strip()) not in NAMES or not tab or not text.strip():
                raise ValueError(f"{file}, line {number}: not `ham` or `spam`, a tab and a text: {line[:60]!r}")
            texts.append(text.strip())
            labels.append(NAMES.index(label))
    return LabelledTexts(texts, labels, NAMES)


def build(arguments: SmsSpamArguments) -> dict[str, Built]:
    fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
    check_fractions(**fractions)
    messages = read_messages(arguments.source)
    kept, removed = deduplicate(messages.texts, messages.labels, NAMES)
    source = [f"message {row + 1}" for row in kept]
    messages = messages.select(kept)
    rows = split_rows(messages.texts, messages.labels, fractions, arguments.seed, arguments.balance)
    splits = {name: messages.select(members) for name, members in rows.items()}
    for name, split in splits.items():
        check_classes(split, f"the split {name!r}")
    labelled = labelled_dataset(splits, {name: [source[row] for row in members] for name, members in rows.items()})
    texts = {
        name: [{"text": messages.texts[row], "source": source[row]} for row in rows[name]]
        for name in ("train", "validation")
        if name in rows
    }
    description = (
        "The SMS Spam Collection of T. A. Almeida and J. M. Gómez Hidalgo (2011, UCI machine learning repository), "
        "built by `data_builders/sms_spam.py`.\n\n"
        f"{label_table(splits)}\n\n"
        f"Left out: {removed['duplicate']} messages equal to an earlier one but for white space and case. Messages "
        "whose words are the same but for numbers are on one side of the split; a hash of their words and the seed "
        "decides, within each class.\n\n"
        + (
            "**Balanced**: the training split has as many ham as spam messages, chosen by a hash; the others have "
            "the natural share."
            if arguments.balance
            else "The shares of the classes are the natural ones everywhere."
        )
    )
    settings = {
        "builder": "sms_spam",
        "removed": removed,
        "balance": arguments.balance,
        **{f"{name}_fraction": fraction for name, fraction in fractions.items()},
    }
    common = {"license": "cc-by-4.0", "language": "en"}
    return {
        "classification": Built(
            title="SMS spam",
            description=description,
            data=labelled,
            task="text-classification",
            build={**settings, "labels": {name: split.counts() for name, split in splits.items()}},
            **common,
        ),
        "text": Built(
            title="SMS spam: messages without labels",
            description="The training and validation messages of the data set beside it, for pretraining.",
            data=make_dataset(texts),
            build=settings,
            **common,
        ),
    }


def main(argv: list[str] | None = None) -> None:
    run_builder(SmsSpamArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
