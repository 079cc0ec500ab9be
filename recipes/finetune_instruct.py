"""Turn a base model into one that answers: tune all of it, a LoRA adapter, or an adapter on a base in four bits.

    python recipes/finetune_instruct.py recipes/configs/finetune_instruct/demo.yaml
    python recipes/finetune_instruct.py --model_name_or_path runs/base/final --data data/dolly --output_dir runs/dolly
    python recipes/finetune_instruct.py my.yaml --tuning full --learning_rate 5e-5
    python recipes/finetune_instruct.py my.yaml --tuning qlora                   # needs bitsandbytes; on the CPU too
    python recipes/finetune_instruct.py my.yaml --resume_from_checkpoint true    # go on after an interruption

`--data` holds conversations, {"messages"} or the columns of Alpaca, Dolly or ShareGPT, in the splits train and
validation (the builders in data_builders/ make them); or give files, `--data` and `--eval_data`. What cannot be
learned from (no answer, an answer that does not fit whole into the context, …) is left out and counted.

The loss is that of the assistant's tokens, the one that ends an answer included; so is the validation loss, which
decides what the best checkpoint is. The output directory is that of pretraining; `final/` holds the best model, or
the best adapter; `untuned.json` has the validation loss before, and `responses.jsonl` what base and tuned model answer
to questions of the validation split, with the figures in `responses.json`. To talk with it:

    python recipes/chat.py --model <output_dir>/final
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from scratchgpt.adapters import (
    AdapterArguments,
    add_adapter,
    describe_parameters,
    load_adapter,
    load_base,
)
from scratchgpt.arguments import option, parse_arguments
from scratchgpt.data.chat import PLAIN_TEMPLATE, Message, render_chat, render_chats, stop_token_id
from scratchgpt.data.chat_rows import ChatRows
from scratchgpt.data.chat_sources import describe, read_chats
from scratchgpt.evaluation.responses import (
    generate_responses,
    last_questions,
    score_responses,
    write_responses,
)
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenization_scratchgpt import CHAT_TEMPLATE, END_OF_TURN, PAD, ROLES
from scratchgpt.training.arguments import TrainingArguments
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.tasks.instruction import InstructionTuning


@dataclass
class InstructArguments(AdapterArguments, TrainingArguments):
    model_name_or_path: str = option("", "The base: directory or Hub name of a scratchgpt model.")
    data: str = option("", "Conversations: Hub name, folder or file.")
    eval_data: str | None = option(None, "Conversations to validate on, where data has no validation split.")
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    max_conversations: int | None = option(None, "Train on so many only, the first ones.")
    chat_template: Literal["role_tokens", "plain"] = option(
        "role_tokens", "plain: Alpaca's headings in text, for a base that is not to get tokens for the roles."
    )
    context_length: int | None = option(None, "Tokens in a row; default: the model's context.")
    packing: bool = option(True, "Several conversations share a row, without attention across them.")
    train_on_prompt: bool = option(False, "Learn what system and user say too (for comparison).")
    num_responses: int = option(0, "Questions of the validation split that base and tuned model answer at the end.")
    response_tokens: int = option(128, "Tokens in an answer, at most.")

    learning_rate: float = option(2e-4, "Peak learning rate of AdamW.")
    weight_decay: float = option(0.0, "Decoupled weight decay of the matrices.")
    load_best_at_end: bool = option(True, "final/ has the best checkpoint's weights instead of the last step's.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("model_name_or_path", "data"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing: {self.__dataclass_fields__[name].metadata['help']}")


def prepare_base(arguments: InstructArguments, accelerator: Accelerator) -> tuple[str, PreTrainedTokenizerBase]:
    """The directory of the base and its tokenizer with the wanted chat template.

    A base without role tokens gets them, unless the plain template is asked for: a copy with rows for them in its
    embedding is written to `output_dir/base`, so that an adapter has a base on the disk to belong to.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model_name_or_path)
    except OSError as error:
        name = arguments.model_name_or_path
        raise ValueError(f"{name} is no model directory here, and cannot be had from the Hub: {error}") from error
    if arguments.chat_template == "plain":
        tokenizer.chat_template = PLAIN_TEMPLATE
        return arguments.model_name_or_path, tokenizer
    wanted = [*ROLES, END_OF_TURN] + ([PAD] if tokenizer.pad_token is None else [])
    missing = [token for token in wanted if token not in tokenizer.get_vocab()]
    if missing:
        directory = Path(arguments.output_dir) / "base"
        with accelerator.main_process_first():
            if not (directory / "config.json").is_file():
                extend(arguments.model_name_or_path, tokenizer, missing, directory, arguments.seed)
        return str(directory), AutoTokenizer.from_pretrained(directory)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    return arguments.model_name_or_path, tokenizer


def extend(base: str, tokenizer: Any, missing: list[str], directory: Path, seed: int) -> None:
    """Writes a copy of `base` with the special tokens `missing`.

    Their rows in the embedding begin at the mean of all others, so that at first they mean no more than an average
    token and are as likely as one (Hewitt 2021), with a little noise to tell them apart.
    """
    model = load_base(base)
    tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = PAD
    tokenizer.chat_template = CHAT_TEMPLATE
    model.config.pad_token_id = tokenizer.pad_token_id
    new_ids = tokenizer.convert_tokens_to_ids(missing)
    old_size = min(new_ids)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    set_seed(seed)
    tables = {id(table.weight): table for table in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for table in tables.values():
            known = table.weight[:old_size]
            table.weight[new_ids] = known.mean(0) + 0.1 * known.std(0) * torch.randn(len(new_ids), known.shape[1])
    save_model(model, tokenizer, directory)


def rows_of(
    arguments: InstructArguments, tokenizer: Any, context_length: int, accelerator: Accelerator
) -> tuple[ChatRows, ChatRows, list[list[Message]]]:
    """Rows to train and to validate on, and the conversations of the latter."""

    def read(source: str, split: str) -> list[list[Message]]:
        conversations, left_out = read_chats(source, split)
        if left_out:
            accelerator.print(f"{source}, {split}: left out {describe(left_out)}")
        return conversations

    def rows(conversations: Sequence[Sequence[Message]], train_on_prompt: bool = False) -> ChatRows:
        chats = render_chats(conversations, tokenizer)
        return ChatRows(chats, context_length, tokenizer.pad_token_id, arguments.packing, train_on_prompt)

    if arguments.eval_data is None and Path(arguments.data).is_file():
        raise ValueError("a file has no validation split: give --eval_data, or split it (data_builders/alpaca.py)")
    training = read(arguments.data, arguments.train_split)[: arguments.max_conversations]
    validation = read(arguments.eval_data or arguments.data, arguments.eval_split)
    return rows(training, arguments.train_on_prompt), rows(validation), validation


def compare_responses(arguments: InstructArguments, base: str, conversations: list[list[Message]]) -> None:
    """What the untuned base and final/ answer to the same questions: responses.jsonl, responses.json, and a table."""
    output = Path(arguments.output_dir)
    four_bit = arguments.tuning == "qlora"
    if arguments.tuning == "full":
        tuned, tokenizer = load_base(output / "final"), AutoTokenizer.from_pretrained(output / "final")
    else:
        tuned, tokenizer = load_adapter(output / "final", base, four_bit=four_bit)
    context = tuned.config.max_position_embeddings
    longest = context - min(arguments.response_tokens, context // 2)  # of a prompt: there must be room for an answer
    questions = [
        question
        for question in last_questions(conversations[:: max(1, len(conversations) // (2 * arguments.num_responses))])
        if len(render_chat(question.messages, tokenizer, add_generation_prompt=True).input_ids) <= longest
    ][: arguments.num_responses]
    if not questions:
        print(f"no responses: no question of the validation split is at most {longest} tokens long")
        return
    answers, scores = {}, {}
    for name, model in (("base", load_base(base, four_bit=four_bit)), ("tuned", tuned)):
        answers[name] = generate_responses(
            model, tokenizer, [question.messages for question in questions], arguments.response_tokens
        )
        scores[name] = score_responses(answers[name], [question.reference for question in questions])
        low, high = scores[name].exact_stop_interval
        print(
            f"{name}: ROUGE-L {scores[name].rouge_l:.3f}, {scores[name].exact_stop_rate:.1%} of "
            f"{scores[name].num_responses} answers end by the stop token (95 %: {low:.1%} to {high:.1%}), "
            f"{scores[name].mean_tokens:.0f} tokens"
        )
    write_responses(output / "responses.jsonl", questions, answers)
    results = {name: score.as_dict() for name, score in scores.items()}
    (output / "responses.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(InstructArguments, argv)
    if arguments.dry_run:
        print(json.dumps(asdict(arguments), indent=2, ensure_ascii=False))
        return
    accelerator = build_accelerator(arguments)
    base, tokenizer = prepare_base(arguments, accelerator)
    ids_of: Any = tokenizer  # annotated for all that it can return
    model = load_base(base, four_bit=arguments.tuning == "qlora")
    stop = stop_token_id(tokenizer)
    model.generation_config.eos_token_id = sorted({stop, ids_of.eos_token_id})  # for pipelines and servers
    longest = model.config.max_position_embeddings
    context_length = arguments.context_length or longest
    if context_length > longest:
        raise ValueError(f"context_length={context_length} is beyond the model's context of {longest} tokens")
    train_rows, eval_rows, conversations = rows_of(arguments, tokenizer, context_length, accelerator)
    accelerator.print(f"training: {train_rows}\nvalidation: {eval_rows}")

    set_seed(arguments.seed)
    if arguments.tuning != "full":
        roles = ids_of.convert_tokens_to_ids([*ROLES, END_OF_TURN])
        model = add_adapter(model, arguments, roles if arguments.chat_template == "role_tokens" else [])
    accelerator.print(describe_parameters(model))
    task = InstructionTuning(train_rows, eval_rows, tokenizer, arguments)
    before = task.evaluate(model.to(accelerator.device), accelerator)
    accelerator.print(f"before: {before.summary()}")
    if not train(task, model, tokenizer, arguments, accelerator, train_rows.fingerprint()):
        sys.exit(EXIT_INTERRUPTED)
    if accelerator.is_main_process:
        untuned = json.dumps(before.as_dict(), indent=2)
        (Path(arguments.output_dir) / "untuned.json").write_text(untuned + "\n", encoding="utf-8")
        if arguments.num_responses:
            compare_responses(arguments, base, conversations)


if __name__ == "__main__":
    main()
