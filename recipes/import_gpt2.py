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

from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, write_arguments
from scratchgpt.hub.cards import keep_card, write_card
from scratchgpt.hub.staging import check_output, staged_directory
from scratchgpt.interop.gpt2_files import find_files, open_checkpoint
from scratchgpt.interop.gpt2_import import load_tokenizer, write_import


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
    with staged_directory(arguments.output_dir, arguments.overwrite, marker="config.json") as folder:
        compared = write_import(checkpoint, tokenizer, folder)
        write_arguments(arguments, folder, published=True)
        keep_card(Path(arguments.output_dir), folder)
        write_card(folder)
    print(f"{arguments.model_name_or_path} → {arguments.output_dir}: {compared}")


if __name__ == "__main__":
    run_recipe(main)
