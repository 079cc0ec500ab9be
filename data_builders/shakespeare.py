"""TinyShakespeare: 40,000 lines of his plays, split by position as nanoGPT does.

    python data_builders/shakespeare.py --output_dir data/shakespeare
    python data_builders/shakespeare.py --source input.txt --output_dir data/shakespeare
    python data_builders/shakespeare.py --source my_book.txt --output_dir data/my_book --block_characters 10000

Without `--source` the text comes from the Hub (`karpathy/tiny_shakespeare`) and is checked against its SHA-256. The
last tenth of the characters validates. The rows of a split, one after the other, are exactly its part of the text:
one row, or blocks of `--block_characters`. Any single text can be split in this way.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from datasets import load_dataset

from scratchgpt.arguments import option, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, make_dataset, run_builder
from scratchgpt.data.files import open_text, source_name
from scratchgpt.data.splits import check_fractions

HUB_NAME = "karpathy/tiny_shakespeare"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(kw_only=True)
class ShakespeareArguments(BuilderArguments):
    HELP_GROUPS = {"source": "Data", "validation_fraction": "Splits", "block_characters": "Data"}

    source: str | None = option(None, "A text file; by default the Hub's tiny_shakespeare.")
    validation_fraction: float = option(0.1, "Share of the characters, from the end.", at_least=0, below=1)
    block_characters: int | None = option(None, "Characters in a row; by default a split is one row.", at_least=1)


def read_hub() -> str:
    """The whole text, which the Hub keeps in three parts.

    Raises:
        ValueError: when the Hub cannot be reached, or its text is another one.
    """
    try:
        # The data set's own branch holds a script, which `datasets` no longer runs; the Hub converted it to parquet.
        parts = load_dataset(HUB_NAME, revision="refs/convert/parquet")
        text = "".join(row for split in ("train", "validation", "test") for row in parts[split]["text"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{HUB_NAME} cannot be read from the Hub; give a file with --source ({error})") from error
    if hashlib.sha256(text.encode()).hexdigest() != SHA256:
        raise ValueError(f"The Hub's {HUB_NAME} is not the text it was; give a file with --source")
    return text


def read_file(file: Path) -> str:
    """The text of `file` with its line ends as they are.

    Raises:
        ValueError: for a file that is missing, not UTF-8 or empty.
    """
    try:
        with open_text(file, newline="") as content:
            text = content.read()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): give a text file as --source") from error
    if not text.strip():
        raise ValueError(f"{file} is empty: give a text file as --source")
    return text


def build(arguments: ShakespeareArguments) -> Built:
    check_fractions(validation_fraction=arguments.validation_fraction)
    text = read_hub() if arguments.source is None else read_file(Path(arguments.source))
    original = hashlib.sha256(text.encode()).hexdigest() == SHA256
    source = "tiny_shakespeare" if original else source_name(arguments.source or "")

    border = int(len(text) * (1 - arguments.validation_fraction))
    splits = {"train": text[:border], "validation": text[border:]}
    if "" in splits.values():
        raise ValueError(
            f"validation_fraction={arguments.validation_fraction} of {len(text)} characters leaves a split empty: "
            "choose it so that both have text"
        )
    rows = {
        split: [{"text": block, "source": source} for block in blocks(part, arguments.block_characters)]
        for split, part in splits.items()
    }
    description = (
        f"{'TinyShakespeare, from ' + HUB_NAME if original else f'The text `{source}`'}, split by position: the last "
        f"{arguments.validation_fraction:.0%} of the {len(text):,} characters validate. The rows of a split, one "
        "after the other, are exactly its part of the text."
    )
    return Built(
        title="TinyShakespeare" if original else source,
        description=f"Built by `data_builders/shakespeare.py`. {description}",
        data=make_dataset(rows),
        license="mit" if original else "unknown",
        language="en" if original else None,
        build={
            "builder": "shakespeare",
            "source": source,
            "validation_fraction": arguments.validation_fraction,
            "block_characters": arguments.block_characters,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    )


def blocks(text: str, size: int | None) -> list[str]:
    """`text` in pieces of `size` characters, the last one shorter; in one piece without a size."""
    return [text] if size is None else [text[start : start + size] for start in range(0, len(text), size)]


def main(argv: list[str] | None = None) -> None:
    run_builder(ShakespeareArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
