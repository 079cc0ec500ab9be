"""The two-way map between scratchgpt's `gpt2` preset and GPT-2 as transformers has it.

The mathematics is the same; names and layout differ. GPT-2 keeps queries, keys and values in one layer, and stores
linear weights as [in, out] (its `Conv1D`), where `nn.Linear` has [out, in]:

    wte, wpe, lm_head                   embed_tokens, embed_positions, lm_head
    h.<i>.ln_1, h.<i>.ln_2, ln_f        layers.<i>.input_layernorm, layers.<i>.post_attention_layernorm, norm
    h.<i>.attn.c_attn                   layers.<i>.self_attn.q_proj, k_proj, v_proj
    h.<i>.attn.c_proj                   layers.<i>.self_attn.o_proj
    h.<i>.mlp.c_fc, h.<i>.mlp.c_proj    layers.<i>.mlp.up_proj, layers.<i>.mlp.down_proj

What GPT-2's configuration says and ours does not (`summary_type`, `task_specific_params`, …) is kept in
`config.imported_gpt2`, so that the way in and out again changes nothing.
"""

import hashlib
import os
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ..configuration_scratchgpt import ScratchGPTConfig
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from .checks import check_expressible
from .gpt2_files import GPT2Checkpoint, in_memory, open_checkpoint

UNSUPPORTED = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
"""Fields of `GPT2Config` that change the mathematics, and the value with which they do not."""

REWRITTEN = ("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path")
"""Fields of a configuration that every save writes anew."""


@dataclass(frozen=True)
class Pair:
    """One tensor of GPT-2 and the tensors of ours that it holds, stacked along their outputs."""

    theirs: str
    ours: tuple[str, ...]
    is_linear: bool = False

    def split(self, tensor: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Copies: what was read may be a view of its file, which then could not be closed."""
        parts = (tensor.T if self.is_linear else tensor).chunk(len(self.ours))
        return {
            name: part.to(dtype, copy=True, memory_format=torch.contiguous_format)
            for name, part in zip(self.ours, parts, strict=True)
        }

    def join(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        joined = torch.cat([tensors[name] for name in self.ours])
        return joined.T.contiguous() if self.is_linear else joined


def pairs(config: ScratchGPTConfig) -> list[Pair]:
    """The map for a model of this configuration; a tied head is left out."""
    norms, linears = {"ln_f": "model.norm"}, {}
    for i in range(config.num_hidden_layers):
        theirs, ours = f"h.{i}", f"model.layers.{i}"
        norms |= {f"{theirs}.ln_1": f"{ours}.input_layernorm", f"{theirs}.ln_2": f"{ours}.post_attention_layernorm"}
        linears[f"{theirs}.attn.c_attn"] = [f"{ours}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        linears[f"{theirs}.attn.c_proj"] = [f"{ours}.self_attn.o_proj"]
        linears[f"{theirs}.mlp.c_fc"] = [f"{ours}.mlp.up_proj"]
        linears[f"{theirs}.mlp.c_proj"] = [f"{ours}.mlp.down_proj"]
    found = [Pair("wte.weight", ("model.embed_tokens.weight",)), Pair("wpe.weight", ("model.embed_positions.weight",))]
    for kind in ("weight", "bias") if config.use_bias else ("weight",):
        found += [Pair(f"{theirs}.{kind}", (f"{ours}.{kind}",)) for theirs, ours in norms.items()]
        found += [
            Pair(f"{theirs}.{kind}", tuple(f"{name}.{kind}" for name in ours), is_linear=kind == "weight")
            for theirs, ours in linears.items()
        ]
    if not config.tie_word_embeddings:
        found.append(Pair("lm_head.weight", ("lm_head.weight",)))
    return found


def from_gpt2(
    source: "str | os.PathLike[str] | GPT2LMHeadModel | GPT2Checkpoint",
    vocab_size: int | None = None,
    **options: Any,
) -> ScratchGPTForCausalLM:
    """A scratchgpt model with the weights of a GPT-2, in their own precision; holds one copy of them.

    Args:
        source: a checkpoint's name on the Hub, its folder or file (see `scratchgpt.interop.gpt2_files`), or a model.
        vocab_size: ids that the model shall have, if the checkpoint has fewer. The others get the mean of its
            embeddings, with which none is likelier than the tokens that were trained (Hewitt 2021).
        options: as for `open_checkpoint`.

    Raises:
        ValueError: for a checkpoint that is damaged or another model's (names the tensors), or that our model cannot
            express (names the fields).
    """
    checkpoint = _checkpoint(source, options)
    config = config_from_gpt2(checkpoint)
    check_tensors(checkpoint, config)
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in checkpoint.tensors.values() if tensor.dtype])
    added = max((vocab_size or 0) - config.vocab_size, 0)
    weights: dict[str, torch.Tensor] = {}
    for pair in pairs(config):
        tensor = checkpoint.tensors[pair.theirs].read()
        if added and pair.theirs in ("wte.weight", "lm_head.weight"):
            weights[pair.ours[0]] = _with_mean_rows(tensor.to(dtype), added)
        else:
            weights |= pair.split(tensor, dtype)
    config.vocab_size += added
    with torch.device("meta"):  # neither memory nor initial weights
        model = ScratchGPTForCausalLM(config)
    model.load_state_dict(weights, strict=not config.tie_word_embeddings, assign=True)
    model.tie_weights()
    if added:
        config.imported_gpt2 = {**(config.imported_gpt2 or {}), "sha256": fingerprint(model)}
    if checkpoint.generation_config is not None:
        model.generation_config = deepcopy(checkpoint.generation_config)
    return model.eval()


def _checkpoint(source: Any, options: dict[str, Any]) -> GPT2Checkpoint:
    if isinstance(source, GPT2Checkpoint):
        return source
    if not isinstance(source, GPT2LMHeadModel):
        return open_checkpoint(os.fspath(source), **options)
    tensors = {name.removeprefix("transformer."): in_memory(value) for name, value in source.state_dict().items()}
    if source.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return GPT2Checkpoint(
        "the GPT2LMHeadModel", source.config.to_dict(), tensors, generation_config=source.generation_config
    )


def config_from_gpt2(checkpoint: GPT2Checkpoint) -> ScratchGPTConfig:
    """Our configuration of that GPT-2.

    Raises:
        ValueError: for one that our model cannot express; names the fields.
    """
    theirs = GPT2Config(**checkpoint.config)
    if wrong := [
        f"{name}={getattr(theirs, name)}" for name, value in UNSUPPORTED.items() if getattr(theirs, name) != value
    ]:
        raise ValueError(f"{checkpoint.name} cannot be expressed, because of {', '.join(wrong)} in its configuration")
    # The same function in one kernel instead of several.
    activation = {"gelu_new": "gelu_pytorch_tanh"}.get(theirs.activation_function, theirs.activation_function)
    return ScratchGPTConfig(
        vocab_size=theirs.vocab_size,
        hidden_size=theirs.n_embd,
        num_hidden_layers=theirs.n_layer,
        num_attention_heads=theirs.n_head,
        intermediate_size=theirs.n_inner,
        max_position_embeddings=theirs.n_positions,
        hidden_act="gelu_pytorch_tanh"
        if activation == "gelu_new"
        else activation,  # the same function, but one kernel
        norm_eps=theirs.layer_norm_epsilon,
        use_bias=checkpoint.use_bias,
        hidden_dropout=theirs.resid_pdrop,
        attention_dropout=theirs.attn_pdrop,
        initializer_range=theirs.initializer_range,
        tie_word_embeddings=theirs.tie_word_embeddings,
        use_cache=theirs.use_cache,
        bos_token_id=theirs.bos_token_id,
        eos_token_id=theirs.eos_token_id,
        pad_token_id=theirs.pad_token_id,
        imported_gpt2={"config": {k: v for k, v in checkpoint.config.items() if k not in REWRITTEN}},
    )


def check_tensors(checkpoint: GPT2Checkpoint, config: ScratchGPTConfig) -> None:
    """Makes sure that a checkpoint has the tensors that its configuration says, and no others.

    Raises:
        ValueError: names those that are missing, not expected, of another shape, or not floating-point numbers.
    """
    with torch.device("meta"):
        weights = ScratchGPTForCausalLM(config).state_dict()
    expected = {pair.theirs: tuple(pair.join(weights).shape) for pair in pairs(config)}
    found = checkpoint.tensors
    both = sorted(expected.keys() & found.keys())
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "not expected": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{n} {list(found[n].shape)} instead of {list(expected[n])}" for n in both if found[n].shape != expected[n]
        ],
        "not of a floating-point type": [name for name in both if found[name].dtype is None],
    }
    if any(problems.values()):
        listed = [
            f"{len(names)} {problem}: {', '.join(names[:5])}{', …' if names[5:] else ''}"
            for problem, names in problems.items()
            if names
        ]
        raise ValueError(
            f"{checkpoint.name} does not hold the GPT-2 that its configuration describes. Tensors {'; '.join(listed)}"
        )


def _with_mean_rows(table_VD: torch.Tensor, added: int) -> torch.Tensor:
    grown_VD = table_VD.new_empty(len(table_VD) + added, table_VD.shape[1])
    grown_VD[: len(table_VD)] = table_VD
    grown_VD[len(table_VD) :] = table_VD.mean(0, dtype=torch.float32)
    return grown_VD


def fingerprint(model: ScratchGPTForCausalLM) -> str:
    """SHA-256 of the weights: tells whether a model is still as it was imported."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def reference_model(checkpoint: GPT2Checkpoint) -> GPT2LMHeadModel:
    """The same GPT-2 as transformers computes it, in fp32: what an imported model is compared with."""
    weights = {name: tensor.read().float() for name, tensor in checkpoint.tensors.items()}
    return _build(GPT2Config(**checkpoint.config), weights)


def original_vocab_size(model: ScratchGPTForCausalLM) -> int:
    """How many of its ids an imported model had, if it is still as it was imported; else all of them.

    The ids that the import added mean nothing until something is trained, so that nothing is lost with them; after any
    training, be it of other weights, they may be what a chat is written with.
    """
    imported = model.config.imported_gpt2 or {}
    if "sha256" in imported and imported["sha256"] == fingerprint(model):
        return imported["config"]["vocab_size"]
    return model.config.vocab_size


def to_gpt2(model: ScratchGPTForCausalLM) -> GPT2LMHeadModel:
    """The same model as transformers' GPT-2, in the same precision; a copy.

    A model that was imported, and nothing more, becomes what it was: without added ids (see `original_vocab_size`).

    Raises:
        ValueError: for a model that GPT-2 cannot express; names the fields.
    """
    config = model.config
    check_expressible(
        "GPT-2",
        config,
        position_embedding_type="learned",
        norm_type="layernorm",
        gated_mlp=False,
        qk_norm=False,
        num_key_value_heads=config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
    )
    vocab_size = original_vocab_size(model)
    weights = model.state_dict()
    joined = {pair.theirs: pair.join(weights) for pair in pairs(config)}
    for name in {"wte.weight", "lm_head.weight"} & joined.keys():
        joined[name] = joined[name][:vocab_size].clone()
    exported = _build(GPT2Config(**_config_to_gpt2(config, vocab_size)), joined)
    exported.generation_config = deepcopy(model.generation_config)
    exported.generation_config.pad_token_id = exported.config.pad_token_id
    ends = exported.generation_config.eos_token_id
    if isinstance(ends, list) and max(ends) >= vocab_size:  # the import added one
        exported.generation_config.eos_token_id = exported.config.eos_token_id
    return exported


def _config_to_gpt2(config: ScratchGPTConfig, vocab_size: int) -> dict[str, Any]:
    imported: dict[str, Any] = (config.imported_gpt2 or {}).get("config", {})
    fields = dict(imported) or {"n_ctx": config.max_position_embeddings}  # llama.cpp reads n_ctx
    dropout = config.hidden_dropout  # ours is one, GPT-2's are two
    fields["embd_pdrop"] = imported.get("embd_pdrop", 0.1) if dropout == imported.get("resid_pdrop", 0.1) else dropout
    if imported.get("n_inner") is not None or config.intermediate_size != 4 * config.hidden_size:
        fields["n_inner"] = config.intermediate_size
    if imported.get("activation_function") != config.hidden_act:
        fields["activation_function"] = "gelu_new" if config.hidden_act == "gelu_pytorch_tanh" else config.hidden_act
    pad_token_id = config.pad_token_id
    if pad_token_id is not None and pad_token_id >= vocab_size:
        pad_token_id = imported.get("pad_token_id")
    return fields | {
        "vocab_size": vocab_size,
        "n_positions": config.max_position_embeddings,
        "n_embd": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": config.use_cache,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": pad_token_id,
    }


def _build(config: GPT2Config, weights: dict[str, torch.Tensor]) -> GPT2LMHeadModel:
    """transformers' model around these weights; biases that are not there are 0."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(config)
    config.dtype = dtype = weights["wte.weight"].dtype
    state = {name if name == "lm_head.weight" else f"transformer.{name}": tensor for name, tensor in weights.items()}
    for name, tensor in model.state_dict().items():
        if name.endswith(".bias") and name not in state:
            state[name] = torch.zeros(tensor.shape, dtype=dtype)
    model.load_state_dict(state, strict=not config.tie_word_embeddings, assign=True)
    model.tie_weights()
    return model.eval()
