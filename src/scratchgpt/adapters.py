"""Tuning all weights of a base, or a small adapter beside them: LoRA, and QLoRA on a base in four bits.

LoRA (Hu et al. 2021) adds to each linear layer the product of two thin matrices and trains only those; the base stays
as it is, bit for bit. QLoRA (Dettmers et al. 2023) keeps the base's linear layers in four bits (nf4, its scales
quantised a second time) and trains the same adapter in full precision. Both are peft's; DoRA and rsLoRA are switches.

An adapter means nothing without its base, and on another base it gives nonsense without a word. So beside what peft
writes, `base.json` has the fingerprints of the base's weights and of the tokenizer (see `hub.fingerprints`), and
`load_adapter` refuses to put an adapter on anything else.

The rows of the role tokens are trained along: nothing in pretraining ever had them as input, and all it taught of
them as output is that they do not occur. That is worth a tenth of a nat on a small base, and costs copies of the
embedding and of its gradient, which is much where the vocabulary is large (benchmarks/tuning_memory.py).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from .arguments import option
from .hub.fingerprints import read_base_reference, verify_base
from .hub.model_directory import count_parameters, load_model
from .modeling_scratchgpt import ScratchGPTForCausalLM, ScratchGPTPreTrainedModel

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class AdapterArguments:
    """What of a model to train. Recipes inherit this beside `TrainingArguments`."""

    tuning: Literal["full", "lora", "qlora"] = option(
        "lora", "full: all weights; lora: an adapter; qlora: an adapter on a base in four bits."
    )
    lora_r: int = option(16, "Rank of the adapter's matrices.")
    lora_alpha: int = option(32, "The adapter's output is scaled by alpha / rank (rsLoRA: alpha / √rank).")
    lora_dropout: float = option(0.0, "Dropout on the adapter's input.")
    lora_targets: list[str] = option(["all-linear"], "Layers that are adapted: names like q_proj, or all-linear.")
    use_dora: bool = option(False, "DoRA: direction and size of the weights are adapted apart (Liu et al. 2024).")
    use_rslora: bool = option(False, "rsLoRA: scale by alpha / √rank, for high ranks (Kalajdzievski 2023).")
    train_role_tokens: bool = option(True, "Adapters train the embeddings of the role tokens too; better, for memory.")


def load_base(
    directory: str | os.PathLike[str],
    kind: type[ScratchGPTPreTrainedModel] = ScratchGPTForCausalLM,
    four_bit: bool = False,
    **kwargs: Any,
) -> Any:
    """A base to tune, in fp32, or with its linear layers in four bits.

    Args:
        directory: or Hub name.
        kind: class of the model.
        kwargs: as for `from_pretrained`.

    Raises:
        ValueError: for a model of another architecture, and without bitsandbytes where it is needed.
    """
    new_head = kind is not ScratchGPTForCausalLM  # a language model tuned for another task
    if not four_bit:
        return load_model(kind, directory, new_head=new_head, dtype=torch.float32, **kwargs)
    try:
        from bitsandbytes.nn.modules import Linear4bit
    except ImportError as error:
        raise ValueError("tuning=qlora needs the package bitsandbytes: pip install -e '.[quant]'") from error
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    kwargs |= {"dtype": torch.float32, "quantization_config": quantization}
    model = load_model(kind, directory, new_head=new_head, **kwargs)
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
        token_ids: rows of the embedding (and of the head) that are trained along.
        task_type: of peft; SEQ_CLS trains the classification head too.
        modules_to_save: names of modules that are trained whole.

    Raises:
        ValueError: for names in `lora_targets` that no layer has.
    """
    from peft import LoraConfig, get_peft_model

    names = arguments.lora_targets
    rows = None
    if token_ids and arguments.train_role_tokens:
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
    kind: type[ScratchGPTPreTrainedModel] = ScratchGPTForCausalLM,
    four_bit: bool = False,
    trainable: bool = False,
    **kwargs: Any,
) -> tuple["PeftModel", PreTrainedTokenizerBase]:
    """The base of an adapter, under it, and the tokenizer; in evaluation mode unless `trainable`.

    Args:
        adapter: directory.
        base: directory or Hub name; default: where it was when the adapter was trained.
        kind, four_bit, kwargs: as for `load_base`.

    Raises:
        ValueError: for a base that is not there, other weights or another tokenizer than the adapter was trained
            with; names both fingerprints.
    """
    from peft import PeftModel

    verify_base(adapter, base)
    directory = os.fspath(base) if base is not None else read_base_reference(adapter).base
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model: Any = PeftModel.from_pretrained(
        load_base(directory, kind, four_bit, **kwargs), os.fspath(adapter), is_trainable=trainable
    )
    return model, tokenizer


def merge_adapter(model: "PeftModel") -> PreTrainedModel:
    """The base with the adapter added into its weights; the adapted model is used up.

    Raises:
        ValueError: for a base in four bits, into which an adapter cannot be added without loss.
    """
    base: Any = model.get_base_model()
    if "quantization_config" in base.config.to_dict():
        raise ValueError("an adapter is merged into the base in full precision: load it with four_bit=False")
    merged: Any = model.merge_and_unload()
    return merged
