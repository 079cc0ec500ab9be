"""Make an assistant prefer the better of two answers: DPO, IPO or SimPO, on all weights, a LoRA adapter, or QLoRA.

    python recipes/finetune_preference.py --model_name_or_path runs/chat/final --data pairs.json --output_dir runs/dpo
    python recipes/finetune_preference.py my.yaml --loss ipo --tuning full --learning_rate 2e-5
    python recipes/finetune_preference.py my.yaml --nll_weight 0                   # plain DPO; watch for the alarm
    python recipes/finetune_preference.py my.yaml --resume_from_checkpoint true    # after an interruption

The model is an assistant that recipes/finetune_instruct.py has tuned (an adapter: merge it first), or another one with
a chat template. `--data` holds pairs, {"prompt", "chosen", "rejected"} as messages or text or in the columns of Alpaca
or ShareGPT, in the splits train and validation; of a file a part is held out by prompt, unless --eval_data names
another one. What cannot be learned from (the same answer twice, an empty one, one that does not fit whole into the
context, …) is left out and counted.

The reference is the model itself before tuning. What it says of the pairs is computed once and kept in
`<output_dir>/reference`. Every evaluation prints the share of held-out pairs that the model ranks right, margin,
KL to the reference and the length of its answers, and gives an alarm where the chosen answers become less likely too.
The output directory is that of pretraining; `untuned.json` has what was measured before.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import set_seed

from scratchgpt.adapters import (
    AdapterArguments,
    add_adapter,
    describe_parameters,
    load_adapter,
    load_base,
)
from scratchgpt.arguments import option, parse_arguments, required, run_recipe
from scratchgpt.data.chat_sources import describe
from scratchgpt.data.preference_rows import PreferenceRows
from scratchgpt.data.preferences import Pair, read_pairs, split_pairs
from scratchgpt.evaluation.response_comparison import compare_responses
from scratchgpt.hub.cards import write_card
from scratchgpt.hub.model_directory import check_tokenizer
from scratchgpt.training.arguments import MAX_LEARNING_RATE
from scratchgpt.training.bases import assistant_base, has_fused_loss
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.tasks.preference import PreferenceArguments, PreferenceTuning, add_reference


@dataclass
class PreferenceTuningArguments(AdapterArguments, PreferenceArguments):
    HELP_GROUPS = {
        "model_name_or_path": "Model", "data": "Data", "validation_fraction": "Splits", "context_length": "Data",
        "num_responses": "Evaluation",
    }  # fmt: skip

    model_name_or_path: str = required("The assistant: directory or Hub name of a causal language model.")
    data: str = required("Pairs of answers: Hub name, folder or file.")
    eval_data: str | None = option(None, "Pairs to validate on, where data has no validation split.")
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    validation_fraction: float = option(0.1, "Share that validates, where data is one file.", at_least=0, below=1)
    context_length: int | None = option(None, "Tokens of prompt and answer; default: the model's context.", at_least=1)
    num_responses: int = option(
        0, "Questions of the validation split that the model answers at the end, before and after tuning.", at_least=0
    )

    learning_rate: float = option(1e-4, "Peak learning rate of AdamW.", above=0, at_most=MAX_LEARNING_RATE)
    weight_decay: float = option(0.0, "Decoupled weight decay of the matrices.", at_least=0, at_most=10)
    eval_on_start: bool = option(True, "Evaluate the model first; the result goes to untuned.json.")
    load_best_at_end: bool = option(True, "final/ has the best checkpoint's weights instead of the last step's.")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PreferenceTuningArguments, argv)
    accelerator, output_dir = build_accelerator(arguments), Path(arguments.output_dir)
    seed, four_bit = arguments.seed, arguments.tuning == "qlora"

    def read(source: str, split: str) -> list[Pair]:
        pairs, left_out = read_pairs(source, split)
        if left_out:
            accelerator.print(f"{source}, {split}: left out {describe(left_out)}")
        return pairs

    start, tokenizer, context_length = assistant_base(
        arguments.model_name_or_path, arguments.context_length, arguments, arguments.output_dir, accelerator
    )
    training = read(arguments.data, arguments.train_split)
    if arguments.eval_data is None and Path(arguments.data).is_file():
        training, validation = split_pairs(training, arguments.validation_fraction, seed)
    else:
        validation = read(arguments.eval_data or arguments.data, arguments.eval_split)
    train_rows, eval_rows = (PreferenceRows(pairs, tokenizer, context_length) for pairs in (training, validation))
    accelerator.print(f"training: {train_rows}\nvalidation: {eval_rows}")

    model = load_base(start, four_bit=four_bit)
    check_tokenizer(model, tokenizer)
    fused_loss = has_fused_loss(model, packing=False)
    draws = add_reference(model, train_rows, eval_rows, arguments, fused_loss, accelerator)
    set_seed(seed)
    if arguments.tuning != "full":
        model = add_adapter(model, arguments)
    accelerator.print(describe_parameters(model))
    task = PreferenceTuning(train_rows, eval_rows, tokenizer, arguments, fused_loss, draws)
    if not train(task, model, tokenizer, arguments, accelerator, train_rows.fingerprint()):
        sys.exit(EXIT_INTERRUPTED)

    if accelerator.is_main_process and arguments.num_responses:
        final = output_dir / "final"
        full = arguments.tuning == "full"
        tuned = load_base(final) if full else load_adapter(final, start, four_bit=four_bit)[0]
        models = {"base": load_base(start, four_bit=four_bit), "tuned": tuned}
        conversations = [pair.conversation(pair.chosen) for pair in validation]
        count, tokens = arguments.num_responses, arguments.response_tokens
        compare_responses(models, tokenizer, conversations, count, tokens, output_dir)
        write_card(final)  # with the answers


if __name__ == "__main__":
    run_recipe(main)
