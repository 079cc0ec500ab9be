"""The scratchgpt model, from scratch: attention, MLP, decoder layer, model, and the heads that tasks need.

This is a Hub file: it is copied verbatim into every saved model, so it imports torch, transformers and its siblings,
nothing else. One architecture serves GPT-2, Qwen3 and what lies between; `ScratchGPTConfig` holds the switches.

A token's way through the model (pre-norm transformer, Radford et al. 2019):

    embedding (+ learned position)  →  n × [ h += attention(norm(h));  h += mlp(norm(h)) ]  →  norm  →  head

Shapes are written at the end of a tensor's name:

    B batch    T query positions    S key positions (cached + T)    D hidden size    V vocabulary
    H query heads    K key-value heads    C width of one head    N tokens of a batch, flattened (B·T)
"""

# To a type checker the configuration's derived fields and the parts of transformers' outputs may be None:
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportPrivateImportUsage=false

import sys
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_scratchgpt import WORKS_WITH, ScratchGPTConfig
from .loss_scratchgpt import linear_cross_entropy, linear_log_probabilities

try:
    from transformers import initialization as init
    from transformers.activations import ACT2FN
    from transformers.cache_utils import Cache, DynamicCache
    from transformers.generation import GenerationMixin
    from transformers.masking_utils import create_causal_mask
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.modeling_outputs import (
        BaseModelOutputWithPast,
        CausalLMOutputWithPast,
        SequenceClassifierOutputWithPast,
        TokenClassifierOutput,
    )
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
    from transformers.utils import can_return_tuple
    from transformers.utils.generic import merge_with_config_defaults
    from transformers.utils.output_capturing import capture_outputs
except ImportError as error:
    raise ImportError(f"{error}. {WORKS_WITH}") from error

# The name that this transformers gives the key-value cache, in its calls and in the outputs it reads: `cache` from
# 5.24 on, `past_key_values` before. The model takes both.
CACHE = "cache" if "cache" in signature(create_causal_mask).parameters else "past_key_values"

# Keywords with tensors that pass through to the attention implementation: those of packed rows (flash attention) and
# of continuous batching.
PASSED_ON = {
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "max_seqlen_q", "max_seqlen_k", "seq_idx"),
    *("cache", "read_index", "write_index", "block_table", "logits_indices", "logits_processor_args"),
}


class ScratchGPTRMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension (Zhang and Sennrich 2019), computed in fp32 as Qwen3 does."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        x = hidden_states.float()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def build_norm(config: ScratchGPTConfig, width: int) -> nn.Module:
    """The norm that the configuration asks for, over the last dimension of size `width`."""
    if config.norm_type == "rmsnorm":
        return ScratchGPTRMSNorm(width, config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.use_bias)


class ScratchGPTRotaryEmbedding(nn.Module):
    """Cosines and sines of rotary positions (Su et al. 2021), with transformers' scaled variants.

    Dimension i of a head's first half and dimension i of its second half form a pair that is turned by
    `position * theta^(-2i / C)`.
    """

    inv_freq: torch.Tensor
    original_inv_freq: torch.Tensor

    def __init__(self, config: ScratchGPTConfig):
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        # `dynamic_rope_update` reads and writes these when the sequence outgrows the trained context.
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        if self.rope_type == "default":
            inv_freq, self.attention_scaling = self.compute_default_rope_parameters(config)
        else:
            inv_freq, self.attention_scaling = ROPE_INIT_FUNCTIONS[self.rope_type](config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: ScratchGPTConfig, **_) -> tuple[torch.Tensor, float]:
        """Frequencies [C / 2] in radians per position, and the factor on cosines and sines (1)."""
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        return config.rope_parameters["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each [B, T, C], in the type of `x`, for `position_ids` [B, T]."""
        angles = position_ids[..., None].float() * self.inv_freq.to(x.device, torch.float)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def apply_rotary(x_BHTC: torch.Tensor, cos_BTC: torch.Tensor, sin_BTC: torch.Tensor) -> torch.Tensor:
    """Turns the pairs (i, i + C/2) of every head by their position's angle."""
    first, second = x_BHTC.chunk(2, dim=-1)
    turned_BHTC = torch.cat((-second, first), dim=-1)
    return x_BHTC * cos_BTC.unsqueeze(1) + turned_BHTC * sin_BTC.unsqueeze(1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention written out; the other implementations (SDPA, flash, flex, …) compute the same.

    Args:
        query: [B, H, T, C]. key, value: [B, K, S, C]; each key-value head serves H / K query heads.
        attention_mask: added to the scores, [B, 1, T, S]: 0 where a query may look, a large negative number elsewhere.

    Returns:
        The mixed values [B, T, H, C] and the attention weights [B, H, T, S].
    """
    key_BHSC = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value_BHSC = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores_BHTS = query @ key_BHSC.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores_BHTS = scores_BHTS + attention_mask
    weights_BHTS = scores_BHTS.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights_BHTS = F.dropout(weights_BHTS, p=dropout, training=module.training)
    return (weights_BHTS @ value_BHSC).transpose(1, 2).contiguous(), weights_BHTS


class ScratchGPTAttention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017), multi-head or grouped-query (Ainslie et al. 2023)."""

    def __init__(self, config: ScratchGPTConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        query_width = config.num_attention_heads * self.head_dim
        key_width = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=config.use_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=config.use_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=config.use_bias)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=config.use_bias)
        self.o_proj._writes_to_residual = True  # see _init_weights
        self.q_norm = build_norm(config, self.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = build_norm(config, self.head_dim) if config.qk_norm else nn.Identity()

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        cache = take_cache(past_key_values, kwargs)
        input_shape = hidden_states.shape[:-1]
        heads_shape = (*input_shape, -1, self.head_dim)
        query_BHTC = self.q_norm(self.q_proj(hidden_states).view(heads_shape)).transpose(1, 2)
        key_BKTC = self.k_norm(self.k_proj(hidden_states).view(heads_shape)).transpose(1, 2)
        value_BKTC = self.v_proj(hidden_states).view(heads_shape).transpose(1, 2)
        if position_embeddings is not None:
            query_BHTC = apply_rotary(query_BHTC, *position_embeddings)
            key_BKTC = apply_rotary(key_BKTC, *position_embeddings)

        key_BKSC, value_BKSC = key_BKTC, value_BKTC
        if cache is not None:
            # The cache of continuous batching also sets keywords for the attention implementation.
            key_BKSC, value_BKSC = cache.update(key_BKTC, value_BKTC, self.layer_idx, kwargs=kwargs)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed_BTHC, weights_BHTS = attention_interface(
            self,
            query_BHTC,
            key_BKSC,
            value_BKSC,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        # Reshaped by the input's shape, because serving backends return [T, H * C] without the batch.
        return self.o_proj(mixed_BTHC.reshape(*input_shape, -1).contiguous()), weights_BHTS


class ScratchGPTMLP(nn.Module):
    """Two linear layers around an activation, or three with a gate (SwiGLU, Shazeer 2020)."""

    def __init__(self, config: ScratchGPTConfig):
        super().__init__()
        self.gated = config.gated_mlp
        if self.gated:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.use_bias)
        self.down_proj._writes_to_residual = True  # see _init_weights
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.gated:
            return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class ScratchGPTDecoderLayer(GradientCheckpointingLayer):
    """One block: attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ScratchGPTConfig, layer_idx: int):
        super().__init__()
        self.self_attn = ScratchGPTAttention(config, layer_idx)
        self.mlp = ScratchGPTMLP(config)
        self.input_layernorm = build_norm(config, config.hidden_size)
        self.post_attention_layernorm = build_norm(config, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs,
    ) -> torch.Tensor:
        attended_BTD, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,  # flash attention finds packed documents by it
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(attended_BTD)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class ScratchGPTPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of the model: loading, saving, devices, attention backends, initialisation."""

    config: ScratchGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ScratchGPTDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": ScratchGPTDecoderLayer, "attentions": ScratchGPTAttention}

    def post_init(self) -> None:
        """Ends every `__init__`: initialises the weights, and tells peft of the model where peft is loaded."""
        super().post_init()
        # peft finds the layers that `LoraConfig()` adapts in a table of model types; these are Qwen3's and Llama's.
        if peft := sys.modules.get("peft.utils.constants"):
            peft.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.setdefault(
                self.config.model_type, ["q_proj", "v_proj"]
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's initialisation: the 2n projections that write to the residual stream are scaled by 1/sqrt(2n).

        The test is on the linear layer itself: transformers skips modules without parameters of their own.
        """
        super()._init_weights(module)
        if getattr(module, "_writes_to_residual", False):
            std = self.config.initializer_range / (2 * self.config.num_hidden_layers) ** 0.5
            init.normal_(module.weight, mean=0.0, std=std)


class ScratchGPTModel(ScratchGPTPreTrainedModel):
    """The decoder without a head: token ids to hidden states."""

    def __init__(self, config: ScratchGPTConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        else:
            self.rotary_emb = ScratchGPTRotaryEmbedding(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(ScratchGPTDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = build_norm(config, config.hidden_size)
        self.gradient_checkpointing = False
        # A table of positions ends; rotary positions do not, but heads set this too: no answers from beyond training.
        self.is_bounded = config.position_embedding_type == "learned"
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Hidden states [B, T, D] after the last norm.

        Args:
            input_ids: [B, T] token ids; or give `inputs_embeds` [B, T, D] instead.
            attention_mask: [B, S] with 1 for real tokens and 0 for padding, on whichever side; or a prepared 4-D mask.
            position_ids: [B, T]. Default: counted from the mask, so that padding on the left changes nothing. Without
                a mask, positions that restart mark packed documents: no attention crosses such a border.
            past_key_values: keys and values of the tokens before; grows by T. `cache` is its name in transformers from
                5.24 on, and the name in the output is that of the installed version.
            use_cache: whether to return (and if need be make) a cache.

        Raises:
            ValueError: for an input without tokens, for ids outside the vocabulary, for a sequence longer than the
                context, for a mask that does not cover the cached and the new tokens, for packed documents together
                with a mask, with earlier tokens or in a static cache, and for a cache or a tensor under a name that
                the model does not know. Ids and positions are looked at on the CPU only, where it costs nothing.
        """
        cache = take_cache(past_key_values, kwargs)
        check_keywords(kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if (input_ids if inputs_embeds is None else inputs_embeds).shape[1] == 0:
            raise ValueError(
                "The input has no tokens (an empty text?): give at least one. `generate` without input_ids begins "
                "with bos_token_id."
            )
        if inputs_embeds is None:
            check_ids(input_ids, self.config.vocab_size)
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        num_cached = cache.get_seq_length() if isinstance(cache, Cache) else 0
        if self.is_bounded:
            check_length(self.config, position_ids, num_cached, inputs_embeds.shape[1])
        check_mask(attention_mask, num_cached, inputs_embeds.shape[1])
        # A dynamic cache without tokens changes no mask, but transformers finds packed documents only without a cache.
        earlier = None if isinstance(cache, DynamicCache) and num_cached == 0 else cache
        if attention_mask is not None or isinstance(earlier, Cache):
            check_not_packed(position_ids, attention_mask)

        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: earlier},
        )
        if position_ids is None:
            position_ids = self._default_positions(inputs_embeds, attention_mask, num_cached)
        if self.config.position_embedding_type == "learned":
            inputs_embeds = inputs_embeds + self.embed_positions(position_ids)
            position_embeddings = None
        else:
            position_embeddings = self.rotary_emb(inputs_embeds, position_ids)

        hidden_states = self.dropout(inputs_embeds)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=causal_mask,
                position_ids=position_ids,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **{CACHE: cache},
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), **{CACHE: cache if use_cache else None}
        )

    @staticmethod
    def _default_positions(
        inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, num_cached: int | torch.Tensor
    ) -> torch.Tensor:
        num_new = inputs_embeds.shape[1]
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -num_new:]
        return (torch.arange(num_new, device=inputs_embeds.device) + num_cached).unsqueeze(0)


def take_cache(past_key_values: Cache | None, kwargs: dict[str, Any]) -> Cache | None:
    """The cache under whichever of its two names it came; `cache` is taken out of `kwargs`.

    Before 5.24, `cache` is also the keyword for the cache of continuous batching, no `Cache`: the attention
    implementation gets it.

    Raises:
        ValueError: for two caches.
    """
    if CACHE != "cache" and not isinstance(kwargs.get("cache"), Cache):
        return past_key_values
    cache = kwargs.pop("cache", None)
    if cache is None or past_key_values is None:
        return past_key_values if cache is None else cache
    raise ValueError("cache and past_key_values are two names for one thing: give one of them.")


def check_keywords(kwargs: dict[str, Any]) -> None:
    """Raises ValueError for a cache or a tensor under a name that nothing here reads: to ignore it (a new name for the
    cache, the mask or the positions, say) would give another answer silently. Other values pass."""
    for name, value in kwargs.items():
        if name in PASSED_ON:
            continue
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, Cache | torch.Tensor) for part in parts):
            raise ValueError(
                f"The model does not know the input {name!r} (a {type(value).__name__}) and would ignore it. Leave it "
                f"out; if transformers itself passes it, this version is too new for the model's code. {WORKS_WITH}"
            )


def check_mask(attention_mask: torch.Tensor | None, num_cached: int | torch.Tensor, num_new: int) -> None:
    """Raises ValueError for a 2-D mask that does not cover the cached and the new tokens, as where a cache got lost.

    A static cache knows its fill only on the device: there nothing is checked.
    """
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 2 or not isinstance(num_cached, int):
        return
    if attention_mask.shape[1] != num_cached + num_new:
        raise ValueError(
            f"attention_mask covers {attention_mask.shape[1]} tokens, but there are {num_cached} in the cache and "
            f"{num_new} new ones: give a mask for all of them, and the cache if there are earlier tokens."
        )


def check_not_packed(position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None) -> None:
    """Raises ValueError for positions that restart between real tokens, where nothing keeps documents apart: beside a
    mask, and beside a cache that holds tokens or has a fixed size.

    A prepared 4-D mask says itself who sees whom. Looks only on the CPU and outside of compilation, as `check_ids`.
    """
    if position_ids is None or torch.compiler.is_compiling() or position_ids.device.type != "cpu":
        return
    restarts = position_ids[:, 1:] <= position_ids[:, :-1]
    if isinstance(attention_mask, torch.Tensor):
        if attention_mask.ndim != 2:
            return
        real = attention_mask[:, -position_ids.shape[1] :].to("cpu", torch.bool)
        restarts = restarts & real[:, 1:] & real[:, :-1]
    elif attention_mask is not None:
        return
    if restarts.any():
        raise ValueError(
            "position_ids restart, as those of packed documents do, but beside an attention mask, earlier tokens in "
            "the cache or a static cache the documents would see each other: give packed rows without attention_mask "
            "and without a cache."
        )


def check_ids(ids: torch.Tensor, vocab_size: int, ignore_index: int | None = None) -> None:
    """Raises ValueError for ids outside [0, vocab_size), `ignore_index` excepted.

    Looks only where that is free of cost: on the CPU and outside of compilation. A GPU would have to be waited for; it
    reports such ids as a device-side assertion.
    """
    if torch.compiler.is_compiling() or ids.device.type != "cpu" or ids.numel() == 0:
        return
    bad = (ids < 0) | (ids >= vocab_size)
    if ignore_index is not None:
        bad &= ids != ignore_index
    if bad.any():
        raise ValueError(
            f"Token id {int(ids[bad][0])} is outside the model's vocabulary of {vocab_size} (ids 0 to "
            f"{vocab_size - 1}): use the tokenizer that was saved with the model, or call "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def check_length(
    config: ScratchGPTConfig, position_ids: torch.Tensor | None, num_cached: int | torch.Tensor, num_new: int
) -> None:
    """Raises ValueError where a sequence outgrows the context; scaled rotary positions are made to do so.

    Given positions are looked at only on the CPU and outside of compilation, as in `check_ids`. A static cache knows
    its fill only on the device, so without positions its new tokens alone are counted.
    """
    if config.position_embedding_type == "rotary" and config.rope_parameters["rope_type"] != "default":
        return
    if position_ids is None:
        length = num_new + (num_cached if isinstance(num_cached, int) else 0)
    elif torch.compiler.is_compiling() or position_ids.device.type != "cpu" or position_ids.numel() == 0:
        return
    else:
        length = int(position_ids.max()) + 1
    if length > config.max_position_embeddings:
        raise ValueError(
            f"The sequence has {length} tokens, but the model's context is max_position_embeddings="
            f"{config.max_position_embeddings}: truncate the input (tokenizer(..., truncation=True, max_length="
            f"{config.max_position_embeddings})), generate fewer new tokens, or train with a longer context."
        )


class ScratchGPTForCausalLM(ScratchGPTPreTrainedModel, GenerationMixin):
    """The model with a language-modelling head: logits of the next token, or the training loss without them."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}  # pyright: ignore[reportAssignmentType]
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: ScratchGPTConfig):
        super().__init__(config)
        self.model = ScratchGPTModel(config)
        self.model.is_bounded = True
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits [B, T, V] and, with labels, the mean cross-entropy per target token in nats.

        Args:
            labels: [B, T] target ids aligned with the input (shifted here), -100 where there is no target.
            shift_labels: [B, T] targets already shifted, instead of `labels`. A keyword that the signature does not
                show: transformers' Trainer takes every name with "label" in it for a column that an evaluation needs.
            num_items_in_batch: the loss is the sum over this batch divided by this number, instead of by the number
                of its own targets (gradient accumulation over batches of unequal length).
            logits_to_keep: how many of the last positions get logits (0: all), or which positions.
            return_logits: whether logits are wanted. Default: not while training with labels, where they would take
                tokens × vocabulary of memory, and `logits` is then None.
            reduction: none: `loss` is the cross-entropy of each target [B, T], 0 where there is none, still without
                the logits: for losses made of the log-probabilities of whole sequences. Like `shift_labels` a
                keyword that the signature does not show.

        The other arguments and the errors are those of `ScratchGPTModel.forward`.
        """
        shift_labels: torch.Tensor | None = kwargs.pop("shift_labels", None)
        reduction: str = kwargs.pop("reduction", "mean")
        has_targets = labels is not None or shift_labels is not None
        if return_logits is None:
            return_logits = not (has_targets and (self.training or reduction == "none"))
        if not return_logits and not has_targets:
            raise ValueError("return_logits=False without labels computes nothing: give labels.")
        if reduction == "none" and (return_logits or not has_targets):
            raise ValueError('reduction="none" is for labels without logits: give labels, leave out return_logits.')
        if use_cache is None and not return_logits:
            use_cache = False
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_BTD = outputs.last_hidden_state
        if labels is not None and shift_labels is None:
            check_ids(labels, self.config.vocab_size, ignore_index=-100)
            shift_labels = F.pad(labels[..., 1:], (0, 1), value=-100)

        loss = logits = None
        if return_logits:
            logits = self.lm_head(select_positions(hidden_BTD, logits_to_keep))
            if shift_labels is not None:
                loss = self.loss_function(
                    logits=logits,
                    labels=None,
                    shift_labels=shift_labels,
                    vocab_size=self.config.vocab_size,
                    num_items_in_batch=num_items_in_batch,
                )
        elif reduction == "none":
            loss = -linear_log_probabilities(hidden_BTD, self.lm_head, shift_labels)
        else:
            loss = linear_cross_entropy(hidden_BTD, self.lm_head, shift_labels, num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )


def select_positions(hidden_BTD: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """The positions that get logits: the last n (0: all), those of a 1-D index shared by the batch, those of a 2-D
    index [B, positions], or, flattened to [N, D], those of a 2-D boolean mask [B, T]."""
    if isinstance(logits_to_keep, int):
        return hidden_BTD[:, -logits_to_keep:] if logits_to_keep else hidden_BTD
    if logits_to_keep.dtype == torch.bool:
        return hidden_BTD[logits_to_keep]
    if logits_to_keep.ndim == 2:
        return hidden_BTD.gather(1, logits_to_keep.unsqueeze(-1).expand(-1, -1, hidden_BTD.shape[-1]))
    return hidden_BTD[:, logits_to_keep]


class ScratchGPTForSequenceClassification(ScratchGPTPreTrainedModel):
    """One label per text, read off the last real token.

    The attention mask says which token that is, never a token id: padding on either side, the other texts of a batch
    and an end-of-text token in the text do not change an answer.
    """

    def __init__(self, config: ScratchGPTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = ScratchGPTModel(config)
        self.model.is_bounded = True
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutputWithPast:
        """Logits [B, labels] and, with `labels` [B] (or [B, labels] for regression and multi-label), the loss.

        Without an attention mask every token counts as real. `num_items_in_batch` is as in
        `ScratchGPTForCausalLM.forward`, and counts labels. The other arguments and the errors are those of
        `ScratchGPTModel.forward`.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_BTD = outputs.last_hidden_state
        logits = self.score(hidden_BTD[torch.arange(len(hidden_BTD)), last_real_token(hidden_BTD, attention_mask)])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                pooled_logits=logits,
                config=self.config,
                num_items_in_batch=num_items_in_batch,
            )
            # transformers' losses for regression and for several labels a text are means, whatever they are told.
            if num_items_in_batch is not None and self.config.problem_type != "single_label_classification":
                loss = loss * labels.numel() / num_items_in_batch
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )


def last_real_token(hidden_BTD: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Index [B] of each row's last position whose mask is 1; the last position where there is no 2-D mask."""
    batch_size, length = hidden_BTD.shape[:2]
    if attention_mask is None or attention_mask.ndim != 2:
        return torch.full((batch_size,), length - 1, device=hidden_BTD.device)
    mask_BT = attention_mask[:, -length:].to(hidden_BTD.device, torch.long)
    return (mask_BT * torch.arange(length, device=hidden_BTD.device)).argmax(-1)


class ScratchGPTForTokenClassification(ScratchGPTPreTrainedModel):
    """One label per token."""

    def __init__(self, config: ScratchGPTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = ScratchGPTModel(config)
        self.model.is_bounded = True
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Logits [B, T, labels] and, with `labels` [B, T] (-100 where there is none), the mean loss per label.

        The other arguments and the errors are those of `ScratchGPTForCausalLM.forward`.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.score(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config, num_items_in_batch=num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


# A save copies these files and names the classes in config.json, so that a model loads where the package is missing.
ScratchGPTModel.register_for_auto_class("AutoModel")
ScratchGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
ScratchGPTForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
ScratchGPTForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")

__all__ = [
    "ScratchGPTForCausalLM",
    "ScratchGPTForSequenceClassification",
    "ScratchGPTForTokenClassification",
    "ScratchGPTModel",
    "ScratchGPTPreTrainedModel",
]
