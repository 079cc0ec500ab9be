"""Pretrain a language model from scratch, or go on with one, on any text.

    python recipes/pretrain.py recipes/configs/pretrain/demo.yaml
    python recipes/pretrain.py recipes/configs/pretrain/gpt2_16m.yaml --data corpus/text --tokenizer runs/tokenizer
    python recipes/pretrain.py my.yaml --data HuggingFaceFW/fineweb-edu --streaming true --eval_data my_eval.txt
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain.py my.yaml   # or fsdp2.yaml
    python recipes/pretrain.py my.yaml --resume_from_checkpoint true            # go on after an interruption
    python recipes/pretrain.py my.yaml --model_name_or_path runs/base/final     # go on with a model

`--data` is a data set of schema {"text"} with the splits train and validation, or files (see `scratchgpt.data.text`;
then give `--eval_data`). The output directory holds checkpoints (each a model that `AutoModelForCausalLM` loads),
`metrics.jsonl`, `results.json`, plots, and the model in `final/`. Exit codes: 0 finished, 75 interrupted by a signal
and saved (`--resume_from_checkpoint true` goes on), 1 error.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass

from accelerate.utils import set_seed
from transformers import AutoTokenizer
from transformers.utils.hub import cached_file

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.arguments import option, parse_arguments
from scratchgpt.data.corpus import describe_source, tokenize_corpus
from scratchgpt.data.packing import PackedRows, Rows, SlidingWindows, StreamingRows
from scratchgpt.data.text import read_texts
from scratchgpt.hub.model_directory import load_model
from scratchgpt.training.arguments import TrainingArguments
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.tasks.language_modelling import LanguageModelling


@dataclass
class PretrainArguments(TrainingArguments):
    data: str = option("", 'Data set of schema {"text"}: Hub name, folder or file.')
    eval_data: str | None = option(None, "Text to validate on, where data has no validation split.")
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    column: str = option("text", "Column that holds the text.")
    tokenizer: str = option("", "Directory or Hub name of the tokenizer.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")
    streaming: bool = option(False, "Tokenise data while training, in its order: for what does not fit on the disk.")
    mask_documents: bool = option(False, "Attention does not cross from one document to the next within a row.")
    stride: int | None = option(None, "Training rows begin every so many tokens; default: context_length, no overlap.")

    model_name_or_path: str | None = option(None, "A model to go on with, instead of a fresh one.")
    preset: str = option("modern", "gpt2, modern, or one of their larger sizes.")
    context_length: int = option(512, "Tokens in a row; the model's context, if it is fresh.")
    hidden_size: int | None = option(None, "Width, instead of the preset's.")
    num_hidden_layers: int | None = option(None, "Layers, instead of the preset's.")
    num_attention_heads: int | None = option(None, "Query heads, instead of the preset's.")
    num_key_value_heads: int | None = option(None, "Key-value heads; default: as many as query heads.")
    vocab_size: int | None = option(None, "Embedding rows; default: the tokenizer's size, rounded up to 64.")
    hidden_dropout: float = option(0.0, "Dropout on embeddings and residual branches.")
    attention_dropout: float = option(0.0, "Dropout on attention weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("data", "tokenizer"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing: {self.__dataclass_fields__[name].metadata['help']}")
        if self.streaming and self.stride is not None:
            raise ValueError("--stride is for rows of a tokenised corpus, which --streaming true does not make")


def build_model(arguments: PretrainArguments, tokenizer) -> ScratchGPTForCausalLM:
    """The model to train: the one asked for, or a fresh one whose weights follow from the seed."""
    if arguments.model_name_or_path is not None:
        return load_model(ScratchGPTForCausalLM, arguments.model_name_or_path, dtype="float32")
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    shape = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    config = ScratchGPTConfig.from_preset(
        arguments.preset,
        vocab_size=arguments.vocab_size or -(len(tokenizer) // -64) * 64,
        max_position_embeddings=arguments.context_length,
        hidden_dropout=arguments.hidden_dropout,
        attention_dropout=arguments.attention_dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    set_seed(arguments.seed)
    return ScratchGPTForCausalLM(config)


def find_tokenizer(name: str) -> str:
    """The path of tokenizer.json, downloaded if the tokenizer is one of the Hub."""
    try:
        file = cached_file(name, "tokenizer.json")
    except OSError as error:
        raise ValueError(
            f"{name} is no tokenizer with a tokenizer.json, neither here nor on the Hub: train one with "
            f"recipes/train_tokenizer.py, or name another ({error})"
        ) from error
    assert file is not None
    return file


def build_train_rows(arguments: PretrainArguments, tokenizer_file: str) -> tuple[Rows, str]:
    """The rows to train on, and a fingerprint that other rows do not have."""
    source, split, column = arguments.data, arguments.train_split, arguments.column
    length, stride, mask = arguments.context_length, arguments.stride, arguments.mask_documents
    if arguments.streaming:
        rows = StreamingRows(lambda: read_texts(source, split, column), tokenizer_file, length, mask)
        content = [describe_source(source, split), split, column, rows.encoder.fingerprint]
    else:
        corpus = tokenize_corpus(source, tokenizer_file, arguments.cache_dir, split, column)
        rows = SlidingWindows(corpus, length, stride or length, mask)
        content = corpus.fingerprint
    return rows, hashlib.sha256(json.dumps([content, length, stride, mask]).encode()).hexdigest()


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PretrainArguments, argv)
    if arguments.dry_run:
        print(json.dumps(asdict(arguments), indent=2, ensure_ascii=False))
        return
    accelerator = build_accelerator(arguments)
    with accelerator.main_process_first():  # one process downloads and tokenises, the others find it done
        file = find_tokenizer(arguments.tokenizer)
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        train_rows, fingerprint = build_train_rows(arguments, file)
        source = arguments.eval_data or arguments.data
        corpus = tokenize_corpus(source, file, arguments.cache_dir, arguments.eval_split, arguments.column)
        eval_rows = PackedRows(corpus, arguments.context_length, arguments.mask_documents)
    model = build_model(arguments, tokenizer)
    task = LanguageModelling(train_rows, eval_rows, tokenizer, arguments)
    finished = train(task, model, tokenizer, arguments, accelerator, fingerprint)
    if not finished:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
