"""onnxruntime runs the exports: as transformers.js feeds them, token by token, in fp32 and in 8 bits."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from recipes import export_model
from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.push_checks import check_before_push, kind_of
from scratchgpt.interop.checks import continuation
from scratchgpt.interop.onnx import to_onnx_family
from scratchgpt.interop.onnx_checks import OnnxDecoder, check_onnx_file

onnx = pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxscript", reason="no onnxscript: torch.onnx.export needs it")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("modern", {"num_key_value_heads": 2, "head_dim": 16}),
    "gpt2": ("gpt2", {}),
    "llama": ("modern", {"qk_norm": False, "use_bias": True, "tie_word_embeddings": False}),
}


class Export(NamedTuple):
    model: ScratchGPTForCausalLM
    tokenizer: Any
    folder: Path
    said: str

    def decoder(self, name: str = "model.onnx") -> OnnxDecoder:
        return OnnxDecoder(self.folder / "onnx" / name, AutoConfig.from_pretrained(self.folder))


# torch's exporter takes a while for each.
@pytest.fixture(
    scope="module", params=["qwen3", *[pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "llama")]]
)
def exported(request, make_config, tokenizer, tmp_path_factory) -> Export:
    folder = tmp_path_factory.mktemp("onnx")
    preset, overrides = MODELS[request.param]
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(make_config(preset, **overrides)).eval()
    save_model(model, tokenizer, folder / "model")
    with pytest.MonkeyPatch.context() as patched:
        lines: list[str] = []
        patched.setattr("builtins.print", lambda *words, end="\n": lines.append(" ".join(map(str, words)) + end))
        export_model.main([f"--model_name_or_path={folder / 'model'}", f"--output_dir={folder / 'out'}", "--to=onnx"])
    return Export(model, tokenizer, folder / "out", "".join(lines))


def test_the_folder(exported: Export) -> None:
    assert "read by onnxruntime: logits of" in exported.said
    assert "8 bits change log-probabilities by up to" in exported.said
    files = {file.relative_to(exported.folder).as_posix() for file in exported.folder.rglob("*") if file.is_file()}
    assert files == {
        "README.md", "arguments.yaml", "config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "onnx/model.onnx", "onnx/model_quantized.onnx",
    }  # fmt: skip
    assert kind_of(exported.folder) == "export"
    check_before_push(exported.folder)
    # transformers.js looks for the template nowhere else
    told = json.loads((exported.folder / "tokenizer_config.json").read_text())
    assert told["chat_template"] == exported.tokenizer.chat_template
    text = "To be, or not to be: <|user|>gold<|end|>"
    assert AutoTokenizer.from_pretrained(exported.folder)(text) == exported.tokenizer(text)


def test_names_and_shapes_are_those_that_transformers_js_feeds(exported: Export) -> None:
    session, config = exported.decoder().session, exported.model.config
    cache = [f"{layer}.{kind}" for layer in range(config.num_hidden_layers) for kind in ("key", "value")]
    tokens = ["input_ids", "attention_mask", "position_ids"]
    assert [each.name for each in session.get_inputs()] == [*tokens, *(f"past_key_values.{each}" for each in cache)]
    assert [each.name for each in session.get_outputs()] == ["logits", *(f"present.{each}" for each in cache)]
    shapes = {each.name: each.shape for each in session.get_inputs()}
    # transformers.js 4 makes an empty cache by the names of its sizes.
    cached = ["batch_size", config.num_key_value_heads, "past_sequence_length", config.head_dim]
    assert all(shapes[f"past_key_values.{each}"] == cached for each in cache)
    assert [shapes[name] for name in tokens] == [
        ["batch_size", "sequence_length"], ["batch_size", "total_sequence_length"], ["batch_size", "sequence_length"],
    ]  # fmt: skip


def test_nothing_of_this_machine_is_in_the_graph(exported: Export) -> None:
    for file in (exported.folder / "onnx").iterdir():
        content = file.read_bytes()
        assert not [word for word in (b"site-packages", b"Traceback", b'File "', b".py") if word in content], file


@torch.no_grad()
def test_two_texts_with_padding_on_the_left(exported: Export) -> None:
    config, size = exported.model.config, exported.model.config.vocab_size
    ids = torch.arange(14).view(2, 7) * 37 % size
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = exported.model(input_ids=ids, attention_mask=mask).logits
    decoder = exported.decoder()
    empty = np.zeros((2, config.num_key_value_heads, 0, config.head_dim), dtype=np.float32)
    inputs = {name.name: empty for name in decoder.session.get_inputs()[3:]}
    inputs |= {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "position_ids": positions.numpy()}
    found = decoder.session.run(["logits"], inputs)[0]
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(found[0, 3:], expected[0, 3:], atol=1e-5, rtol=1e-5)


def test_64_tokens(exported: Export) -> None:
    """The likeliest each time, after three prompts: those of our own model."""
    decoder = exported.decoder()
    for prompt in ([5], [17, 3, 200], [*range(20, 50)]):
        expected = continuation(exported.model, prompt, 64)
        assert decoder.continuation(prompt, 64, [exported.tokenizer.eos_token_id]) == expected


NODE_MODULES = "SCRATCHGPT_NODE_MODULES"

WRITE = """
import { pathToFileURL } from "node:url";
const [modules, folder, job] = process.argv.slice(1);
const library = "/@huggingface/transformers/dist/transformers.node.mjs";
const { env, pipeline, Tensor } = await import(pathToFileURL(modules + library));
env.localModelPath = folder;
env.allowRemoteModels = false;
const { prompt, count, messages } = JSON.parse(job);
const { model, tokenizer } = await pipeline("text-generation", "out", { dtype: "fp32" });
const input_ids = new Tensor("int64", BigInt64Array.from(prompt, BigInt), [1, prompt.length]);
const attention_mask = new Tensor("int64", new BigInt64Array(prompt.length).fill(1n), [1, prompt.length]);
const written = await model.generate({ input_ids, attention_mask, max_new_tokens: count, do_sample: false });
const chat = tokenizer.apply_chat_template(messages, { tokenize: false, add_generation_prompt: true });
console.log(JSON.stringify({ written: Array.from(written.data, Number).slice(prompt.length), chat }));
"""


@pytest.mark.skipif(NODE_MODULES not in os.environ, reason=f"{NODE_MODULES} names no folder with transformers.js")
def test_transformers_js_writes_the_same(exported: Export) -> None:
    """Needs Node, and node_modules with @huggingface/transformers in it: `npm install` it anywhere, once, by hand."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " To be,\n\nor not? 🙂 <b>"}]
    job = {"prompt": [17, 3, 200], "count": 64, "messages": messages}
    command = ["node", "--input-type=module", "-e", WRITE, os.environ[NODE_MODULES]]
    run = subprocess.run(
        [*command, f"{exported.folder.parent}/", json.dumps(job)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["written"] == continuation(exported.model, job["prompt"], 64)
    template = exported.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert found["chat"] == template


def test_8_bits_cost_less_than_3_percent(exported: Export) -> None:
    """Perplexity of what the model itself writes, which is what it knows."""
    exact, rounded = exported.decoder(), exported.decoder("model_quantized.onnx")
    ids = torch.tensor([[5]] * 8)
    written = exported.model.generate(ids, do_sample=True, top_k=0, min_new_tokens=99, max_new_tokens=99)
    perplexities = [perplexity(decoder, written.tolist()) for decoder in (exact, rounded)]
    print(f"perplexity {perplexities[0]:.3f}, in 8 bits {perplexities[1]:.3f}")
    assert perplexities[0] < exported.model.config.vocab_size / 2
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.03)


def perplexity(decoder: OnnxDecoder, texts: list[list[int]]) -> float:
    losses = []
    for ids in texts:
        decoder.reset()
        log_probabilities = torch.from_numpy(decoder.logits(ids)).log_softmax(-1)
        losses += [-log_probabilities[i, each].item() for i, each in enumerate(ids[1:])]
    return math.exp(sum(losses) / len(losses))


def test_another_graph_is_noticed(exported: Export, tmp_path: Path) -> None:
    graph = onnx.load(exported.folder / "onnx" / "model.onnx")
    weight = max(graph.graph.initializer, key=lambda each: math.prod(each.dims))
    changed = onnx.numpy_helper.to_array(weight) * np.float32(1.001)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="The two models disagree"):
        check_onnx_file(tmp_path / "model.onnx", to_onnx_family(exported.model), exported.tokenizer)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_full_disk_leaves_nothing(make_config, tokenizer, tmp_path: Path) -> None:
    """The largest size that the kernel lets a file have stands in for it."""
    import resource

    save_model(ScratchGPTForCausalLM(make_config("modern")), tokenizer, tmp_path / "model")
    command = [f"--model_name_or_path={tmp_path / 'model'}", f"--output_dir={tmp_path / 'out'}", "--to=onnx"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"model\.onnx could not be written: is the disk full\?"):
            export_model.main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
