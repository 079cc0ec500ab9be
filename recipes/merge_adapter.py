"""Add an adapter into its base: a plain model directory, which needs neither peft nor the base.

    python recipes/merge_adapter.py --adapter runs/demo/chat/final --output_dir runs/demo/chat_merged
    python recipes/merge_adapter.py --adapter my_adapter --base my_base --output_dir merged   # the base was moved

The adapter of a language model becomes a language model, that of a classifier a classifier with its head and labels.
The base is found where it was when the adapter was trained, seen from the adapter, or at `--base`; another base, or
another tokenizer, is refused. An adapter that was trained on a base in four bits is merged into the base in full
precision, for which it was not trained exactly: a little is lost, as with any other use of it on that base.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchgpt.adapters import load_adapter, merge_adapter
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, write_arguments
from scratchgpt.data.chat import end_token_ids
from scratchgpt.hub.cards import write_card
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.names import local_copy
from scratchgpt.hub.staging import check_output
from scratchgpt.hub.training_texts import TrainingTexts


@dataclass
class MergeArguments(RecipeArguments):
    adapter: str = required("Directory of the adapter.")
    output_dir: str = required("Where the merged model goes.")
    base: str | None = option(None, "The base, where it is no longer at its old place.")
    overwrite: bool = option(False, "Replace an earlier model in output_dir.")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(MergeArguments, argv)
    check_output(arguments.output_dir, arguments.overwrite, marker="config.json")
    adapted, tokenizer = load_adapter(arguments.adapter, arguments.base)
    model: Any = merge_adapter(adapted)
    if model.can_generate() and tokenizer.chat_template is not None:
        model.generation_config.eos_token_id = end_token_ids(tokenizer)
    texts = TrainingTexts.read(local_copy(arguments.adapter))
    save_model(model, tokenizer, arguments.output_dir, arguments.overwrite, training_texts=texts)
    write_arguments(arguments, arguments.output_dir, published=True)
    write_card(Path(arguments.output_dir))
    print(f"{arguments.adapter} merged into {arguments.output_dir}, a {type(model).__name__}")


if __name__ == "__main__":
    run_recipe(main)
