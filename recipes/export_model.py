"""Turn a scratchgpt model into one that every engine knows: transformers without this package, llama.cpp, vLLM, ONNX.

    python recipes/export_model.py --model_name_or_path runs/base/final --to qwen3 --output_dir runs/base/qwen3
    python recipes/export_model.py --model_name_or_path runs/gpt2 --to gpt2 --output_dir runs/gpt2_out

`qwen3` is for the `modern` presets, `llama` for them without QK-norm, `gpt2` for the `gpt2` presets. A model that the
target cannot express is refused, with the fields that stand in the way. Tokenizer and chat template go along, in the
plain form. A model that was imported from GPT-2, and nothing more, becomes what it was, without the tokens that the
import added. The directory is written only if the logits of a sentence are those of the original.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scratchgpt import ScratchGPTForCausalLM
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, write_arguments
from scratchgpt.hub.cards import keep_card, write_card
from scratchgpt.hub.model_directory import check_tokenizer, load_model
from scratchgpt.hub.names import local_copy
from scratchgpt.hub.staging import check_output, staged_directory
from scratchgpt.interop import to_gpt2, to_llama, to_qwen3
from scratchgpt.interop.checks import check_same_logits, logits_of, sample_ids
from scratchgpt.interop.exported_files import complete_config, first_tokens
from scratchgpt.training.bases import base_config

TARGETS = {"gpt2": to_gpt2, "qwen3": to_qwen3, "llama": to_llama}


@dataclass
class ExportArguments(RecipeArguments):
    model_name_or_path: str = required("Model directory to export.")
    output_dir: str = required("Where the exported directory goes.")
    to: Literal["gpt2", "qwen3", "llama"] = option("qwen3", "Architecture to export to.")
    overwrite: bool = option(False, "Replace an earlier export in output_dir.")


def load_ours(source: str) -> ScratchGPTForCausalLM:
    """The model, in the precision in which it was saved.

    Raises:
        ValueError: for another architecture, and as `load_model`.
    """
    if (kind := base_config(source).model_type) != "scratchgpt":
        raise ValueError(f"{source} is a {kind} model, not a scratchgpt one: there is nothing to export")
    return load_model(ScratchGPTForCausalLM, source).eval()


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ExportArguments, argv)
    check_output(arguments.output_dir, arguments.overwrite, marker="config.json")
    source = local_copy(arguments.model_name_or_path)
    model = load_ours(source)
    exported = TARGETS[arguments.to](model)
    size = exported.config.vocab_size
    tokenizer = None
    if (Path(source) / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(source)
        check_tokenizer(model, tokenizer)
        tokenizer = first_tokens(tokenizer, size)
    with staged_directory(arguments.output_dir, arguments.overwrite, marker="config.json") as folder:
        exported.save_pretrained(folder)
        complete_config(folder / "config.json")
        write_arguments(arguments, folder, published=True)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder, plain=True)
        del exported
        ids = sample_ids(tokenizer, size, model.config.max_position_embeddings)
        theirs = logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ids)
        keep_card(Path(arguments.output_dir), folder)
        write_card(folder)
        difference = check_same_logits(logits_of(model.float(), ids), theirs)
    print(f"{arguments.model_name_or_path} → {arguments.output_dir} ({arguments.to}): ", end="")
    print(f"logits of {ids.shape[1]} tokens agree, largest difference {difference:.2e}; ", end="")
    print(f"vocabulary {model.config.vocab_size} → {size}")


if __name__ == "__main__":
    run_recipe(main)
