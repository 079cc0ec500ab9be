"""Configuration of scratchgpt models: one GPT architecture with orthogonal switches, and named presets.

This is a Hub file: it is copied verbatim into every saved model, so it imports nothing of the package but its
siblings. The defaults are GPT-2's (124M): learned positions, LayerNorm, biases everywhere, GELU (tanh form), tied
head. The `modern` presets turn the switches to Qwen3's mathematics: rotary positions, RMSNorm, QK-norm, SwiGLU, no
biases. Every combination in between is a valid model.
"""

from dataclasses import field, is_dataclass
from typing import Any, ClassVar, Literal

import transformers
from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

WORKS_WITH = (
    "This model's code was tested with transformers 5.5.4 to 5.24.0; installed is "
    f"{transformers.__version__}: pip install 'transformers>=5.5.4,<=5.24.0'."
)
try:
    from transformers.configuration_utils import PreTrainedConfig
except ImportError as error:  # transformers 4
    raise ImportError(f"{error}. {WORKS_WITH}") from error
if not is_dataclass(PreTrainedConfig):
    raise ImportError(f"The configurations of this transformers are not dataclasses yet. {WORKS_WITH}")

# Every save carries the whole map, whichever head is saved: transformers itself would write only the saved class.
AUTO_MAP = {
    "AutoConfig": "configuration_scratchgpt.ScratchGPTConfig",
    "AutoModel": "modeling_scratchgpt.ScratchGPTModel",
    "AutoModelForCausalLM": "modeling_scratchgpt.ScratchGPTForCausalLM",
    "AutoModelForSequenceClassification": "modeling_scratchgpt.ScratchGPTForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_scratchgpt.ScratchGPTForTokenClassification",
}

# GPT-2's four published sizes (Radford et al. 2019, table 2).
SIZES: dict[str, dict[str, int]] = {
    "": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},  # 124M
    "-medium": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},  # 355M
    "-large": {"hidden_size": 1280, "num_hidden_layers": 36, "num_attention_heads": 20},  # 774M
    "-xl": {"hidden_size": 1600, "num_hidden_layers": 48, "num_attention_heads": 25},  # 1.5B
}

STYLES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "modern": {
        "position_embedding_type": "rotary",
        "norm_type": "rmsnorm",
        "norm_eps": 1e-6,
        "use_bias": False,
        "hidden_act": "silu",
        "gated_mlp": True,
        "qk_norm": True,
    },
}

PRESETS: dict[str, dict[str, Any]] = {
    style + size: {**switches, **shape} for style, switches in STYLES.items() for size, shape in SIZES.items()
}


@strict
class ScratchGPTConfig(PreTrainedConfig):
    """Shape and switches of a scratchgpt model; keyword arguments only.

    GPT-2's own field names (`n_embd`, `n_head`, `n_layer`, `n_positions`, `n_inner`, `activation_function`,
    `layer_norm_epsilon`, `attn_pdrop`, `resid_pdrop`, `n_ctx`) are accepted and readable as aliases.

    Raises:
        ValueError: for a combination of fields that no model can have; the message names the fields and the remedy.
        huggingface_hub.errors.StrictDataclassFieldValidationError: for a field of the wrong type.

    Example:
        >>> config = ScratchGPTConfig(vocab_size=8192, hidden_size=256, num_hidden_layers=4, num_attention_heads=8)
        >>> config = ScratchGPTConfig.from_preset("modern", vocab_size=8192, num_key_value_heads=4)
    """

    model_type = "scratchgpt"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    attribute_map: ClassVar[dict[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "n_ctx": "max_position_embeddings",
        "n_inner": "intermediate_size",
        "activation_function": "hidden_act",
        "layer_norm_epsilon": "norm_eps",
        "rms_norm_eps": "norm_eps",
        "attn_pdrop": "attention_dropout",
        "resid_pdrop": "hidden_dropout",
    }
    base_model_pp_plan = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }

    vocab_size: int = 50257
    """Number of token ids; a multiple of 64 (50304 for GPT-2's 50257) makes the head faster."""

    hidden_size: int = 768
    """Width of the residual stream."""

    num_hidden_layers: int = 12
    """Number of decoder layers."""

    num_attention_heads: int = 12
    """Number of query heads."""

    num_key_value_heads: int | None = None
    """Number of key and value heads; fewer than query heads is grouped-query attention (Ainslie et al. 2023).
    Default: as many as query heads."""

    head_dim: int | None = None
    """Width of one attention head. Default: `hidden_size / num_attention_heads`."""

    intermediate_size: int | None = None
    """Width of the MLP. Default: 4 × `hidden_size`; for a gated MLP 8/3 × `hidden_size`, rounded up to a multiple of
    64, which has about the same number of parameters."""

    max_position_embeddings: int = 1024
    """Context length in tokens."""

    position_embedding_type: Literal["learned", "rotary"] = "learned"
    """`learned`: a table added to the token embeddings (GPT-2). `rotary`: queries and keys are turned by their
    position (Su et al. 2021)."""

    # A default factory leaves no class attribute behind, so that the field can be deleted for learned positions.
    rope_parameters: dict | None = field(default_factory=dict, compare=False, repr=False)
    """For rotary positions only: `{"rope_type": "default", "rope_theta": 10000.0}` and, for the scaled types of
    transformers (`linear`, `dynamic`, `yarn`, …), their parameters."""

    norm_type: Literal["layernorm", "rmsnorm"] = "layernorm"
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019)."""

    norm_eps: float = 1e-5
    """Added to the variance in the norms."""

    use_bias: bool = True
    """Whether linear layers and LayerNorms have biases."""

    hidden_act: str = "gelu_pytorch_tanh"
    """Activation of the MLP, by its name in transformers: `gelu_pytorch_tanh` (GPT-2), `silu`, `relu2`, …"""

    gated_mlp: bool = False
    """Whether the MLP is `down(act(gate(x)) * up(x))` (with `silu`: SwiGLU, Shazeer 2020) or `down(act(up(x)))`."""

    qk_norm: bool = False
    """Whether queries and keys are normalised per head before the rotation (Dehghani et al. 2023, Qwen3)."""

    hidden_dropout: float | int = 0.0
    """Dropout probability after the embeddings and on both residual branches."""

    attention_dropout: float | int = 0.0
    """Dropout probability on the attention weights."""

    initializer_range: float = 0.02
    """Standard deviation of the initial weights; the two projections that write to the residual stream get
    `initializer_range / sqrt(2 * num_hidden_layers)` (GPT-2)."""

    tie_word_embeddings: bool = True
    """Whether the language-modelling head shares the token embedding's weights."""

    use_cache: bool = True
    """Whether the model returns its key-value cache."""

    bos_token_id: int | None = None
    """Id that begins a text, if any."""

    eos_token_id: int | list[int] | None = None
    """Id, or ids, that end a text."""

    pad_token_id: int | None = None
    """Id that fills batches. The models never look at it: they look at the attention mask."""

    imported_gpt2: dict | None = None
    """For a model imported from GPT-2: what its configuration was, for the way back (`scratchgpt.interop`)."""

    def __post_init__(self, **kwargs: Any) -> None:
        # Aliases first: values derived below must see them.
        for alias, name in self.attribute_map.items():
            if alias in kwargs:
                value = kwargs.pop(alias)
                if value is not None:
                    setattr(self, name, value)
        self._check_positive("hidden_size", "num_attention_heads")
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads="
                    f"{self.num_attention_heads}: change one of them, or give head_dim."
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.intermediate_size is None:
            width = 8 * self.hidden_size / 3 if self.gated_mlp else 4 * self.hidden_size
            self.intermediate_size = int(-(-width // 64) * 64) if self.gated_mlp else int(width)
        if self.position_embedding_type == "learned" and self.rope_parameters:
            raise ValueError(
                f"rope_parameters={self.rope_parameters} have no meaning with learned positions: leave them out, or "
                "choose position_embedding_type='rotary'."
            )
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)
        if self.position_embedding_type == "learned":
            del self.rope_parameters  # to transformers, having the attribute at all means rotary positions
        self.base_model_tp_plan = self._tensor_parallel_plan()  # pyright: ignore[reportAttributeAccessIssue]
        self.validate_architecture()

    def _tensor_parallel_plan(self) -> dict[str, str]:
        """How each layer's weights are split over devices; names only what this model has."""
        columns = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj"]
        columns += ["mlp.gate_proj"] if self.gated_mlp else []
        plan = dict.fromkeys(columns, "colwise") | dict.fromkeys(["self_attn.o_proj", "mlp.down_proj"], "rowwise")
        if self.qk_norm:  # whole on every device, but each device sees its own heads only
            plan |= dict.fromkeys(["self_attn.q_norm", "self_attn.k_norm"], "replicated_with_grad_allreduce")
        return {f"layers.*.{name}": style for name, style in plan.items()}

    def validate_architecture(self) -> None:
        """Refuses what no model can have. Runs at construction and before every save.

        Raises:
            ValueError: names the offending fields and the remedy.
        """
        self._check_positive(
            "vocab_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "intermediate_size",
            "max_position_embeddings",
        )  # fmt: skip
        assert self.num_key_value_heads is not None  # set by __post_init__
        assert self.head_dim is not None
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of num_key_value_heads="
                f"{self.num_key_value_heads}: every key-value head must serve the same number of query heads."
            )
        if self.position_embedding_type == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"head_dim={self.head_dim} is odd, but rotary positions turn pairs of dimensions: choose an even "
                "head_dim (hidden_size / num_attention_heads), or position_embedding_type='learned'."
            )
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is unknown: choose one of {', '.join(sorted(ACT2FN))}.")
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not a probability: choose 0 <= {name} < 1.")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not positive: choose {name} >= 1.")

    @classmethod
    def from_preset(cls, preset: str, **overrides: Any) -> "ScratchGPTConfig":
        """A named configuration, with single fields overridden.

        Args:
            preset: `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl` (124M, 355M, 774M, 1.5B parameters, the shapes of
                Radford et al. 2019), or `modern`, `modern-medium`, … (the same sizes with Qwen3's mathematics).
            overrides: any field of the configuration, under its own name or an alias.

        Raises:
            ValueError: for an unknown preset, naming the known ones.
        """
        if preset not in PRESETS:
            raise ValueError(f"Unknown preset {preset!r}: choose one of {', '.join(PRESETS)}.")
        aliases = cls.attribute_map
        return cls(**{**PRESETS[preset], **{aliases.get(name, name): value for name, value in overrides.items()}})


ScratchGPTConfig.register_for_auto_class()

__all__ = ["ScratchGPTConfig"]
