"""Pieces of Markdown that cards and the results page are made of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "---:") -> str:
    """
    Args:
        alignment: of all columns but the first; numbers stand to the right.
    """
    lines = [list(header), ["---", *[alignment] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """As it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def quote(text: str) -> str:
    return "> " + text.strip().replace("\n", "\n> ")


def fenced(text: str, language: str = "") -> str:
    """A block of code, whatever is in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """Names and what they are."""
    return table([title, ""], [[name, cell(value)] for name, value in facts.items()], "---")


def percent(value: float, interval: Sequence[float]) -> str:
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def classifier_table(results: Mapping[str, Any]) -> str:
    """The results of a classifier and of the baselines on the evaluated split.

    Args:
        results: what recipes/finetune_classifier.py writes as results.json.
    """
    split = results["evaluated_on"]
    found = {**results["baselines"], "this model": results[split]}
    lines = [
        f"| {results[split]['num_texts']:,} texts of the split {split!r} | accuracy | 95 % | "
        f"F1 ({results[split]['f1_of']}) | 95 % | MCC | ROC AUC |",
        "| --- | ---: | --- | ---: | --- | ---: | ---: |",
    ]
    for name, each in found.items():
        (low, high), (f1_low, f1_high) = each["accuracy_interval"], each["f1_interval"]
        auc = "–" if each["roc_auc"] is None else f"{each['roc_auc']:.4f}"
        lines.append(
            f"| {name} | {each['accuracy']:.2%} | {low:.2%} to {high:.2%} | {each['f1']:.4f} | "
            f"{f1_low:.4f} to {f1_high:.4f} | {each['mcc']:.4f} | {auc} |"
        )
    return "\n".join(lines)


def tokenizer_table(report: Mapping[str, Any]) -> str:
    """What recipes/train_tokenizer.py writes as report.json."""
    names = list(report["tokenizers"])
    columns = [name for name in report["tokenizers"][names[0]] if not name.startswith("num_")]
    rows = [["", *names], ["---", *["---:"] * len(names)]]
    rows += [[column, *[str(report["tokenizers"][name][column]) for name in names]] for column in columns]
    for word, entry in report["new_words"].items():
        splits = ["·".join(entry["splits"][name]).replace("|", "\\|") for name in names]
        rows.append([f"{word}{' (in the training texts)' if entry['seen'] else ''}", *splits])
    trained, measured = report["train"], report["tokenizers"][names[0]]
    rows_of_text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    which = "of them" if report["eval_on_train"] else "others"
    return (
        f"{rows_of_text}\n\nTrained on {trained['num_texts']:,} texts ({trained['num_bytes']:,} bytes); measured on "
        f"{measured['num_texts']:,} {which} ({measured['num_bytes']:,} bytes).\n"
    )
