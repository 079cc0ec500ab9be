"""GPT-2 in and out: transformers' numbers, the same tensors back, every kind of file, and what is refused."""

import base64
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.configuration_scratchgpt import SIZES
from scratchgpt.interop import from_gpt2, to_gpt2
from scratchgpt.interop.gpt2_files import LINEAR, open_checkpoint
from scratchgpt.interop.tensorflow_checkpoint import read_index

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
TENSORFLOW = Path(__file__).parents[1] / "goldens/tensorflow_gpt2"


def build(**fields) -> GPT2LMHeadModel:
    shape = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.2}
    ids = {"bos_token_id": 60, "eos_token_id": 60}
    # Eager attention, which alone returns its weights.
    config = GPT2Config(**{**shape, **ids, **fields}, attn_implementation="eager")
    return GPT2LMHeadModel(config).eval()


def official(name: str) -> dict[str, int]:
    """An official shape at reduced depth, and with fewer tokens."""
    size, depth = SIZES[name], 1 if name in ("-large", "-xl") else 2
    return {"n_embd": size["hidden_size"], "n_head": size["num_attention_heads"], "vocab_size": 997, "n_layer": depth,
            "bos_token_id": 996, "eos_token_id": 996, "n_positions": 1024, "initializer_range": 0.02}  # fmt: skip


SHAPES = {
    **{f"gpt2{name}": official(name) for name in SIZES},
    "one head": {"n_head": 1},
    "odd": {"n_embd": 15, "n_head": 3, "n_layer": 3, "vocab_size": 67, "n_inner": 37},
    "untied": {"tie_word_embeddings": False},
    "relu": {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "n_inner": 128},
    "dropouts": {"embd_pdrop": 0.3, "resid_pdrop": 0.2, "attn_pdrop": 0.0, "pad_token_id": 5},
}


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_same_numbers_and_the_same_tensors_back(shape, tmp_path):
    theirs = build(**SHAPES[shape])
    torch.manual_seed(1)
    for parameter in theirs.parameters():  # biases and norms too, which begin as 0 and 1
        parameter += torch.randn_like(parameter) * 0.02
    theirs.save_pretrained(tmp_path / "theirs")
    ours = from_gpt2(tmp_path / "theirs")
    ours.set_attn_implementation("eager")
    ids = torch.randint(61, (2, 20))
    kwargs = {"output_hidden_states": True, "output_attentions": True}
    expected, actual = theirs(ids, **kwargs), ours(ids, **kwargs)
    torch.testing.assert_close(actual.logits, expected.logits, **CLOSE)
    for each in ("hidden_states", "attentions"):
        assert len(actual[each]) == len(expected[each])
        for a, b in zip(actual[each], expected[each], strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    for decoding in ({"num_beams": 1}, {"num_beams": 3}):
        how = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0, **decoding}
        assert torch.equal(ours.generate(ids[:, :5], **how), theirs.generate(ids[:, :5], **how))

    ours.save_pretrained(tmp_path / "ours")
    to_gpt2(ScratchGPTForCausalLM.from_pretrained(tmp_path / "ours")).save_pretrained(tmp_path / "back")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "back"))
    assert before == after


def test_added_ids_are_the_mean_and_go_again_unless_something_was_trained():
    theirs = build(tie_word_embeddings=False)
    ours = from_gpt2(theirs, vocab_size=66)
    for name, table in (("wte", ours.model.embed_tokens), ("head", ours.lm_head)):
        original = theirs.transformer.wte.weight if name == "wte" else theirs.lm_head.weight
        assert torch.equal(table.weight[:61], original)
        torch.testing.assert_close(table.weight[61:], original.mean(0).expand(5, -1))
    assert to_gpt2(ours).config.vocab_size == 61
    with torch.no_grad():
        ours.model.layers[0].self_attn.q_proj.weight[0, 0] += (
            0.01  # what an adapter does: the embeddings are as before
        )
    assert to_gpt2(ours).config.vocab_size == 66
    assert torch.equal(to_gpt2(ours).transformer.wte.weight, ours.model.embed_tokens.weight)


def test_configuration_that_other_readers_wrote_comes_back():
    config = {
        "n_ctx": 32,
        "task_specific_params": {"text-generation": {"max_length": 50}},
        "summary_activation": None,
    }
    theirs = build(**config)
    again = to_gpt2(from_gpt2(theirs)).config.to_dict()
    assert {name: again[name] for name in config} == config
    fresh = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, head_dim=4))
    assert to_gpt2(fresh).config.n_ctx == 1024


def test_precision_is_kept():
    ours = from_gpt2(build().to(torch.bfloat16))
    assert ours.dtype == torch.bfloat16
    assert to_gpt2(ours).dtype == torch.bfloat16


def linear_layout(model: GPT2LMHeadModel, prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict as nanoGPT and minGPT have it: linear weights output by input, names otherwise the same."""
    state = model.state_dict()
    return {
        prefix + name: tensor.T.contiguous() if LINEAR.fullmatch(name.removeprefix("transformer.")) else tensor.clone()
        for name, tensor in state.items()
    }


def forms(model: GPT2LMHeadModel, folder: Path) -> dict[str, tuple[Path, dict]]:
    """Form → where the model lies in it, and the options that it needs."""
    made = {}
    for form in ("shards", "bin", "bin shards", "original", "nanogpt", "compiled", "mingpt", "mingpt section"):
        (folder / form).mkdir()
        made[form] = folder / form, {}
    config = model.config.to_dict()
    state, linear = model.state_dict(), linear_layout(model)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(2)}
    model.save_pretrained(folder / "shards", max_shard_size="30KB")
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    for form in ("bin", "bin shards", "original"):
        (folder / form / "config.json").write_text(json.dumps(config))
    torch.save(state | masks, folder / "bin/pytorch_model.bin")
    placed = {name: f"pytorch_model-{i % 2 + 1:05d}-of-00002.bin" for i, name in enumerate(state)}
    for part in set(placed.values()):
        torch.save({n: t for n, t in state.items() if placed[n] == part}, folder / "bin shards" / part)
    (folder / "bin shards/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    # As OpenAI's weights lie on the Hub: without prefix and head, with masks.
    bare = {n.removeprefix("transformer."): t.clone() for n, t in (state | masks).items() if n != "lm_head.weight"}
    save_file(bare, folder / "original/model.safetensors")
    arguments = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 32, "bias": True, "vocab_size": 61}
    for form, prefix in (("nanogpt", ""), ("compiled", "_orig_mod.")):
        content = {"model": linear_layout(model, prefix), "model_args": arguments | {"dropout": 0.0}, "iter_num": 7}
        torch.save(content, folder / form / "ckpt.pt")
        made[form] = folder / form, {"activation_function": "gelu_new"}
    torch.save(linear | masks, folder / "mingpt/model.pt")
    made["mingpt"] = folder / "mingpt/model.pt", {"num_attention_heads": 4}
    torch.save(linear, folder / "mingpt section/model.pt")
    sections = {"system": {"seed": 1}, "model": {"model_type": None, "n_head": 4, "n_layer": 2, "attn_pdrop": 0.0}}
    (folder / "mingpt section/config.json").write_text(json.dumps(sections))
    return made


@torch.no_grad()
def test_every_form_of_file(tmp_path):
    model, ids = build(), torch.randint(61, (1, 20))
    expected = model(ids).logits
    for form, (path, options) in forms(model, tmp_path).items():
        ours = from_gpt2(path, **options)
        torch.testing.assert_close(ours(ids).logits, expected, **CLOSE, msg=lambda text, form=form: f"{form}: {text}")
        assert ours.config.tie_word_embeddings, form


def test_nanogpt_without_biases_has_the_exact_gelu(tmp_path):
    model = build()
    state = {name: t for name, t in linear_layout(model).items() if not name.endswith("bias")}
    torch.save({"model": state, "model_args": {"n_head": 4, "n_layer": 2, "dropout": 0.0}}, tmp_path / "ckpt.pt")
    ours = from_gpt2(tmp_path)
    assert (ours.config.hidden_act, ours.config.use_bias, ours.config.hidden_dropout) == ("gelu", False, 0.0)
    ids = torch.randint(61, (1, 20))
    torch.testing.assert_close(ours(ids).logits, to_gpt2(ours)(ids).logits, **CLOSE)


def test_tensorflow_checkpoint_that_tensorflow_wrote():
    """One layer of width 4; TensorFlow 2.21 wrote it with variables drawn in this order."""
    draw = np.random.RandomState(0).randn
    expected = {"wpe.weight": draw(5, 4), "wte.weight": draw(7, 4)}
    for norm in ("ln_1", "ln_2"):
        expected |= {f"h.0.{norm}.weight": draw(4), f"h.0.{norm}.bias": draw(4)}
    for layer, width, inputs in (
        ("attn.c_attn", 12, 4),
        ("attn.c_proj", 4, 4),
        ("mlp.c_fc", 16, 4),
        ("mlp.c_proj", 4, 16),
    ):
        expected |= {f"h.0.{layer}.weight": draw(1, inputs, width)[0], f"h.0.{layer}.bias": draw(width)}
    expected |= {"ln_f.weight": draw(4), "ln_f.bias": draw(4)}
    for source in (TENSORFLOW, TENSORFLOW / "model.ckpt"):
        checkpoint = open_checkpoint(str(source))
        assert checkpoint.tensors.keys() == expected.keys()
        for name, tensor in checkpoint.tensors.items():
            assert np.array_equal(tensor.read().numpy(), (expected[name] * 0.2).astype("f4")), name
        model = from_gpt2(checkpoint)
        assert (model.config.num_attention_heads, model.config.max_position_embeddings) == (2, 5)


def test_damaged_tensorflow_checkpoints_are_named(tmp_path):
    for file in TENSORFLOW.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index, data = tmp_path / "model.ckpt.index", tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"data-00000-of-00001 is truncated"):
        from_gpt2(tmp_path)
    data.unlink()
    with pytest.raises(ValueError, match="is missing"):
        read_index(index)
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"model.ckpt.index is not the index"):
        read_index(index)


def nano_tensor(stored: dict) -> torch.Tensor:
    raw = bytearray(base64.b64decode(stored["data"]))
    return torch.frombuffer(raw, dtype=torch.float32).reshape(stored["shape"]).clone()


@torch.no_grad()
def test_trained_checkpoint_sorts_all_729_inputs_and_has_its_stored_activations(shared_data, tmp_path):
    folder = shared_data / "checkpoints/gpt-nano-sort"
    stored = json.loads((folder / "gpt-nano-sort-model.json").read_text())
    config = stored.pop("config")
    torch.save({name: nano_tensor(tensor) for name, tensor in stored.items()}, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = from_gpt2(tmp_path)
    model.set_attn_implementation("eager")
    assert not model.config.tie_word_embeddings

    document = json.loads((folder / "gpt-nano-sort-t0-partials.json").read_text())
    expected = {name: nano_tensor(tensor) for name, tensor in document.items() if name != "config"}
    seen = {}
    layer = model.model.layers[0]
    for name, module in {"ln1": layer.input_layernorm, "ln2": layer.post_attention_layernorm, "fc": layer.mlp.up_proj,
                         "gelu": layer.mlp.act_fn, "mlp": layer.mlp.down_proj, "yProj": layer.self_attn.o_proj,
                         "tok_emb": model.model.embed_tokens}.items():  # fmt: skip
        module.register_forward_hook(lambda m, args, output, name=name: seen.update({name: output}))
    outputs = model(expected["idx"].long(), output_hidden_states=True, output_attentions=True)
    seen |= {"x": outputs.hidden_states[0], "block0": outputs.hidden_states[1], "block1": outputs.hidden_states[2]}
    seen |= {"ln_f": outputs.hidden_states[3], "attSm": outputs.attentions[0], "lm_head": outputs.logits}
    seen["probs"] = outputs.logits.softmax(-1)
    for name, tensor in seen.items():
        torch.testing.assert_close(tensor, expected[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")

    inputs = torch.tensor(list(itertools.product(range(3), repeat=6)))
    generated = model.generate(inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=True)
    assert len(inputs) == 729
    assert torch.equal(generated[:, 6:], inputs.sort(dim=1).values)


def test_greedy_and_beam_ids_of_another_runtime(shared_data):
    folder = shared_data / "checkpoints/tiny-random-gpt2"
    model = from_gpt2(folder)
    expected = json.loads((folder / "expected.json").read_text())
    beam, greedy = expected["beam"], expected["greedy"]
    names = ("num_beams", "max_length", "length_penalty", "early_stopping", "eos_token_id", "pad_token_id")
    # These batches are padded by nothing: every 0 is a token.
    ids = torch.tensor(beam["input_ids"])
    options = {name: beam[name] for name in names}
    found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)
    assert found.tolist() == beam["expected"]
    ids = torch.tensor(greedy["input_ids"])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_length=greedy["max_length"])
    assert found.tolist() == greedy["expected"]


class Hostile:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('owned').touch()",)


def spoil(folder: Path, how: str) -> None:
    file, config_file = folder / "model.safetensors", folder / "config.json"
    state, config = load_file(file), json.loads(config_file.read_text())
    if how == "missing":
        del state["transformer.h.1.mlp.c_fc.weight"]
    elif how == "wrong shape":
        state["transformer.h.0.attn.c_attn.weight"] = torch.zeros(32, 95)
    elif how == "other way round":
        state["transformer.h.0.attn.c_attn.weight"] = state["transformer.h.0.attn.c_attn.weight"].T.contiguous()
    elif how == "another layer":
        state["transformer.h.2.ln_1.weight"] = torch.ones(32)
    elif how == "another head":
        state["score.weight"] = torch.ones(2, 32)
    elif how == "untied":
        state["lm_head.weight"] = state["transformer.wte.weight"] + 1
    elif how == "whole numbers":
        state["transformer.ln_f.bias"] = torch.ones(32, dtype=torch.int8)
    elif how == "another architecture":
        config["model_type"] = "llama"
    elif how == "another mathematics":
        config["scale_attn_by_inverse_layer_idx"] = True
    save_file(state, file)
    config_file.write_text(json.dumps(config))
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "broken configuration":
        config_file.write_text("{")
    elif how == "no weights":
        file.unlink()
    elif how == "missing part":
        file.unlink()
        placed = {"transformer.wte.weight": "model-00001-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    elif how in ("pickle with code", "pickle of something"):
        file.unlink()
        content = {"transformer.wte.weight": Hostile()} if how == "pickle with code" else [1, 2]
        if how == "pickle with code":
            (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=2))
        else:
            torch.save(content, folder / "pytorch_model.bin")
    elif how == "pickle of no tensors":
        file.unlink()
        torch.save({"transformer.wte.weight": 3}, folder / "pytorch_model.bin")


SPOILT = {
    "missing": r"1 missing: h\.1\.mlp\.c_fc\.weight",
    "wrong shape": r"h\.0\.attn\.c_attn\.weight \[32, 95\] instead of \[32, 96\]",
    "other way round": r"h\.0\.attn\.c_attn\.weight \[96, 32\] instead of \[32, 96\]",
    "another layer": r"1 not expected: h\.2\.ln_1\.weight",
    "another head": r"1 not expected: score\.weight",
    "untied": r"lm_head\.weight is not wte\.weight",
    "whole numbers": r"floating-point type: ln_f\.bias",
    "another architecture": "is a llama model",
    "another mathematics": "scale_attn_by_inverse_layer_idx=True",
    "truncated": r"model\.safetensors is damaged",
    "broken configuration": r"config\.json is not JSON",
    "no weights": "holds no checkpoint",
    "missing part": r"model-00001-of-00002\.safetensors is missing, which holds transformer\.wte\.weight",
    "pickle with code": r"pytorch_model\.bin is refused",
    "pickle of something": "holds no state dict, but a list",
    "pickle of no tensors": r"'transformer\.wte\.weight' is no tensor",
}


@pytest.mark.parametrize("how", SPOILT)
def test_wrong_checkpoints_are_refused_by_name(how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build().save_pretrained(tmp_path / "model")
    spoil(tmp_path / "model", how)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=SPOILT[how]):
        from_gpt2(tmp_path / "model")
    assert sorted(tmp_path.rglob("*")) == before


def test_no_checkpoint_and_no_number_of_heads(tmp_path):
    with pytest.raises(ValueError, match="neither a local folder"):
        open_checkpoint("nobody/nothing")
    torch.save(linear_layout(build()), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="give --num_attention_heads"):
        open_checkpoint(str(tmp_path))


def test_what_gpt2_cannot_express_is_listed():
    config = ScratchGPTConfig.from_preset("modern", vocab_size=9, hidden_size=8, num_hidden_layers=1,
                                          num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    fields = "position_embedding_type=rotary.*norm_type=rmsnorm.*gated_mlp=True.*qk_norm=True.*num_key_value_heads=2"
    with pytest.raises(ValueError, match=fields):
        to_gpt2(ScratchGPTForCausalLM(config))
