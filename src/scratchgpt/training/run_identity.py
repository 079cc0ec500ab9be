"""The run identity: one record of whatever the results of a run depend on, so that resuming never claims too much.

Everything counts unless it is listed here as not counting: all arguments, the task's own settings, training and
validation data, model, initial weights, adapter, tokenizer, device, and versions. A checkpoint and results.json hold
the record; a run that goes on from a checkpoint compares it with its own, and is exact only if nothing differs.
"""

import json
from dataclasses import asdict
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
import xxhash
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..hub.fingerprints import hash_weights, tokenizer_fingerprint
from ..hub.model_directory import is_adapted
from .arguments import TrainingArguments
from .tasks.base import Task

if TYPE_CHECKING:
    from peft import PeftModel

ARGUMENTS_NOT_COUNTING = {
    # where things are: what is in them counts by its fingerprint
    "output_dir", "cache_dir", "data", "eval_data", "lm_data", "tokenizer", "model_name_or_path",
    # what is done after training
    "test_data", "baselines", "num_responses", "response_tokens",
    # what is shown and kept
    "logging_steps", "report_to", "sample_prompts", "sample_tokens", "save_steps", "save_total_limit", "eval_on_start",
    "eval_answers", "reward_time_limit", "push_to_hub", "hub_model_id", "hub_private", "hub_base_id",
    # how the run is started
    "resume_from_checkpoint", "dry_run",
    # what is recorded as it came out: in max_steps, in the adapter's configuration
    "minutes", "num_train_epochs", "lora_r", "lora_alpha", "lora_dropout", "lora_targets", "use_dora", "use_rslora",
    "train_role_tokens",
}  # fmt: skip

TASK_NOT_COUNTING = {"arguments", "tokenizer", "reference", "before"}
"""Fields of a task that are recorded on their own, or follow from the base."""

CONFIG_NOT_COUNTING = {"_name_or_path", "architectures", "auto_map", "dtype", "transformers_version"}

ADAPTER_NOT_COUNTING = {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"}

PACKAGES = ("scratchgpt", "torch", "transformers", "accelerate", "numpy", "peft", "bitsandbytes")


@runtime_checkable
class Fingerprinted(Protocol):
    """Data: all rows have this."""

    def fingerprint(self) -> str: ...


def run_identity(
    arguments: TrainingArguments,
    task: Task,
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    data_fingerprint: str,
    environment: dict[str, Any],
) -> dict[str, Any]:
    """The record, as JSON has it. Hashing the initial weights takes about a second for 10 GB.

    Args:
        model: before accelerate has prepared it, with its initial weights.
        environment: on what the run computes; may overrule arguments by what was made of them.

    Raises:
        TypeError: where the task holds something that cannot be compared.
    """
    record = {
        **{name: value for name, value in asdict(arguments).items() if name not in ARGUMENTS_NOT_COUNTING},
        "task": {name: value for name, value in vars(task).items() if name not in TASK_NOT_COUNTING},
        "data": data_fingerprint,
        "base": hash_weights(model),
        "model": _without(model.config.to_dict(), CONFIG_NOT_COUNTING),
        "tokenizer": _tokenizer(tokenizer),
        **environment,
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if is_adapted(model):
        adapters = {name: config.to_dict() for name, config in model.peft_config.items()}
        record["adapter"] = _without(adapters["default"], ADAPTER_NOT_COUNTING)
    return json.loads(json.dumps(_plain(record, "the run")))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two records, in words: `r_drop was 0.0, is now 1.0`. Empty where nothing does."""
    old, new, found = _flat(before), _flat(now), {}
    for name in sorted(old.keys() | new.keys(), key=lambda name: (name.count("."), name)):
        if name not in old or name not in new or old[name] != new[name]:
            # An argument is named once, though the task or the model's configuration holds it too.
            found.setdefault(name.rpartition(".")[2], f"{name} was {_short(old, name)}, is now {_short(new, name)}")
    return list(found.values())


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what decides how a text is read: vocabulary, template, and on which side it is cut and padded."""
    ours: Any = tokenizer
    parts = [tokenizer_fingerprint(tokenizer), ours.chat_template, ours.padding_side, ours.truncation_side]
    pipeline = json.loads(ours.backend_tokenizer.to_str())
    # Truncation and padding are left as the last call set them: they are not the tokenizer's own.
    parts += [pipeline[part] for part in ("normalizer", "pre_tokenizer", "post_processor")]
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


def _without(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON can hold it; data by fingerprint."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(each, f"{where}: {name}") for name, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(each, where) for each in value)
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, Fingerprinted):
        return value.fingerprint()
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which cannot be compared: give it a method fingerprint()"
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _short(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "not recorded"
    text = str(values[name])
    return text if len(text) <= 24 else f"{text[:12]}…"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
