"""Turn a base model into one that answers: tune all of it, a LoRA adapter, or an adapter on a base in four bits.

    python recipes/finetune_instruct.py recipes/configs/finetune_instruct/demo.yaml
    python recipes/finetune_instruct.py --model_name_or_path runs/base/final --data data/dolly --output_dir runs/dolly
    python recipes/finetune_instruct.py my.yaml --tuning full --learning_rate 5e-5
    python recipes/finetune_instruct.py my.yaml --tuning qlora                   # needs bitsandbytes; on the CPU too
    python recipes/finetune_instruct.py my.yaml --resume_from_checkpoint true    # after an interruption

`--data` holds conversations, {"messages"} or the columns of Alpaca, Dolly or ShareGPT, in the splits train and
validation (the builders in data_builders/ make them); or give files, `--data` and `--eval_data`. What cannot be
learned from (no answer, an answer that does not fit whole into the context, …) is left out and counted.

The loss is that of the assistant's tokens, the one that ends an answer included; so is the validation loss, which
decides what the best checkpoint is. The output directory is that of pretraining; `final/` holds the best model, or
the best adapter; `untuned.json` has the validation loss before, and `responses.jsonl` what base and tuned model answer
to questions of the validation split, with their scores in `responses.json`. To talk with it:

    python recipes/chat.py --model <output_dir>/final
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import set_seed
from transformers import AutoTokenizer

from scratchgpt.adapters import AdapterArguments, add_adapter, describe_parameters, load_adapter, load_base
from scratchgpt.arguments import option, parse_arguments, required, run_recipe
from scratchgpt.data.chat import Message, end_token_ids, render_chats
from scratchgpt.data.chat_rows import ChatRows
from scratchgpt.data.chat_sources import describe, read_chats
from scratchgpt.evaluation.response_comparison import compare_responses
from scratchgpt.hub.cards import write_card
from scratchgpt.tokenization_scratchgpt import END_OF_TURN, ROLES
from scratchgpt.training.arguments import MAX_LEARNING_RATE, LanguageModelArguments
from scratchgpt.training.bases import chat_base, check_adapter, context_of, has_fused_loss, own_base
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.tasks.instruction import InstructionTuning


@dataclass
class InstructArguments(AdapterArguments, LanguageModelArguments):
    HELP_GROUPS = {
        "model_name_or_path": "Model", "data": "Data", "train_role_tokens": "Tuning", "context_length": "Data",
        "num_responses": "Evaluation",
    }  # fmt: skip

    model_name_or_path: str = required("The base: directory or Hub name of a causal language model.")
    data: str = required("Conversations: Hub name, folder or file.")
    eval_data: str | None = option(None, "Conversations to validate on, where data has no validation split.")
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    max_conversations: int | None = option(None, "Train on this many only, the first ones.", at_least=1)
    chat_template: Literal["role_tokens", "plain"] = option(
        "role_tokens", "plain: Alpaca's headings in text, for a base that is not to get tokens for the roles."
    )
    train_role_tokens: bool = option(True, "Adapters train the embeddings of the role tokens too; better, for memory.")
    context_length: int | None = option(None, "Tokens in a row; default: the model's context.", at_least=1)
    packing: bool = option(True, "Several conversations share a row, without attention across them.")
    train_on_prompt: bool = option(False, "Learn what system and user say too (for comparison).")
    num_responses: int = option(
        0, "Questions of the validation split that base and tuned model answer at the end.", at_least=0
    )
    response_tokens: int = option(128, "Tokens in an answer, at most.", at_least=1)

    learning_rate: float = option(2e-4, "Peak learning rate of AdamW.", above=0, at_most=MAX_LEARNING_RATE)
    weight_decay: float = option(0.0, "Decoupled weight decay of the matrices.", at_least=0, at_most=10)
    eval_on_start: bool = option(True, "Evaluate the base first; the result goes to untuned.json.")
    load_best_at_end: bool = option(True, "final/ has the best checkpoint's weights instead of the last step's.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_data is None and Path(self.data).is_file():
            raise ValueError("a file has no validation split: give --eval_data, or split it (data_builders/alpaca.py)")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(InstructArguments, argv)
    accelerator, output_dir = build_accelerator(arguments), Path(arguments.output_dir)
    seed, four_bit = arguments.seed, arguments.tuning == "qlora"

    def read(source: str, split: str) -> list[list[Message]]:
        conversations, left_out = read_chats(source, split)
        if left_out:
            accelerator.print(f"{source}, {split}: left out {describe(left_out)}")
        return conversations

    start = own_base(arguments.model_name_or_path, arguments.output_dir, accelerator, foreign=True)
    context_length = context_of(start, arguments.context_length)
    with_roles = arguments.chat_template == "role_tokens" and arguments.train_role_tokens
    if arguments.tuning != "full":  # what is wrong with it is said before the work
        check_adapter(start, arguments, with_roles)
    training = read(arguments.data, arguments.train_split)[: arguments.max_conversations]
    validation = read(arguments.eval_data or arguments.data, arguments.eval_split)
    base, tokenizer = chat_base(start, arguments.chat_template, arguments.output_dir, seed, accelerator)
    ids_of: Any = tokenizer  # annotated for all that it can return
    model = load_base(base, four_bit=four_bit)
    model.generation_config.eos_token_id = end_token_ids(tokenizer)

    def rows(conversations: Sequence[Sequence[Message]], train_on_prompt: bool = False) -> ChatRows:
        chats = render_chats(conversations, tokenizer)
        return ChatRows(chats, context_length, ids_of.pad_token_id, arguments.packing, train_on_prompt)

    train_rows, eval_rows = rows(training, arguments.train_on_prompt), rows(validation)
    accelerator.print(f"training: {train_rows}\nvalidation: {eval_rows}")

    set_seed(seed)
    if arguments.tuning != "full":
        with_roles = with_roles and END_OF_TURN in ids_of.get_vocab()
        roles = ids_of.convert_tokens_to_ids([*ROLES, END_OF_TURN]) if with_roles else []
        model = add_adapter(model, arguments, roles)
    accelerator.print(describe_parameters(model))
    fused_loss = has_fused_loss(model, arguments.packing)
    task = InstructionTuning(train_rows, eval_rows, tokenizer, arguments, fused_loss)
    if not train(task, model, tokenizer, arguments, accelerator, train_rows.fingerprint()):
        sys.exit(EXIT_INTERRUPTED)

    if accelerator.is_main_process and arguments.num_responses:
        final = output_dir / "final"
        if arguments.tuning == "full":
            tuned, tokenizer = load_base(final), AutoTokenizer.from_pretrained(final)
        else:
            tuned, tokenizer = load_adapter(final, base, four_bit=four_bit)
        models = {"base": load_base(base, four_bit=four_bit), "tuned": tuned}
        count, tokens = arguments.num_responses, arguments.response_tokens
        compare_responses(models, tokenizer, validation, count, tokens, output_dir)
        write_card(final)  # with the answers


if __name__ == "__main__":
    run_recipe(main)
