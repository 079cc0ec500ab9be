"""Importing a GPT-2 as a user does: chat-ready, checked, no more memory than needed, and good for every recipe."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from recipes import export_model, finetune_classifier, finetune_instruct, import_gpt2, pretrain
from scratchgpt import ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.interop import gpt2_import
from scratchgpt.tokenizers import BPETokenizer, load, to_transformers
from tests.hub_server import hub_with

TEXTS = ["The quick brown fox jumps over the lazy dog.", "To be, or not to be, that is the question.", "Gold!"]


def build(folder: Path, vocab_size: int, **fields: object) -> GPT2LMHeadModel:
    ids = {"bos_token_id": vocab_size - 1, "eos_token_id": vocab_size - 1}
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **ids, **{**shape, **fields})).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A GPT-2 with a tokenizer of 300 ids, as GPT-2's is: one special token, the last."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = BPETokenizer.train(TEXTS * 9, vocab_size=300, special_tokens=["<|endoftext|>"])
    build(folder, tokenizer.vocab_size)
    to_transformers(tokenizer).backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def imported(small: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "model"
    import_gpt2.main(["--model_name_or_path", str(small), "--output_dir", str(folder)])
    return folder


def test_import_from_the_hub(small: Path, imported: Path, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its settings when it is imported."""
    hub = tmp_path / "hub"
    shutil.copytree(small, hub)
    for name in ("pytorch_model.bin", "tf_model.h5", "rust_model.ot"):  # the same weights again, as old models have
        (hub / name).write_bytes(b"not wanted")
    with hub_with({"somebody/tiny-gpt2": hub}) as (address, asked):
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}

        def run(name: str) -> subprocess.CompletedProcess[str]:
            recipe = Path(import_gpt2.__file__)
            arguments = ["--model_name_or_path", name, "--output_dir", str(tmp_path / "model")]
            return subprocess.run(
                [sys.executable, str(recipe), *arguments], env=environment, capture_output=True, text=True, timeout=250
            )

        absent = run("somebody/else")
        assert absent.returncode != 0
        assert "somebody/else is neither a local folder or file, nor found on the Hub" in absent.stderr
        assert not (tmp_path / "model").exists()
        result = run("somebody/tiny-gpt2")
        assert result.returncode == 0, result.stderr[-2000:]
    assert "model.safetensors" in asked
    assert not any(file.endswith((".bin", ".h5", ".ot")) for file in asked)
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (imported, tmp_path / "model"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_imported_model_is_chat_ready(small: Path, imported: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(imported), AutoModelForCausalLM.from_pretrained(imported)
    theirs = GPT2LMHeadModel.from_pretrained(small)
    size = theirs.config.vocab_size
    assert type(model) is ScratchGPTForCausalLM
    assert len(tokenizer) == model.config.vocab_size == size + 5
    assert tokenizer.pad_token_id == model.config.pad_token_id == model.generation_config.pad_token_id == size
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == model.config.eos_token_id
    chat = [{"role": "user", "content": "Gold?"}, {"role": "assistant", "content": "Gold!"}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
    assert (ids >= size).sum() == 4
    assert model(ids).logits.isfinite().all()
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(model(ids).logits[..., :size], theirs(ids).logits, atol=1e-5, rtol=1e-5)
    assert load(imported).encode(TEXTS[0]) == ids[0].tolist()  # what pretraining tokenises with


def test_in_and_out_changes_nothing(small: Path, imported: Path, tmp_path: Path, capsys) -> None:
    command = ["--model_name_or_path", str(imported), "--to", "gpt2", "--output_dir", str(tmp_path / "out")]
    export_model.main(command)
    assert "largest difference" in capsys.readouterr().out
    before, after = load_file(small / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (small, tmp_path / "out"))
    assert after == before | {"n_ctx": 64}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == 300
    assert tokenizer(TEXTS)["input_ids"] == AutoTokenizer.from_pretrained(imported)(TEXTS)["input_ids"]


def test_goes_on_in_pretraining(imported: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": TEXTS[i % 3]}) for i in range(60)))
    options = {
        "model_name_or_path": imported, "tokenizer": imported, "data": tmp_path / "text.jsonl",
        "eval_data": tmp_path / "text.jsonl", "eval_split": "train", "cache_dir": tmp_path / "cache",
        "output_dir": tmp_path / "run", "context_length": 32, "per_device_train_batch_size": 4, "max_steps": 12,
        "logging_steps": 1, "learning_rate": 0.003, "compile": False, "mixed_precision": "no",
    }  # fmt: skip
    pretrain.main([f"--{name}={value}" for name, value in options.items()])
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]
    # Trained: the added ids stay, and so does the chat template.
    command = ["--model_name_or_path", str(tmp_path / "run/final"), "--to", "gpt2"]
    export_model.main([*command, "--output_dir", str(tmp_path / "out")])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == GPT2LMHeadModel.from_pretrained(tmp_path / "out").config.vocab_size == 305
    assert tokenizer.chat_template is not None


def losses_of(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


COMMON = {"max_steps": 12, "logging_steps": 1, "learning_rate": 0.01, "compile": False, "mixed_precision": "no",
          "per_device_train_batch_size": 8}  # fmt: skip


def test_goes_on_in_instruction_tuning(imported: Path, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Gold?"}, {"role": "assistant", "content": "Gold!"}]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join([json.dumps({"messages": chat})] * 40))
    options = {"model_name_or_path": imported, "data": tmp_path / "train.jsonl", "output_dir": tmp_path / "run",
               "eval_data": tmp_path / "validation.jsonl", "eval_split": "train", **COMMON}  # fmt: skip
    finetune_instruct.main([f"--{name}={value}" for name, value in options.items()])
    losses = losses_of(tmp_path / "run")
    assert losses[-1] < 0.9 * losses[0]


def test_goes_on_in_classification(imported: Path, tmp_path: Path) -> None:
    draw, words, kinds = random.Random(0), " ".join(TEXTS).split(), ["fox", "question"]
    rows = [{"text": f"{kinds[i % 2]} {' '.join(draw.choices(words, k=6))}", "label": kinds[i % 2]} for i in range(80)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"model_name_or_path": imported, "data": tmp_path / "data.jsonl", "output_dir": tmp_path / "run",
               "validation_fraction": 0.2, "test_fraction": 0.2, **COMMON, "max_steps": 40}  # fmt: skip
    finetune_classifier.main([f"--{name}={value}" for name, value in options.items()])
    losses = losses_of(tmp_path / "run")
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]), losses


def test_ids_are_gpt2s(shared_data: Path, tmp_path: Path) -> None:
    """2,000 random strings and the shared texts, by the tokenizer of a whole import and by tiktoken."""
    import tiktoken
    import zstandard

    source, out = tmp_path / "source", tmp_path / "out"
    build(source, 50257, n_embd=8, n_layer=1, n_head=2)
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(shared_data / "tokenizer/gpt2" / name, source / name)
    import_gpt2.main(["--model_name_or_path", str(source), "--output_dir", str(out)])
    merges = (source / "vocab.bpe").read_text().splitlines()[1:]
    ours, python = AutoTokenizer.from_pretrained(out), load(out)
    assert len(ours) == 50262
    assert (len(merges), ours.convert_tokens_to_ids("<|endoftext|>"), ours.pad_token_id) == (50000, 50256, 50257)
    reference = tiktoken.Encoding(
        "gpt2",
        pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
        mergeable_ranks=tiktoken_ranks(source),
        special_tokens={"<|endoftext|>": 50256},
    )
    draw = random.Random(0)
    alphabets = ["abc de'st\n\t 12", "aÀæñ日本語🙂\u0301\u200d", "".join(map(chr, range(32, 0x250)))]
    strings = ["".join(draw.choices(draw.choice(alphabets), k=draw.randrange(60))) for _ in range(2000)]
    for name in ("tinyshakespeare.txt", "the-verdict.txt", "tinystories_sample_197k.txt"):
        strings.append((shared_data / "text" / name).read_text(encoding="utf-8")[:200_000])
    for name in ("wiki_demo.txt.zst", "wikitext-2/valid.txt.zst"):
        with zstandard.open(shared_data / "text" / name, "rt", encoding="utf-8") as file:
            strings.append(file.read(200_000))
    expected = [reference.encode_ordinary(string) for string in strings]
    found = ours(strings, add_special_tokens=False)["input_ids"]
    assert [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b] == []
    assert [i for i, (s, b) in enumerate(zip(strings, expected, strict=True)) if python.encode(s) != b] == []


def tiktoken_ranks(folder: Path) -> dict[bytes, int]:
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    return data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))


def test_refusals_leave_nothing_behind(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(small / name, bare / name)
    mixed = tmp_path / "mixed"
    shutil.copytree(small, mixed)
    tokenizer = to_transformers(BPETokenizer.train(TEXTS * 9, vocab_size=290))
    tokenizer.backend_tokenizer.save(str(mixed / "tokenizer.json"))
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    content = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[: len(content) // 2])
    before = sorted(tmp_path.rglob("*"))
    for source, message in ((bare, "give --tokenizer"), (mixed, "do not belong together"), (broken, "is damaged")):
        with pytest.raises(ValueError, match=message):
            import_gpt2.main(["--model_name_or_path", str(source), "--output_dir", str(tmp_path / "out")])
        assert sorted(tmp_path.rglob("*")) == before
    # A model that disagrees with transformers is not written either.
    original = gpt2_import.logits_of
    monkeypatch.setattr(
        gpt2_import, "logits_of", lambda m, ids: original(m, ids) * (1 + isinstance(m, GPT2LMHeadModel))
    )
    with pytest.raises(ValueError, match="models disagree"):
        import_gpt2.main(["--model_name_or_path", str(small), "--output_dir", str(tmp_path / "out")])
    assert sorted(tmp_path.rglob("*")) == before


# Not getrusage's peak, which a process inherits from the one that started it.
MEASURE = """
import re, sys
from pathlib import Path
from recipes import import_gpt2
import transformers.models.gpt2.modeling_gpt2

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

bare = peak()
import_gpt2.main(["--model_name_or_path", sys.argv[1], "--output_dir", sys.argv[2]])
print(peak() - bare)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
@pytest.mark.slow
def test_memory_of_importing_124m_is_near_one_copy(shared_data: Path, tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(tmp_path / "source")
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(shared_data / "tokenizer/gpt2" / name, tmp_path / "source" / name)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "source"), str(tmp_path / "out")]
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    ratio = int(run.stdout.splitlines()[-1]) / size
    print(f"peak above the bare process: {ratio:.2f} × the model's {size / 1e6:.0f} MB")
    assert 0.9 < ratio <= 1.3  # less than the model itself would be a fault of the measurement


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        import_gpt2.main(
            ["--model_name_or_path", "openai-community/gpt2", "--output_dir", str(tmp_path), "--dry_run", "1"]
        )
    assert yaml.safe_load(capsys.readouterr().out)["model_name_or_path"] == "openai-community/gpt2"
    with pytest.raises(ValueError, match="--output_dir is missing"):
        import_gpt2.main(["--model_name_or_path", "openai-community/gpt2"])


def test_vocab_and_merges_of_transformers(shared_data: Path, tmp_path: Path) -> None:
    gpt2 = shared_data / "tokenizer/gpt2"
    shutil.copy(gpt2 / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(gpt2 / "vocab.bpe", tmp_path / "merges.txt")
    tokenizer = import_gpt2.load_tokenizer("here", tmp_path, 1024)
    assert isinstance(tokenizer, ScratchGPTTokenizer)
    assert tokenizer("hello world")["input_ids"] == [31373, 995]
