"""What tuning starts from: a base as it is, in its shape only, with tokens for the roles, or after more reading."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..adapters import AdapterArguments, check_targets, is_adapter, load_base
from ..arguments import option
from ..configuration_scratchgpt import ScratchGPTConfig
from ..data.chat import PLAIN_TEMPLATE, end_token_ids, stop_token_id
from ..data.corpus import tokenize_corpus
from ..data.packing import PackedRows
from ..data.pretraining_rows import check_length
from ..hub.intermediates import Intermediate, base_inputs
from ..hub.model_directory import save_model
from ..hub.names import local_copy
from ..hub.seals import hash_file, seal
from ..hub.staging import staged_directory
from ..interop.gpt2_files import open_checkpoint
from ..interop.gpt2_import import load_tokenizer, write_import
from ..modeling_scratchgpt import ScratchGPTForCausalLM, ScratchGPTPreTrainedModel
from ..tokenization_scratchgpt import CHAT_TEMPLATE, END_OF_TURN, PAD, ROLES
from .arguments import MAX_LEARNING_RATE, LanguageModelArguments, TrainingArguments
from .loop import build_accelerator, train
from .tasks.language_modelling import LanguageModelling


def base_config(base: str, **fields: Any) -> Any:
    """The configuration of `base`, with `fields` changed.

    Raises:
        ValueError: as `local_copy`, and for a base that is no model.
    """
    directory = local_copy(base, weights=False)
    try:
        return AutoConfig.from_pretrained(directory, **fields)
    except OSError as error:
        raise ValueError(f"{base} is no model directory: {error}") from error
    except ValueError as error:  # a config.json without a model_type, or with an unknown one
        raise ValueError(f"{base} is no model that this transformers knows: {str(error).splitlines()[0]}") from error


def own_base(base: str, output_dir: str, accelerator: Accelerator, foreign: bool = False) -> str:
    """The base as a model that can be trained here: itself, or a GPT-2 imported into `output_dir/imported`.

    Args:
        foreign: whether any causal language model will do.

    Raises:
        ValueError: for a base of another architecture, named, and as `base_config` and `open_checkpoint`.
    """
    kind = "gpt2" if (Path(base) / "hparams.json").is_file() else base_config(base).model_type
    if kind != "gpt2":
        if kind == ScratchGPTConfig.model_type or (foreign and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
            return base
        remedy = "a causal language model" if foreign else "a scratchgpt model or a GPT-2"
        raise ValueError(f"{base} is a {kind} model, which cannot be trained here: give {remedy}")
    name, _, revision = (base, "", "") if Path(base).exists() else base.partition("@")
    checkpoint = open_checkpoint(name, revision=revision or None)
    assert checkpoint.folder is not None
    directory = Path(output_dir) / "imported"
    inputs = {file.name: hash_file(file) for file in sorted(checkpoint.folder.iterdir()) if file.is_file()}
    copy = Intermediate(directory, directory, inputs)
    with accelerator.main_process_first():
        if not copy.begin(accelerator.print):
            tokenizer = load_tokenizer(name, checkpoint.folder, checkpoint.config.get("n_positions", 1024))
            with staged_directory(directory, overwrite=False, marker="config.json") as folder:
                compared = write_import(checkpoint, tokenizer, folder)
                seal(folder)
            copy.finish()
            accelerator.print(f"{base} is a GPT-2: imported into {directory}, {compared}")
    return str(directory)


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

    Another architecture's base keeps its own template, if it has one by which an answer ends. A base without role
    tokens gets them, unless the plain template is asked for: a copy with rows for them in its
    embedding is written to `output_dir/base`, so that an adapter has a base on the disk to belong to.

    Args:
        template: role_tokens, or plain (Alpaca's headings in text).

    Raises:
        ValueError: where `output_dir/base` is something else.
    """
    tokenizer = AutoTokenizer.from_pretrained(local_copy(base))
    if template == "plain":
        tokenizer.chat_template = PLAIN_TEMPLATE
        return base, tokenizer
    missing: list[str] = []
    if tokenizer.chat_template is None or not _ends_answers(tokenizer):
        wanted = [*ROLES, END_OF_TURN, *([PAD] if tokenizer.pad_token is None else [])]
        missing = [token for token in wanted if token not in tokenizer.get_vocab()]
        tokenizer.chat_template = CHAT_TEMPLATE
    elif tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not missing and stop_token_id(tokenizer) in _ends(base):
        return base, tokenizer
    directory = Path(output_dir) / "base"
    inputs = {**base_inputs(base), "tokens": missing, "seed": seed, "chat template": tokenizer.chat_template}
    copy = Intermediate(directory, directory, inputs)
    with accelerator.main_process_first():
        if not copy.begin(accelerator.print):
            add_tokens(base, tokenizer, missing, directory, seed)
            copy.finish()
    return str(directory), AutoTokenizer.from_pretrained(directory)


def _ends_answers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template ends answers with a special token."""
    try:
        stop_token_id(tokenizer)
    except ValueError:
        return False
    return True


def _ends(base: str) -> list[int]:
    """The tokens at which `generate` of the base stops. AutoModel takes them under an adapter too."""
    ends = GenerationConfig.from_pretrained(local_copy(base)).eos_token_id
    return ends if isinstance(ends, list) else [ends]


def add_tokens(base: str, tokenizer: Any, missing: Sequence[str], directory: Path, seed: int) -> None:
    """Writes a copy of `base` with the special tokens `missing`, if any, that stops where an answer ends.

    Their rows in the embedding begin at the mean of all others, so that at first they mean no more than an average
    token and are as likely as one (Hewitt 2021), with a little noise to tell them apart.
    """
    model = load_base(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(missing)}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = PAD
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = end_token_ids(tokenizer)
    if new_ids := tokenizer.convert_tokens_to_ids(list(missing)):
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


def check_adapter(base: str, arguments: AdapterArguments, with_rows: bool) -> None:
    """Makes sure that the layers of an adapter are there, from the configuration alone.

    Args:
        with_rows: whether rows of the embedding will be trained too.

    Raises:
        ValueError: as `check_targets`.
    """
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(base_config(base))
    check_targets(shape, arguments.lora_targets, [0] if with_rows else [], "CAUSAL_LM")


def context_of(base: str, wanted: int | None) -> int:
    """Tokens of a row: those that are wanted, or the context of `base`.

    Raises:
        ValueError: as `base_config`, and where more are wanted than it has.
    """
    longest = base_config(base).max_position_embeddings
    if wanted is not None and wanted > longest:
        raise ValueError(f"context_length={wanted} is beyond the model's context of {longest} tokens")
    return wanted or longest


def assistant_base(
    name: str, context_length: int | None, arguments: AdapterArguments, output_dir: str, accelerator: Accelerator
) -> tuple[str, Any, int]:
    """An assistant that is tuned further: its directory, its tokenizer, and the tokens of a row.

    Args:
        context_length: the tokens that are wanted; None: the model's context.

    Raises:
        ValueError: for an adapter, and as `own_base`, `context_of`, `check_adapter` and `stop_token_id`.
    """
    if is_adapter(name):
        raise ValueError(
            f"{name} is an adapter: merge it into its base first (python recipes/merge_adapter.py --adapter {name} "
            "--output_dir …), and give what comes of it"
        )
    start = own_base(name, output_dir, accelerator, foreign=True)
    context_length = context_of(start, context_length)
    if arguments.tuning != "full":  # what is wrong with it is said before the work
        check_adapter(start, arguments, with_rows=False)
    tokenizer: Any = AutoTokenizer.from_pretrained(local_copy(start))
    stop_token_id(tokenizer)
    return start, tokenizer, context_length


def has_fused_loss(model: Any, packing: bool) -> bool:
    """Whether the model computes the loss of packed conversations itself, as ours does.

    Raises:
        ValueError: for another one that would read across packed conversations.
    """
    if model.config.model_type == ScratchGPTConfig.model_type:
        return True
    if packing:
        check_packing(model)
    return False


@torch.no_grad()
def check_packing(model: Any) -> None:
    """Makes sure that attention does not cross from one conversation of a row to the next, where positions begin anew.

    Raises:
        ValueError: where what comes before changes the logits of a packed conversation.
    """
    was_training, length = model.training, min(8, model.config.max_position_embeddings // 2)
    model.eval()
    ids = (torch.arange(2 * length) * 7919 % model.config.vocab_size)[None]
    positions = torch.arange(length).repeat(2)[None]
    packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, length:]
    alone = model(input_ids=ids[:, length:], use_cache=False).logits
    model.train(was_training)
    if not torch.allclose(packed, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max())):
        raise ValueError(
            f"a {model.config.model_type} model reads across the conversations of a row: give --packing false"
        )


# Continued pretraining

NOT_OF_THE_RESULT = (
    "dry_run", "output_dir", "resume_from_checkpoint", "logging_steps", "report_to", "save_steps", "save_total_limit",
    "push_to_hub", "hub_model_id", "hub_private", "hub_base_id",
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
            "push_to_hub": False,
            **dict.fromkeys(("hub_model_id", "hub_base_id")),
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
        check_length(train_text, length, arguments.lm_data)
        train_rows, eval_rows = (PackedRows(text, length, mask_documents=True) for text in (train_text, eval_text))
        task = LanguageModelling(train_rows, eval_rows, tokenizer, settings)
        if not train(task, model, tokenizer, settings, build_accelerator(settings), train_text.fingerprint):
            return None
        stage.finish()
    return str(stage.model)
