"""Train a tokenizer from scratch, and report how well it does.

    python recipes/train_tokenizer.py --data corpus.txt --output_dir runs/tokenizer
    python recipes/train_tokenizer.py recipes/configs/train_tokenizer/bpe.yaml --vocab_size 16384
    python recipes/train_tokenizer.py --kind regex --unk True --data texts.jsonl --output_dir runs/words
    python recipes/train_tokenizer.py --kind char --data my_saved_dataset --output_dir runs/characters
    python recipes/train_tokenizer.py … --gpt2_dir gpt2    # compare with GPT-2's encoder.json and vocab.bpe in gpt2/

`--data` is a data set of schema {"text"}: a Hub name, a folder written by `save_to_disk`, a folder of files, or a
.txt, .jsonl or .parquet file. The output directory holds the tokenizer (`AutoTokenizer.from_pretrained` loads it),
`report.json` with rates and the counts they come from, the same in the card, `README.md`, and `arguments.yaml`
(given to the recipe, it makes the same tokenizer). It is written whole or not at all; the same texts and arguments
give the same bytes.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, write_arguments
from scratchgpt.data.text import read_texts
from scratchgpt.evaluation.tokenization import CountedTexts, tokenizer_report
from scratchgpt.hub.cards import keep_card, write_card
from scratchgpt.hub.markdown import tokenizer_table
from scratchgpt.hub.staging import check_output, staged_directory
from scratchgpt.tokenizers import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    SPECIAL_TOKENS,
    BPETokenizer,
    CharTokenizer,
    RegexTokenizer,
    Tokenizer,
    to_transformers,
)

PATTERNS = {"gpt2": GPT2_PATTERN, "gpt4": GPT4_PATTERN}


@dataclass
class TokenizerArguments(RecipeArguments):
    HELP_GROUPS = {"data": "Data", "kind": "Tokenizer", "eval_data": "Evaluation", "output_dir": "Output"}

    data: str = required('Data set of schema {"text"}: Hub name, folder, or .txt/.jsonl/.parquet.')
    split: str = option("train", "Split of the data set, where it has splits.")
    column: str = option("text", "Column that holds the text.")
    max_texts: int | None = option(None, "Train on this many texts only, the first ones.", at_least=1)
    kind: Literal["bpe", "regex", "char"] = option("bpe", "Which tokenizer to train.")
    vocab_size: int | None = option(
        None, "Tokens, special ones included. bpe: 8192 by default; regex, char: no limit.", at_least=1
    )
    min_frequency: int = option(2, "How often a pair, word or character must occur.", at_least=1)
    pattern: str | None = option(None, "What may not be merged across: gpt2, gpt4 (bpe's default) or an expression.")
    unk: bool = option(False, "regex, char: unknown pieces become <|unk|> and not bytes.")
    special_tokens: list[str] = option(list(SPECIAL_TOKENS), "Special tokens, last in the vocabulary.")
    model_max_length: int = option(1024, "Tokens; where truncation cuts.", at_least=1)
    plain: bool = option(False, "Save without code: loads everywhere, as a plain tokenizer.")
    eval_data: str | None = option(None, "Texts for the report; by default the training data.")
    eval_split: str = option("train", "Split of eval_data.")
    eval_texts: int = option(1000, "How many of them.", at_least=1)
    gpt2_dir: str | None = option(None, "Folder with GPT-2's encoder.json and vocab.bpe.")
    new_words: list[str] = option(
        ["untokenizability", "Zwölfdrähtler", "スクラッチ"],
        "Words whose splits the report shows, best ones that the texts do not contain.",
    )
    output_dir: str = required("Where the tokenizer and its report go.")
    overwrite: bool = option(False, "Replace an earlier tokenizer in output_dir.")


def train(arguments: TokenizerArguments, texts: Iterable[str]) -> Tokenizer:
    pattern = PATTERNS.get(arguments.pattern or "", arguments.pattern)
    common = {"special_tokens": arguments.special_tokens, "min_frequency": arguments.min_frequency, "progress": True}
    if arguments.kind == "bpe":
        return BPETokenizer.train(texts, arguments.vocab_size or 8192, pattern or GPT4_PATTERN, **common)
    kind = RegexTokenizer if arguments.kind == "regex" else CharTokenizer
    return kind.train(texts, arguments.vocab_size, pattern=pattern, unk=arguments.unk, **common)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(TokenizerArguments, argv)
    # Everything that can be wrong with the arguments is found before the first text is read.
    check_output(arguments.output_dir, arguments.overwrite, marker="tokenizer.json")
    others: dict[str, Tokenizer] = {}
    if arguments.gpt2_dir is not None:
        folder = Path(arguments.gpt2_dir)
        others["gpt2"] = BPETokenizer.from_gpt2(folder / "encoder.json", folder / "vocab.bpe")

    on_train = arguments.eval_data is None
    source, split = arguments.eval_data or arguments.data, arguments.split if on_train else arguments.eval_split
    evaluated = list(islice(read_texts(source, split, arguments.column), arguments.eval_texts))
    training = islice(read_texts(arguments.data, arguments.split, arguments.column), arguments.max_texts)
    texts = CountedTexts(training, arguments.new_words)
    tokenizer = train(arguments, texts)
    report = tokenizer_report({arguments.kind: tokenizer, **others}, texts, evaluated, on_train)
    runtime = to_transformers(tokenizer, arguments.model_max_length)
    with staged_directory(arguments.output_dir, arguments.overwrite, marker="tokenizer.json") as folder:
        runtime.save_pretrained(folder, plain=arguments.plain)
        write_arguments(arguments, folder, published=True)
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        keep_card(Path(arguments.output_dir), folder)
        write_card(folder)
    print(tokenizer_table(report))


if __name__ == "__main__":
    run_recipe(main)
