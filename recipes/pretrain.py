"""Pretrain a language model from scratch, or continue with one, on any text.

    python recipes/pretrain.py --data my.txt --output_dir runs/mine             # what it trains in 10 minutes
    python recipes/pretrain.py --data my_texts --output_dir runs/mine --minutes 60
    python recipes/pretrain.py recipes/configs/pretrain/demo.yaml
    python recipes/pretrain.py recipes/configs/pretrain/gpt2_16m.yaml --data corpus/text --tokenizer runs/tokenizer
    python recipes/pretrain.py my.yaml --data HuggingFaceFW/fineweb-edu --streaming true --eval_data my_eval.txt
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain.py my.yaml   # or fsdp2.yaml
    python recipes/pretrain.py my.yaml --resume_from_checkpoint true            # after an interruption
    python recipes/pretrain.py my.yaml --model_name_or_path runs/base/final     # continue with a model

`--data` is a data set of schema {"text"} with the splits train and validation, or files (see `scratchgpt.data.text`).
What is not given is chosen, and said: without validation text, the end of a text or some of several documents are held
out (`scratchgpt.data.held_out`); without a tokenizer, one is trained; without a size and a number of steps, they are
what this machine trains in `--minutes`, from the measured speed (`scratchgpt.training.plan`).

The output directory holds checkpoints (each a model that `AutoModelForCausalLM` loads), `arguments.yaml` (given to the
recipe, it reproduces the run), `metrics.jsonl`, `results.json`, plots, and the model in `final/`. Exit codes: 0
finished, 2 something given cannot be used, 75 interrupted by a signal and saved (`--resume_from_checkpoint true`
continues), 1 any other error.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import yaml
from transformers import AutoTokenizer

from scratchgpt.arguments import parse_arguments, run_recipe
from scratchgpt.data.pretraining_rows import find_tokenizer
from scratchgpt.hub.names import local_copy
from scratchgpt.training.bases import own_base
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.metrics import peak_memory_mb
from scratchgpt.training.plan import in_words
from scratchgpt.training.pretraining import (
    SIZE,
    PretrainArguments,
    planned,
    prepare,
    say_end,
    say_plan,
    with_texts,
)  # fmt: skip
from scratchgpt.training.step import schedule


def options_given(argv: list[str]) -> set[str]:
    """Names of the options in the YAML file and on the command line, other than null."""
    names = {word[2:].partition("=")[0] for word in argv if word.startswith("--")}
    if argv and not argv[0].startswith("-"):
        values = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8"))
        names |= {name for name, value in values.items() if value is not None}
    return names


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PretrainArguments, argv, __doc__)
    given = options_given(sys.argv[1:] if argv is None else argv)
    sized = sorted(given & set(SIZE)) or (["streaming"] if arguments.streaming else [])
    if sized and arguments.minutes is not None:
        raise ValueError(f"--minutes chooses the size and the steps: leave it out, or {sized[0]}")
    if sized:
        schedule(arguments)  # what is wrong with it is said before the work
    accelerator = build_accelerator(arguments)
    if not sized and accelerator.num_processes > 1:
        raise ValueError("a plan is made on one process: give max_steps, and a size (--preset, --hidden_size, …)")
    if arguments.model_name_or_path is not None:
        base = own_base(arguments.model_name_or_path, arguments.output_dir, accelerator)
        tokenizer = base if arguments.tokenizer == arguments.model_name_or_path else arguments.tokenizer
        arguments = replace(arguments, model_name_or_path=base, tokenizer=tokenizer)
    with accelerator.main_process_first():  # one process downloads and tokenises, the others find it done
        arguments = with_texts(arguments, accelerator.print)
        find_tokenizer(str(arguments.tokenizer))
        tokenizer = AutoTokenizer.from_pretrained(local_copy(str(arguments.tokenizer), weights=False))
        predicted: dict[str, float] = {}
        if not sized:
            arguments, predicted = planned(arguments, given, tokenizer, accelerator)
        prepared = prepare(arguments, tokenizer)
    if predicted:
        say_plan(arguments, prepared, predicted, accelerator.print)
    model, started = prepared.model(arguments), time.perf_counter()
    if not train(prepared.task, model, tokenizer, arguments, accelerator, prepared.fingerprint):
        sys.exit(EXIT_INTERRUPTED)
    if accelerator.is_main_process:
        took, memory = time.perf_counter() - started, peak_memory_mb(accelerator.device)
        planned_time = f" (planned: {in_words(predicted['seconds'])})" if predicted else ""
        planned_memory = f" (planned: {predicted['memory_mb'] / 1000:.2f})" if predicted else ""
        print(f"It took {in_words(took)}{planned_time} and {memory / 1000:.2f} GB of memory{planned_memory}.")
        say_end(arguments, prepared, accelerator.print)


if __name__ == "__main__":
    run_recipe(main)
