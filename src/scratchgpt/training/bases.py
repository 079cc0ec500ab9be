"""What tuning starts from: a base as it is, in its shape only, with tokens for the roles, or after more reading."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ..adapters import load_base
from ..arguments import option
from ..data.chat import PLAIN_TEMPLATE
from ..data.corpus import tokenize_corpus
from ..data.packing import PackedRows
from ..hub.intermediates import Intermediate, base_inputs
from ..hub.model_directory import save_model
from ..hub.names import check_source
from ..modeling_scratchgpt import ScratchGPTForCausalLM, ScratchGPTPreTrainedModel
from ..tokenization_scratchgpt import CHAT_TEMPLATE, END_OF_TURN, PAD, ROLES
from .arguments import MAX_LEARNING_RATE, LanguageModelArguments, TrainingArguments
from .loop import build_accelerator, train
from .tasks.language_modelling import LanguageModelling


def base_config(base: str, **fields: Any) -> Any:
    """The configuration of `base`, with `fields` changed.

    Raises:
        ValueError: for a base that is not there.
    """
    check_source(base)
    try:
        return AutoConfig.from_pretrained(base, **fields)
    except OSError as error:
        raise ValueError(f"{base} is no model directory here, and cannot be had from the Hub: {error}") from error


def base_model(
    kind: type[ScratchGPTPreTrainedModel], base: str, seed: int, from_scratch: bool = False, **fields: Any
) -> Any:
    """A model of class `kind` with the weights of `base`, or random ones in its shape. New weights follow from `seed`.

    Args:
        fields: of the configuration, instead of the base's.
    """
    set_seed(seed)
    if from_scratch:
        return kind(base_config(base, **fields))
    return load_base(base, kind, **fields)


# Tokens for the roles


def chat_base(
    base: str, template: str, output_dir: str, seed: int, accelerator: Accelerator
) -> tuple[str, PreTrainedTokenizerBase]:
    """The directory of the base and its tokenizer with the wanted chat template.

    A base without role tokens gets them, unless the plain template is asked for: a copy with rows for them in its
    embedding is written to `output_dir/base`, so that an adapter has a base on the disk to belong to.

    Args:
        template: role_tokens, or plain (Alpaca's headings in text).

    Raises:
        ValueError: where `output_dir/base` is something else.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    if template == "plain":
        tokenizer.chat_template = PLAIN_TEMPLATE
        return base, tokenizer
    wanted = [*ROLES, END_OF_TURN] + ([PAD] if tokenizer.pad_token is None else [])
    if missing := [token for token in wanted if token not in tokenizer.get_vocab()]:
        directory = Path(output_dir) / "base"
        inputs = {**base_inputs(base), "tokens": missing, "seed": seed, "chat template": CHAT_TEMPLATE}
        copy = Intermediate(directory, directory, inputs)
        with accelerator.main_process_first():
            if not copy.begin(accelerator.print):
                add_tokens(base, tokenizer, missing, directory, seed)
                copy.finish()
        return str(directory), AutoTokenizer.from_pretrained(directory)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    return base, tokenizer


def add_tokens(base: str, tokenizer: Any, missing: Sequence[str], directory: Path, seed: int) -> None:
    """Writes a copy of `base` with the special tokens `missing`.

    Their rows in the embedding begin at the mean of all others, so that at first they mean no more than an average
    token and are as likely as one (Hewitt 2021), with a little noise to tell them apart.
    """
    model = load_base(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(missing)}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = PAD
    tokenizer.chat_template = CHAT_TEMPLATE
    model.config.pad_token_id = tokenizer.pad_token_id
    new_ids = tokenizer.convert_tokens_to_ids(list(missing))
    old_size = min(new_ids)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    set_seed(seed)
    tables = {id(table.weight): table for table in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for table in tables.values():
            known = table.weight[:old_size]
            table.weight[new_ids] = known.mean(0) + 0.1 * known.std(0) * torch.randn(len(new_ids), known.shape[1])
    save_model(model, tokenizer, directory)


# Continued pretraining

NOT_OF_THE_RESULT = (
    "dry_run", "output_dir", "resume_from_checkpoint", "logging_steps", "report_to", "save_steps", "save_total_limit",
)  # fmt: skip
"""Arguments on which the trained weights do not depend."""


@dataclass
class StagedArguments(TrainingArguments):
    """Training with a stage of language modelling before it. Recipes inherit this."""

    HELP_GROUPS = {"lm_steps": "Continued pretraining"}

    lm_steps: int = option(0, "Steps of language modelling on lm_data before tuning.", at_least=0)
    lm_data: str | None = option(None, 'Data set of schema {"text"} with the splits train and validation.')
    lm_learning_rate: float = option(1e-3, "Peak learning rate of that.", above=0, at_most=MAX_LEARNING_RATE)
    lm_batch_size: int = option(16, "Rows of it in a step.", at_least=1)
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lm_steps and self.lm_data is None:
            raise ValueError("lm_steps needs --lm_data: the text to read")

    def of_the_stage(self) -> LanguageModelArguments:
        """Those of the stage, which has a directory of its own and is trained from beginning to end."""
        common = {field.name: vars(self)[field.name] for field in fields(TrainingArguments)}
        changed = {
            "output_dir": str(Path(self.output_dir) / "language_model"),
            "resume_from_checkpoint": None if self.resume_from_checkpoint is None else "true",
            **dict.fromkeys(("max_steps", "eval_steps", "save_steps"), self.lm_steps),
            "learning_rate": self.lm_learning_rate,
            "per_device_train_batch_size": self.lm_batch_size,
            "gradient_accumulation_steps": 1,
            "ema_decay": None,
            "early_stopping_patience": None,
        }
        return LanguageModelArguments(**{**common, **changed})


def continue_pretraining(
    base: str,
    arguments: StagedArguments,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    **model_options: Any,
) -> str | None:
    """Language modelling on `lm_data`, in one process, in `output_dir/language_model`.

    What is there already is used again if it was made from the same base, text and arguments.

    Args:
        base: directory or Hub name.
        model_options: `from_scratch` and fields of the configuration, as for `base_model`.

    Returns:
        The directory of the result; None where a signal ended it (its state is saved).

    Raises:
        ValueError: for several processes, and as `train`.
    """
    if accelerator.num_processes > 1:
        raise ValueError("lm_steps is for one process: with several, run recipes/pretrain.py first")
    assert arguments.lm_data is not None
    settings = arguments.of_the_stage()
    directory = Path(settings.output_dir)
    train_text, eval_text = (
        tokenize_corpus(arguments.lm_data, base, arguments.cache_dir, split) for split in ("train", "validation")
    )
    counts = {name: value for name, value in asdict(settings).items() if name not in NOT_OF_THE_RESULT}
    inputs = {**base_inputs(base), "text": [train_text.fingerprint, eval_text.fingerprint], **counts, **model_options}
    stage = Intermediate(directory, directory / "final", inputs)
    if not stage.begin(accelerator.print):
        model = base_model(ScratchGPTForCausalLM, base, settings.seed, **model_options)
        length = model.config.max_position_embeddings
        train_rows, eval_rows = (PackedRows(text, length, mask_documents=True) for text in (train_text, eval_text))
        task = LanguageModelling(train_rows, eval_rows, tokenizer, settings)
        if not train(task, model, tokenizer, settings, build_accelerator(settings), train_text.fingerprint):
            return None
        stage.finish()
    return str(stage.model)
