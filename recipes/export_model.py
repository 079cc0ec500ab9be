"""Turn a scratchgpt model into one that other engines know: plain transformers, vLLM, llama.cpp, onnxruntime.

    python recipes/export_model.py --model_name_or_path runs/base/final --to qwen3 --output_dir runs/base/qwen3
    python recipes/export_model.py --model_name_or_path runs/gpt2 --to gpt2 --output_dir runs/gpt2_out
    python recipes/export_model.py --model_name_or_path runs/base/final --to gguf --quantization q8_0 --output_dir gguf
    python recipes/export_model.py --model_name_or_path runs/base/final --weight_bits 4 --output_dir runs/base/four
    python recipes/export_model.py --model_name_or_path runs/base/final --to onnx --output_dir runs/onnx
    python recipes/export_model.py --model_name_or_path runs/chat/final --to web --output_dir runs/page

`qwen3` is for the `modern` presets, `llama` for them without QK-norm, `gpt2` for the `gpt2` presets. A model that the
target cannot express is refused, with the fields that stand in the way. Tokenizer and chat template go along, in the
plain form. A model that was imported from GPT-2, and nothing more, becomes what it was, without the tokens that the
import added. The directory is written only if the logits of a sentence are those of the original.

`gguf` is one file for llama.cpp, Ollama and LM Studio: whichever of the three the model is, with its tokenizer, and a
`Modelfile` for Ollama beside it. The file is read again before it is there: by llama.cpp, where the environment
variable SCRATCHGPT_LLAMA_CPP names the folder with its programs (build/bin), else by transformers. Needs the extra
[gguf]: pip install "scratchgpt[gguf]"

`--weight_bits` rounds the linear layers, and the directory stays so: `from_pretrained` reads it as any other, wherever
bitsandbytes is installed. What that costs in bits per byte is measured on `--text`, else on a text that the model
writes. Needs the extra [quant]: pip install "scratchgpt[quant]"

`onnx` is a folder for onnxruntime and transformers.js: the graph of a decoding step with a key-value cache in fp32
(onnx/model.onnx) and in 8 bits (onnx/model_quantized.onnx), tokenizer and configurations. onnxruntime runs both before
the folder is there. Needs the extra [onnx]: pip install "scratchgpt[onnx]"
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, write_arguments
from scratchgpt.evaluation.rounding import rounding_cost
from scratchgpt.evaluation.text import Text
from scratchgpt.hub.card_facts import ROUNDING, Facts, card_data, weights_size
from scratchgpt.hub.cards import CARD, keep_card, write_card
from scratchgpt.hub.model_directory import check_tokenizer, count_parameters, load_model
from scratchgpt.hub.names import hub_name, local_copy
from scratchgpt.hub.seals import seal
from scratchgpt.hub.staging import check_output, staged_directory
from scratchgpt.interop import to_gpt2, to_llama, to_qwen3
from scratchgpt.interop.checks import check_same_logits, logits_of, sample_ids
from scratchgpt.interop.export_cards import Source, export_card, page_card
from scratchgpt.interop.exported_files import complete_config, first_tokens
from scratchgpt.interop.gguf import QUANTIZATIONS, check_gguf, to_llama_cpp, write_gguf
from scratchgpt.interop.gguf_checks import check_gguf_file
from scratchgpt.interop.ollama import modelfile
from scratchgpt.interop.onnx import check_onnx, quantize_onnx, to_onnx_family, write_onnx
from scratchgpt.interop.onnx_checks import change_by_rounding, check_onnx_file, check_saved_tokenizer
from scratchgpt.interop.quantized import check_quantized, write_quantized
from scratchgpt.interop.web import check_node, check_page, copy_page, fetch_runtime, page_facts
from scratchgpt.training.bases import base_config

TARGETS = {
    "scratchgpt": lambda model: model,
    "gpt2": to_gpt2,
    "qwen3": to_qwen3,
    "llama": to_llama,
    "gguf": to_llama_cpp,
    "onnx": to_onnx_family,
    "web": to_onnx_family,
}


@dataclass
class ExportArguments(RecipeArguments):
    model_name_or_path: str = required("Model directory to export.")
    output_dir: str = required("Where the exported directory goes.")
    to: Literal["scratchgpt", "gpt2", "qwen3", "llama", "gguf", "onnx", "web"] | None = option(
        None, "Architecture or format to export to. Default: qwen3; with --weight_bits scratchgpt, which it is."
    )
    quantization: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "int8"] | None = option(
        None, "Type of the weights. gguf: all but int8, by default f16. web: f32 (the default) or int8."
    )
    weight_bits: Literal[8, 4] | None = option(None, "Linear layers rounded to so many bits, and kept so. Not gguf.")
    text: str | None = option(None, "Text on which the cost of --weight_bits is measured; default: the model's own.")
    split: str = option("validation", "Its split, where it is a data set.")
    overwrite: bool = option(False, "Replace an earlier export in output_dir.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_bits is not None and self.to in WRITERS:
            instead = {"gguf": "--quantization q8_0 or q4_0", "onnx": "nothing, since the folder has 8 bits too"}
            raise ValueError(
                f"--weight_bits {self.weight_bits} is not for --to {self.to}: "
                f"give {instead.get(self.to, '--quantization int8')}"
            )
        if self.to is None:
            self.to = "scratchgpt" if self.weight_bits else "qwen3"
        kinds = {"gguf": {*QUANTIZATIONS}, "web": {"f32", "int8"}}
        if self.quantization is not None and self.quantization not in kinds.get(self.target, ()):
            target = next(target for target, names in kinds.items() if self.quantization in names)
            raise ValueError(f"--quantization {self.quantization} is for --to {target}: leave it out")
        if self.to == "scratchgpt" and self.weight_bits is None:
            raise ValueError("--to scratchgpt is what the model is: give --weight_bits 8 or 4, or another target")
        if self.text is not None and self.weight_bits is None:
            raise ValueError(f"--text {self.text} measures what --weight_bits costs: give that too, or leave both out")

    @property
    def target(self) -> str:
        assert self.to is not None  # __post_init__ has chosen
        return self.to

    @property
    def marker(self) -> str:
        """A file that an earlier export of this kind holds."""
        return {"gguf": "Modelfile", "onnx": "onnx/model.onnx", "web": "model/page.json"}.get(
            self.target, "config.json"
        )


def load_ours(source: str) -> ScratchGPTForCausalLM:
    """The model, in the precision in which it was saved.

    Raises:
        ValueError: for another architecture, and as `load_model`.
    """
    if (kind := base_config(source).model_type) != "scratchgpt":
        raise ValueError(f"{source} is a {kind} model, not a scratchgpt one: there is nothing to export")
    model = load_model(ScratchGPTForCausalLM, source).eval()
    if "quantization_config" in model.config.to_dict():
        raise ValueError(f"{source} is rounded to few bits already: export what it was made from")
    return model


def write_model(arguments: ExportArguments, folder: Path, model: Any, exported: Any, tokenizer: Any) -> str:
    """The directory of a transformers model; returns what the comparison found."""
    size = exported.config.vocab_size
    exported.save_pretrained(folder)
    complete_config(folder / "config.json")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder, plain=True)
    ids = sample_ids(tokenizer, size, model.config.max_position_embeddings)
    theirs = logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ids)
    keep_card(Path(arguments.output_dir), folder)
    write_card(folder)
    difference = check_same_logits(logits_of(model.float(), ids), theirs)
    return f"logits of {ids.shape[1]} tokens agree, largest difference {difference:.2e}"


def write_quantized_model(
    arguments: ExportArguments, folder: Path, model: Any, exported: Any, tokenizer: Any, text: Text | None
) -> str:
    """The directory of a model in few bits; returns its size, and what the rounding costs."""
    assert arguments.weight_bits is not None
    ids = sample_ids(tokenizer, exported.config.vocab_size, model.config.max_position_embeddings)
    check_same_logits(logits_of(model.float(), ids), logits_of(exported.float(), ids))
    rounded = write_quantized(exported, folder, arguments.weight_bits, ids)
    complete_config(folder / "config.json")
    tokenizer.save_pretrained(folder, plain=arguments.to != "scratchgpt")
    cost = rounding_cost(exported, rounded, tokenizer, text)
    (folder / ROUNDING).write_text(json.dumps(cost.as_dict(), indent=2) + "\n", encoding="utf-8")
    keep_card(Path(arguments.output_dir), folder)
    write_card(folder)
    seal(folder)
    share = weights_size(folder)[2] / (4 * count_parameters(exported))
    return f"{cost}; {weights_size(folder)[2]:,} bytes, {share:.1%} of fp32"


def known_of(arguments: ExportArguments) -> Source:
    source = Path(local_copy(arguments.model_name_or_path))
    facts, card = Facts(source), card_data(source / CARD)
    on_hub = facts.base_on_hub or (
        named.partition("@")[0] if (named := hub_name(str(source))) != str(source) else None
    )
    is_chat = facts.kind == "chat model" or "chat-model" in card.get("tags", [])
    return Source(facts.title, card.get("license"), on_hub, is_chat)


def add_card(folder: Path, arguments: ExportArguments, text: str) -> None:
    """README.md; of an earlier export a user's own stays."""
    keep_card(Path(arguments.output_dir), folder)
    if not (folder / CARD).is_file():
        (folder / CARD).write_text(text, encoding="utf-8")


def write_gguf_files(arguments: ExportArguments, folder: Path, model: Any, exported: Any, tokenizer: Any) -> str:
    """The GGUF file and its Modelfile; returns what the comparison found, and what the rounding changed."""
    source, quantization = known_of(arguments), arguments.quantization or "f16"
    file = folder / f"model-{quantization}.gguf"
    kept = write_gguf(
        exported, tokenizer, file, quantization, name=source.title, license=source.license,
        source=f"https://huggingface.co/{source.on_hub}" if source.on_hub else None,
    )  # fmt: skip
    found = check_gguf_file(file, exported, tokenizer)
    context = exported.config.max_position_embeddings
    text = modelfile(file.name, tokenizer, exported.generation_config, context, source.is_chat)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    sizes = {file.name: file.stat().st_size}
    add_card(folder, arguments, export_card("gguf", source, count_parameters(exported), sizes))
    ids = sample_ids(tokenizer, exported.config.vocab_size, context)
    ours, theirs = (logits_of(each.float(), ids)[..., : exported.config.vocab_size] for each in (model, exported))
    change = (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max().item()
    text = f"{found}; {quantization} changes log-probabilities by up to {change:.2e}; {file.stat().st_size:,} bytes"
    return text + (f"; {kept} matrices stay f16, since their rows are no multiple of 32" if kept else "")


def write_onnx_files(arguments: ExportArguments, folder: Path, model: Any, exported: Any, tokenizer: Any) -> str:
    """The graphs, the tokenizer and the configurations; returns what the comparison found, and what rounding costs."""
    file, quantized = folder / "onnx" / "model.onnx", folder / "onnx" / "model_quantized.onnx"
    file.parent.mkdir()
    write_onnx(exported, file)
    quantize_onnx(file, quantized)
    exported.config.save_pretrained(folder)
    complete_config(folder / "config.json")
    exported.generation_config.save_pretrained(folder)
    # With the chat template in tokenizer_config.json, the one place where transformers.js looks for it.
    tokenizer.save_pretrained(folder, plain=True, save_jinja_files=False)
    check_saved_tokenizer(folder, tokenizer)
    found, change = check_onnx_file(file, exported, tokenizer), change_by_rounding(quantized, exported, tokenizer)
    sizes = {each.relative_to(folder).as_posix(): each.stat().st_size for each in (file, quantized)}
    add_card(folder, arguments, export_card("onnx", known_of(arguments), count_parameters(exported), sizes))
    in_bytes = " and ".join(f"{size:,}" for size in sizes.values())
    return f"{found}; 8 bits change log-probabilities by up to {change:.2e}; {in_bytes} bytes"


def write_page(arguments: ExportArguments, folder: Path, model: Any, exported: Any, tokenizer: Any) -> str:
    """The folder of a page; returns what the comparison found."""
    source, is_exact = known_of(arguments), arguments.quantization != "int8"
    facts = page_facts(exported, tokenizer, source.title, source.is_chat and tokenizer.chat_template is not None)
    fetch_runtime(folder / "runtime")
    copy_page(folder)
    kept, file = folder / "model", folder / "model" / "model.onnx"
    kept.mkdir()
    write_onnx(exported, file, with_attention=True)
    if not is_exact:
        quantize_onnx(file, file)
    tokenizer.save_pretrained(kept, plain=True)
    (kept / "page.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    add_card(folder, arguments, page_card(facts, source.license, source.on_hub))
    found = check_page(folder, exported, tokenizer, facts, is_exact)
    rest = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) - file.stat().st_size
    return f"{found}; {file.stat().st_size:,} bytes, and {rest:,} beside them"


WRITERS = {"gguf": write_gguf_files, "onnx": write_onnx_files, "web": write_page}
CHECKS = {"gguf": [check_gguf], "onnx": [check_onnx], "web": [check_onnx, check_node]}
"""Whether what a target needs is installed."""


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ExportArguments, argv)
    check_output(arguments.output_dir, arguments.overwrite, arguments.marker)
    for check in [check_quantized] if arguments.weight_bits is not None else CHECKS.get(arguments.target, []):
        check()
    text = Text(arguments.text, arguments.split) if arguments.text is not None else None
    source = local_copy(arguments.model_name_or_path)
    model = load_ours(source)
    exported = TARGETS[arguments.target](model)
    tokenizer, size = None, exported.config.vocab_size
    if (Path(source) / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(source)
        check_tokenizer(model, tokenizer)
        tokenizer = first_tokens(tokenizer, size)
    elif arguments.to in WRITERS:
        raise ValueError(f"{source} has no tokenizer.json, which goes along to {arguments.to}: copy it there")
    elif arguments.weight_bits is not None:
        raise ValueError(f"{source} has no tokenizer.json, without which no bits per byte are measured: copy it there")
    with staged_directory(arguments.output_dir, arguments.overwrite, arguments.marker) as folder:
        write_arguments(arguments, folder, published=True)
        if arguments.weight_bits is not None:
            found = write_quantized_model(arguments, folder, model, exported, tokenizer, text)
        else:
            write = WRITERS.get(arguments.target, write_model)
            found = write(arguments, folder, model, exported, tokenizer)
    print(f"{arguments.model_name_or_path} → {arguments.output_dir} ({arguments.to}): {found}; ", end="")
    print(f"vocabulary {model.config.vocab_size} → {size}")


if __name__ == "__main__":
    run_recipe(main)
