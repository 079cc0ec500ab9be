"""What llama.cpp makes of our GGUF files: `python benchmarks/llama_cpp.py --model runs/base/final --text my.txt …`.

Each model is exported in each type and read by llama.cpp's server (SCRATCHGPT_LLAMA_CPP names the folder with its
programs). Counted are:

- continuations: of `PROMPTS` beginnings of the text, those that llama.cpp continues by the same `NEW` likeliest tokens
  as transformers does from the same weights, and those that part where two tokens are about as likely (nearer than
  twice the largest difference of a log-probability in a sentence). One that parts elsewhere ends this with an error.
- perplexity: of a stretch of the text, by llama.cpp from the file, and by the model before it was rounded.
- ids: texts with other ids than the model's own tokenizer gives, among `TEXTS` of random Unicode with special tokens
  in between, and among the files given.
- chat: whether the chat template gives a conversation the same prompt.
"""

import argparse
import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer

from records import RESULTS, append, machine
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import load_model
from scratchgpt.interop.checks import end_ids, logits_of, sample_ids
from scratchgpt.interop.gguf import to_family, write_gguf
from scratchgpt.interop.gguf_checks import AWKWARD, NUM_COMPARED, is_near_tie, random_texts, same_ids
from scratchgpt.interop.llama_cpp import LlamaServer, llama_server

PROMPTS, NEW, TEXTS, PERPLEXITY_TOKENS = 20, 64, 2000, 128
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " To be,\n\nor not to be?"},
    {"role": "assistant", "content": "To be."},
    {"role": "user", "content": "Ünïcode 🙂 and <b>"},
]


@torch.no_grad()
def largest_difference(server: LlamaServer, model: Any, ids: torch.Tensor) -> float:
    """Of the likeliest log-probabilities at every position of a sentence [1, T]."""
    ours = logits_of(model, ids)[0].log_softmax(-1)
    return max(
        abs(theirs - ours[i, token_id].item())
        for i in range(ids.shape[1])
        for token_id, theirs in server.log_probabilities(ids[0, : i + 1].tolist(), NUM_COMPARED).items()
    )


@torch.no_grad()
def perplexities(server: LlamaServer, model: Any, ids: list[int]) -> tuple[float, float]:
    """llama.cpp's and the model's own, of all ids but the first."""
    ours = logits_of(model, torch.tensor([ids]))[0].log_softmax(-1)
    known = range(1, len(ids))
    own = -sum(ours[i - 1, ids[i]].item() for i in known) / len(known)
    size = model.config.vocab_size
    found = -sum(server.log_probabilities(ids[:i], size)[ids[i]] for i in known) / len(known)
    return math.exp(found), math.exp(own)


def measure(directory: Path, quantization: str, text: str, files: list[Path]) -> dict[str, float]:
    """By case, what was found."""
    model: Any = load_model(ScratchGPTForCausalLM, directory, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    context = model.config.max_position_embeddings
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    exported = to_family(model)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write_gguf(exported, tokenizer, file, quantization, name="mine")
        with llama_server(file, context, "--threads", str(torch.get_num_threads())) as server:
            difference = largest_difference(server, exported, sample_ids(tokenizer, exported.config.vocab_size, 32))
            step = len(ids) // PROMPTS
            prompts = [ids[step * i : step * i + 4 + i] for i in range(PROMPTS)]
            ends = end_ids(exported)
            written = [server.write(prompt, NEW, ends) for prompt in prompts]
            both = zip(prompts, written, strict=True)
            parted = sum(is_near_tie(exported, prompt, theirs, difference) for prompt, theirs in both)
            theirs, own = perplexities(server, model, ids[: min(PERPLEXITY_TOKENS, context)])
            chosen, names = random.Random(1), ["", *tokenizer.all_special_tokens]
            strings = [each + chosen.choice(names) + each[::-1] for each in random_texts(TEXTS)]
            wrong = sum(not same_ids(server, tokenizer, each) for each in [*strings, AWKWARD])
            wrong_files = sum(not same_ids(server, tokenizer, each.read_text(encoding="utf-8")) for each in files)
            asked = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
            same_chat = server.render(CHAT) == asked
    return {
        f"same {NEW} tokens, of {PROMPTS}": PROMPTS - parted,
        "parted at a near-tie": parted,
        "log-probabilities differ by, at most": difference,
        "perplexity, llama.cpp": theirs,
        "perplexity, before": own,
        f"other ids, of {TEXTS + 1:,} strings": wrong,
        f"other ids, of {len(files)} files": wrong_files,
        "same chat prompt, of 1": int(same_chat),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What llama.cpp makes of our GGUF files.")
    parser.add_argument("--model", required=True, nargs="+", type=Path, help="directories of scratchgpt models")
    parser.add_argument("--text", required=True, type=Path, help="file that they continue and are measured on")
    parser.add_argument("--files", nargs="+", type=Path, default=[], help="files whose ids are compared")
    parser.add_argument("--quantization", nargs="+", default=["f16", "q8_0"])
    parser.add_argument("--output", type=Path, default=RESULTS / "llama_cpp.jsonl")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    for directory in arguments.model:
        config = ScratchGPTConfig.from_pretrained(directory)
        for quantization in arguments.quantization:
            found = measure(directory, quantization, text, arguments.files)
            shared = {
                "benchmark": "GGUF files, read by llama.cpp", "metric": "agreement with transformers",
                "candidate": f"{directory.name} {quantization}", "text": arguments.text.name,
                "files": [file.name for file in arguments.files], "config": config.to_diff_dict(),
                **machine("torch", "transformers", "gguf"),
            }  # fmt: skip
            print(shared["candidate"], found, flush=True)
            append([{**shared, "case": case, "value": value} for case, value in found.items()], arguments.output)


if __name__ == "__main__":
    main()
