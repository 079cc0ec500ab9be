"""Your own texts: a folder (or a file) of .txt, .md, .jsonl and .parquet, without duplicates and near-duplicates.

    python data_builders/text_files.py --source my_texts --output_dir data/mine
    python data_builders/text_files.py --source dump.jsonl --column content --output_dir data/mine --dry_run True
    python data_builders/text_files.py --source my_texts --output_dir data/mine --near_duplicate_threshold 0.6

A document is a whole .txt or .md file, or a row of a .jsonl or .parquet file; text also as .gz or .zst. All of them
must fit in memory. Files of other kinds are counted and not read. What is left out, in this order, and counted:

1. documents shorter than `--min_characters`;
2. exact duplicates: equal but for white space;
3. near-duplicates: those whose sets of word shingles (`--shingle_size` words in a row, in lower case) have a Jaccard
   similarity of `--near_duplicate_threshold` or more. MinHash with locality-sensitive hashing (Broder 1997; Indyk and
   Motwani 1998) proposes pairs, the sets themselves decide: nothing unlike is left out, and of pairs at
   the threshold one in a hundred is missed at most.

Of duplicates the first stays, in the order of the files' names and their rows. A hash of its text and the seed decides
to which split a document goes, so that documents added later move none.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from datasketch import MinHash, MinHashLSH
from tqdm import tqdm

from scratchgpt.arguments import option, parse_arguments, required, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, check_arguments, finish, make_dataset, say
from scratchgpt.data.files import source_name, suffix_of
from scratchgpt.data.splits import assign, check_fractions, draw
from scratchgpt.data.text import read_texts, text_files

WHOLE = (".txt", ".md")
READ = (*WHOLE, ".jsonl", ".parquet")

RECALL = 0.99
"""Probability that a pair of documents just as similar as the threshold is found."""

TOO_SHORT, EXACT, NEAR = "too short", "exact duplicate", "near-duplicate"


@dataclass(kw_only=True)
class TextFilesArguments(BuilderArguments):
    HELP_GROUPS = {"source": "Data", "min_characters": "Filters", "validation_fraction": "Splits"}

    source: str = required("A folder, or a .txt, .md, .jsonl or .parquet file.")
    column: str = option("text", "Column of .jsonl and .parquet that holds the text.")
    min_characters: int = option(50, "Shorter documents are left out.", at_least=1)
    near_duplicate_threshold: float = option(
        0.8, "Jaccard similarity from which the later document is left out; 1: exact only.", above=0, at_most=1
    )
    num_perm: int = option(128, "Permutations of MinHash: more miss fewer near-duplicates.", at_least=16)
    shingle_size: int = option(5, "Words in a shingle.", at_least=1)
    validation_fraction: float = option(0.05, "Share of the documents that validates.", at_least=0, below=1)
    test_fraction: float = option(0.0, "Share of the documents that tests.", at_least=0, below=1)


@dataclass
class Document:
    text: str
    source: str
    """The file's path within the folder, with `#row` for one of a .jsonl or .parquet file."""


def read_documents(source: Path, column: str) -> Iterator[Document]:
    """
    Raises:
        ValueError: for a source without text files, and for a file that is broken or not UTF-8; says where.
    """
    if not source.exists():
        raise ValueError(f"{source} does not exist: give a folder or a file as --source")
    files = [source] if source.is_file() else text_files(source, READ)
    if not files or suffix_of(files[0]) not in READ:
        raise ValueError(f"{source} holds no .txt, .md, .jsonl or .parquet: give a folder or file that does")
    for file in tqdm(files, desc="reading files", unit="file"):
        name = file.relative_to(source if source.is_dir() else source.parent).as_posix()
        if suffix_of(file) in WHOLE:
            yield Document("".join(read_texts(file)), name)
        else:
            for number, text in enumerate(read_texts(file, column=column)):
                yield Document(text, f"{name}#{number}")


def other_files(source: Path) -> Counter[str]:
    """How many files in a folder are of each kind that is not read, by suffix."""
    read = {*text_files(source, READ)}
    return Counter(
        file.suffix.lower() or file.name for file in source.rglob("*") if file.is_file() and file not in read
    )


def deduplicate(documents: Iterable[Document], arguments: TextFilesArguments) -> tuple[list[Document], Counter[str]]:
    """The documents that stay, in their order, and how many were left out for each reason."""
    kept: list[Document] = []
    removed = Counter({TOO_SHORT: 0, EXACT: 0, NEAR: 0})
    seen: set[bytes] = set()
    threshold = arguments.near_duplicate_threshold
    index = MinHashLSH(num_perm=arguments.num_perm, params=bands(threshold, arguments.num_perm))
    empty = MinHash(num_perm=arguments.num_perm)
    for document in documents:
        normalized = " ".join(document.text.split())
        if len(normalized) < arguments.min_characters:
            removed[TOO_SHORT] += 1
            continue
        digest = hashlib.sha256(normalized.encode()).digest()
        if digest in seen:
            removed[EXACT] += 1
            continue
        seen.add(digest)
        if threshold < 1:
            own = shingles(document.text, arguments.shingle_size)
            sketch = empty.copy()
            sketch.update_batch([shingle.encode() for shingle in own])
            candidates = [kept[cast(int, key)] for key in index.query(sketch)]
            if any(jaccard(own, shingles(each.text, arguments.shingle_size)) >= threshold for each in candidates):
                removed[NEAR] += 1
                continue
            index.insert(len(kept), sketch)
        kept.append(document)
    return kept, removed


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Number and size of the bands of a sketch: two texts are candidates when they agree in a band.

    The largest size, hence the fewest false candidates, that proposes pairs at the threshold with a probability of
    `RECALL` or more.
    """
    sizes = [size for size in range(1, num_perm // 2 + 1) if 1 - (1 - threshold**size) ** (num_perm // size) >= RECALL]
    size = max(sizes, default=1)
    return num_perm // size, size


def shingles(text: str, size: int) -> set[str]:
    """All runs of `size` words, or the whole text where it has fewer."""
    words = text.lower().split()
    return {" ".join(words[start : start + size]) for start in range(max(1, len(words) - size + 1))}


def jaccard(left: set[str], right: set[str]) -> float:
    """The share of what is in both among what is in either."""
    return len(left & right) / len(left | right)


def split_documents(documents: list[Document], arguments: TextFilesArguments) -> dict[str, list[Document]]:
    """
    Raises:
        ValueError: when a split that was asked for gets no document.
    """
    fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
    splits: dict[str, list[Document]] = {"train": [], **{name: [] for name in fractions if fractions[name]}}
    places = [draw(arguments.seed, " ".join(document.text.split())) for document in documents]
    for document, split in zip(documents, assign(places, fractions), strict=True):
        splits[split].append(document)
    if missing := [split for split, members in splits.items() if not members]:
        raise ValueError(
            f"{len(documents)} documents are too few for {len(splits)} splits ({', '.join(missing)} would be empty): "
            "give more documents, or validation_fraction 0 for none. A single text is split by position by "
            "data_builders/shakespeare.py --source"
        )
    return splits


def build(arguments: TextFilesArguments) -> Built:
    check_fractions(validation_fraction=arguments.validation_fraction, test_fraction=arguments.test_fraction)
    source = Path(arguments.source)
    documents, removed = deduplicate(read_documents(source, arguments.column), arguments)
    if not documents:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in removed.items())
        raise ValueError(f"No document of {source} is left ({reasons}): lower min_characters, or give more text")
    splits = split_documents(documents, arguments)
    others = dict(sorted(other_files(source).items()))
    rows = {
        split: [{"text": document.text, "source": document.source} for document in members]
        for split, members in splits.items()
    }
    name = source_name(source)
    not_read = ", ".join(f"{count:,} {kind}" for kind, count in others.items()) or "none"
    settings = ("column", "min_characters", "near_duplicate_threshold", "num_perm", "shingle_size")
    return Built(
        title=name,
        description=(
            f"Built by `data_builders/text_files.py` from `{name}`: a document is a whole .txt or .md file, or a row "
            "of a .jsonl or .parquet file.\n\n"
            f"{removal_table(len(documents), removed)}\n\n"
            f"Too short: under {arguments.min_characters} characters. Exact: equal but for white space. Near: Jaccard "
            f"similarity of the sets of {arguments.shingle_size} words in a row of "
            f"{arguments.near_duplicate_threshold} or more, found with MinHash ({arguments.num_perm} permutations). "
            "Of duplicates the first stays. A hash of the text and the seed decides the split. Files of other kinds, "
            f"which are not read: {not_read}."
        ),
        data=make_dataset(rows),
        build={
            "builder": "text_files",
            "source": name,
            **{key: value for key, value in asdict(arguments).items() if key in settings},
            "removed": dict(removed),
            "other_files": others,
        },
    )


def removal_table(kept: int, removed: Counter[str]) -> str:
    """What became of the documents, in Markdown."""
    counts = {"kept": kept, **removed, "all": kept + removed.total()}
    return "\n".join(["| | documents |", "| --- | ---: |", *[f"| {name} | {n:,} |" for name, n in counts.items()]])


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(TextFilesArguments, argv)
    check_arguments(arguments)
    built = build(arguments)
    kept = sum(split.num_rows for split in built.data.values())
    say(arguments, removal_table(kept, Counter(built.build["removed"])))
    for kind, count in built.build["other_files"].items():
        say(arguments, f"{count:,} {kind} files are not read")
    finish(arguments, {"": built})


if __name__ == "__main__":
    run_recipe(main)
