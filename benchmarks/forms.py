"""One model in every form in which it can leave: `python benchmarks/forms.py --model runs/base/final --text my.txt`.

For each form: the size of the files with its weights, bits per byte of the text, and tokens per second, greedy, one
text at a time, on the CPU. The forms are written by the code of the exports, and read again. In each round each form
writes once, one after the other, so that all see the same machine; values are medians over the rounds. Ours write with
`generate` and a compiled step (compiled before the first round), llama.cpp's with its own `llama-bench`, where
SCRATCHGPT_LLAMA_CPP names the folder with its programs: it begins at the same depth and leaves out sampling and text.
onnxruntime decodes with its cache, and so does the browser: the page of `--to web` in headless Chromium, by what it
says of its own speed.

llama.cpp's bits per byte are those of the weights as the file has them, computed by transformers in fp32. It computes
in halves or, with 4 and 8 bits, in 8-bit numbers itself, by which its perplexity differs (`benchmarks/llama_cpp.py`).

Another form is another line in `FORMS`.
"""

import argparse
import functools
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer

from records import RESULTS, append, machine
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods, Scored, Scorer, Sequences
from scratchgpt.evaluation.text import Text, TextSuite
from scratchgpt.hub.card_facts import weights_size
from scratchgpt.hub.model_directory import count_parameters, load_model
from scratchgpt.inference.decoding import compiled_decoding, load_for_decoding
from scratchgpt.interop.checks import sample_ids
from scratchgpt.interop.gguf import to_family, write_gguf
from scratchgpt.interop.llama_cpp import llama_program
from scratchgpt.interop.onnx import quantize_onnx, to_onnx_family, write_onnx
from scratchgpt.interop.onnx_checks import OnnxDecoder
from scratchgpt.interop.quantized import write_quantized
from scratchgpt.performance import set_matmul_precision

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
PROMPT, NEW = 32, 128
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
        scorer: Scorer = model if isinstance(model, OnnxScorer) else LogLikelihoods(model)
        return self.suite.run(scorer, self.tokenizer).metrics["bits_per_byte"].value

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
    folder = original.folder / (REFERENCE if dtype == "float32" else f"{dtype} {weight_bits}")
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


class OnnxScorer:
    """A graph in onnxruntime, which is asked one sequence at a time."""

    def __init__(self, file: Path, config: Any) -> None:
        self.decoder, self.context = OnnxDecoder(file, config), config.max_position_embeddings

    def score(self, sequences: Sequences) -> list[Scored]:
        return [self._score(list(tokens), count) for tokens, count in sequences]

    def _score(self, tokens: list[int], count: int) -> Scored:
        self.decoder.reset()
        said = torch.from_numpy(self.decoder.logits(tokens[:-1]))[-count:].log_softmax(-1)
        targets = torch.tensor(tokens[-count:])
        found = said.gather(1, targets[:, None]).sum().item()
        return Scored(found, bool((said.argmax(-1) == targets).all()))


def onnx(original: Original, is_exact: bool) -> Form:
    exported, file = to_onnx_family(original.model), original.folder / "model.onnx"
    if not file.exists():
        write_onnx(exported, file)
    if not is_exact:
        quantized = original.folder / "model_quantized.onnx"
        quantize_onnx(file, quantized)
        file = quantized
    scorer = OnnxScorer(file, exported.config)
    prompt = original.prompt()[0].tolist()

    def write() -> float:
        started = time.perf_counter()
        scorer.decoder.continuation(prompt, NEW)
        return NEW / (time.perf_counter() - started)

    return Form(file.stat().st_size, original.bits_per_byte(scorer), write)


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@functools.cache
def chromium() -> Any:
    """One for all pages; it lives as long as this process."""
    from playwright.sync_api import sync_playwright

    return sync_playwright().start().chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def browser(original: Original, quantization: str) -> Form:
    from recipes import export_model

    folder = original.folder / f"web {quantization}"
    command = [f"--model_name_or_path={original.folder / REFERENCE}", "--to=web", f"--output_dir={folder}"]
    export_model.main([*command, f"--quantization={quantization}"])
    facts = json.loads((folder / "model" / "page.json").read_text())
    facts["ends"] = []  # as many tokens as the others write
    (folder / "model" / "page.json").write_text(json.dumps(facts))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietFiles, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = chromium().new_page()
    page.set_default_timeout(600_000)
    page.goto(f"http://127.0.0.1:{server.server_port}")
    status = page.locator("#status")
    page.locator("#status", has_text="The model is here.").wait_for()
    if facts["chat"]:
        page.locator("#text-mode").click()
    page.locator("#temperature").fill("0")
    page.locator("#max_new_tokens").fill(str(NEW))
    text = original.tokenizer.decode(original.prompt()[0])

    def write() -> float:
        page.locator("#text").fill(text)
        page.locator("#status", has_text="of").wait_for()
        page.locator("#write").click()
        page.locator("#status", has_text=" a second;").wait_for()
        said = status.text_content() or ""
        assert said.startswith(f"{NEW} tokens"), said
        page.locator("#stop:disabled").wait_for(state="attached")
        page.locator("#text").fill("")
        return float(said.partition(", ")[2].split()[0])

    exported, file = to_onnx_family(original.model), folder / "model" / "model.onnx"
    return Form(file.stat().st_size, original.bits_per_byte(OnnxScorer(file, exported.config)), write)


FORMS: dict[str, Callable[[Original], Form]] = {
    REFERENCE: lambda original: own(original, "float32"),
    "scratchgpt bf16": lambda original: own(original, "bfloat16"),
    "scratchgpt int8": lambda original: own(original, "bfloat16", 8),
    "scratchgpt int4": lambda original: own(original, "bfloat16", 4),
    **{
        f"llama.cpp {quantization}": lambda original, quantization=quantization: llama_cpp(original, quantization)
        for quantization in ("f16", "q8_0", "q4_0")
    },
    "onnxruntime fp32": lambda original: onnx(original, is_exact=True),
    "onnxruntime int8": lambda original: onnx(original, is_exact=False),
    "browser fp32": lambda original: browser(original, "f32"),
    "browser int8": lambda original: browser(original, "int8"),
}


def measure(original: Original, names: list[str], rounds: int) -> list[dict[str, Any]]:
    forms: dict[str, Form] = {}
    for name in names:
        forms[name] = FORMS[name](original)
        print(f"{name:20s} {forms[name].size:13,} bytes, {forms[name].bits_per_byte:.4f} bits per byte", flush=True)
    # All are there before one is compiled: a later model may register attention, which compiled steps are guarded
    # against. What depends on a used cache is compiled the second time.
    for form in [*forms.values()] * 2:
        form.write()
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
    """Whether what runs it is installed."""
    if name.startswith("llama.cpp"):
        return llama_program("llama-bench") is not None
    if name.startswith("browser"):
        return None not in (CHROMIUM, shutil.which("npm"), importlib.util.find_spec("playwright"))
    return True


if __name__ == "__main__":
    main()
