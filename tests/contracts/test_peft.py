"""LoRA by peft: all linear layers, saved, loaded and merged."""

from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model

from scratchgpt import ScratchGPTForCausalLM

# By name of the layer: what `all-linear` finds in each architecture; the head is left out.
ALL_LINEAR = {
    "gpt2": {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"},
    "modern": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
}


@pytest.fixture
def base(preset: str, make_config, tmp_path: Path) -> ScratchGPTForCausalLM:
    """Loaded from a directory, as one's base model is; the adapter remembers its path."""
    torch.manual_seed(0)
    ScratchGPTForCausalLM(make_config(preset)).save_pretrained(tmp_path / "base")
    return ScratchGPTForCausalLM.from_pretrained(tmp_path / "base").eval()


@torch.no_grad()
def logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.eval()(**inputs).logits


def test_lora(base, preset: str, tokenizer, tmp_path: Path) -> None:
    inputs = tokenizer("To be, or not to be", return_tensors="pt")
    before = logits(base, inputs)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    adapted = {
        name.rpartition(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_modules() if "lora_A" in name
    }
    assert adapted == ALL_LINEAR[preset]
    assert torch.equal(logits(model, inputs), before)  # an untrained adapter changes nothing

    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.05)
    losses = []
    for _ in range(3):
        loss = model.train()(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trained = logits(model, inputs)
    assert not torch.equal(trained, before)
    with model.disable_adapter():
        assert torch.equal(logits(model, inputs), before)

    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    fresh = ScratchGPTForCausalLM.from_pretrained(tmp_path / "base")
    assert torch.equal(logits(PeftModel.from_pretrained(fresh, tmp_path / "adapter"), inputs), trained)
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"), inputs), trained)

    merged = model.merge_and_unload()
    assert type(merged) is ScratchGPTForCausalLM
    merged.save_pretrained(tmp_path / "merged")
    reloaded = ScratchGPTForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(reloaded, inputs), trained, rtol=1e-4, atol=1e-4)


def test_lora_without_target_modules(base) -> None:
    """peft's own default for Qwen3 and Llama: queries and values."""
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM"))
    adapted = {name.split(".")[-4] for name, weight in model.named_parameters() if weight.requires_grad}
    assert adapted == {"q_proj", "v_proj"}
