"""One model in every form in which it can leave: `python benchmarks/forms.py --model runs/base/final --text my.txt`.

For each form: the size of the files with its weights, bits per byte of the text, and tokens per second, greedy, one
text at a time, on the CPU. The forms are written by the code of the exports, and read again. In each round each form
writes once, one after the other, so that all see the same machine; values are medians over the rounds. Ours write with
`generate` and a compiled step (compiled before the first round), llama.cpp's with its own `llama-bench`, where
SCRATCHGPT_LLAMA_CPP names the folder with its programs: it begins at the same depth and leaves out sampling and text.

llama.cpp's bits per byte are those of the weights as the file has them, computed by transformers in fp32. It computes
in halves or, with 4 and 8 bits, in 8-bit numbers itself, by which its perplexity differs (`benchmarks/llama_cpp.py`).

Another form is another line in `FORMS`.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer

from records import RESULTS, append, machine
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods
from scratchgpt.evaluation.text import Text, TextSuite
from scratchgpt.hub.card_facts import weights_size
from scratchgpt.hub.model_directory import count_parameters, load_model
from scratchgpt.inference.decoding import compiled_decoding, load_for_decoding
from scratchgpt.interop.checks import sample_ids
from scratchgpt.interop.gguf import to_family, write_gguf
from scratchgpt.interop.llama_cpp import llama_program
from scratchgpt.interop.quantized import write_quantized
from scratchgpt.performance import set_matmul_precision

PROMPT, NEW = 32, 128
REFERENCE = "scratchgpt fp32"


@dataclass(frozen=True)
class Original:
    """What every form is made from."""

    model: ScratchGPTForCausalLM
    tokenizer: Any
    folder: Path
    """For the files."""
    suite: TextSuite

    def bits_per_byte(self, model: Any) -> float:
        return self.suite.run(LogLikelihoods(model), self.tokenizer).metrics["bits_per_byte"].value

    def prompt(self) -> torch.Tensor:
        ids = sample_ids(self.tokenizer, self.model.config.vocab_size, PROMPT)
        return ids.repeat(1, -(-PROMPT // ids.shape[1]))[:, :PROMPT]


@dataclass(frozen=True)
class Form:
    size: int
    """Bytes of the files with weights."""
    bits_per_byte: float
    write: Callable[[], float]
    """Takes a turn: tokens per second."""


def own(original: Original, dtype: str, weight_bits: int | None = None) -> Form:
    folder = original.folder / f"{dtype} {weight_bits}"
    folder.mkdir()
    original.tokenizer.save_pretrained(folder)
    if weight_bits is None:
        original.model.to(getattr(torch, dtype)).save_pretrained(folder)
        original.model.float()
    else:
        write_quantized(original.model, folder, weight_bits, original.prompt())
    model: Any = load_for_decoding(folder, dtype=dtype)[0]
    model.generation_config.eos_token_id = None
    bits = original.bits_per_byte(model)
    decoding, prompt = compiled_decoding(model, PROMPT + NEW), original.prompt()

    def write() -> float:
        started = time.perf_counter()
        written = model.generate(prompt, do_sample=False, max_new_tokens=NEW, pad_token_id=0, **decoding)
        assert written.shape == (1, PROMPT + NEW)
        return NEW / (time.perf_counter() - started)

    for _ in range(2):  # what depends on a used cache is compiled the second time
        write()
    return Form(weights_size(folder)[2], bits, write)


def llama_cpp(original: Original, quantization: str) -> Form:
    file = original.folder / f"{quantization}.gguf"
    exported = to_family(original.model)
    write_gguf(exported, original.tokenizer, file, quantization, name="mine")
    command = [
        str(llama_program("llama-bench")), "--model", str(file), "--n-prompt", "0", "--n-gen", str(NEW), "--n-depth",
        str(PROMPT), "--repetitions", "1", "--threads", str(torch.get_num_threads()), "--output", "json",
    ]  # fmt: skip

    def write() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)[0]["avg_ts"]

    return Form(file.stat().st_size, original.bits_per_byte(exported), write)


FORMS: dict[str, Callable[[Original], Form]] = {
    REFERENCE: lambda original: own(original, "float32"),
    "scratchgpt bf16": lambda original: own(original, "bfloat16"),
    "scratchgpt int8": lambda original: own(original, "bfloat16", 8),
    "scratchgpt int4": lambda original: own(original, "bfloat16", 4),
    **{
        f"llama.cpp {quantization}": lambda original, quantization=quantization: llama_cpp(original, quantization)
        for quantization in ("f16", "q8_0", "q4_0")
    },
}


def measure(original: Original, names: list[str], rounds: int) -> list[dict[str, Any]]:
    forms: dict[str, Form] = {}
    for name in names:
        forms[name] = FORMS[name](original)
        print(f"{name:20s} {forms[name].size:13,} bytes, {forms[name].bits_per_byte:.4f} bits per byte", flush=True)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            speeds[name].append(forms[name].write())
    count, source = count_parameters(original.model), original.suite.text.source
    shared = {
        "benchmark": "One model in every form", "relative_to": REFERENCE, "rounds": rounds, "prompt": PROMPT,
        "metric": f"{original.model.config.model_type} of {count / 1e6:.3g}M parameters, {NEW} new tokens at batch 1",
        "text": Path(source).name, "threads": torch.get_num_threads(), **machine("torch", "transformers"),
    }  # fmt: skip
    found = []
    for name, form in forms.items():
        speed = statistics.median(speeds[name])
        ratio = statistics.median(a / b for a, b in zip(speeds[name], speeds[names[0]], strict=True))
        print(f"{name:20s} {speed:7.1f} tokens/s ({ratio:.2f}×)", flush=True)
        of_form = {**shared, "candidate": name}
        found += [
            {**of_form, "case": "weights, MB", "value": form.size / 1e6, "decimals": 1},
            {**of_form, "case": "bits per byte", "value": round(form.bits_per_byte, 5), "decimals": 4},
            {**of_form, "case": "tokens/s", "value": round(speed, 1), "ratio": round(ratio, 3),
             "all": [round(each, 1) for each in speeds[name]]},
        ]  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="One model in every form in which it can leave.")
    parser.add_argument("--model", required=True, help="a scratchgpt model's directory")
    parser.add_argument("--text", required=True, help="text that it was not trained on: a file or a data set")
    parser.add_argument("--split", default="validation", help="its split, where it is a data set")
    parser.add_argument("--rounds", type=int, default=5, help="how often each form takes its turn")
    parser.add_argument("--forms", nargs="+", default=[], choices=list(FORMS), help="beside fp32; default: all")
    parser.add_argument("--output", type=Path, default=RESULTS / "forms.jsonl")
    arguments = parser.parse_args()
    names = [REFERENCE, *(arguments.forms or [name for name in FORMS if is_here(name)])]
    set_matmul_precision("cpu")
    model: Any = load_model(ScratchGPTForCausalLM, arguments.model, dtype=torch.float32).eval()
    with TemporaryDirectory() as folder:
        suite = TextSuite(Text(arguments.text, arguments.split))
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        original = Original(model, tokenizer, Path(folder), suite)
        append(measure(original, list(dict.fromkeys(names)), arguments.rounds), arguments.output)


def is_here(name: str) -> bool:
    return not name.startswith("llama.cpp") or llama_program("llama-bench") is not None


if __name__ == "__main__":
    main()
