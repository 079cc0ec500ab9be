"""What is known of a language model before its weights are read: enough to tell whether a suite can be run on it."""

import os
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..adapters import is_adapter
from ..hub.fingerprints import read_base_reference, verify_base
from ..hub.names import local_copy
from .log_likelihoods import num_ids


def describe_model(
    model: str | os.PathLike[str], base: str | os.PathLike[str] | None = None
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The configuration and the tokenizer of a causal language model.

    Args:
        model: a model directory or Hub name, or the directory of an adapter.
        base: of an adapter; default: where it was when the adapter was trained.

    Raises:
        ValueError: for a model that is not there, has no tokenizer, or is none that continues texts, such as a
            classifier; and as `verify_base`.
    """
    model = local_copy(model)
    where: Any = model
    if is_adapter(model):
        from peft import PeftConfig

        verify_base(model, base)
        where = base if base is not None else read_base_reference(model).base
        task = PeftConfig.from_pretrained(os.fspath(model)).task_type
        if task in ("SEQ_CLS", "TOKEN_CLS"):
            raise ValueError(f"{model} is an adapter of a classifier, not of a language model: give --model another")
    where = local_copy(where)
    try:
        config: Any = AutoConfig.from_pretrained(where)
        tokenizer = AutoTokenizer.from_pretrained(model)
    except OSError as error:
        raise ValueError(f"{where} cannot be loaded, neither here nor from the Hub: {error}") from error
    other = [name for name in config.architectures or [] if "Classification" in name or "MaskedLM" in name]
    if (
        not other
        and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and not config.to_dict().get("auto_map")
    ):
        other = config.architectures or [config.model_type]
    if other and "Classification" in other[0]:
        raise ValueError(f"{model} is a classifier ({other[0]}), not a language model: give --model another")
    if other:
        raise ValueError(f"{model} ({other[0]}) does not continue texts: give --model a causal language model")
    # Without the files of a tokenizer, transformers makes up an empty one for some kinds of models.
    if not tokenizer.encode("a text", add_special_tokens=False):
        raise ValueError(f"{model} has no tokenizer: save it there (tokenizer.save_pretrained)")
    size = config.get_text_config().vocab_size
    if num_ids(tokenizer) > size:
        raise ValueError(
            f"the tokenizer of {model} has {num_ids(tokenizer)} ids, and the model's vocab_size is {size}: they do "
            "not belong together; put the model's own tokenizer there"
        )
    return config, tokenizer
