"""Model directories: a model and its tokenizer, saved together or not at all, and checked against each other.

A model is a whole one or a base under a peft adapter; then the directory is the adapter's, as peft writes it, and
names its base.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .card_facts import read_json
from .cards import CARD, keep_card
from .fingerprints import BaseReference, base_reference, seen_from, write_base_reference
from .names import local_copy
from .seals import seal, verify_if_sealed
from .staging import staged_directory
from .training_texts import TrainingTexts

if TYPE_CHECKING:
    from peft import PeftModel  # heavy to import, and only adapters need it

HEADS = {"lm_head.weight", "score.weight"}
"""Weights that belong to a task and not to the base."""

UNUSED_ROWS = 1024
"""Embedding rows that a model may have beyond its tokenizer's ids: round sizes are faster, and 50,304 for GPT-2's
50,257 is usual. More than this, and the tokenizer is another model's."""


def is_adapted(model: "PreTrainedModel | PeftModel") -> "TypeGuard[PeftModel]":
    """Whether `model` is a base under a peft adapter."""
    return "peft" in sys.modules and isinstance(model, sys.modules["peft"].PeftModel)


def check_tokenizer(model: "PreTrainedModel | PeftModel", tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes sure that `tokenizer` can be the model's own.

    Raises:
        ValueError: for a vocabulary of another size, or special tokens with other ids; names both and the remedy.
    """
    config, size = model.config, len(tokenizer)
    if not size <= config.vocab_size <= size + UNUSED_ROWS:
        raise ValueError(
            f"The tokenizer has {size} ids, the model's vocab_size is {config.vocab_size}: they do not belong "
            "together. Take the tokenizer that the model was trained with, or call "
            "model.resize_token_embeddings(len(tokenizer)) before training."
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ours, theirs = getattr(config, name), getattr(tokenizer, name)
        if ours is None or theirs is None or theirs == ours or (isinstance(ours, list) and theirs in ours):
            continue
        raise ValueError(
            f"The tokenizer's {name} is {theirs}, the model's is {ours}: they do not belong together. Take the "
            f"tokenizer that the model was trained with, or set model.config.{name} to {theirs} before training."
        )


def is_quantized(directory: str | os.PathLike[str]) -> bool:
    """Whether the weights of a model directory, or Hub name, are in few bits; those of an adapter never are."""
    file = Path(local_copy(directory, weights=False), "config.json")
    return file.is_file() and "quantization_config" in read_json(file)


def load_model(kind: Any, directory: str | os.PathLike[str], *, new_head: bool = False, **kwargs: Any) -> Any:
    """A model of class `kind` with all of its weights, after its seal was verified. Everything loads models by this.

    `from_pretrained` alone gives random values to a weight that the files lack, and leaves out one that the class
    lacks, with a warning at most: a classifier would talk, and a language model classify.

    Args:
        kind: class of the model, or one of the Auto classes.
        directory: or name on the Hub, owner/name or owner/name@revision.
        new_head: whether the head may be another's and then begins at random: where a base is tuned for a new task.
        kwargs: as for `from_pretrained`.

    Raises:
        ValueError: as `local_copy`; where weights are missing, left over, of another shape, or not finite; names
            them.
        SealError: where the directory is not what was written.
    """
    directory = local_copy(directory)
    verify_if_sealed(directory)
    try:
        loaded: Any = kind.from_pretrained(directory, output_loading_info=True, **kwargs)
    except SafetensorError as error:
        raise ValueError(f"the weights of {directory} cannot be read: {error}") from error
    except OSError as error:  # the library's own message may not say what was looked for
        raise ValueError(f"{directory} cannot be loaded: {error}") from error
    model, report = loaded
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = {str(key if isinstance(key, str) else key[0]) for key in report[problem]}
        if found := sorted(found - (HEADS if new_head else set())):
            raise ValueError(
                f"{directory} is no {type(model).__name__}: {problem.replace('_keys', ' weights')} {found[:5]}, "
                f"{len(found)} in all. It is damaged, or a model of another kind"
            )
    check_finite_weights(dict(model.named_parameters()), str(directory))
    return model


def check_trainable(model: "PreTrainedModel | PeftModel", tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes sure that `model` can be trained on what `tokenizer` makes of texts.

    Raises:
        ValueError: as `check_tokenizer` and `check_finite_weights`, and for one in few bits without an adapter.
    """
    if not is_adapted(model) and "quantization_config" in model.config.to_dict():
        raise ValueError(
            "the base is rounded to few bits, and cannot be trained whole: give what it was made from, or an adapter "
            "(--tuning lora)"
        )
    check_tokenizer(model, tokenizer)
    check_finite_weights(dict(model.named_parameters()), "the base")


def check_finite_weights(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Makes sure that no number among `tensors` is infinite or not a number.

    Raises:
        NonFiniteWeightsError: names the tensor.
    """
    for name, tensor in tensors.items():
        # A sum is finite only if all of its parts are, and takes no memory; only where it is not, they are counted.
        values = tensor.detach()
        if not values.is_floating_point() or values.sum(dtype=torch.float32).isfinite():
            continue
        if num_bad := int((~values.isfinite()).sum()):
            raise NonFiniteWeightsError(
                f"{name} of {where} is not finite: {num_bad:,} of its {values.numel():,} values are infinite or not a "
                "number"
            )


class NonFiniteWeightsError(ValueError):
    """Weights that are infinite or not a number."""


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters, those of a four-bit layer counted as what they were made from: it holds two of them in a byte."""
    stored = [(parameter, vars(parameter).get("quant_state")) for parameter in model.parameters()]
    return sum(p.numel() if state is None else state.shape.numel() for p, state in stored)


def save_model(
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    directory: str | os.PathLike[str],
    overwrite: bool = False,
    state_dict: dict[str, torch.Tensor] | None = None,
    base: BaseReference | None = None,
    training_texts: TrainingTexts | None = None,
) -> None:
    """Writes a model directory that `AutoModel…` and `AutoTokenizer` load: weights, configuration, tokenizer, code.

    It is sealed: `load_model` notices later damage (see `seals`).

    Args:
        overwrite: whether an earlier model directory may be replaced; that happens only after the new one is complete.
        state_dict: weights to write instead of the model's own (gathered from several devices, or averaged).
        base: as for `write_model`.
        training_texts: sketches of what it was trained on; default: those of the directory it was loaded from.

    Raises:
        ValueError: as `check_tokenizer`, for weights that are not finite, and where `directory` holds something that
            is not to be replaced; then nothing is written.
    """
    check_tokenizer(model, tokenizer)
    check_finite_weights(state_dict or dict(model.named_parameters()), "the model")
    marker = "adapter_config.json" if is_adapted(model) else "config.json"
    with staged_directory(directory, overwrite, marker=marker) as staging:
        write_model(model, tokenizer, staging, state_dict, base)
        keep_card(Path(directory), staging)
        training_texts = training_texts or TrainingTexts.of(model)
        if training_texts.sketches:
            training_texts.write(staging)
        seal(staging)


def write_model(
    model: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    directory: str | os.PathLike[str],
    state_dict: dict[str, torch.Tensor] | None = None,
    base: BaseReference | None = None,
) -> None:
    """The files of `save_model`, into a directory that the caller has staged.

    Args:
        base: of an adapter, as it was when it was loaded; default: as it is on the disk now.
    """
    tokenizer.save_pretrained(directory)
    if not is_adapted(model):
        model.save_pretrained(os.fspath(directory), state_dict=state_dict)
        return
    base = base or base_reference(model, tokenizer)
    # What others read is seen from the working directory, as they look for it; base.json has it seen from the adapter.
    name, _, revision = seen_from(base.base, Path.cwd()).removeprefix("./").partition("@")
    with named_base(model, name, revision or None):
        model.save_pretrained(os.fspath(directory), state_dict=state_dict)
    (Path(directory) / CARD).unlink()  # peft's is a form to fill in; ours is written at the end of the run
    under: Any = model.get_base_model()
    if under.can_generate():
        under.generation_config.save_pretrained(os.fspath(directory))
    if under.config.tie_word_embeddings:
        _write_tied_rows(Path(directory) / "adapter_model.safetensors")
    write_base_reference(base, directory)


def _write_tied_rows(file: Path) -> None:
    """What an adapter adds to rows of the embedding, written for the head too, by the name that it has in the model.

    peft knows that they are tied and leaves it out; transformers, which loads adapters by itself, calls it missing.
    """
    tensors, rows = load_file(file), "token_adapter.trainable_tokens_delta"
    if (delta := tensors.get(f"base_model.model.model.embed_tokens.{rows}")) is not None:
        tied = {f"base_model.model.lm_head.{rows}.default": delta.clone()}
        save_file(tensors | tied, file, metadata={"format": "pt"})


@contextmanager
def named_base(model: "PeftModel", name: str, revision: str | None) -> Iterator[None]:
    """Meanwhile peft writes these into adapter_config.json for the base, instead of an absolute path."""
    adapter, under = model.active_peft_config, model.get_base_model()
    config: Any = under.config
    before = adapter.base_model_name_or_path, adapter.revision, config._name_or_path
    adapter.base_model_name_or_path, adapter.revision, config._name_or_path = name, revision, name
    try:
        yield
    finally:
        adapter.base_model_name_or_path, adapter.revision, config._name_or_path = before


def load_weights(model: "PreTrainedModel | PeftModel", directory: str | os.PathLike[str]) -> None:
    """Overwrites the weights of `model`, or of its adapter, by the ones that `save_model` wrote for its like.

    Raises:
        ValueError: for weights of another shape; names the first.
    """
    try:
        if is_adapted(model):
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(model, load_peft_weights(os.fspath(directory), device="cpu"))
        else:
            assert isinstance(model, PreTrainedModel)
            model.load_state_dict(load_model(type(model), directory, dtype=torch.float32).state_dict())
    except RuntimeError as error:
        first = str(error).partition("\n")[2].partition("\n")[0].strip() or error
        raise ValueError(f"{directory} holds a model of another shape: {first}") from error
