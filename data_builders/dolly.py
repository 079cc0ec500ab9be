"""Dolly: 15,000 instructions that employees of Databricks wrote and answered, as conversations.

    python data_builders/dolly.py --output_dir data/dolly
    python data_builders/dolly.py --source databricks-dolly-15k.jsonl --output_dir data/dolly
    python data_builders/dolly.py --output_dir data/dolly --max_context_characters 1000

Without `--source` the rows come from the Hub (`databricks/databricks-dolly-15k`). Any file with the columns
`instruction`, `context`, `response` and `category` will do. Rows about one passage are in the same split, and so are
rows with the same instruction where there is no passage. Licence: CC BY-SA 3.0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scratchgpt.arguments import option, run_recipe
from scratchgpt.data.builder import Built, run_builder
from scratchgpt.data.chat_builder import ChatBuilderArguments, build_chats, describe_counts
from scratchgpt.data.files import read_source, source_name

HUB_NAME = "databricks/databricks-dolly-15k"


@dataclass(kw_only=True)
class DollyArguments(ChatBuilderArguments):
    HELP_GROUPS = {"max_context_characters": "Filters"}

    max_context_characters: int | None = option(
        None, "Leave out rows about longer passages, for models with a short context.", at_least=1
    )


def build(arguments: DollyArguments) -> Built:
    source = arguments.source or HUB_NAME
    is_dolly = arguments.source is None
    longest, too_long = arguments.max_context_characters, 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal too_long
        for row in read_source(source):
            if longest is not None and len(str(row.get("context") or "")) > longest:
                too_long += 1
            else:
                yield {**row, "category": str(row.get("category") or "")}

    def document(row: Any) -> str:
        return str(row.get("context") or "").strip() or row.get("instruction") or ""

    data, counts = build_chats(rows(), document, arguments, carry=["category"])
    if too_long:
        counts["left_out"]["a long passage"] = too_long
    name = source_name(source)
    return Built(
        title="Dolly as conversations" if is_dolly else f"{name} as conversations",
        description=(
            f"Built by `data_builders/dolly.py` from `{name}`: the instruction and, after an empty line, its context "
            "are the user's message, the response is the assistant's. Rows about the same passage, or without one "
            f"with the same instruction, are in the same split. {describe_counts(counts)}"
        ),
        data=data,
        license="cc-by-sa-3.0" if is_dolly else "unknown",
        task="text-generation",
        language="en" if is_dolly else None,
        build={
            "builder": "dolly",
            "source": name,
            "validation_fraction": arguments.validation_fraction,
            "test_fraction": arguments.test_fraction,
            "max_context_characters": longest,
            **counts,
        },
    )


def main(argv: list[str] | None = None) -> None:
    run_builder(DollyArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
