"""The instruction tuning recipe as a user runs it: full, LoRA, QLoRA, interrupted, merged, and with bad input."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

from recipes import export_model, finetune_instruct, merge_adapter
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.adapters import load_adapter, load_base
from scratchgpt.arguments import parse_arguments
from scratchgpt.data.chat import render_chat
from scratchgpt.hub.fingerprints import weights_fingerprint
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_rust, to_transformers

pytestmark = pytest.mark.gpu

NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
CHATS = [
    [{"role": "user", "content": f"What comes after {a}?"}, {"role": "assistant", "content": f"It is {b}."}]
    for a, b in pairwise(NAMES)
]


def write_base(tokenizer: ScratchGPTTokenizer, directory: Path) -> None:
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=-(-len(tokenizer) // 64) * 64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,  # its layers tell tokens apart, as trained ones do
    )  # fmt: skip
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    save_model(model, tokenizer, directory)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("instruct")
    text = [message["content"] for chat in CHATS for message in chat]
    write_base(to_transformers(BPETokenizer.train(text * 3, 300)), folder / "base")
    bare = BPETokenizer.train(text * 3, 300, special_tokens=["<|endoftext|>"])
    write_base(ScratchGPTTokenizer(tokenizer_object=to_rust(bare), pad_token=None), folder / "bare")
    rows = Dataset.from_list([{"messages": chat} for chat in CHATS] * 4)
    DatasetDict(train=rows, validation=rows.select(range(7))).save_to_disk(folder / "data")
    return folder


def options(workplace: Path, output: str, **changed: object) -> list[str]:
    defaults = {
        "model_name_or_path": workplace / "base",
        "data": workplace / "data",
        "output_dir": workplace / output,
        "max_steps": 40,
        "eval_steps": 20,
        "save_steps": 20,
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "compile": False,
        "mixed_precision": "no",
        "num_responses": 7,
        "response_tokens": 16,
    }
    return [f"--{name}={value}" for name, value in {**defaults, **changed}.items()]


def results(folder: Path, name: str = "results.json") -> dict:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def lora(workplace: Path) -> Path:
    before = weights_fingerprint(workplace / "base")
    finetune_instruct.main([*options(workplace, "lora"), "--sample_prompts", "What comes after one?"])
    assert weights_fingerprint(workplace / "base") == before
    return workplace / "lora"


def test_lora_learns_to_answer_and_to_stop(lora: Path) -> None:
    lines = [json.loads(line) for line in (lora / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 < 3 < lines[0]["loss"]
    assert results(lora)["final"]["loss"] < 0.5 < 3 < results(lora, "untuned.json")["loss"]
    responses = results(lora, "responses.json")
    assert responses["tuned"]["exact_stop_rate"] > 0.8 > responses["base"]["exact_stop_rate"]
    assert responses["tuned"]["rouge_l"] > responses["base"]["rouge_l"] + 0.3
    assert responses["tuned"]["num_responses"] == 7
    written = [json.loads(line) for line in (lora / "responses.jsonl").read_text().splitlines()]
    assert written[0]["reference"] == "It is two."
    assert set(written[0]["responses"]) == {"base", "tuned"}
    assert lines[-1]["samples"][0].startswith("What comes after one? → It is")


def test_the_adapter_merges_into_a_plain_model(workplace: Path, lora: Path) -> None:
    adapted, tokenizer = load_adapter(lora / "final")
    merge_adapter.main(["--adapter", str(lora / "final"), "--output_dir", str(workplace / "merged")])
    merged = load_base(workplace / "merged")
    ids = torch.tensor([render_chat(CHATS[0], tokenizer).input_ids])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-5, atol=1e-5)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert end in merged.generation_config.eos_token_id
    prompt = tokenizer.apply_chat_template(
        CHATS[0][:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = merged.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert answer[-1] == end
    with pytest.raises(ValueError, match="not empty"):
        merge_adapter.main(["--adapter", str(lora / "final"), "--output_dir", str(workplace / "merged")])


def test_an_interrupted_run_goes_on_exactly(workplace: Path, lora: Path) -> None:
    finetune_instruct.main(options(workplace, "first", num_responses=0, max_steps=40))
    whole = load_adapter(workplace / "first" / "final")[0].state_dict()
    for name in ("checkpoint-40", "final"):
        for file in sorted((workplace / "first" / name).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (workplace / "first" / name).rmdir()
    finetune_instruct.main(options(workplace, "first", num_responses=0, resume_from_checkpoint="true"))
    again = load_adapter(workplace / "first" / "final")[0].state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())


def test_full_tuning_with_the_best_checkpoint(workplace: Path) -> None:
    # A learning rate that ruins the model in the end: the best checkpoint is not the last one.
    finetune_instruct.main(
        options(workplace, "full", tuning="full", learning_rate=0.003, eval_steps=10, lr_schedule="constant")
    )
    found = results(workplace / "full")
    assert found["final"]["loss"] == pytest.approx(found["best"]["loss"], rel=1e-6)
    tuned = load_base(workplace / "full" / "final")
    assert len(tuned.generation_config.eos_token_id) == 2
    assert results(workplace / "full", "responses.json")["tuned"]["exact_stop_rate"] > 0.8


def test_qlora(workplace: Path) -> None:
    pytest.importorskip("bitsandbytes")
    finetune_instruct.main(
        options(workplace, "qlora", tuning="qlora", max_steps=30, num_responses=2, response_tokens=128)
    )
    lines = [json.loads(line) for line in (workplace / "qlora" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.1 < lines[0]["loss"]  # also after the evaluation in between
    assert results(workplace / "qlora", "responses.json")["tuned"]["num_responses"] == 2
    assert (workplace / "qlora" / "final" / "adapter_model.safetensors").is_file()


def test_a_base_without_role_tokens_gets_them(workplace: Path) -> None:
    finetune_instruct.main(options(workplace, "extended", model_name_or_path=workplace / "bare"))
    extended = load_base(workplace / "extended" / "base")
    old = load_base(workplace / "bare").get_input_embeddings().weight
    _, tokenizer = load_adapter(workplace / "extended" / "final")
    new = tokenizer.convert_tokens_to_ids(["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"])
    known = min(new)
    weights = extended.get_input_embeddings().weight
    assert torch.equal(weights[:known], old[:known])
    distance = (weights[new] - old[:known].mean(0)).norm(dim=1)
    assert (distance < old[:known].norm(dim=1).mean() / 4).all()
    assert results(workplace / "extended", "responses.json")["tuned"]["exact_stop_rate"] > 0.8


def test_the_plain_template_needs_no_role_tokens(workplace: Path) -> None:
    finetune_instruct.main(
        options(workplace, "plain", chat_template="plain", model_name_or_path=workplace / "base", max_steps=60)
    )
    model, tokenizer = load_adapter(workplace / "plain" / "final")
    assert "### Response" in tokenizer.chat_template
    assert not any("trainable_tokens" in name for name in model.state_dict())
    assert results(workplace / "plain", "responses.json")["tuned"]["exact_stop_rate"] > 0.8


def test_bad_input_is_refused_before_anything_is_written(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "chats.json").write_text(json.dumps([{"messages": CHATS[0]}]))
    for changed, complaint in (
        ({"data": workplace / "base"}, "not a saved data set"),
        ({"data": tmp_path / "chats.json"}, "no validation split"),
        ({"context_length": 65}, "beyond the model's context of 64"),
        ({"context_length": 8}, "has an answer that ends within"),
        ({"model_name_or_path": workplace / "nowhere"}, "is neither here nor a name on the Hub"),
        ({"model_name_or_path": ""}, "--model_name_or_path is missing"),
        ({"lora_targets": "c_attn"}, "no layer is called .c_attn.; give "),
        ({"eval_split": "test"}, "no split 'test'"),
    ):
        with pytest.raises(ValueError, match=complaint):
            finetune_instruct.main(options(workplace, "refused", **changed))
        assert not (workplace / "refused").exists()


def test_the_configurations_are_understood_and_what_is_printed_is_one(tmp_path: Path, capsys) -> None:
    files = sorted((Path(__file__).parents[2] / "recipes" / "configs" / "finetune_instruct").glob("*.yaml"))
    assert files
    for file in files:
        with pytest.raises(SystemExit):
            finetune_instruct.main([str(file), "--dry_run=true"])
        printed = capsys.readouterr().out
        (tmp_path / "printed.yaml").write_text(printed)
        kind = finetune_instruct.InstructArguments
        assert parse_arguments(kind, [str(tmp_path / "printed.yaml")]) == parse_arguments(kind, [str(file)])


def test_an_extended_copy_is_used_again_only_for_the_base_it_was_made_from(workplace: Path, capsys) -> None:
    """Before, the first base's copy was taken for the second base's, in silence."""
    changed = {"max_steps": 1, "num_responses": 0, "eval_steps": 1, "save_steps": 1}
    other = load_base(workplace / "bare")
    with torch.no_grad():
        other.get_input_embeddings().weight[7] += 1
    save_model(other, AutoTokenizer.from_pretrained(workplace / "bare"), workplace / "other")
    # As a run leaves it that failed before its first checkpoint.
    with pytest.raises(ValueError, match="has an answer that ends within"):
        finetune_instruct.main(options(workplace, "twice", model_name_or_path=workplace / "bare", context_length=8))
    assert (workplace / "twice" / "base" / "config.json").is_file()
    finetune_instruct.main(options(workplace, "twice", model_name_or_path=workplace / "other", **changed))
    assert "base was made with other weights of the base: it is made anew" in capsys.readouterr().out
    copied = load_base(workplace / "twice" / "base").get_input_embeddings().weight
    assert torch.equal(copied[:300], other.get_input_embeddings().weight[:300])
    # With everything as it was, it is used as it is.
    written = (workplace / "twice" / "base" / "config.json").stat().st_mtime_ns
    again = {**changed, "resume_from_checkpoint": "true"}
    finetune_instruct.main(options(workplace, "twice", model_name_or_path=workplace / "other", **again))
    assert (workplace / "twice" / "base" / "config.json").stat().st_mtime_ns == written


def test_a_base_in_few_bits_is_tuned_by_an_adapter_only(workplace: Path) -> None:
    pytest.importorskip("bitsandbytes")
    bits = workplace / "eight_bits"
    export_model.main([f"--model_name_or_path={workplace / 'base'}", "--weight_bits=8", f"--output_dir={bits}"])
    with pytest.raises(ValueError, match=r"rounded to few bits, and cannot be trained whole: .*--tuning lora"):
        finetune_instruct.main(options(workplace, "whole", model_name_or_path=bits, tuning="full"))
    assert not (workplace / "whole").exists()
    finetune_instruct.main(options(workplace, "on_bits", model_name_or_path=bits, num_responses=0))
    lines = (workplace / "on_bits" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss"] < 1 < json.loads(lines[0])["loss"]
