"""The recipe for preferences as a user runs it: full, LoRA, QLoRA, each loss, interrupted, and with bad input."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from recipes import finetune_instruct, finetune_preference
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.adapters import AdapterArguments, add_adapter, load_adapter, load_base
from scratchgpt.hub.fingerprints import weights_fingerprint
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.runs import metrics

pytestmark = pytest.mark.gpu

NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """An assistant that answers each question in one of two ways, and pairs that prefer the polite one."""
    folder = tmp_path_factory.mktemp("preferences")
    asked = [(f"What comes after {a}?", f"It is {b}, dear.", f"It is {b}, fool.") for a, b in pairwise(NAMES)]
    tokenizer = to_transformers(BPETokenizer.train([part for row in asked for part in row] * 3, vocab_size=300))
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, hidden_dropout=0.1,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    save_model(model, tokenizer, folder / "base")
    chats = [{"instruction": q, "output": answer} for q, *answers in asked for answer in answers]
    (folder / "chats.json").write_text(json.dumps(chats * 3))
    finetune_instruct.main(
        [
            f"--{name}={value}"
            for name, value in {
                "model_name_or_path": folder / "base", "data": folder / "chats.json", "tuning": "full",
                "eval_data": folder / "chats.json", "eval_split": "train", "output_dir": folder / "chat",
                "max_steps": 60, "learning_rate": 0.01, "compile": False, "mixed_precision": "no",
            }.items()
        ]
    )  # fmt: skip
    pairs = [{"prompt": q, "chosen": polite, "rejected": rude} for q, polite, rude in asked]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


def options(workplace: Path, output: str, **changed: object) -> list[str]:
    defaults = {
        "model_name_or_path": workplace / "chat" / "final",
        "data": workplace / "pairs.json",
        "validation_fraction": 0.3,
        "output_dir": workplace / output,
        "max_steps": 20,
        "eval_steps": 10,
        "save_steps": 10,
        "logging_steps": 1,
        "per_device_train_batch_size": 3,
        "learning_rate": 0.003,
        "compile": False,
        "mixed_precision": "no",
        "eval_answers": 2,
        "response_tokens": 16,
    }
    return [f"--{name}={value}" for name, value in {**defaults, **changed}.items()]


def results(folder: Path, name: str = "results.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "simpo"])
def test_it_learns_what_is_preferred(workplace: Path, tuning: str, loss: str, capsys) -> None:
    before, output = weights_fingerprint(workplace / "chat" / "final"), f"{tuning}-{loss}"
    finetune_preference.main(options(workplace, output, tuning=tuning, loss=loss, num_responses=2))
    assert weights_fingerprint(workplace / "chat" / "final") == before
    untuned, found = results(workplace / output, "untuned.json"), results(workplace / output)["final"]
    assert found["loss"] < untuned["loss"] - 0.05
    assert found["margin"] > untuned["margin"] + 0.3  # where ipo with β = 1 wants 0.5 per token
    assert found["ranked_right"] == 1
    assert found["kl"] > untuned["kl"]
    assert abs(untuned["kl"]) < 1e-4
    assert results(workplace / output, "responses.json")["tuned"]["num_responses"] == 2
    printed = capsys.readouterr().out
    assert "pairs ranked right (95 %: " in printed
    assert "no better than guessing" not in printed
    card = (workplace / output / "final" / "README.md").read_text()
    assert "on preferences" in card
    assert "ranked right before tuning (95 %)" in card
    assert "scratchgpt finetune-preference arguments.yaml" in card
    if tuning == "lora":
        assert load_adapter(workplace / output / "final")[0].peft_config


def test_qlora(workplace: Path) -> None:
    pytest.importorskip("bitsandbytes")
    finetune_preference.main(options(workplace, "qlora", tuning="qlora"))
    assert results(workplace / "qlora")["final"]["margin"] > 0.5
    assert (workplace / "qlora" / "final" / "adapter_model.safetensors").is_file()


EVERY_STEP = {"save_steps": 1, "save_total_limit": 50, "max_steps": 12, "load_best_at_end": False}


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    finetune_preference.main(options(workplace, "whole", **EVERY_STEP))
    return workplace / "whole"


@pytest.mark.parametrize("step", [1, 5, 11])
def test_an_interrupted_run_goes_on_exactly(workplace: Path, whole: Path, step: int, capsys) -> None:
    """With dropout, and across the borders of epochs; with the reference as it was kept, or computed again."""
    output = workplace / f"from-{step}"
    output.mkdir()
    shutil.copytree(whole / f"checkpoint-{step}", output / f"checkpoint-{step}")
    shutil.copy(whole / "metrics.jsonl", output)
    if step > 1:
        shutil.copytree(whole / "reference", output / "reference")
    finetune_preference.main(options(workplace, output.name, **EVERY_STEP, resume_from_checkpoint="true"))
    printed = capsys.readouterr().out
    assert f"Resuming from checkpoint-{step} (exact)" in printed
    assert ("Log-probabilities by the model as it is" in printed) == (step == 1)
    for name in ("adapter_model.safetensors", "training_state/state.safetensors"):
        a, b = (load_file(folder / "checkpoint-12" / name) for folder in (whole, output))
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    logs = [[(line["loss"], line["grad_norm"], line.get("eval_kl")) for line in metrics(f)] for f in (whole, output)]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 12


def test_what_differs_is_said_and_another_base_is_refused(workplace: Path, whole: Path, capsys) -> None:
    output = workplace / "other-reference"
    output.mkdir()
    shutil.copytree(whole / "checkpoint-5", output / "checkpoint-5")
    other = load_base(workplace / "chat" / "final")
    with torch.no_grad():
        other.get_input_embeddings().weight[7] += 1
    _, tokenizer = load_adapter(whole / "final")
    save_model(other, tokenizer, workplace / "other")
    changed = {"beta": 0.2, "resume_from_checkpoint": "true"}
    finetune_preference.main(options(workplace, output.name, **EVERY_STEP | changed))
    assert "not exact: beta was 0.1, is now 0.2" in capsys.readouterr().out
    changed = {"model_name_or_path": workplace / "other", "resume_from_checkpoint": "true"}
    with pytest.raises(ValueError, match="was not trained on"):
        finetune_preference.main(options(workplace, output.name, **EVERY_STEP | changed))


def test_plain_dpo_falls_apart_and_the_alarm_says_so(workplace: Path, capsys) -> None:
    """At too high a rate; the term for the chosen answer holds it, and a lower rate rings no alarm."""
    common = {"tuning": "full", "max_steps": 40, "validation_fraction": 0.5, "load_best_at_end": False}
    finetune_preference.main(options(workplace, "plain", **common, learning_rate=0.01, nll_weight=0))
    plain = results(workplace / "plain")["final"]
    assert plain["is_falling"]
    assert "ALARM: the chosen answers themselves are falling" in capsys.readouterr().out
    assert "**Falling apart**" in (workplace / "plain" / "final" / "README.md").read_text()
    finetune_preference.main(options(workplace, "held", **common, learning_rate=0.01, nll_weight=0.2))
    assert results(workplace / "held")["final"]["chosen_change"] > plain["chosen_change"] + 1
    finetune_preference.main(options(workplace, "slow", **common, learning_rate=0.003, nll_weight=1))
    assert not results(workplace / "slow")["final"]["is_falling"]
    assert "**Falling apart**" not in (workplace / "slow" / "final" / "README.md").read_text()


def test_bad_input_is_refused_before_anything_is_written(workplace: Path, tmp_path: Path) -> None:
    def pairs(name: str, **row: object) -> Path:
        (tmp_path / name).write_text(json.dumps([{"prompt": "What?", "chosen": "Yes.", "rejected": "No.", **row}] * 9))
        return tmp_path / name

    adapted = add_adapter(load_base(workplace / "base"), AdapterArguments())
    _, tokenizer = load_base(workplace / "base"), AutoTokenizer.from_pretrained(workplace / "base")
    save_model(adapted, tokenizer, tmp_path / "adapter")
    tokenizer.chat_template = None
    save_model(load_base(workplace / "base"), tokenizer, tmp_path / "no_template")
    for changed, complaint in (
        ({"data": pairs("same.json", rejected="Yes.")}, "no pair to learn from .9 chosen and rejected are the same"),
        ({"data": pairs("empty.json", chosen="")}, "no pair to learn from .9 an empty answer"),
        ({"data": pairs("one.json")}, "1 different prompts cannot be split"),
        ({"eval_data": pairs("long.json", prompt="What? " * 99)}, "9 a prompt that fills the context of 64 tokens"),
        ({"context_length": 12}, "an answer that ends beyond the context of 12 tokens"),
        ({"context_length": 65}, "beyond the model's context of 64"),
        ({"model_name_or_path": tmp_path / "adapter"}, "is an adapter: merge it into its base first"),
        ({"model_name_or_path": tmp_path / "no_template"}, "has no chat template"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is for"),
        ({"lora_targets": "c_attn"}, "no layer is called .c_attn.; give "),
    ):
        with pytest.raises(ValueError, match=complaint):
            finetune_preference.main(options(workplace, "refused", **changed))
        assert not (workplace / "refused").exists()
