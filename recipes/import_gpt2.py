"""Turn a GPT-2 into a scratchgpt model directory.

    python recipes/import_gpt2.py --model_name_or_path openai-community/gpt2 --output_dir runs/gpt2
    python recipes/import_gpt2.py --model_name_or_path 124M --output_dir runs/gpt2      # OpenAI's TensorFlow files
    python recipes/import_gpt2.py --model_name_or_path out/ckpt.pt --tokenizer gpt2 --output_dir runs/nano    # nanoGPT
    python recipes/import_gpt2.py --model_name_or_path model.pt --num_attention_heads 6 --tokenizer none …    # minGPT

Reads what `scratchgpt.interop.gpt2_files` lists. GPT-2's ids stay as they are; the tokenizer gets a real pad token and
the tokens of the chat template after them, and the model an embedding for each, the mean of all others. The directory
then goes on in every recipe by `--model_name_or_path` and `--tokenizer`. It is written only if the logits of a
sentence are those that transformers computes from the same checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from scratchgpt import ScratchGPTForCausalLM, ScratchGPTTokenizer
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, write_arguments
from scratchgpt.hub.model_directory import check_tokenizer, load_model
from scratchgpt.hub.staging import check_output, staged_directory
from scratchgpt.interop.checks import check_same_logits, logits_of, sample_ids
from scratchgpt.interop.gpt2 import from_gpt2, reference_model
from scratchgpt.interop.gpt2_files import GPT2Checkpoint, find_files, open_checkpoint
from scratchgpt.tokenization_scratchgpt import CHAT_TEMPLATE, END_OF_TURN, PAD, ROLES


@dataclass
class ImportArguments(RecipeArguments):
    model_name_or_path: str = required("GPT-2 to import: a name on the Hub, a folder or a file.")
    output_dir: str = required("Where the model directory goes.")
    tokenizer: str | None = option(
        None, "Folder or Hub name of its tokenizer; default: the one beside it. none: a model without tokenizer."
    )
    num_attention_heads: int | None = option(None, "For a state dict without configuration.", at_least=1)
    activation_function: str | None = option(None, "For a state dict: gelu (nanoGPT) or gelu_new (minGPT).")
    revision: str | None = option(None, "Branch, tag or commit on the Hub.")
    overwrite: bool = option(False, "Replace an earlier model in output_dir.")


def load_tokenizer(source: str, folder: Path, model_max_length: int) -> ScratchGPTTokenizer:
    """The tokenizer in `folder`, its ids unchanged, with a pad token of its own and the chat tokens after them.

    Raises:
        ValueError: where there is none.
    """
    for vocab, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if not (folder / "tokenizer.json").is_file() and (folder / vocab).is_file():
            return ScratchGPTTokenizer.from_gpt2(folder / vocab, folder / merges, model_max_length=model_max_length)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"{source} has no tokenizer (tokenizer.json, or encoder.json and vocab.bpe, or vocab.json and "
            "merges.txt): give --tokenizer, a folder or a name on the Hub, or --tokenizer none"
        )
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    end = theirs.eos_token or "<|endoftext|>"
    has_pad = theirs.pad_token is not None and theirs.pad_token != end
    return ScratchGPTTokenizer(
        tokenizer_object=theirs.backend_tokenizer,
        bos_token=theirs.bos_token or end,
        eos_token=end,
        pad_token=theirs.pad_token if has_pad else PAD,
        extra_special_tokens=[*ROLES, END_OF_TURN],
        chat_template=theirs.chat_template or CHAT_TEMPLATE,
        model_max_length=model_max_length,
    )


def build(checkpoint: GPT2Checkpoint, tokenizer: Any) -> ScratchGPTForCausalLM:
    """The imported model, with an embedding for every id of the tokenizer, and its special tokens."""
    model = from_gpt2(checkpoint, None if tokenizer is None else len(tokenizer))
    if tokenizer is not None:
        config, generation = model.config, model.generation_config
        config.pad_token_id = tokenizer.pad_token_id
        for name in ("bos_token_id", "eos_token_id"):
            if getattr(config, name) is None:
                setattr(config, name, getattr(tokenizer, name))
        generation.bos_token_id, generation.eos_token_id = config.bos_token_id, config.eos_token_id
        generation.pad_token_id = config.pad_token_id
        check_tokenizer(model, tokenizer)
    return model


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ImportArguments, argv)
    check_output(arguments.output_dir, arguments.overwrite, marker="config.json")
    checkpoint = open_checkpoint(
        arguments.model_name_or_path,
        arguments.num_attention_heads,
        arguments.activation_function,
        arguments.revision,
    )
    assert checkpoint.folder is not None
    tokenizer = None
    if arguments.tokenizer != "none":
        folder = checkpoint.folder if arguments.tokenizer is None else find_files(arguments.tokenizer)
        length = checkpoint.config.get("n_positions", 1024)
        tokenizer = load_tokenizer(arguments.tokenizer or arguments.model_name_or_path, folder, length)
    model = build(checkpoint, tokenizer)
    config = model.config
    with staged_directory(arguments.output_dir, arguments.overwrite, marker="config.json") as folder:
        model.save_pretrained(folder)
        write_arguments(arguments, folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        # One model in memory at a time, and what was written is what is compared.
        del model
        size = checkpoint.tensors["wte.weight"].shape[0]
        ids = sample_ids(tokenizer, size, config.max_position_embeddings)
        theirs = logits_of(reference_model(checkpoint), ids)
        ours = logits_of(load_model(ScratchGPTForCausalLM, folder, dtype=torch.float32), ids)
        difference = check_same_logits(ours, theirs)
    print(f"{arguments.model_name_or_path} → {arguments.output_dir}: logits of {ids.shape[1]} tokens agree, ", end="")
    print(f"largest difference {difference:.2e}; vocabulary {size} → {config.vocab_size}, {config.hidden_act}")


if __name__ == "__main__":
    run_recipe(main)
