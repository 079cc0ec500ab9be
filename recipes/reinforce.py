"""Let an assistant learn from a checker of its answers: GRPO, or rejection sampling, on all weights or an adapter.

    python recipes/reinforce.py --model_name_or_path runs/sums/final --data data/sums/chat --output_dir runs/grpo
    python recipes/reinforce.py my.yaml --method rejection                       # the simple one; try it first
    python recipes/reinforce.py my.yaml --reward my_rewards:score                # a function (prompt, answer, row)
    python recipes/reinforce.py my.yaml --reward number_match format=0.1 --answer_format "The answer is .*"
    python recipes/reinforce.py my.yaml --resume_from_checkpoint true            # after an interruption

The model is an assistant that recipes/finetune_instruct.py has tuned until it is right now and then (an adapter: merge
it first), or another one with a chat template. `--data` holds questions, {"prompt", "answer"}, {"question", "answer"}
or whole conversations, in the splits train and validation; of a file a part is held out, unless --eval_data names
another one. Other columns go to the reward. `data_builders/arithmetic.py` makes questions for small models.

Every step samples answers to --per_device_train_batch_size questions, --group_size to each, and learns from them.
Every evaluation answers held-out questions greedily and prints reward, share right, and length; it gives an alarm
where the reward rises and the answers grow, no longer end, or are less often right by the letter: the reward has a way
round it. A reward of yours runs in a process of its own; where it raises, hangs or gives no number, the run ends with
what it has learned. The output directory is that of pretraining; `untuned.json` has what was measured before.
"""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from scratchgpt.adapters import AdapterArguments, add_adapter, describe_parameters, load_base
from scratchgpt.arguments import option, parse_arguments, required, run_recipe
from scratchgpt.data.chat_sources import describe
from scratchgpt.data.prompts import Prompt, read_prompts, split_prompts
from scratchgpt.data.sampled_rows import SampledRows
from scratchgpt.evaluation.rewards import Rewards
from scratchgpt.hub.model_directory import check_tokenizer
from scratchgpt.training.arguments import MAX_LEARNING_RATE
from scratchgpt.training.bases import assistant_base, has_fused_loss
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.tasks.reinforcement import ReinforceArguments, Reinforcement, measure_before


@dataclass
class ReinforcementArguments(AdapterArguments, ReinforceArguments):
    HELP_GROUPS = {
        "model_name_or_path": "Model", "data": "Data", "validation_fraction": "Splits", "context_length": "Data",
        "learning_rate": "Training",
    }  # fmt: skip

    model_name_or_path: str = required("The assistant: directory or Hub name of a causal language model.")
    data: str = required("Questions: Hub name, folder or file.")
    eval_data: str | None = option(None, "Questions to validate on, where data has no validation split.")
    train_split: str = option("train", "Split of data to train on.")
    eval_split: str = option("validation", "Split to validate on (of eval_data, if given).")
    validation_fraction: float = option(0.1, "Share that validates, where data is one file.", at_least=0, below=1)
    context_length: int | None = option(None, "Tokens of question and answer; default: the model's.", at_least=1)

    learning_rate: float = option(1e-4, "Peak learning rate of AdamW.", above=0, at_most=MAX_LEARNING_RATE)
    weight_decay: float = option(0.0, "Decoupled weight decay of the matrices.", at_least=0, at_most=10)
    eval_on_start: bool = option(True, "Evaluate the model first; the result goes to untuned.json.")
    load_best_at_end: bool = option(True, "final/ has the best checkpoint's weights instead of the last step's.")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ReinforcementArguments, argv)
    accelerator, seed = build_accelerator(arguments), arguments.seed
    if accelerator.is_fsdp2:
        raise ValueError("answers are sampled from whole weights: launch with recipes/accelerate/ddp.yaml")

    def read(source: str, split: str) -> list[Prompt]:
        prompts, left_out = read_prompts(source, split)
        if left_out:
            accelerator.print(f"{source}, {split}: left out {describe(left_out)}")
        return prompts

    start, tokenizer, context_length = assistant_base(
        arguments.model_name_or_path, arguments.context_length, arguments, arguments.output_dir, accelerator
    )
    training = read(arguments.data, arguments.train_split)
    if arguments.eval_data is None and Path(arguments.data).is_file():
        training, validation = split_prompts(training, arguments.validation_fraction, seed)
    else:
        validation = read(arguments.eval_data or arguments.data, arguments.eval_split)
    rewards = Rewards(arguments.reward, arguments.answer_format, arguments.reward_time_limit)
    rewards.check(training, arguments.data)
    rewards.check(validation, arguments.eval_data or arguments.data)
    tokens = arguments.response_tokens
    train_rows, eval_rows = (SampledRows(part, tokenizer, context_length, tokens) for part in (training, validation))
    accelerator.print(f"training: {train_rows}\nvalidation: {eval_rows}")

    model: Any = load_base(start, four_bit=arguments.tuning == "qlora")
    check_tokenizer(model, tokenizer)
    task = Reinforcement(
        train_rows, eval_rows, tokenizer, arguments, has_fused_loss(model, packing=False), rewards=rewards
    )
    task.before = measure_before(task, model, accelerator)
    if arguments.kl_weight and arguments.tuning == "full":
        task.reference = copy.deepcopy(model).to(accelerator.device).eval()
    set_seed(seed)
    if arguments.tuning != "full":
        model = add_adapter(model, arguments)
    accelerator.print(describe_parameters(model))
    if not train(task, model, tokenizer, arguments, accelerator, train_rows.fingerprint()):
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    run_recipe(main)
