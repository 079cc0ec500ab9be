"""Bases and adapters of other architectures: a GPT-2 is imported on the way, a Qwen3 or Llama is tuned as it is."""

import inspect
import json
from pathlib import Path

import pytest
import torch
import transformers.integrations.peft
from fastapi.testclient import TestClient
from peft import AutoPeftModelForCausalLM
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    pipeline,
)

from recipes import finetune_classifier, finetune_instruct, pretrain
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.data.chat import render_chat, render_chats, stop_token_id
from scratchgpt.data.chat_rows import ChatRows
from scratchgpt.inference.chat import ChatSession, Sampling
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.inference.server import ChatServer, build_app
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training.arguments import LanguageModelArguments
from scratchgpt.training.bases import check_packing
from scratchgpt.training.tasks.instruction import InstructionTuning

LOADS_TRAINED_ROWS = "adapter_state_dict_load_map" in inspect.getsource(transformers.integrations.peft)
"""Older releases of transformers leave out what an adapter adds to rows of the embedding; peft itself does not."""

TEXTS = ["The quick brown fox.", "To be, or not to be, that is the question.", "What is two and two? It is four."]
CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 96, "initializer_range": 0.2}  # fmt: skip


def write_tokenizer(folder: Path, template: str | None = None) -> PreTrainedTokenizerFast:
    ours = BPETokenizer.train(TEXTS * 9, vocab_size=300, special_tokens=["<|endoftext|>"])
    backend = to_transformers(ours).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    if template is not None:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A GPT-2, a Qwen3 with a chat template of its own and a Llama without one, as transformers writes them."""
    folder = tmp_path_factory.mktemp("foreign")
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder / "qwen3", CHATML)
    ids = {"bos_token_id": None, "pad_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    qwen3 = Qwen3Config(vocab_size=len(tokenizer), head_dim=8, tie_word_embeddings=True, **SHAPE, **ids)
    Qwen3ForCausalLM(qwen3).save_pretrained(folder / "qwen3")
    tokenizer = write_tokenizer(folder / "llama")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE, **ids)).save_pretrained(folder / "llama")
    tokenizer = write_tokenizer(folder / "gpt2")
    gpt2 = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=96, initializer_range=0.2,
                      bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    GPT2LMHeadModel(gpt2).save_pretrained(folder / "gpt2")
    rows = [{"instruction": f"What is {n}?", "input": "", "output": f"It is {n}."} for n in "abcdefgh"]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "my.txt").write_text("\n".join(TEXTS * 100))
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f"{t},{i}\n" for i, t in enumerate(["good", "bad"])))
    return folder


def tune(folder: Path, base: str, tuning: str) -> Path:
    output_dir = folder / f"{base}_{tuning}"
    if not output_dir.exists():
        finetune_instruct.main([
            f"--model_name_or_path={base}", "--data=chats.jsonl", "--eval_data=chats.jsonl", "--max_steps=80",
            f"--output_dir={output_dir.name}", f"--tuning={tuning}", "--compile=false", "--learning_rate=0.01",
            "--eval_steps=80", "--save_steps=80", "--per_device_train_batch_size=2", "--mixed_precision=no",
        ])  # fmt: skip
    return output_dir / "final"


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("base", ["gpt2", "qwen3", "llama"])
def test_a_tuned_model_loads_everywhere_and_stops(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog, base: str, tuning: str
) -> None:
    """By pipeline, AutoModel, AutoPeft and in a chat: the same answer, which ends where answers end."""
    monkeypatch.chdir(workplace)
    final = tune(workplace, base, tuning).relative_to(workplace)
    tokenizer = AutoTokenizer.from_pretrained(final)
    question = [{"role": "user", "content": "What is a?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    stop = stop_token_id(tokenizer)
    by_transformers = tuning == "full" or base == "qwen3" or LOADS_TRAINED_ROWS
    kinds = [AutoModelForCausalLM] * by_transformers + [AutoPeftModelForCausalLM] * (tuning == "lora")
    answers = set()
    with caplog.at_level("WARNING", logger="transformers"):
        models = [kind.from_pretrained(final) for kind in kinds]
        models.append(load_for_decoding(final, dtype="float32")[0])
    assert "MISSING" not in caplog.text
    for model in models[:-1]:
        new_ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert new_ids[-1] == stop
        answers.add(tokenizer.decode(new_ids, skip_special_tokens=True))
    if by_transformers:
        piped = pipeline("text-generation", str(final))(question, max_new_tokens=20, do_sample=False)
        answers.add(piped[0]["generated_text"][-1]["content"])
    answers.add(ChatSession(models[-1], tokenizer, sampling=Sampling(temperature=0)).ask("What is a?").text)
    assert len(answers) == 1
    assert answers.pop().startswith("It is ")
    if tuning == "lora":
        config = json.loads((final / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(final.parent / ("imported" if base == "gpt2" else "base"))
        assert stop in json.loads((final / "generation_config.json").read_text())["eos_token_id"]


@pytest.mark.parametrize("base", ["gpt2", "llama"])
def test_an_adapter_is_served(workplace: Path, monkeypatch, base: str) -> None:
    monkeypatch.chdir(workplace)
    model, tokenizer = load_for_decoding(tune(workplace, base, "lora"), dtype="float32")
    client = TestClient(build_app(ChatServer(model, tokenizer, "mine")))
    asked = {"messages": [{"role": "user", "content": "What is a?"}], "temperature": 0}
    (choice,) = client.post("/v1/chat/completions", json=asked).json()["choices"]
    assert choice["message"]["content"].startswith("It is ")
    assert choice["finish_reason"] == "stop"


def test_an_adapter_from_elsewhere_is_no_other_model(workplace: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(workplace)
    final = tune(workplace, "gpt2", "lora")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError):  # noqa: PT011 - the message is transformers' own
        AutoPeftModelForCausalLM.from_pretrained(final)
    load_for_decoding(final)  # ours looks from the adapter


def test_a_gpt2_is_imported_and_pretrained_further(workplace: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(workplace)
    argv = ["--model_name_or_path=gpt2", "--data=my.txt", "--output_dir=further", "--max_steps=2", "--compile=false"]
    pretrain.main(argv)
    assert "gpt2 is a GPT-2: imported into further/imported, logits of" in capsys.readouterr().out
    model = ScratchGPTForCausalLM.from_pretrained("further/imported")
    original = GPT2LMHeadModel.from_pretrained("gpt2")
    ids = torch.arange(20)[None]
    torch.testing.assert_close(model(ids).logits[..., : original.config.vocab_size], original(ids).logits)
    pretrain.main([*argv, "--resume_from_checkpoint=true"])
    assert "(exact)" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize(
    ("recipe", "data"), [(pretrain, "--data=my.txt"), (finetune_classifier, "--data=reviews.csv")]
)
def test_other_architectures_are_refused_by_name(workplace: Path, monkeypatch, recipe, data: str, kind: str) -> None:
    monkeypatch.chdir(workplace)
    with pytest.raises(ValueError, match=f"{kind} is a {kind} model, which cannot be trained here: give a scratchgpt"):
        recipe.main([f"--model_name_or_path={kind}", data, "--output_dir=refused"])
    assert not Path("refused").exists()


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_packed_conversations_have_the_loss_they_have_alone(workplace: Path, kind: str) -> None:
    """Also by a template that does not mark what the assistant says."""
    model = AutoModelForCausalLM.from_pretrained(workplace / kind).train()
    check_packing(model)
    tokenizer = AutoTokenizer.from_pretrained(workplace / "qwen3")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    chats = [
        [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n * 3}."}]
        for n in "abc"
    ]
    losses = []
    for packing in (True, False):
        rows = ChatRows(render_chats(chats, tokenizer), 96, 0, packing)
        assert len(rows) == (1 if packing else 3)
        task = InstructionTuning(rows, rows, tokenizer, LanguageModelArguments(), fused_loss=False)
        batch = rows.batch(range(len(rows)))
        losses.append(task.loss(model, batch, task.num_targets(batch)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_model_that_reads_across_conversations_is_refused(workplace: Path) -> None:
    """It has the positions of one long conversation, and attention from one end of the row to the other."""

    class Crossing(LlamaForCausalLM):
        def forward(self, input_ids=None, position_ids=None, **kwargs):
            return super().forward(input_ids=input_ids, **kwargs)

    model = Crossing.from_pretrained(workplace / "llama")
    with pytest.raises(ValueError, match="give --packing false"):
        check_packing(model)


def test_what_the_assistant_says_is_found_without_marks(workplace: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(workplace / "qwen3")
    assert tokenizer.decode([stop_token_id(tokenizer)]) == "<|im_end|>"
    chat = render_chat(
        [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two <|im_end|>"},
         {"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}], tokenizer
    )  # fmt: skip
    learned = [i for i, mask in zip(chat.input_ids, chat.assistant_mask, strict=True) if mask]
    assert tokenizer.decode(learned) == "two <|im_end|><|im_end|>three<|im_end|>"


def test_a_model_without_a_chat_template_is_no_chat_model(workplace: Path) -> None:
    model, tokenizer = load_for_decoding(workplace / "gpt2")
    with pytest.raises(ValueError, match=r"has no chat template, .* recipes/finetune_instruct\.py"):
        ChatSession(model, tokenizer)
