"""Write a page about finished runs: results beside baselines, plots, samples, a transcript, and what to do next.

    python recipes/results_page.py --run_dir runs/demo/base --data runs/demo/data/text --output runs/demo/RESULTS.md
    python recipes/results_page.py … --classifier_dir runs/demo/classifier --chat_dir runs/demo/chat

Every number comes from the runs' `results.json`, `metrics.jsonl` and `responses.jsonl`, or is computed from the data.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, run_recipe, shortened_path
from scratchgpt.evaluation.report import base_section, chat_section, classifier_section, read_json
from scratchgpt.hub.staging import check_writable
from scratchgpt.training.metrics import read_metrics


@dataclass
class PageArguments(RecipeArguments):
    run_dir: str = option("runs/demo/base", "A finished run of recipes/pretrain.py.")
    data: str = option("runs/demo/data/text", "The data set it was trained on, with the splits train and validation.")
    classifier_dir: str | None = option(None, "A finished run of recipes/finetune_classifier.py.")
    chat_dir: str | None = option(None, "A finished run of recipes/finetune_instruct.py with --num_responses.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")
    output: str = option("runs/demo/RESULTS.md", "The page to write.")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PageArguments, argv)
    output, run_dir = Path(arguments.output), Path(arguments.run_dir)

    def seen_from_page(directory: str) -> str:
        return os.path.relpath(directory, output.parent)

    check_writable(output.parent)
    read_json(run_dir / "results.json")  # or there is nothing to write about
    metrics = read_metrics(run_dir / "metrics.jsonl")
    plots = seen_from_page(arguments.run_dir)
    sections = [base_section(run_dir, metrics, arguments.data, arguments.cache_dir, plots)]
    if arguments.classifier_dir is not None:
        directory = arguments.classifier_dir
        sections.append(classifier_section(Path(directory), seen_from_page(directory)))
    if arguments.chat_dir is not None:
        sections.append(chat_section(Path(arguments.chat_dir)))
    page = ["# Trained from scratch", *(part for section in sections for parts in section for part in parts)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n\n".join(page) + "\n", encoding="utf-8")

    print("\n\n".join(part for results, _ in sections for part in results))
    print(f"\nThe page with plots and samples: {output}")
    final = run_dir / "final"
    print(f"The model: {final}  (every checkpoint beside it loads too). Let it continue a text:")
    print(
        f'    {shortened_path(sys.executable)} -c "import scratchgpt; from transformers import pipeline; '
        f"print(pipeline('text-generation', '{final}')('The function', max_new_tokens=60)[0]['generated_text'])\""
    )
    command = shortened_path(str(Path(sys.executable).with_name("scratchgpt")))
    if arguments.classifier_dir is not None:
        print(f"Classify a file: {command} classify --model {arguments.classifier_dir}/final --help")
    if arguments.chat_dir is not None:
        print(f"Chat with it: {command} chat --model {arguments.chat_dir}/final")


if __name__ == "__main__":
    run_recipe(main)
