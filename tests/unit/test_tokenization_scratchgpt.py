"""tokenization_scratchgpt.py: the run-time tokenizer, saved and loaded in its two forms, and its chat template."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from scratchgpt.tokenization_scratchgpt import CHAT_TEMPLATE, ScratchGPTTokenizer
from scratchgpt.tokenizers import BPETokenizer, RegexTokenizer, load, to_rust, to_transformers

TEXTS = ["Once upon a time there was a cat. She didn't like naïve 日本 cats, or 1234 of them!\n"] * 3
TEXT = "A cat <|user|> didn't say 日本\n"
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi\n"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye."},
]


@pytest.fixture(scope="module")
def python_tokenizer() -> BPETokenizer:
    return BPETokenizer.train(TEXTS, 300)


@pytest.fixture(scope="module")
def tokenizer(python_tokenizer: BPETokenizer) -> ScratchGPTTokenizer:
    return to_transformers(python_tokenizer, model_max_length=64)


def run(program: str, *arguments: str, package: bool) -> str:
    """The output of `program` in a process of its own, with or without this package."""
    hide = "" if package else "import sys; sys.modules['scratchgpt'] = None; "
    done = subprocess.run(
        [sys.executable, "-c", hide + program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ids_special_tokens_and_offsets(tokenizer: ScratchGPTTokenizer, python_tokenizer: BPETokenizer) -> None:
    assert len(tokenizer) == python_tokenizer.vocab_size == 300
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.pad_token_id == python_tokenizer.special_tokens["<|pad|>"] != tokenizer.eos_token_id
    assert tokenizer.extra_special_tokens == ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    assert tokenizer.model_max_length == 64
    encoding = tokenizer(TEXT, return_offsets_mapping=True)
    assert list(encoding) == ["input_ids", "attention_mask", "offset_mapping"]
    assert encoding["input_ids"] == python_tokenizer.encode(TEXT)
    assert tokenizer.decode(encoding["input_ids"]) == TEXT
    user = encoding["input_ids"].index(python_tokenizer.special_tokens["<|user|>"])
    start, end = encoding["offset_mapping"][user]
    assert TEXT[start:end] == "<|user|>"


def test_text_that_spells_a_special_token_stays_text_when_asked(tokenizer, python_tokenizer) -> None:
    ids = tokenizer(TEXT, split_special_tokens=True)["input_ids"]
    assert ids == python_tokenizer.encode(TEXT, split_special_tokens=True)
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == TEXT


def test_saved_with_its_code_loads_without_the_package(tokenizer: ScratchGPTTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "one")
    again = ScratchGPTTokenizer.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")  # loaded natively: the code has to go along all the same
    for name in ("one", "two"):
        assert sorted(file.name for file in (tmp_path / name).iterdir()) == [
            "chat_template.jinja",
            "tokenization_scratchgpt.py",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    program = (
        "import sys, json; from transformers import AutoTokenizer;"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True);"
        "tokenizer.save_pretrained(sys.argv[1] + '-again');"
        "print(json.dumps([type(tokenizer).__name__, len(tokenizer), tokenizer(sys.argv[2])['input_ids'],"
        "tokenizer.chat_template, tokenizer.model_max_length, tokenizer.pad_token]))"
    )
    output = json.loads(run(program, str(tmp_path / "two"), TEXT, package=False).splitlines()[-1])
    ids = tokenizer(TEXT)["input_ids"]
    assert output == ["ScratchGPTTokenizer", len(tokenizer), ids, CHAT_TEMPLATE, 64, "<|pad|>"]
    assert (tmp_path / "two-again" / "tokenization_scratchgpt.py").is_file()


def test_saved_plain_needs_no_code(tokenizer: ScratchGPTTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path, plain=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in config
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert type(plain) is PreTrainedTokenizerFast
    assert plain(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert list(plain(TEXT)) == ["input_ids", "attention_mask"]
    assert plain.special_tokens_map == tokenizer.special_tokens_map
    assert plain.extra_special_tokens == tokenizer.extra_special_tokens
    assert (plain.model_max_length, plain.chat_template) == (64, CHAT_TEMPLATE)


def test_word_tokenizer_with_unk(tmp_path: Path) -> None:
    words = RegexTokenizer.train(TEXTS, unk=True)
    to_transformers(words).save_pretrained(tmp_path)
    tokenizer = ScratchGPTTokenizer.from_pretrained(tmp_path)
    assert tokenizer.unk_token_id == words.unk_id
    assert tokenizer("a dog")["input_ids"] == words.encode("a dog")
    assert len(tokenizer) == words.vocab_size
    assert load(tmp_path).encode("a dog") == words.encode("a dog")


def test_gpt2(shared_data: Path, tmp_path: Path) -> None:
    files = shared_data / "tokenizer/gpt2/encoder.json", shared_data / "tokenizer/gpt2/vocab.bpe"
    tokenizer, python_tokenizer = ScratchGPTTokenizer.from_gpt2(*files), BPETokenizer.from_gpt2(*files)
    assert tokenizer("Hello world")["input_ids"] == [15496, 995]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (50256, 50257, 50262)
    assert tokenizer.get_added_vocab() == python_tokenizer.special_tokens
    assert tokenizer(TEXT)["input_ids"] == python_tokenizer.encode(TEXT)
    tokenizer.save_pretrained(tmp_path)
    assert len(ScratchGPTTokenizer.from_pretrained(tmp_path)) == 50262
    assert load(tmp_path).encode(TEXT) == python_tokenizer.encode(TEXT)


def test_chat_is_prefix_preserving(tokenizer: ScratchGPTTokenizer) -> None:
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert whole == (
        "<|system|>Be brief.<|end|><|user|> Hi\n<|end|><|assistant|>Hello!<|end|>"
        "<|user|>Bye<|end|><|assistant|>Bye.<|end|>"
    )
    whole_ids = tokenizer.apply_chat_template(CHAT)["input_ids"]
    for k in range(1, len(CHAT) + 1):
        prompt = k < len(CHAT) and CHAT[k]["role"] == "assistant"
        start = tokenizer.apply_chat_template(CHAT[:k], tokenize=False, add_generation_prompt=prompt)
        assert whole.startswith(start)
        assert whole_ids[: len(tokenizer(start)["input_ids"])] == tokenizer(start)["input_ids"]


def test_assistant_mask_covers_the_answers_and_their_end(tokenizer: ScratchGPTTokenizer) -> None:
    encoding = tokenizer.apply_chat_template(CHAT, return_assistant_tokens_mask=True, return_dict=True)
    ids, mask = encoding["input_ids"], encoding["assistant_masks"]
    answers = [token_id for token_id, wanted in zip(ids, mask, strict=True) if wanted]
    assert tokenizer.decode(answers) == "Hello!<|end|>Bye.<|end|>"


@pytest.mark.parametrize(
    ("message", "remedy"),
    [({"role": "tool", "content": "x"}, "use system, user or assistant"), ({"role": "user"}, "must be a string")],
)
def test_chat_errors_name_the_remedy(tokenizer: ScratchGPTTokenizer, message: dict, remedy: str) -> None:
    with pytest.raises(Exception, match=remedy):
        tokenizer.apply_chat_template([message])


def test_no_chat_template_without_chat_tokens() -> None:
    bare = to_transformers(BPETokenizer.train(TEXTS, 290, special_tokens=["<|endoftext|>", "<|pad|>"]))
    assert bare.chat_template is None
    assert len(bare) == 290


@pytest.mark.parametrize("loader", [ScratchGPTTokenizer.from_pretrained, AutoTokenizer.from_pretrained, load])
def test_missing_and_broken_files_are_named(tokenizer: ScratchGPTTokenizer, loader, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    options = {"trust_remote_code": True} if loader == AutoTokenizer.from_pretrained else {}
    file = tmp_path / "tokenizer.json"
    content = file.read_text(encoding="utf-8")
    for broken in (content[: len(content) // 2], "{}", ""):
        file.write_text(broken, encoding="utf-8")
        with pytest.raises(ValueError, match=r"tokenizer\.json.*(broken|scratchgpt can read).*train"):
            loader(tmp_path, **options)
    os.remove(file)
    with pytest.raises(ValueError, match=r"tokenizer\.json does not exist"):
        loader(tmp_path, **options)


def test_bad_arguments(tokenizer: ScratchGPTTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give tokenizer_file"):
        ScratchGPTTokenizer()
    with pytest.raises(ValueError, match="check both files"):
        ScratchGPTTokenizer.from_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(ValueError, match="save first"):
        tokenizer.save_pretrained(tmp_path, plain=True, push_to_hub=True)


def test_rust_and_transformers_agree_after_a_copy(python_tokenizer: BPETokenizer) -> None:
    rust = to_rust(python_tokenizer)
    assert ScratchGPTTokenizer(tokenizer_object=rust)(TEXT)["input_ids"] == rust.encode(TEXT).ids
