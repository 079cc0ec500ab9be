"""Train a tokenizer from scratch, and report how well it does.

    python recipes/train_tokenizer.py --data corpus.txt --output_dir runs/tokenizer
    python recipes/train_tokenizer.py recipes/configs/train_tokenizer/bpe.yaml --vocab_size 16384
    python recipes/train_tokenizer.py --kind regex --unk True --data texts.jsonl --output_dir runs/words
    python recipes/train_tokenizer.py --kind char --data my_saved_dataset --output_dir runs/characters
    python recipes/train_tokenizer.py … --gpt2_dir gpt2    # compare with GPT-2's encoder.json and vocab.bpe in gpt2/

`--data` is a data set of schema {"text"}: a Hub name, a folder written by `save_to_disk`, a folder of files, or a
.txt, .jsonl or .parquet file. The output directory holds the tokenizer (`AutoTokenizer.from_pretrained` loads it),
`report.json` with the figures and their counts, and the same as a table in `README.md`. It is written whole or not at
all; the same texts and arguments give the same bytes.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from scratchgpt.arguments import parse_arguments
from scratchgpt.data.files import source_name
from scratchgpt.data.text import read_texts
from scratchgpt.hub.staging import check_output, staged_directory
from scratchgpt.tokenizers import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    SPECIAL_TOKENS,
    BPETokenizer,
    CharTokenizer,
    RegexTokenizer,
    Tokenizer,
    to_rust,
    to_transformers,
)
from scratchgpt.tokenizers.patterns import splitter

PATTERNS = {"gpt2": GPT2_PATTERN, "gpt4": GPT4_PATTERN}


@dataclass
class TokenizerArguments:
    data: str = field(metadata={"help": 'Data set of schema {"text"}: Hub name, folder, or .txt/.jsonl/.parquet.'})
    output_dir: str = field(metadata={"help": "Where the tokenizer and its report go."})
    kind: Literal["bpe", "regex", "char"] = field(default="bpe", metadata={"help": "Which tokenizer to train."})
    split: str = field(default="train", metadata={"help": "Split of the data set, where it has splits."})
    column: str = field(default="text", metadata={"help": "Column that holds the text."})
    max_texts: int | None = field(default=None, metadata={"help": "Train on the first so many texts only."})
    vocab_size: int | None = field(
        default=None, metadata={"help": "Tokens, special ones included. bpe: 8192 by default; regex, char: no limit."}
    )
    min_frequency: int = field(default=2, metadata={"help": "How often a pair, word or character must occur."})
    pattern: str | None = field(
        default=None, metadata={"help": "What may not be merged across: gpt2, gpt4 (bpe's default) or an expression."}
    )
    unk: bool = field(default=False, metadata={"help": "regex, char: unknown pieces become <|unk|> and not bytes."})
    special_tokens: list[str] = field(
        default_factory=lambda: list(SPECIAL_TOKENS), metadata={"help": "Special tokens, last in the vocabulary."}
    )
    model_max_length: int = field(default=1024, metadata={"help": "Tokens; where truncation cuts."})
    plain: bool = field(default=False, metadata={"help": "Save without code: loads everywhere, as a plain tokenizer."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an earlier tokenizer in output_dir."})
    eval_data: str | None = field(
        default=None, metadata={"help": "Texts for the report; by default the training data."}
    )
    eval_split: str = field(default="train", metadata={"help": "Split of eval_data."})
    eval_texts: int = field(default=1000, metadata={"help": "How many of them."})
    gpt2_dir: str | None = field(default=None, metadata={"help": "Folder with GPT-2's encoder.json and vocab.bpe."})
    new_words: list[str] = field(
        default_factory=lambda: ["untokenizability", "Zwölfdrähtler", "スクラッチ"],
        metadata={"help": "Words whose splits the report shows, best ones that the texts do not contain."},
    )
    dry_run: bool = field(default=False, metadata={"help": "Print these arguments as they were understood, and stop."})


class Reader:
    """The training texts, counted on their way; remembers which of `words` they contain."""

    def __init__(self, texts: Iterable[str], words: list[str]) -> None:
        self.texts, self.words = texts, words
        self.num_texts = self.num_bytes = 0
        self.seen: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.num_texts += 1
            self.num_bytes += len(text.encode())
            self.seen.update(word for word in self.words if word not in self.seen and word in text)
            yield text


def train(arguments: TokenizerArguments, texts: Iterable[str]) -> Tokenizer:
    pattern = PATTERNS.get(arguments.pattern or "", arguments.pattern)
    common = {"special_tokens": arguments.special_tokens, "min_frequency": arguments.min_frequency, "progress": True}
    if arguments.kind == "bpe":
        return BPETokenizer.train(texts, arguments.vocab_size or 8192, pattern or GPT4_PATTERN, **common)
    kind = RegexTokenizer if arguments.kind == "regex" else CharTokenizer
    return kind.train(texts, arguments.vocab_size, pattern=pattern, unk=arguments.unk, **common)


def measure(tokenizer: Tokenizer, texts: list[str]) -> dict[str, float | int | str]:
    """Figures over `texts` and the counts they come from; text that spells a special token counts as text."""
    encoded = list(tokenizer.encode_batch(texts, split_special_tokens=True))
    num_tokens, num_bytes = sum(map(len, encoded)), sum(len(text.encode()) for text in texts)
    num_words = sum(len(text.split()) for text in texts)
    pieces = unknown = 0
    if isinstance(tokenizer, RegexTokenizer):
        for text in texts:
            found = splitter(tokenizer.pattern)(text)
            pieces += len(found)
            unknown += sum(piece.encode() not in tokenizer.vocabulary for piece in found)
    rust = to_rust(tokenizer)
    rust.encode_special_tokens = True
    agree = sum(ids.tolist() == rust.encode(text).ids for ids, text in zip(encoded, texts, strict=True))
    kept = sum(tokenizer.decode(ids.tolist()) == text for ids, text in zip(encoded, texts, strict=True))
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": round(num_bytes / max(num_tokens, 1), 4),
        "tokens_per_word": round(num_tokens / max(num_words, 1), 4),
        "unknown_rate": round(unknown / max(pieces, 1), 6),
        "round_trip": f"{kept}/{len(texts)}",
        "same_ids_in_rust": f"{agree}/{len(texts)}",
        "num_texts": len(texts),
        "num_bytes": num_bytes,
        "num_words": num_words,
        "num_tokens": num_tokens,
    }


def split_word(tokenizer: Tokenizer, word: str) -> list[str]:
    """The tokens of ` word`; bytes that are no character by themselves as \\x…"""
    ids = tokenizer.encode(" " + word, split_special_tokens=True)
    return [tokenizer.token_bytes[token_id].decode("utf-8", errors="backslashreplace") for token_id in ids]


def table(report: dict) -> str:
    """`report` in Markdown."""
    names = list(report["tokenizers"])
    columns = ["vocab_size", "bytes_per_token", "tokens_per_word", "unknown_rate", "round_trip", "same_ids_in_rust"]
    rows = [["", *names], ["---", *["---:"] * len(names)]]
    rows += [[column, *[str(report["tokenizers"][name][column]) for name in names]] for column in columns]
    for word, entry in report["new_words"].items():
        splits = ["·".join(entry["splits"][name]).replace("|", "\\|") for name in names]
        rows.append([f"{word}{' (in the training texts)' if entry['seen'] else ''}", *splits])
    trained, measured = report["train"], next(iter(report["tokenizers"].values()))
    rows_of_text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    which = "of them" if report["eval_on_train"] else "others"
    return (
        f"{rows_of_text}\n\nTrained on {trained['num_texts']:,} texts ({trained['num_bytes']:,} bytes); measured on "
        f"{measured['num_texts']:,} {which} ({measured['num_bytes']:,} bytes).\n"
    )


def described(arguments: TokenizerArguments) -> dict[str, Any]:
    """What the report says of the arguments: sources by their names, and not where anything lies."""
    described = {name: value for name, value in asdict(arguments).items() if name not in ("output_dir", "overwrite")}
    sources = {name: described[name] for name in ("data", "eval_data", "gpt2_dir") if described[name]}
    return described | {name: source_name(source) for name, source in sources.items()}


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(TokenizerArguments, argv)
    if arguments.dry_run:
        print(json.dumps(asdict(arguments), indent=2, ensure_ascii=False))
        return
    # Everything that can be wrong with the arguments is found before the first text is read.
    check_output(arguments.output_dir, arguments.overwrite, marker="tokenizer.json")
    others: dict[str, Tokenizer] = {}
    if arguments.gpt2_dir is not None:
        folder = Path(arguments.gpt2_dir)
        others["gpt2"] = BPETokenizer.from_gpt2(folder / "encoder.json", folder / "vocab.bpe")

    texts = Reader(
        islice(read_texts(arguments.data, arguments.split, arguments.column), arguments.max_texts), arguments.new_words
    )
    tokenizer = train(arguments, texts)
    source, split = (
        (arguments.eval_data or arguments.data),
        (arguments.eval_split if arguments.eval_data else arguments.split),
    )
    evaluated = list(islice(read_texts(source, split, arguments.column), arguments.eval_texts))
    tokenizers = {arguments.kind: tokenizer, **others}
    report = {
        "arguments": described(arguments),
        "train": {"num_texts": texts.num_texts, "num_bytes": texts.num_bytes},
        "eval_on_train": arguments.eval_data is None,
        "tokenizers": {name: measure(each, evaluated) for name, each in tqdm(tokenizers.items(), desc="measuring")},
        "new_words": {
            word: {
                "seen": word in texts.seen,
                "splits": {name: split_word(each, word) for name, each in tokenizers.items()},
            }
            for word in arguments.new_words
        },
    }
    runtime = to_transformers(tokenizer, arguments.model_max_length)
    with staged_directory(arguments.output_dir, arguments.overwrite, marker="tokenizer.json") as folder:
        runtime.save_pretrained(folder, plain=arguments.plain)
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(f"# {arguments.kind} tokenizer\n\n{table(report)}", encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
