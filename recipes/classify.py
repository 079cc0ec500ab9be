"""Classify the texts of a file, in batches, with a classifier that recipes/finetune_classifier.py made.

    python recipes/classify.py --model runs/sms_spam/classifier/final --data messages.txt --output labels.jsonl
    python recipes/classify.py --model runs/reviews/final --data new.csv --text_column review --output labels.csv
    python recipes/classify.py --model runs/reviews/final --data held_out.tsv --label_column stars --output out.jsonl

A .txt has a text a line; .csv, .tsv (with a header), .json, .jsonl and .parquet have columns. Every text gets a line
with its label, the label's probability and those of all labels, in the order of the file, as .jsonl, .csv or .tsv.
Longer texts than the model reads are cut, with a warning that counts them. With `--label_column` the answers are
measured. `--model` may be an adapter, which finds its base by itself unless that has moved (`--base`).
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe
from scratchgpt.data.files import open_text, read_rows, suffix_of
from scratchgpt.data.labelled_texts import LabelledTexts, read_labelled
from scratchgpt.data.text_rows import TextRows
from scratchgpt.evaluation.classification import measure, predict
from scratchgpt.evaluation.classifying import label_names, load_classifier, longest_read
from scratchgpt.hub.staging import check_writable, replaced_file


@dataclass
class ClassifyArguments(RecipeArguments):
    model: str = required("Directory or Hub name of a classifier, or the directory of its adapter.")
    data: str = required("File of texts: .txt, .csv, .tsv, .json, .jsonl or .parquet.")
    output: str = required("File to write: .jsonl, .csv or .tsv.")
    base: str | None = option(None, "The base of an adapter, if it is no longer where it was.")
    text_column: str = option("text", "Column that holds the text, where the file has columns.")
    label_column: str | None = option(None, "Column of the true labels, if the answers are to be measured.")
    batch_size: int = option(64, "Texts in a forward pass.", at_least=1)
    overwrite: bool = option(False, "Replace output if it is there.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if Path(self.output).suffix not in (".jsonl", ".csv", ".tsv"):
            raise ValueError(f"{self.output}: write to a .jsonl, .csv or .tsv")


def read_file(arguments: ClassifyArguments, names: list[str]) -> LabelledTexts:
    """The texts, with their labels where they are asked for; else all with the first one.

    Raises:
        ValueError: as `read_labelled`.
    """
    file = Path(arguments.data)
    if not file.is_file():
        raise ValueError(f"{file} is no file: give a .txt, .csv, .tsv, .json, .jsonl or .parquet")
    if arguments.label_column is not None:
        return read_labelled(file, "", arguments.text_column, arguments.label_column, names)
    texts = []
    if suffix_of(file) == ".txt":
        with open_text(file) as lines:
            texts = [line.rstrip("\n") for line in lines]
    else:
        for row in read_rows(file):
            if arguments.text_column not in row:
                raise ValueError(f"{file} has no column {arguments.text_column!r}; it has {list(row)}")
            texts.append(row[arguments.text_column])
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{file}, row {number}: no text, but {text!r}")
    if not texts:
        raise ValueError(f"{file} has no texts")
    return LabelledTexts(texts, [0] * len(texts), names)


def write(file: Path, rows: list[dict[str, str | float]]) -> None:
    with replaced_file(file) as new, new.open("w", encoding="utf-8", newline="") as output:
        if file.suffix == ".jsonl":
            output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(output, list(rows[0]), delimiter="," if file.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ClassifyArguments, argv)
    output = Path(arguments.output)
    if output.exists() and not (arguments.overwrite and output.is_file()):
        raise ValueError(f"{output} exists: give another file, or --overwrite true")
    check_writable(output.parent)
    model, tokenizer = load_classifier(arguments.model, arguments.base)
    names = label_names(model)
    data = read_file(arguments, names)
    rows = TextRows(data, tokenizer, longest_read(model, tokenizer))
    with tqdm(total=len(rows), unit="text") as bar:
        logits = predict(model, rows, len(names), arguments.batch_size, progress=bar.update)
    probabilities = logits.softmax(-1)
    answers = [
        {
            "label": names[int(each.argmax())],
            "probability": float(each.max()),
            **{f"p({name})": value for name, value in zip(names, each.tolist(), strict=True)},
        }
        for each in probabilities
    ]
    write(output, answers)
    print(f"{len(answers):,} texts: {arguments.output}")
    if arguments.label_column is not None:
        print(measure(logits, rows.labels, names).summary().removeprefix("validation "))


if __name__ == "__main__":
    run_recipe(main)
