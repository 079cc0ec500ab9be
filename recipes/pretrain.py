"""Pretrain a language model from scratch, or continue with one, on any text.

    python recipes/pretrain.py recipes/configs/pretrain/demo.yaml
    python recipes/pretrain.py recipes/configs/pretrain/gpt2_16m.yaml --data corpus/text --tokenizer runs/tokenizer
    python recipes/pretrain.py my.yaml --data HuggingFaceFW/fineweb-edu --streaming true --eval_data my_eval.txt
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain.py my.yaml   # or fsdp2.yaml
    python recipes/pretrain.py my.yaml --resume_from_checkpoint true            # after an interruption
    python recipes/pretrain.py my.yaml --model_name_or_path runs/base/final     # continue with a model

`--data` is a data set of schema {"text"} with the splits train and validation, or files (see `scratchgpt.data.text`;
then give `--eval_data`). The output directory holds checkpoints (each a model that `AutoModelForCausalLM` loads),
`arguments.yaml` (given to the recipe, it reproduces the run), `metrics.jsonl`, `results.json`, plots, and the model in
`final/`. Exit codes: 0 finished, 2 something given cannot be used, 75 interrupted by a signal and saved
(`--resume_from_checkpoint true` continues), 1 any other error.
"""

import sys
from dataclasses import dataclass

from accelerate.utils import set_seed
from transformers import AutoTokenizer

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.adapters import load_base
from scratchgpt.arguments import option, parse_arguments, required, run_recipe
from scratchgpt.data.corpus import tokenize_corpus
from scratchgpt.data.packing import PackedRows
from scratchgpt.data.pretraining_rows import find_tokenizer, training_rows
from scratchgpt.training.arguments import LanguageModelArguments
from scratchgpt.training.bases import base_config
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.tasks.language_modelling import LanguageModelling

SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")


@dataclass
class PretrainArguments(LanguageModelArguments):
    HELP_GROUPS = {"data": "Data", "model_name_or_path": "Model"}

    data: str = required('Data set of schema {"text"}: Hub name, folder or file.')
    eval_data: str | None = option(None, "Text to validate on, where data has no validation split.")
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    column: str = option("text", "Column that holds the text.")
    tokenizer: str = required("Directory or Hub name of the tokenizer.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")
    streaming: bool = option(False, "Tokenise data while training, in its order: for what does not fit on the disk.")
    mask_documents: bool = option(False, "Attention does not cross from one document to the next within a row.")
    stride: int | None = option(
        None, "Training rows begin every so many tokens; default: context_length, no overlap.", at_least=1
    )

    model_name_or_path: str | None = option(None, "A model to continue with, instead of a fresh one.")
    preset: str = option("modern", "gpt2, modern, or one of their larger sizes.")
    context_length: int | None = option(
        None,
        "Tokens in a row; default: the model's context. That of a fresh model is this, by default 512.",
        at_least=1,
    )
    hidden_size: int | None = option(None, "Width, instead of the preset's.", at_least=1)
    num_hidden_layers: int | None = option(None, "Layers, instead of the preset's.", at_least=1)
    num_attention_heads: int | None = option(None, "Query heads, instead of the preset's.", at_least=1)
    num_key_value_heads: int | None = option(None, "Key-value heads; default: as many as query heads.", at_least=1)
    vocab_size: int | None = option(
        None, "Embedding rows; default: the tokenizer's size, rounded up to a multiple of 64.", at_least=1
    )
    hidden_dropout: float | None = option(
        None, "Dropout on embeddings and residual branches; default: none, or the model's.", at_least=0, below=1
    )
    attention_dropout: float | None = option(
        None, "Dropout on attention weights; default: none, or the model's.", at_least=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.streaming and self.stride is not None:
            raise ValueError("--stride is for rows of a tokenised corpus, which --streaming true does not make")

    def given(self, *names: str) -> dict[str, int | float]:
        """Those of the options that were given."""
        return {name: value for name, value in vars(self).items() if name in names and value is not None}


def model_config(arguments: PretrainArguments, tokenizer) -> ScratchGPTConfig:
    """The configuration of the model to continue with, or of a fresh one.

    Raises:
        ValueError: for rows beyond the context of the model to continue with, and for another shape than it has.
    """
    name, length = arguments.model_name_or_path, arguments.context_length or 0
    shape, dropout = arguments.given(*SHAPE), arguments.given("hidden_dropout", "attention_dropout")
    if name is None:
        return ScratchGPTConfig.from_preset(
            arguments.preset,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            max_position_embeddings=length or 512,
            **{"vocab_size": -(len(tokenizer) // -64) * 64, **shape, **dropout},
        )
    config = base_config(name, **dropout)
    if length > config.max_position_embeddings:
        raise ValueError(
            f"context_length={length}: {name} has a context of {config.max_position_embeddings} tokens; give at most "
            "that, or leave the option out"
        )
    for field, value in shape.items():
        if value != config.to_dict()[field]:
            raise ValueError(f"{field}={value}: {name} has {config.to_dict()[field]}; leave the option out")
    return config


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PretrainArguments, argv)
    accelerator = build_accelerator(arguments)
    with accelerator.main_process_first():  # one process downloads and tokenises, the others find it done
        file = find_tokenizer(arguments.tokenizer)
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        config = model_config(arguments, tokenizer)
        length = arguments.context_length or config.max_position_embeddings
        train_rows, fingerprint = training_rows(
            arguments.data, arguments.train_split, arguments.column, file, arguments.cache_dir, length,
            stride=arguments.stride, mask_documents=arguments.mask_documents, streaming=arguments.streaming,
        )  # fmt: skip
        source = arguments.eval_data or arguments.data
        corpus = tokenize_corpus(source, file, arguments.cache_dir, arguments.eval_split, arguments.column)
        eval_rows = PackedRows(corpus, length, arguments.mask_documents)
    set_seed(arguments.seed)
    name = arguments.model_name_or_path
    model = ScratchGPTForCausalLM(config) if name is None else load_base(name, config=config)
    task = LanguageModelling(train_rows, eval_rows, tokenizer, arguments)
    if not train(task, model, tokenizer, arguments, accelerator, fingerprint):
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    run_recipe(main)
