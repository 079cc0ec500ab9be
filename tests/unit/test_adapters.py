"""adapters.py: adapters beside a base that does not change, and on no other one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scratchgpt import (
    ScratchGPTConfig,
    ScratchGPTForCausalLM,
    ScratchGPTForSequenceClassification,
    ScratchGPTTokenizer,
)
from scratchgpt.adapters import (
    AdapterArguments,
    add_adapter,
    describe_parameters,
    is_adapter,
    load_adapter,
    load_base,
    merge_adapter,
)
from scratchgpt.hub.fingerprints import (
    BASE_FILE,
    base_reference,
    seen_from,
    tokenizer_fingerprint,
    verify_base,
    weights_fingerprint,
    write_base_reference,
)
from scratchgpt.hub.model_directory import count_parameters, load_weights, save_model
from scratchgpt.hub.seals import MANIFEST
from scratchgpt.tokenizers import BPETokenizer, to_transformers

TEXT = "What is the sum of two and two? The sum is four."


@pytest.fixture(scope="module")
def tokenizer() -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train([TEXT] * 3, 280))


def write_base(
    tokenizer: ScratchGPTTokenizer, directory: Path, preset: str = "modern", seed: int = 0, **overrides: Any
) -> Path:
    config = ScratchGPTConfig.from_preset(
        preset, vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,  # as far from uniform as a trained model
        **overrides,
    )  # fmt: skip
    torch.manual_seed(seed)
    save_model(ScratchGPTForCausalLM(config), tokenizer, directory)
    return directory


def train(model: torch.nn.Module, ids: torch.Tensor, steps: int = 5) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model.train()(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def gradients_of(model: torch.nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    loss = model.train()(input_ids=ids, labels=ids).loss
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model.eval()(input_ids=ids).logits


SWITCHES = [
    {},
    {"use_dora": True},
    {"use_rslora": True, "lora_r": 4, "lora_alpha": 4},
    {"lora_targets": ["q_proj", "v_proj"]},
]


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@pytest.mark.parametrize("switches", SWITCHES)
def test_lora(tokenizer, preset: str, switches: dict[str, Any], tmp_path: Path) -> None:
    base_dir = write_base(tokenizer, tmp_path / "base", preset)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    base = load_base(base_dir)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    untrained = logits(base, ids)
    roles = [] if "lora_targets" in switches else tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    model = add_adapter(base, AdapterArguments(**switches), roles)
    torch.testing.assert_close(logits(model, ids), untrained)
    losses = train(model, ids)
    assert losses[-1] < losses[0]
    trained = logits(model, ids)
    save_model(model, tokenizer, tmp_path / "adapter")

    again, own_tokenizer = load_adapter(tmp_path / "adapter")
    assert torch.equal(logits(again, ids), trained)
    assert own_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert not any(parameter.requires_grad for parameter in again.parameters())
    merged = merge_adapter(again)
    assert type(merged) is ScratchGPTForCausalLM
    torch.testing.assert_close(logits(merged, ids), trained, rtol=1e-5, atol=1e-5)
    save_model(merged, tokenizer, tmp_path / "merged")
    torch.testing.assert_close(logits(load_base(tmp_path / "merged"), ids), trained, rtol=1e-5, atol=1e-5)

    # The base: bit for bit what it was, under the adapter and on the disk.
    after = model.unload().state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(torch.equal(load_base(base_dir).state_dict()[name], weight) for name, weight in before.items())
    # And loading an adapter's weights into a fresh one is how a run resumes.
    fresh = add_adapter(load_base(base_dir), AdapterArguments(**switches), roles)
    load_weights(fresh, tmp_path / "adapter")
    assert torch.equal(logits(fresh, ids), trained)


def test_role_tokens_are_trained_too(tokenizer, tmp_path: Path) -> None:
    base = load_base(write_base(tokenizer, tmp_path / "base"))
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    before = base.get_input_embeddings().weight.clone()
    ids = torch.tensor([[5, 6, end, 7]])
    model = add_adapter(base, AdapterArguments(), [end])
    train(model, ids)
    merged = merge_adapter(model)
    changed = (merged.get_input_embeddings().weight != before).any(dim=-1).nonzero().flatten().tolist()
    assert changed == [end]
    assert torch.equal(merged.get_output_embeddings().weight, merged.get_input_embeddings().weight)


def test_an_adapter_is_refused_on_another_base(tokenizer, tmp_path: Path) -> None:
    base_dir = write_base(tokenizer, tmp_path / "base")
    other_dir = write_base(tokenizer, tmp_path / "other", seed=1)
    save_model(add_adapter(load_base(base_dir), AdapterArguments()), tokenizer, tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter")
    assert not is_adapter(base_dir)
    with pytest.raises(ValueError, match="weights had the SHA-256") as error:
        load_adapter(tmp_path / "adapter", other_dir)
    assert weights_fingerprint(base_dir) in str(error.value)
    assert weights_fingerprint(other_dir) in str(error.value)
    assert str(base_dir) in str(error.value)

    copied = write_base(tokenizer, tmp_path / "copied")  # the same weights in another place are the same base
    load_adapter(tmp_path / "adapter", copied)
    strange = to_transformers(BPETokenizer.train([TEXT.upper()] * 3, 280))
    strange.save_pretrained(copied)
    with pytest.raises(ValueError, match="the tokenizer had the SHA-256") as error:
        load_adapter(tmp_path / "adapter", copied)
    assert tokenizer_fingerprint(tokenizer) in str(error.value)
    assert tokenizer_fingerprint(strange) in str(error.value)
    strange.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="own tokenizer had the SHA-256"):
        load_adapter(tmp_path / "adapter")


def test_what_is_missing_is_said(tokenizer, tmp_path: Path) -> None:
    base_dir = write_base(tokenizer, tmp_path / "base")
    save_model(add_adapter(load_base(base_dir), AdapterArguments()), tokenizer, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / BASE_FILE).read_text())["base"] == "../base"
    base_dir.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="--base"):
        load_adapter(tmp_path / "adapter")
    load_adapter(tmp_path / "adapter", tmp_path / "moved")
    (tmp_path / "adapter" / BASE_FILE).unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        load_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("roles", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("preset", "tables"), [("modern", 2), ("gpt2", 3)])
def test_every_target_is_merged_or_refused(
    tokenizer, preset: str, tables: int, tied: bool, roles: bool, use_dora: bool, tmp_path: Path
) -> None:
    """Merged, an adapter on one side of a shared table changed both sides, and the logits by 5."""
    base_dir = write_base(tokenizer, tmp_path / "base", preset, tie_word_embeddings=tied)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    token_ids = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"]) if roles else []
    layers = [(name, type(layer)) for name, layer in load_base(base_dir).named_modules()]
    targets = {name.rpartition(".")[2] for name, kind in layers if kind in (torch.nn.Linear, torch.nn.Embedding)}
    assert {"q_proj", "embed_tokens", "lm_head"} < targets
    assert sum(kind is torch.nn.Embedding for _, kind in layers) + 1 == tables
    for target in sorted(targets):
        base = load_base(base_dir)
        arguments = AdapterArguments(lora_targets=[target, "o_proj"], use_dora=use_dora)
        if target in ("lm_head", "embed_tokens") and (tied or roles):
            with pytest.raises(ValueError, match=f"{target}.*(tie_word_embeddings|role tokens)"):
                add_adapter(base, arguments, token_ids)
            continue
        model = add_adapter(base, arguments, token_ids)
        torch.manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.requires_grad and "magnitude" not in name:
                    weight.normal_(std=0.3)
        adapted = logits(model, ids)
        assert (adapted - logits(load_base(base_dir), ids)).abs().max() > 0.1
        merged = merge_adapter(model)
        torch.testing.assert_close(logits(merged, ids), adapted, rtol=1e-4, atol=1e-4)


def test_targets_that_no_layer_has(tokenizer, tmp_path: Path) -> None:
    base = load_base(write_base(tokenizer, tmp_path / "base"))
    for names in (["c_attn"], ["q_proj", "v_prj"], ["all-linear", "q_proj"], ["input_layernorm"]):
        with pytest.raises(ValueError, match=r"no layer is called .*down_proj.*or all-linear alone"):
            add_adapter(base, AdapterArguments(lora_targets=names))


def test_an_adapter_that_cannot_be_merged_is_refused(tokenizer, tmp_path: Path) -> None:
    """Those that peft made by itself, too."""
    from peft import LoraConfig, get_peft_model

    base_dir = write_base(tokenizer, tmp_path / "base")
    for switches in (
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ):
        adapted: Any = get_peft_model(load_base(base_dir), LoraConfig(task_type="CAUSAL_LM", **switches))
        with pytest.raises(ValueError, match="one side of the table"):
            merge_adapter(adapted)


def write_classifier_adapter(tokenizer, base_dir: Path, directory: Path, names: list[str]) -> torch.Tensor:
    """An adapter of a classifier, with a head that a training could have made; the logits of TEXT."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    model: Any = add_adapter(
        load_base(base_dir, ScratchGPTForSequenceClassification, **labels), AdapterArguments(), task_type="SEQ_CLS"
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.3)
    save_model(model, tokenizer, directory)
    return logits(model, tokenizer(TEXT, return_tensors="pt")["input_ids"])


@pytest.mark.parametrize("names", [["no", "yes"], ["good", "böse", "neither"]])
def test_a_classifiers_adapter_keeps_head_and_labels(tokenizer, names: list[str], tmp_path: Path) -> None:
    base_dir = write_base(tokenizer, tmp_path / "base")
    expected = write_classifier_adapter(tokenizer, base_dir, tmp_path / "adapter", names)
    again, _ = load_adapter(tmp_path / "adapter")  # it says itself what it is
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert torch.equal(logits(again, ids), expected)
    merged = merge_adapter(again)
    assert type(merged) is ScratchGPTForSequenceClassification
    assert merged.config.id2label == dict(enumerate(names))
    assert merged.config.label2id == {name: number for number, name in enumerate(names)}
    with pytest.raises(ValueError, match="cannot be used as a language model"):
        load_adapter(tmp_path / "adapter", task_type="CAUSAL_LM")


def test_an_adapter_with_missing_weights_is_refused(tokenizer, tmp_path: Path) -> None:
    """Without its head, a classifier answered from a random one."""
    base_dir = write_base(tokenizer, tmp_path / "base")
    write_classifier_adapter(tokenizer, base_dir, tmp_path / "adapter", ["no", "yes"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "score" not in name}, file)
    (tmp_path / "adapter" / MANIFEST).unlink()  # the seal would notice it before
    with pytest.raises(ValueError, match=r"score.*missing"):
        load_adapter(tmp_path / "adapter")


def test_nothing_in_an_adapter_names_an_absolute_path(
    tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is found relative to the adapter: wherever one is, and when both are moved together."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_base(tokenizer, Path("models/base"))
    save_model(add_adapter(load_base("models/base"), AdapterArguments()), tokenizer, "runs/first/final")
    for file in Path("runs/first/final").rglob("*"):
        assert str(tmp_path).encode() not in file.read_bytes(), file
    config = json.loads(Path("runs/first/final/adapter_config.json").read_text())
    reference = json.loads(Path("runs/first/final", BASE_FILE).read_text())
    assert reference["base"] == "../../../models/base"
    assert config["base_model_name_or_path"] == "models/base"  # as peft looks for it, from here
    monkeypatch.chdir(tmp_path)
    load_adapter("work/runs/first/final")
    (tmp_path / "work").rename(tmp_path / "moved")
    load_adapter(tmp_path / "moved/runs/first/final")


def test_a_home_directory_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, outside = tmp_path / "home/ada/base", tmp_path / "runs/final"
    for folder in (base, outside):
        folder.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home/ada")
    assert seen_from(str(base), outside) == "./base"
    assert seen_from(str(base), tmp_path / "home/ada/runs/final") == "../../base"
    assert seen_from("someone/model", outside) == "someone/model"


def test_fingerprints_are_of_content(tokenizer, tmp_path: Path) -> None:
    base_dir = write_base(tokenizer, tmp_path / "base")
    sharded = tmp_path / "sharded"
    load_base(base_dir).save_pretrained(sharded, max_shard_size="50KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert weights_fingerprint(sharded) == weights_fingerprint(base_dir)
    again = ScratchGPTTokenizer.from_pretrained(base_dir)
    again([TEXT, "a"], padding=True, truncation=True, max_length=4)  # leaves a mark in the Rust tokenizer
    again.chat_template = "{{ messages }}"
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_qlora(tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base_dir = write_base(tokenizer, tmp_path / "base")
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    base = load_base(base_dir, four_bit=True)
    full = load_base(base_dir)
    ids = ids.to(base.device)  # bitsandbytes takes the GPU where there is one
    packed = [m for m in base.modules() if type(m).__name__ == "Linear4bit"]
    assert len(packed) == 2 * 7
    assert all(m.weight.quant_state.quant_type == "nf4" and m.weight.quant_state.nested for m in packed)
    assert base.get_memory_footprint() < full.get_memory_footprint()
    assert count_parameters(base) == count_parameters(full) == sum(p.numel() for p in full.parameters())  # not bytes
    before = [m.weight.data.clone() for m in packed]
    model = add_adapter(base, AdapterArguments(tuning="qlora"), [tokenizer.convert_tokens_to_ids("<|end|>")])
    # Two weights in a byte are two parameters: with the adapter there are as many as in full precision.
    adapted = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name or "trainable_tokens" in name)
    total = sum(p.numel() for p in full.parameters()) + adapted
    assert f" of {total:,} parameters are trained" in describe_parameters(model)
    losses = train(model, ids, steps=8)
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(m.weight.data, weight) for m, weight in zip(packed, before, strict=True))
    gradients = gradients_of(model, ids)
    logits(model, ids)  # an evaluation in between changes nothing
    assert all(torch.equal(g, h) for g, h in zip(gradients, gradients_of(model, ids), strict=True))
    trained = logits(model, ids)
    save_model(model, tokenizer, tmp_path / "adapter")
    again, _ = load_adapter(tmp_path / "adapter", four_bit=True)
    assert torch.equal(logits(again, ids), trained)
    with pytest.raises(ValueError, match="full precision"):
        merge_adapter(again)


def test_share_and_memory(tokenizer, tmp_path: Path) -> None:
    base = load_base(write_base(tokenizer, tmp_path / "base"))
    total = sum(p.numel() for p in base.parameters())
    assert describe_parameters(base).startswith(f"{total:,} of {total:,} parameters are trained (100.00%)")
    adapted = describe_parameters(add_adapter(base, AdapterArguments(lora_r=1, lora_targets=["q_proj"])))
    assert adapted.startswith(f"{2 * 2 * 64:,} of {total + 2 * 2 * 64:,} parameters")


def test_an_adapter_is_never_assigned_to_another_base(tokenizer, tmp_path: Path) -> None:
    """Where the base on the disk was replaced, its hash was written into the adapter that was saved next."""
    base_dir, adapter = write_base(tokenizer, tmp_path / "base"), tmp_path / "adapter"
    model = add_adapter(load_base(base_dir), AdapterArguments())
    save_model(model, tokenizer, adapter)
    before = (adapter / BASE_FILE).read_text()
    shutil.rmtree(base_dir)
    write_base(tokenizer, base_dir, seed=1)
    with pytest.raises(ValueError, match="weights had the SHA-256"):
        verify_base(adapter)
    with pytest.raises(ValueError, match="never assigned to another base"):
        write_base_reference(base_reference(model, tokenizer), adapter)
    assert (adapter / BASE_FILE).read_text() == before
