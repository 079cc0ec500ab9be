"""The model against itself (every way to run it gives the same numbers) and against GPT-2 and Qwen3."""

import itertools

import pytest
import torch
from safetensors import safe_open
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM, StaticCache

from scratchgpt import (
    ScratchGPTConfig,
    ScratchGPTForCausalLM,
    ScratchGPTForSequenceClassification,
    ScratchGPTForTokenClassification,
    ScratchGPTModel,
)
from scratchgpt.modeling_scratchgpt import CACHE

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def build(model_class, preset="gpt2", seed=0, **overrides):
    torch.manual_seed(seed)
    config = ScratchGPTConfig.from_preset(preset, **{**SHAPE, **overrides})
    # A wider initialisation than in training, so that a mistake in attention is far above the tolerance.
    config.initializer_range = 0.3
    return model_class(config).eval()


def random_ids(*shape, seed=1):
    return torch.randint(SHAPE["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))


SWITCHES = [
    {
        "position_embedding_type": position,
        "norm_type": norm,
        "use_bias": bias,
        "hidden_act": activation,
        "gated_mlp": activation == "silu",
        "qk_norm": qk_norm,
        "num_key_value_heads": kv_heads,
    }
    for position, norm, bias, activation, qk_norm, kv_heads in itertools.product(
        ("learned", "rotary"),
        ("layernorm", "rmsnorm"),
        (True, False),
        ("gelu_pytorch_tanh", "silu", "relu2"),
        (True, False),
        (4, 2),
    )
]


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@torch.no_grad()
def test_every_way_to_run_the_model_agrees(backend):
    """Plain = cached = chunked = left-padded = right-padded = packed = static cache, for all 96 switch settings."""
    ids = random_ids(2, 12)
    lengths = (5, 12)  # row 0 has 5 real tokens, the rest is padding
    for switches in SWITCHES:
        model = build(ScratchGPTForCausalLM, **switches, attn_implementation=backend)
        plain = model(ids).logits

        def close(actual, expected, way, switches=switches):
            torch.testing.assert_close(actual, expected, **TOLERANCE, msg=lambda text: f"{way}, {switches}: {text}")

        for cache_name, cache in (
            ("dynamic", DynamicCache()),
            ("static", StaticCache(model.config, max_cache_len=12)),
        ):
            pieces = [model(piece, past_key_values=cache).logits for piece in ids.split([4, 1, 5, 1, 1], dim=1)]
            close(torch.cat(pieces, dim=1), plain, f"{cache_name} cache")

        for side in ("left", "right"):
            padded, mask = torch.zeros_like(ids), torch.zeros_like(ids)
            for row, length in enumerate(lengths):
                real = slice(12 - length, 12) if side == "left" else slice(0, length)
                padded[row, real], mask[row, real] = ids[row, :length], 1
            logits = model(padded, attention_mask=mask).logits
            for row, length in enumerate(lengths):
                close(logits[row][mask[row].bool()], plain[row, :length], f"{side}-padded")

        documents = [ids[0, :5], ids[1, :7], ids[0, 5:8]]
        positions = torch.cat([torch.arange(len(d)) for d in documents])[None]
        packed = model(torch.cat(documents)[None], position_ids=positions, use_cache=False).logits[0]
        for actual, document in zip(packed.split([5, 7, 3]), documents, strict=True):
            close(actual, model(document[None]).logits[0], "packed")


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_packed_documents_do_not_see_each_other(preset):
    """In training and in evaluation, with logits and without, with a cache and without."""
    model = build(ScratchGPTForCausalLM, preset)
    ids, positions = random_ids(1, 12), torch.cat([torch.arange(5), torch.arange(7)])[None]
    changed = ids.clone()
    changed[:, :5] = (ids[:, :5] + 1) % 61  # another first document
    labels = ids.clone()
    labels[:, :6] = -100
    alone = model(ids[:, 5:], labels=labels[:, 5:])
    for training in (False, True):
        model.train(training)
        for options in ({}, {"return_logits": True}, {"use_cache": True}, {"use_cache": False}, {CACHE: None}):
            for inputs in (ids, changed):
                outputs = model(inputs, position_ids=positions, labels=labels, **options)
                torch.testing.assert_close(outputs.loss, alone.loss, **TOLERANCE)
                if outputs.logits is not None:
                    torch.testing.assert_close(outputs.logits[:, 5:], alone.logits, **TOLERANCE)
    model.eval()
    cache = DynamicCache()
    torch.testing.assert_close(
        model(ids, position_ids=positions, **{CACHE: cache}).logits[:, 5:], alone.logits, **TOLERANCE
    )
    compiled = torch.compile(lambda i, p: model(i, position_ids=p).logits, fullgraph=True)
    torch.testing.assert_close(compiled(ids, positions)[:, 5:], alone.logits, **TOLERANCE)


@torch.no_grad()
def test_packed_documents_that_would_see_each_other_are_refused():
    model = build(ScratchGPTForCausalLM)
    ids, positions = random_ids(1, 12), torch.cat([torch.arange(5), torch.arange(7)])[None]
    filled = DynamicCache()
    model(ids[:, :3], past_key_values=filled)
    for options in (
        {"attention_mask": torch.ones(1, 12, dtype=torch.long)},
        {"past_key_values": StaticCache(model.config, max_cache_len=12)},
        {"past_key_values": filled},
    ):
        with pytest.raises(ValueError, match="documents would see each other"):
            model(ids, position_ids=positions, **options)
    # Positions of padding may be whatever they are.
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
    padded = model(ids, attention_mask=mask, position_ids=torch.tensor([[1, 1, 1, *range(9)]])).logits[:, 3:]
    torch.testing.assert_close(padded, model(ids[:, 3:]).logits, **TOLERANCE)


@pytest.mark.parametrize(
    "model_class",
    [ScratchGPTModel, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification, ScratchGPTForTokenClassification],
)
def test_an_empty_text_is_refused(model_class):
    for dtype in (torch.long, torch.float):  # tokenizers return an empty text as floating point numbers
        with pytest.raises(ValueError, match="no tokens"):
            build(model_class)(torch.zeros(1, 0, dtype=dtype))


@torch.no_grad()
def test_cached_left_padded_decoding_needs_no_position_ids():
    model = build(ScratchGPTForCausalLM)
    ids, mask = random_ids(1, 8), torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    cache = DynamicCache()
    model(ids[:, :6], attention_mask=mask[:, :6], past_key_values=cache)
    step = model(ids[:, 6:], attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(step, model(ids[:, 3:]).logits[:, -2:], **TOLERANCE)


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
@pytest.mark.parametrize("model_class", [ScratchGPTModel, ScratchGPTForCausalLM, ScratchGPTForSequenceClassification])
@torch.no_grad()
def test_a_cache_is_taken_under_both_its_names(model_class, name):
    """`cache` from transformers 5.24 on, `past_key_values` before: both on every version; the output has its own."""
    model, ids, cache = build(model_class), random_ids(1, 8), DynamicCache()
    first = model(ids[:, :5], **{name: cache})
    assert first[CACHE] is cache
    step = model(ids[:, 5:], **{name: cache})
    torch.testing.assert_close(step[0][:, -1], model(ids)[0][:, -1], **TOLERANCE)
    with pytest.raises(ValueError, match="two names for one thing"):
        model(ids, past_key_values=DynamicCache(), cache=DynamicCache())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kv", DynamicCache()),  # the cache renamed once more
        ("caches", {"full_attention": DynamicCache()}),
        ("mask", torch.ones(1, 8)),
        ("masks", [torch.ones(1, 8)]),
        ("positions", torch.arange(8)[None]),
        ("token_type_ids", torch.zeros(1, 8, dtype=torch.long)),
    ],
)
@pytest.mark.parametrize(
    "model_class",
    [
        ScratchGPTModel,
        ScratchGPTForCausalLM,
        ScratchGPTForSequenceClassification,
        ScratchGPTForTokenClassification,
    ],
)
def test_what_would_change_the_answer_is_not_ignored(model_class, name, value):
    model, ids = build(model_class), random_ids(1, 8)
    with pytest.raises(ValueError, match=rf"'{name}' .* would ignore it.*transformers 5\.5\.4 to 5\.\d+\.\d+"):
        model(ids, **{name: value})
    model(ids, a_flag=True, a_number=3, nothing=None)  # what a version to come may add beside the tensors


@torch.no_grad()
def test_a_mask_without_its_cache_is_refused():
    """As it would be if the cache came under a name that nobody reads: the past would be missing silently."""
    model, ids, cache = build(ScratchGPTForCausalLM), random_ids(1, 8), DynamicCache()
    model(ids[:, :7], past_key_values=cache)
    with pytest.raises(ValueError, match="covers 8 tokens, but there are 0 in the cache and 1 new ones"):
        model(ids[:, 7:], attention_mask=torch.ones(1, 8))
    with pytest.raises(ValueError, match="covers 1 tokens, but there are 7 in the cache and 1 new ones"):
        model(ids[:, 7:], attention_mask=torch.ones(1, 1), past_key_values=cache)


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@torch.no_grad()
def test_flex_attention_agrees(preset):
    model, ids = build(ScratchGPTForCausalLM, preset, head_dim=16), random_ids(2, 12)
    expected = model(ids).logits
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(model(ids).logits, expected, **TOLERANCE)


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2_preset_is_gpt2(tied):
    ours = build(ScratchGPTForCausalLM, tie_word_embeddings=tied)
    config = GPT2Config(
        vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=32, tie_word_embeddings=tied
    )
    theirs = GPT2LMHeadModel(config).eval()
    state = {"transformer.wte.weight": ours.model.embed_tokens.weight, "lm_head.weight": ours.lm_head.weight}
    state["transformer.wpe.weight"] = ours.model.embed_positions.weight
    for i, layer in enumerate(ours.model.layers):
        attention = layer.self_attn
        linears = {"attn.c_proj": attention.o_proj, "mlp.c_fc": layer.mlp.up_proj, "mlp.c_proj": layer.mlp.down_proj}
        qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        tensors = {"attn.c_attn.weight": torch.cat([linear.weight for linear in qkv]).T}  # Conv1D stores [in, out]
        tensors["attn.c_attn.bias"] = torch.cat([linear.bias for linear in qkv])
        for name, linear in linears.items():
            tensors |= {f"{name}.weight": linear.weight.T, f"{name}.bias": linear.bias}
        for name, norm in {"ln_1": layer.input_layernorm, "ln_2": layer.post_attention_layernorm}.items():
            tensors |= {f"{name}.{kind}": tensor for kind, tensor in norm.named_parameters()}
        state |= {f"transformer.h.{i}.{name}": tensor for name, tensor in tensors.items()}
    state |= {f"transformer.ln_f.{kind}": getattr(ours.model.norm, kind) for kind in ("weight", "bias")}
    theirs.load_state_dict(state)
    ids = random_ids(2, 20)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, **TOLERANCE)


@pytest.mark.parametrize("num_key_value_heads", [4, 2, 1])
@torch.no_grad()
def test_modern_preset_is_qwen3(num_key_value_heads):
    ours = build(ScratchGPTForCausalLM, "modern", num_key_value_heads=num_key_value_heads)
    fields = {**SHAPE, "num_key_value_heads": num_key_value_heads, "head_dim": 8, "tie_word_embeddings": True}
    theirs = Qwen3ForCausalLM(Qwen3Config(**fields)).eval()
    theirs.load_state_dict(ours.state_dict())  # the very same names
    ids = random_ids(2, 20)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, **TOLERANCE)


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_compiled_training_step_equals_eager_without_graph_breaks(preset):
    model, ids = build(ScratchGPTForCausalLM, preset).train(), random_ids(2, 16)
    model(ids, labels=ids).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.compile(lambda x: model(x, labels=x).loss, fullgraph=True)(ids).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], **TOLERANCE)


def test_only_the_first_training_step_compiles():
    model, ids = build(ScratchGPTForCausalLM).train(), random_ids(2, 16)
    torch.compiler.reset()
    step = torch.compile(lambda x: model(x, labels=x).loss, fullgraph=True)
    step(ids).backward()
    stats = torch._dynamo.utils.counters["stats"]
    graphs = stats["unique_graphs"]
    with torch._dynamo.config.patch(error_on_recompile=True):  # an error names the guard that failed
        for _ in range(2):
            step(ids).backward()
    assert stats["unique_graphs"] == graphs > 1  # the step, and the kernel of the loss


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@torch.no_grad()
def test_compiled_decoding_with_a_static_cache_equals_eager_without_graph_breaks(preset):
    model, ids = build(ScratchGPTForCausalLM, preset), random_ids(2, 10)
    expected = model(ids).logits
    cache = StaticCache(model.config, max_cache_len=16)
    model(ids[:, :6], past_key_values=cache)
    step = torch.compile(model, fullgraph=True)
    for t in range(6, 10):
        logits = step(ids[:, t : t + 1], past_key_values=cache, position_ids=torch.tensor([[t], [t]])).logits
        torch.testing.assert_close(logits[:, 0], expected[:, t], **TOLERANCE)


def test_training_with_labels_returns_no_logits_unless_asked():
    model, ids = build(ScratchGPTForCausalLM).train(), random_ids(2, 16)
    lean, full = model(ids, labels=ids), model(ids, labels=ids, return_logits=True)
    assert lean.logits is None
    assert lean.get(CACHE) is None
    assert full.logits.shape == (2, 16, 61)
    torch.testing.assert_close(lean.loss, full.loss)
    assert model.eval()(ids, labels=ids).logits is not None
    assert model(ids, labels=ids, return_logits=False).logits is None
    with pytest.raises(ValueError, match="labels"):
        model(ids, return_logits=False)


def test_num_items_in_batch_makes_accumulated_gradients_those_of_one_batch():
    model, ids = build(ScratchGPTForCausalLM).train(), random_ids(4, 16)
    labels = ids.clone()
    labels[0, :10] = labels[3, 2:] = -100
    whole = model(ids, labels=labels).loss
    count = (labels[:, 1:] != -100).sum()
    parts = [model(ids[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=count).loss for i in range(4)]
    torch.testing.assert_close(sum(parts), whole)
    logits_too = model(ids, labels=labels, num_items_in_batch=count, return_logits=True).loss
    torch.testing.assert_close(logits_too, whole)


def test_shift_labels_replace_labels():
    model, ids = build(ScratchGPTForCausalLM).train(), random_ids(2, 16)
    shifted = torch.cat((ids[:, 1:], torch.full((2, 1), -100)), dim=1)
    for return_logits in (True, False):
        loss = model(ids, labels=ids, return_logits=return_logits).loss
        assert torch.equal(model(ids, shift_labels=shifted, return_logits=return_logits).loss, loss)


def test_a_wrapped_head_is_called_as_a_module():
    """An adapter on lm_head must take part in the loss; reading lm_head.weight would leave it out in silence."""
    model, ids = build(ScratchGPTForCausalLM, tie_word_embeddings=False).train(), random_ids(2, 16)
    plain = model(ids, labels=ids).loss
    model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Linear(61, 61))
    assert not torch.isclose(model(ids, labels=ids).loss, plain)


def test_logits_to_keep():
    model, ids = build(ScratchGPTForCausalLM), random_ids(2, 8)
    logits = model(ids).logits
    mask = random_ids(2, 8, seed=2) % 2 == 0
    rows = torch.tensor([[0, 3], [7, 2]])
    expected = {
        "last": (3, logits[:, -3:]),
        "shared index": (torch.tensor([1, 4]), logits[:, [1, 4]]),
        "index per row": (rows, torch.stack([logits[i, rows[i]] for i in range(2)])),
        "mask": (mask, logits[mask]),
    }
    for way, (keep, kept) in expected.items():
        actual = model(ids, logits_to_keep=keep).logits
        torch.testing.assert_close(actual, kept, **TOLERANCE, msg=lambda text, way=way: f"{way}: {text}")


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_gradient_checkpointing_changes_no_gradient(preset):
    model, ids = build(ScratchGPTForCausalLM, preset).train(), random_ids(2, 16)
    model(ids, labels=ids).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name


def test_output_attentions_and_hidden_states():
    model, ids = build(ScratchGPTForCausalLM, "modern", attn_implementation="eager"), random_ids(2, 8)
    outputs = model(ids, output_attentions=True, output_hidden_states=True)
    assert [a.shape for a in outputs.attentions] == [(2, 4, 8, 8)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(2, 4, 8))
    assert outputs.attentions[0].triu(1).abs().max() == 0
    assert [h.shape for h in outputs.hidden_states] == [(2, 8, 32)] * 3


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@torch.no_grad()
def test_classification_ignores_padding_and_batch_mates(preset, padding):
    eos = 7
    model = build(ScratchGPTForSequenceClassification, preset, num_labels=3, pad_token_id=eos, eos_token_id=eos)
    texts = [random_ids(n, seed=n) for n in (3, 9, 6)]
    texts[1][-1] = texts[2][2] = eos  # an end-of-text that is also the pad id, at the end and inside
    ids, mask = torch.full((3, 11), eos), torch.zeros(3, 11, dtype=torch.long)
    for row, text in enumerate(texts):
        real = slice(11 - len(text), 11) if padding == "left" else slice(0, len(text))
        ids[row, real], mask[row, real] = text, 1
    together = model(ids, attention_mask=mask).logits
    for row, text in enumerate(texts):
        torch.testing.assert_close(together[row], model(text[None]).logits[0], **TOLERANCE)
        hidden = model.model(text[None]).last_hidden_state
        torch.testing.assert_close(together[row], model.score(hidden[0, -1]), **TOLERANCE)


def test_classification_losses():
    ids = random_ids(4, 8)
    labels = {1: torch.rand(4), 3: torch.tensor([0, 2, 1, 0])}
    for num_labels, label in labels.items():
        model = build(ScratchGPTForSequenceClassification, num_labels=num_labels)
        loss = model(ids, labels=label).loss
        loss.backward()
        assert loss.isfinite()
        assert model.model.embed_tokens.weight.grad.abs().sum() > 0
    tokens = build(ScratchGPTForTokenClassification, num_labels=5)
    assert tokens(ids, labels=ids % 5).logits.shape == (4, 8, 5)


def test_residual_projections_start_smaller():
    config = ScratchGPTConfig(vocab_size=64, hidden_size=256, num_hidden_layers=8, num_attention_heads=4)
    model = ScratchGPTForCausalLM(config)
    for layer in model.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            assert linear.weight.std().item() == pytest.approx(0.02 / 16**0.5, rel=0.05)
        assert layer.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path):
    model = build(ScratchGPTForCausalLM)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) + ("model.embed_tokens.weight" in file.keys()) == 1  # noqa: SIM118
    again = ScratchGPTForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    again.resize_token_embeddings(70)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert again.config.vocab_size == 70
    assert again(torch.tensor([[69]])).logits.shape == (1, 1, 70)


def test_presets_have_the_published_sizes():
    millions = {"gpt2": 124, "gpt2-medium": 355, "gpt2-large": 774, "gpt2-xl": 1558}
    for preset, expected in millions.items():
        with torch.device("meta"):
            model = ScratchGPTForCausalLM(ScratchGPTConfig.from_preset(preset))
        count = sum(p.numel() for p in model.parameters())
        assert round(count / 1e6) == expected, preset


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_bad_input_is_named(preset):
    model, ids = build(ScratchGPTForCausalLM, preset), random_ids(1, 8)
    with pytest.raises(ValueError, match=r"id 61 .*vocabulary of 61"):
        model(torch.full((1, 3), 61))
    with pytest.raises(ValueError, match="id -1 "):
        model(torch.full((1, 3), -1))
    with pytest.raises(ValueError, match="id 99 "):
        model(ids, labels=torch.full((1, 8), 99))
    with pytest.raises(ValueError, match=r"33 tokens.*max_position_embeddings=32"):
        model(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match="33 tokens"):
        model.generate(ids, max_new_tokens=30, do_sample=False)
    with pytest.raises(ValueError, match="33 tokens"):
        model(ids, position_ids=torch.arange(25, 33)[None])
    packed = torch.arange(20).repeat(2)[None]  # 40 tokens in two documents that both fit
    assert model(packed, position_ids=packed, use_cache=False).logits.shape == (1, 40, 61)
    with pytest.raises(ValueError, match="exactly one"):
        ScratchGPTModel(model.config)(None)


def test_scaled_rotary_positions_may_outgrow_the_trained_context():
    for rope_type in ("linear", "dynamic", "yarn"):
        rope = {"rope_type": rope_type, "factor": 4.0, "rope_theta": 10000.0}
        model = build(ScratchGPTForCausalLM, "modern", rope_parameters=rope)
        assert model(random_ids(1, 50)).logits.isfinite().all()
