"""What pretraining is given and made of: text, tokenizer, model, rows; what is not given is chosen, and said.

Without validation text, the end of a text or some of several documents are held out (`data.held_out`); without a
tokenizer, one is trained; without a size and a number of steps, they are what this machine trains in `--minutes`, from
the measured speed (`plan`).
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerBase

from ..adapters import load_base
from ..arguments import option, required
from ..configuration_scratchgpt import ScratchGPTConfig
from ..data.corpus import tokenize_corpus
from ..data.held_out import has_split, write_splits
from ..data.packing import PackedRows, SlidingWindows
from ..data.pretraining_rows import find_tokenizer, train_tokenizer, training_rows
from ..evaluation.baselines import unigram_bits_per_byte
from ..evaluation.language_modelling import token_byte_counts
from ..hub.model_directory import count_parameters
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..tokenization_scratchgpt import END_OF_TURN
from .arguments import LanguageModelArguments
from .bases import base_config
from .loop import measure
from .plan import Measured, in_words, vocabulary_size
from .planning import Planner
from .tasks.language_modelling import LanguageModelling

SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")

SIZE = (*SHAPE[:-1], "preset", "model_name_or_path", "max_steps")
"""Options of which one is enough: then there is no plan, and what is not given has its fixed default."""

MINUTES = 10.0


@dataclass
class PretrainArguments(LanguageModelArguments):
    """Text, tokenizer and shape of the model, beside how to train it."""

    HELP_GROUPS = {"data": "Data", "model_name_or_path": "Model"}

    data: str = required('Data set of schema {"text"}: Hub name, folder or file.')
    eval_data: str | None = option(
        None, "Text to validate on; default: the validation split of data, or a part of data that is held out."
    )
    minutes: float | None = option(
        None,
        "Without a size and max_steps: choose what this machine trains in about so many minutes; default: 10.",
        above=0,
        at_most=100_000,
    )
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    column: str = option("text", "Column that holds the text.")
    tokenizer: str | None = option(
        None, "Directory or Hub name of the tokenizer; default: that of model_name_or_path, or one trained on data."
    )
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
        if self.streaming and self.tokenizer is None and self.model_name_or_path is None:
            raise ValueError("--streaming true reads the text once: give --tokenizer")

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


def with_texts(arguments: PretrainArguments, say: Callable[[str], object]) -> PretrainArguments:
    """With a validation text and a tokenizer; what was not given is made in the output directory."""
    output_dir = Path(arguments.output_dir)
    if arguments.eval_data is None and not has_split(arguments.data, arguments.eval_split):
        if arguments.streaming:
            raise ValueError(
                f"{arguments.data} has no split {arguments.eval_split}: --streaming true needs --eval_data"
            )
        data = output_dir / "data"
        write_splits(arguments.data, arguments.train_split, arguments.column, data, say)
        arguments = replace(arguments, data=str(data), train_split="train", eval_split="validation", column="text")
    if arguments.tokenizer is None and arguments.model_name_or_path is not None:
        arguments = replace(arguments, tokenizer=arguments.model_name_or_path)
    elif arguments.tokenizer is None:
        directory, most = output_dir / "tokenizer", arguments.vocab_size or sys.maxsize
        train_tokenizer(
            arguments.data, arguments.train_split, arguments.column, directory,
            lambda size: min(vocabulary_size(size), most), say,
        )  # fmt: skip
        arguments = replace(arguments, tokenizer=str(directory))
    return arguments


@dataclass
class Prepared:
    """What a run is made of, for the arguments as they now are."""

    config: ScratchGPTConfig
    tokenizer: PreTrainedTokenizerBase
    task: LanguageModelling
    fingerprint: str

    def model(self, arguments: PretrainArguments) -> ScratchGPTForCausalLM:
        set_seed(arguments.seed)
        if arguments.model_name_or_path is not None:
            return load_base(arguments.model_name_or_path, config=self.config)
        model = ScratchGPTForCausalLM(self.config)
        if END_OF_TURN in self.tokenizer.get_vocab():
            # Under a chat adapter AutoModel stops where the base does. The base itself never gives this token.
            ids: Any = self.tokenizer  # annotated as if there could be several
            ends = {ids.eos_token_id, ids.convert_tokens_to_ids(END_OF_TURN)}
            model.generation_config.eos_token_id = sorted(ends)
        return model


def prepare(arguments: PretrainArguments, tokenizer: PreTrainedTokenizerBase) -> Prepared:
    """Configuration, rows and task. Raises ValueError as `model_config`, `find_tokenizer` and `training_rows`."""
    assert arguments.tokenizer is not None
    file = find_tokenizer(arguments.tokenizer)
    config = model_config(arguments, tokenizer)
    length = arguments.context_length or config.max_position_embeddings
    train_rows, fingerprint = training_rows(
        arguments.data, arguments.train_split, arguments.column, file, arguments.cache_dir, length,
        stride=arguments.stride, mask_documents=arguments.mask_documents, streaming=arguments.streaming,
    )  # fmt: skip
    source = arguments.eval_data or arguments.data
    corpus = tokenize_corpus(source, file, arguments.cache_dir, arguments.eval_split, arguments.column)
    eval_rows = PackedRows(corpus, length, arguments.mask_documents)
    return Prepared(config, tokenizer, LanguageModelling(train_rows, eval_rows, tokenizer, arguments), fingerprint)


def planned(
    arguments: PretrainArguments, given: set[str], tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator
) -> tuple[PretrainArguments, dict[str, float]]:
    """With the size and the number of steps for this machine, this text and `--minutes`; and what is predicted."""

    def measured(tried: PretrainArguments) -> Measured:
        prepared = prepare(tried, tokenizer)
        return measure(prepared.task, prepared.model(tried), tokenizer, tried, accelerator)

    file = find_tokenizer(str(arguments.tokenizer))
    train_corpus, eval_corpus = (
        tokenize_corpus(source, file, arguments.cache_dir, split, arguments.column)
        for source, split in (
            (arguments.data, arguments.train_split),
            (arguments.eval_data or arguments.data, arguments.eval_split),
        )
    )
    planner = Planner(arguments, given, train_corpus, eval_corpus, len(tokenizer), measured, accelerator.print)
    return planner.plan(arguments.minutes or MINUTES)


def say_plan(
    arguments: PretrainArguments, prepared: Prepared, predicted: dict[str, float], say: Callable[[str], object]
) -> None:
    """What was planned: size, passes over the text, time and memory; and how to choose otherwise."""
    rows_of_text = prepared.task.train_rows
    assert isinstance(rows_of_text, SlidingWindows)  # a stream is never planned
    num_tokens = rows_of_text.corpus.num_tokens
    with torch.device("meta"):
        num_parameters = count_parameters(ScratchGPTForCausalLM(prepared.config))
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert arguments.context_length is not None
    read = rows * arguments.context_length * arguments.max_steps
    config = prepared.config
    say(
        f"Plan: {num_parameters / 1e6:,.1f} million parameters ({config.num_hidden_layers} layers, "
        f"{config.hidden_size} wide, {arguments.context_length} tokens of context, vocabulary {config.vocab_size:,}); "
        f"{num_tokens:,} tokens of text, read {read / num_tokens:.1f} times in {arguments.max_steps:,} steps; about "
        f"{in_words(predicted['seconds'])} and {predicted['memory_mb'] / 1000:.1f} GB of memory.\n"
        "Other choices: --minutes 30, or any option of your own (--hidden_size, --num_hidden_layers, --max_steps, …), "
        "which then wins."
    )


def say_end(arguments: PretrainArguments, prepared: Prepared, say: Callable[[str], object]) -> None:
    """How good the model is beside token frequencies, where it is, and what comes next."""
    output_dir, rows = Path(arguments.output_dir), prepared.task.train_rows
    final = output_dir / "final"
    if isinstance(rows, SlidingWindows) and isinstance(prepared.task.eval_rows, PackedRows):
        measured = json.loads((output_dir / "results.json").read_text(encoding="utf-8"))["final"]["bits_per_byte"]
        counts = token_byte_counts(prepared.tokenizer, prepared.config.vocab_size).numpy()
        baseline = unigram_bits_per_byte(rows.corpus, prepared.task.eval_rows.corpus, counts)
        say(
            f"Validation: {measured:.3f} bits per byte; token frequencies alone: {baseline:.3f}"
            + ("." if measured < baseline else ": the model has not learned more than those. Train it for longer.")
        )
    say(
        f"The model: {final}. Its curves: {output_dir / 'loss.png'}. Let it continue a text:\n"
        f'    python -c "import scratchgpt; from transformers import pipeline; '
        f"print(pipeline('text-generation', '{final}')('The', max_new_tokens=60)[0]['generated_text'])\"\n"
        f"Make a chat model or a classifier of it: scratchgpt finetune-instruct --help, or "
        f"finetune-classifier, with --model_name_or_path {final}"
    )
