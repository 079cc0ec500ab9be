"""Tuning all weights of a base, or a small adapter beside them: LoRA, and QLoRA on a base in four bits.

LoRA (Hu et al. 2021) adds to each linear layer the product of two thin matrices and trains only those; the base stays
as it is, bit for bit. QLoRA (Dettmers et al. 2023) keeps the base's linear layers in four bits (nf4, its scales
quantised a second time) and trains the same adapter in full precision. Both are peft's; DoRA and rsLoRA are switches.

An adapter means nothing without its base, and on another base it silently gives nonsense. So beside what peft writes,
`base.json` holds the fingerprints of the base's weights and of the tokenizer (see `hub.fingerprints`), and
`load_adapter` refuses to put an adapter on anything else.

The embedding rows of the role tokens are trained too: pretraining never had them as input, and as output it only
taught that they do not occur. That is worth a tenth of a nat on a small base, and costs copies of the embedding and of
its gradient, which is a lot where the vocabulary is large (benchmarks/tuning_memory.py).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .arguments import option
from .hub.fingerprints import read_base_reference, verify_base
from .hub.model_directory import count_parameters, load_model
from .hub.names import local_copy
from .modeling_scratchgpt import ScratchGPTForCausalLM

if TYPE_CHECKING:
    from peft import PeftModel

KINDS: dict[str, tuple[Any, str]] = {
    "CAUSAL_LM": (AutoModelForCausalLM, "a language model"),
    "SEQ_CLS": (AutoModelForSequenceClassification, "a classifier of texts"),
    "TOKEN_CLS": (AutoModelForTokenClassification, "a classifier of tokens"),
}
"""The model that an adapter belongs to, by peft's name of its task."""


@dataclass
class AdapterArguments:
    """What of a model to train. Recipes inherit this beside `TrainingArguments`."""

    HELP_GROUPS = {"tuning": "Tuning"}

    tuning: Literal["full", "lora", "qlora"] = option(
        "lora", "full: all weights; lora: an adapter; qlora: an adapter on a base in four bits."
    )
    lora_r: int = option(16, "Rank of the adapter's matrices.", at_least=1)
    lora_alpha: int = option(32, "The adapter's output is scaled by alpha / rank (rsLoRA: alpha / √rank).", at_least=1)
    lora_dropout: float = option(0.0, "Dropout on the adapter's input.", at_least=0, below=1)
    lora_targets: list[str] = option(["all-linear"], "Layers that are adapted: names like q_proj, or all-linear.")
    use_dora: bool = option(False, "DoRA: direction and size of the weights are adapted apart (Liu et al. 2024).")
    use_rslora: bool = option(False, "rsLoRA: scale by alpha / √rank, for high ranks (Kalajdzievski 2023).")


def load_base(
    directory: str | os.PathLike[str],
    kind: Any = AutoModelForCausalLM,
    four_bit: bool = False,
    **kwargs: Any,
) -> Any:
    """A base to tune, in fp32, or with its linear layers in four bits. A classifier's head may be new.

    Args:
        directory: or Hub name.
        kind: class of the model, or an Auto class.
        kwargs: as for `from_pretrained`.

    Raises:
        ValueError: as `load_model`, and without bitsandbytes where it is needed.
    """
    kwargs |= {"dtype": torch.float32, "new_head": kind not in (AutoModelForCausalLM, ScratchGPTForCausalLM)}
    if not four_bit:
        return load_model(kind, directory, **kwargs)
    try:
        from bitsandbytes.nn.modules import Linear4bit
    except ImportError as error:
        raise ValueError('tuning=qlora needs the package bitsandbytes: pip install "scratchgpt[quant]"') from error
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    model = load_model(kind, directory, quantization_config=quantization, **kwargs)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # In evaluation on a CPU with AVX-512 bf16, bitsandbytes (0.50.2) packs the weights for a kernel that has
            # no gradient, and leaves them packed when training goes on: the layers before would learn nothing.
            module.support_avx512bf16_for_cpu = False
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            # A view of the file, which would stay in memory as a whole for the few tensors that are not quantised.
            parameter.data = parameter.data.clone()
    return model


def add_adapter(
    model: PreTrainedModel,
    arguments: AdapterArguments,
    token_ids: Sequence[int] = (),
    task_type: str = "CAUSAL_LM",
    modules_to_save: Sequence[str] | None = None,
) -> "PeftModel":
    """`model` under a fresh adapter; only the adapter is trainable.

    Args:
        token_ids: rows of the embedding (and of the head) that are trained too.
        task_type: of peft; SEQ_CLS trains the classification head too.
        modules_to_save: names of modules that are trained whole.

    Raises:
        ValueError: as `check_targets`.
    """
    from peft import LoraConfig, get_peft_model

    names = arguments.lora_targets
    check_targets(model, names, token_ids, task_type)
    rows = None
    if token_ids:
        tables = ["embed_tokens"] if model.config.tie_word_embeddings else ["embed_tokens", "lm_head"]
        rows = {table: sorted(token_ids) for table in tables}
    config = LoraConfig(
        task_type=task_type,
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules="all-linear" if names == ["all-linear"] else names,
        use_dora=arguments.use_dora,
        use_rslora=arguments.use_rslora,
        trainable_token_indices=rows,
        modules_to_save=list(modules_to_save) if modules_to_save is not None else None,
    )
    adapted: Any = get_peft_model(model, config)
    return adapted


def check_targets(model: PreTrainedModel, names: Sequence[str], token_ids: Sequence[int], task_type: str) -> None:
    """Makes sure that every layer named in `lora_targets` is there and can be adapted, and merged afterwards.

    Raises:
        ValueError: for a name that no linear layer or embedding has; for one side of a table that embedding and head
            share, because the adapter would be merged into both; and for a layer that is trained in another way.
    """
    if names == ["all-linear"]:
        return
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Embedding)}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for target in names:
        found = [layer for name, layer in layers.items() if f".{name}".endswith(f".{target}")]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise ValueError(
                f"lora_targets: no layer is called {target!r}; give {', '.join(known)}, or all-linear alone"
            )
        table = any(layer is embedding or layer is head for layer in found)
        if table and head is not None and head.weight is embedding.weight:
            raise ValueError(
                f"lora_targets: {target!r} shares its weights with the {'embedding' if found[0] is head else 'head'} "
                "(tie_word_embeddings), so an adapter on one side could not be merged: leave it out, or tune a base "
                "with tie_word_embeddings=False"
            )
        if table and token_ids:
            raise ValueError(
                f"lora_targets: rows of {target!r} are trained for the role tokens, and it cannot have an adapter "
                "beside that: leave it out, or give --train_role_tokens false"
            )
        if task_type != "CAUSAL_LM" and target.endswith("score"):
            raise ValueError(
                f"lora_targets: {target!r} is the classifier's head, which is trained anyway: leave it out"
            )


def describe_parameters(model: torch.nn.Module) -> str:
    """How many parameters are trained, and what the model takes in memory as it stands."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total, size = count_parameters(model), sum(p.numel() * p.element_size() for p in model.parameters())
    return (
        f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%}); weights take {size / 1e6:,.1f} MB"
    )


def is_adapter(directory: str | os.PathLike[str]) -> bool:
    """Whether `directory` holds an adapter instead of a whole model."""
    return (Path(directory) / "adapter_config.json").is_file()


def load_adapter(
    adapter: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    task_type: str | None = None,
    four_bit: bool = False,
    trainable: bool = False,
    **kwargs: Any,
) -> tuple["PeftModel", PreTrainedTokenizerBase]:
    """The base of an adapter, under it, and the tokenizer; in evaluation mode unless `trainable`.

    Args:
        adapter: directory, or name on the Hub (owner/name, or owner/name@revision).
        base: directory or Hub name; default: where it was when the adapter was trained, seen from the adapter.
        task_type: what the adapter has to be for, by peft's name; default: anything.
        four_bit, kwargs: as for `load_base`.

    Raises:
        ValueError: as `verify_base`; for an adapter of a model of another kind; and where weights of the adapter are
            missing or left over.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, load_peft_weights

    adapter = local_copy(adapter)
    verify_base(adapter, base)
    reference, task = read_base_reference(adapter), PeftConfig.from_pretrained(os.fspath(adapter)).task_type
    own, what = KINDS.get(str(task), KINDS["CAUSAL_LM"])
    if task_type is not None and own is not KINDS[task_type][0]:
        raise ValueError(f"{adapter} is an adapter for {what}, and cannot be used as {KINDS[task_type][1]}")
    directory = local_copy(base if base is not None else reference.base)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    under = load_base(directory, own, four_bit, **{**reference.config, **kwargs})
    try:
        model: Any = PeftModel.from_pretrained(under, os.fspath(adapter), is_trainable=trainable)
    except KeyError as error:
        raise ValueError(f"{adapter} is damaged: the weight {error} is missing") from error
    expected, found = set(get_peft_model_state_dict(model)), set(load_peft_weights(os.fspath(adapter), device="cpu"))
    found -= {name for name in found - expected if ".lm_head.token_adapter." in name}  # tied: see `write_model`
    if wrong := sorted(expected ^ found):
        raise ValueError(f"{adapter} is damaged: weights are missing or left over: {wrong[:5]}, {len(wrong)} in all")
    return model, tokenizer


def merge_adapter(model: "PeftModel") -> PreTrainedModel:
    """The base with the adapter added into its weights; the adapted model is used up.

    Raises:
        ValueError: for a base in four bits, into which an adapter cannot be added without loss; and for an adapter on
            one side of a table that embedding and head share.
    """
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    base: Any = model.get_base_model()
    if base.config.tie_word_embeddings and base.get_output_embeddings() is not None:
        for table in (base.get_input_embeddings(), base.get_output_embeddings()):
            for part in table.modules():
                if isinstance(part, BaseTunerLayer | ModulesToSaveWrapper) and not isinstance(
                    part, TrainableTokensLayer
                ):
                    raise ValueError(
                        "the adapter changes one side of the table that embedding and head share "
                        "(tie_word_embeddings): merged, it would change both. Use it unmerged, by peft"
                    )
    if "quantization_config" in base.config.to_dict():
        raise ValueError("an adapter is merged into the base in full precision: load it with four_bit=False")
    merged: Any = model.merge_and_unload()
    return merged
