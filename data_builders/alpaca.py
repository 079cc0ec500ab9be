"""Alpaca: 52,000 instructions with answers by text-davinci-003, as conversations.

    python data_builders/alpaca.py --output_dir data/alpaca
    python data_builders/alpaca.py --source alpaca_data.json --output_dir data/alpaca
    python data_builders/alpaca.py --source my_instructions.jsonl --output_dir data/mine --validation_fraction 0.1

Without `--source` the rows come from the Hub (`tatsu-lab/alpaca`). Any file with the columns `instruction`, `input`
and `output` will do; `system` and `history` become turns too. Rows with the same instruction (and other inputs) are in
the same split. Splits follow from a hash of the instruction: the same in every order of the rows. Licence: CC BY-NC
4.0, for research only.
"""

from dataclasses import dataclass

from scratchgpt.arguments import run_recipe
from scratchgpt.data.builder import Built, run_builder
from scratchgpt.data.chat_builder import ChatBuilderArguments, build_chats, describe_counts
from scratchgpt.data.files import read_source, source_name

HUB_NAME = "tatsu-lab/alpaca"


@dataclass(kw_only=True)
class AlpacaArguments(ChatBuilderArguments):
    """The options of every builder of conversations."""


def build(arguments: AlpacaArguments) -> Built:
    source = arguments.source or HUB_NAME
    is_alpaca = arguments.source is None
    data, counts = build_chats(read_source(source), lambda row: row.get("instruction") or "", arguments)
    name = source_name(source)
    return Built(
        title="Alpaca as conversations" if is_alpaca else f"{name} as conversations",
        description=(
            f"Built by `data_builders/alpaca.py` from `{name}`: the instruction and, after an empty line, its input "
            "are the user's message, the output is the assistant's. Rows with the same instruction are in the same "
            f"split. {describe_counts(counts)}"
        ),
        data=data,
        license="cc-by-nc-4.0" if is_alpaca else "unknown",
        task="text-generation",
        language="en" if is_alpaca else None,
        build={
            "builder": "alpaca",
            "source": name,
            "validation_fraction": arguments.validation_fraction,
            "test_fraction": arguments.test_fraction,
            **counts,
        },
    )


def main(argv: list[str] | None = None) -> None:
    run_builder(AlpacaArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
