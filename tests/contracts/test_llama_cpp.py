"""llama.cpp itself reads the GGUF files: the same ids, the same continuations, the same perplexity, the same template.

Needs llama.cpp: SCRATCHGPT_LLAMA_CPP=…/build/bin, the folder with its programs. Prints what it found (`pytest -rP`).
"""

import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import export_model
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model
from scratchgpt.interop.checks import AWKWARD, end_ids, is_near_tie
from scratchgpt.interop.gguf_checks import random_texts, same_ids
from scratchgpt.interop.llama_cpp import VARIABLE, llama_program, llama_server
from scratchgpt.tokenizers import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer, to_transformers

pytest.importorskip("gguf", reason="no gguf")
pytestmark = pytest.mark.skipif(
    llama_program() is None, reason=f"no llama.cpp: set {VARIABLE} to the folder with its programs, build/bin"
)

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "grouped and tied": ("modern", {"num_key_value_heads": 1}),
    "untied": ("modern", {"tie_word_embeddings": False, "head_dim": 16}),
    "llama": ("modern", {"qk_norm": False}),
}

NEAR = 0.02
"""Log-probabilities that llama.cpp, which multiplies halves, may confuse."""

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " To be,\n\nor not to be?"},
    {"role": "assistant", "content": "To be."},
    {"role": "user", "content": "Ünïcode 🙂 and <b>"},
]


@pytest.fixture(scope="module", params=[(m, q) for m in MODELS for q in ("f16", "q8_0")], ids=" ".join)
def exported(request, make_config, texts, tmp_path_factory):
    """Our model, its tokenizer, and llama.cpp with the export."""
    (name, quantization), folder = request.param, tmp_path_factory.mktemp("gguf")
    preset, overrides = MODELS[name]
    pattern = GPT2_PATTERN if preset == "gpt2" else GPT4_PATTERN
    tokenizer = to_transformers(BPETokenizer.train(texts * 4, vocab_size=320, pattern=pattern), model_max_length=128)
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(make_config(preset, vocab_size=len(tokenizer), **overrides)).eval()
    save_model(model, tokenizer, folder / "model")
    command = [f"--model_name_or_path={folder / 'model'}", f"--output_dir={folder / 'out'}", "--to=gguf"]
    export_model.main([*command, f"--quantization={quantization}"])
    with llama_server(folder / "out" / f"model-{quantization}.gguf", 128) as server:
        yield model, tokenizer, server, quantization


def test_ids(exported) -> None:
    _, tokenizer, server, _ = exported
    names = tokenizer.all_special_tokens
    chosen = random.Random(1)
    texts = [text + chosen.choice(["", *names]) + text[::-1] for text in random_texts(2000)]
    wrong = [text for text in [*texts, AWKWARD] if not same_ids(server, tokenizer, text)]
    assert not wrong, f"{len(wrong)} of {len(texts)}, the first: {wrong[0]!r}"


@pytest.mark.parametrize(
    "file", ["text/the-verdict.txt", "text/tinystories_sample_197k.txt", "tokenizer/taylorswift.txt"]
)
def test_ids_of_shared_texts(exported, shared_data: Path, file: str) -> None:
    _, tokenizer, server, _ = exported
    assert same_ids(server, tokenizer, (shared_data / file).read_text(encoding="utf-8"))


def test_template(exported) -> None:
    _, tokenizer, server, _ = exported
    ours = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert server.render(CHAT) == ours


def test_continuations(exported) -> None:
    """64 tokens after each of 20 prompts. In f16 all are ours, near-ties aside; 8 bits round the model itself."""
    model, tokenizer, server, quantization = exported
    if quantization != "f16":
        pytest.skip("8 bits round the model: the export compares it with the rounded one")
    ids = tokenizer(" ".join(random_texts(20)), add_special_tokens=False)["input_ids"]
    prompts = [ids[20 * i : 20 * i + 3 + i] for i in range(20)]
    ties = sum(is_near_tie(model, prompt, server.write(prompt, 64, end_ids(model)), NEAR) for prompt in prompts)
    print(f"{ties} of {len(prompts)} continuations part at a near-tie")
    assert ties < len(prompts) / 2


@torch.no_grad()
def test_perplexity(exported) -> None:
    model, tokenizer, server, quantization = exported
    ids = tokenizer(AWKWARD + "To be, or not to be, that is the question.", return_tensors="pt")["input_ids"][:, :100]
    ours = model(ids).logits[0].log_softmax(-1)
    known = range(1, ids.shape[1])
    expected = -sum(ours[i - 1, ids[0, i]].item() for i in known) / len(known)
    size = model.config.vocab_size
    found = -sum(server.log_probabilities(ids[0, :i].tolist(), size)[ids[0, i].item()] for i in known) / len(known)
    print(f"{quantization}: perplexity {math.exp(found):.4f}, ours {math.exp(expected):.4f}")
    assert math.exp(found) == pytest.approx(math.exp(expected), rel=0.01)


def test_every_character(exported) -> None:
    """Each character of Unicode between letters, digits and spaces, but for those that only one of the two knows."""
    _, tokenizer, server, quantization = exported
    if quantization != "f16":
        pytest.skip("the tokenizer is the same")
    other = [
        chr(code)
        for start in range(0, sys.maxunicode + 1, 0x100)
        if start not in range(0xD800, 0xE000)
        and not same_ids(server, tokenizer, "\n".join(map(between, range(start, start + 0x100))))
        for code in range(start, start + 0x100)
        if not same_ids(server, tokenizer, between(code))
    ]
    print(f"other ids around {len(other)} characters: {[f'U+{ord(each):04X}' for each in other[:50]]}")
    assert len(other) < 0.005 * sys.maxunicode


def between(code: int) -> str:
    return f"a{chr(code)}b 1{chr(code)}2 {chr(code)}'{chr(code)}s {chr(code)}'s {chr(code)}"
