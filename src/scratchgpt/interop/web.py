"""A page that runs the model in the browser: a static folder for any file server, or a static Space of the Hub.

    index.html  page.css  page.js  model.js    the page, from `web_page/`: plain and readable
    model/                                     the graph, the tokenizer, and page.json: what the page has to know
    runtime/                                   onnxruntime's WebAssembly, tokenizers and templates, with their licences

What is in runtime/ comes from npm, in the versions below, and is part of the folder: the page fetches nothing from
elsewhere. Node runs the page's own model.js before the folder is there (`check_page`).
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from ..inference.answer_settings import text_settings
from .checks import (
    AWKWARD,
    NUM_WRITTEN,
    check_same_ids,
    check_same_logits,
    is_near_tie,
    logits_of,
    prompt_ids,
    sample_ids,
)
from .onnx import cache_shape

RUNTIME = {
    ("onnxruntime-web", "1.30.0"): {
        "dist/ort.wasm.min.mjs": "ort.wasm.min.mjs",
        "dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.mjs",
        "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    },
    ("@huggingface/tokenizers", "0.2.0"): {
        "dist/tokenizers.min.mjs": "tokenizers.mjs",
        "LICENSE": "tokenizers.LICENSE",
    },
    ("@huggingface/jinja", "0.5.11"): {"dist/index.js": "jinja.mjs", "LICENSE": "jinja.LICENSE"},
}
"""Package of npm and its version → its files, and their names in runtime/."""

PAGE = ("index.html", "page.css", "page.js", "model.js")

PATIENCE = 600
"""Seconds for npm, and for Node."""

QUESTIONS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " To be,\n\nor not to be?"},
    {"role": "assistant", "content": "To be."},
    {"role": "user", "content": "Ünïcode 🙂 and <b>"},
]
"""A conversation whose rendering is compared."""


def check_node() -> None:
    """Raises ValueError where Node or npm is not installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise ValueError(
                f"a page for the browser needs {program}, which brings the run-time and tries the page: "
                "install Node.js 20 or newer"
            )


def fetch_runtime(folder: Path) -> None:
    """Fills a folder with the files of `RUNTIME`, by npm (from its cache, where they are there), and with licences.

    Raises:
        ValueError: where npm fails; with what it said.
    """
    import onnxruntime

    folder.mkdir()
    with tempfile.TemporaryDirectory() as temporary:
        for (package, version), wanted in RUNTIME.items():
            command = ["npm", "pack", "--silent", "--prefer-offline", f"{package}@{version}"]
            run = subprocess.run(
                command, cwd=temporary, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
            )
            if run.returncode:
                said = " ".join(f"{run.stderr} {run.stdout}".split())[-300:]
                raise ValueError(
                    f"npm cannot get {package} {version}: look at the network and npm's settings ({said})"
                )
            with tarfile.open(Path(temporary) / run.stdout.strip().splitlines()[-1]) as archive:
                for name, new_name in wanted.items():
                    member = archive.extractfile(f"package/{name}")
                    assert member is not None, name
                    with (folder / new_name).open("wb") as copy:
                        shutil.copyfileobj(member, copy)
    # npm's package of onnxruntime has no licence in it; Python's has.
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.copyfile(Path(onnxruntime.__file__).parent / name, folder / f"onnxruntime.{name}")


def copy_page(folder: Path) -> None:
    """Copies the page itself."""
    for name in PAGE:
        with as_file(files("scratchgpt.interop") / "web_page" / name) as file:
            shutil.copyfile(file, folder / name)


def page_facts(exported: Any, tokenizer: Any, title: str, is_chat: bool) -> dict[str, Any]:
    """What the page has to know of a model.

    Args:
        is_chat: whether it was tuned to answer.
    """
    config, settings = exported.config, text_settings(tokenizer, exported.config.vocab_size)
    num_layers, num_key_value_heads, head_dim = cache_shape(config)
    chosen = exported.generation_config
    sampling = {"temperature": 0.7, "top_k": 50, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    known = {name: getattr(chosen, name) for name in sampling}
    sampling |= {name: value for name, value in known.items() if value is not None}
    if chosen.do_sample is False:
        sampling["temperature"] = 0.0
    return {
        "title": title,
        "parameters": sum(each.numel() for each in exported.parameters()),
        "chat": is_chat,
        "vocab_size": config.vocab_size,
        "context": config.max_position_embeddings,
        "num_layers": num_layers,
        "num_heads": config.num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "head_dim": head_dim,
        "ends": settings["eos_token_id"],
        "never": settings["suppress_tokens"] or [],
        "sampling": sampling,
    }


def check_page(folder: Path, exported: Any, tokenizer: Any, facts: Mapping[str, Any], is_exact: bool) -> str:
    """Lets Node run the page's model and compares: tokenizer, chat template, logits, continuations.

    Args:
        facts: of `page_facts`. is_exact: whether the graph is in fp32; of one in 8 bits only tokenizer and template
            are compared, and what 8 bits cost is said.

    Returns:
        What was found, for people.

    Raises:
        ValueError: where the page gives something else; names what.
    """
    context = exported.config.max_position_embeddings
    ids, prompts = sample_ids(tokenizer, exported.config.vocab_size, context), prompt_ids(tokenizer, context)
    job = {
        "text": AWKWARD, "messages": QUESTIONS, "sentence": ids[0].tolist(), "prompts": prompts, "count": NUM_WRITTEN,
    }  # fmt: skip
    answer = _ask_node(folder, job)
    check_same_ids(answer["ids"], tokenizer)
    if facts["chat"]:
        ours: Any = tokenizer.apply_chat_template(QUESTIONS, add_generation_prompt=True, return_dict=False)
        if answer["chat"] != ours:
            raise ValueError("the page writes a conversation otherwise than the chat template does in Python")
    logits = torch.tensor(answer["logits"])
    expected = logits_of(exported, ids)[0, -1]
    if not is_exact:
        change = (logits.log_softmax(-1) - expected.log_softmax(-1)).abs().max().item()
        return f"run by Node: tokenizer and template agree; 8 bits change log-probabilities by up to {change:.2e}"
    difference = check_same_logits(expected, logits)
    settings = {"eos_token_id": facts["ends"], "suppress_tokens": facts["never"] or None}
    ties = sum(
        is_near_tie(exported, prompt, theirs, difference, **settings)
        for prompt, theirs in zip(prompts, answer["continuations"], strict=True)
    )
    text = f", {ties} of {len(prompts)} continuations part at a near-tie" if ties else ""
    return f"run by Node: tokenizer, template and logits agree, largest difference {difference:.2e}{text}"


def _ask_node(folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    with as_file(files("scratchgpt.interop") / "web_page" / "check.mjs") as script:
        run = subprocess.run(
            ["node", os.fspath(script), os.fspath(folder.absolute())],
            input=json.dumps(job), capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE,
        )  # fmt: skip
    if run.returncode:
        said = " ".join(run.stderr.split())[-500:]
        raise ValueError(f"Node cannot run the page: … {said}")
    return json.loads(run.stdout)
