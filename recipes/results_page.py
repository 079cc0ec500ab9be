"""Write a page about finished runs: results beside baselines, plots, samples, a transcript, and what to do next.

    python recipes/results_page.py --run_dir runs/mine
    python recipes/results_page.py --run_dir runs/demo/base --classifier_dir runs/demo/classifier \\
        --chat_dir runs/demo/chat --output runs/demo/RESULTS.md

Any finished run of pretrain.py, finetune_classifier.py or finetune_instruct.py. Every number comes from the runs'
`results.json`, `metrics.jsonl` and `responses.jsonl`, or is computed from the data.
"""

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, shortened_path
from scratchgpt.evaluation.report import base_section, chat_section, classifier_section, kind_of_run, read_json
from scratchgpt.evaluation.results import read_results
from scratchgpt.hub.staging import check_writable, replaced_file
from scratchgpt.training.metrics import read_metrics


@dataclass
class PageArguments(RecipeArguments):
    run_dir: str = required("A finished run.")
    classifier_dir: str | None = option(None, "A run of recipes/finetune_classifier.py, for the same page.")
    chat_dir: str | None = option(None, "A run of recipes/finetune_instruct.py, for the same page.")
    evaluation_dir: str | None = option(None, "What recipes/evaluate.py wrote about the base.")
    passages_dir: str | None = option(None, "What it wrote with the suite passages, about the chat model and others.")
    data: str | None = option(None, "What the base was trained on; default: the place in its arguments.yaml.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")
    output: str | None = option(None, "The page to write; default: RESULTS.md in run_dir.")


def read_evaluations(folder: str | None, chat_dir: Path) -> list[dict[str, Any]]:
    """The results of each model in a folder, those of the run's own model last.

    Raises:
        ValueError: for a folder without any, or without those of the run's model.
    """
    if folder is None:
        return []
    found = [results for place in sorted(Path(folder).glob("*")) if (results := read_results(place))]
    own = shortened_path(str(chat_dir / "final"))
    if own not in (names := [each["model"]["name"] for each in found]):
        raise ValueError(f"{folder} holds no results of {own}" + (f", but of {', '.join(names)}" if names else ""))
    return sorted(found, key=lambda each: each["model"]["name"] == own)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PageArguments, argv)
    runs = [Path(run) for run in (arguments.run_dir, arguments.classifier_dir, arguments.chat_dir) if run is not None]
    kinds = {run: kind_of_run(run) for run in runs}  # or there is nothing to write about
    output = Path(arguments.output or runs[0] / "RESULTS.md")
    check_writable(output.parent)
    names = [os.path.relpath(run, output.parent) for run in runs]
    mark = f"<!-- recipes/results_page.py about {', '.join(names)} -->"
    if output.exists() and not output.read_text(encoding="utf-8", errors="replace").startswith(mark + "\n"):
        raise ValueError(f"{output} is not the page of {', '.join(map(str, runs))}: give another --output, or move it")

    evaluation, sections = None, []
    if arguments.evaluation_dir is not None:
        evaluation = read_json(Path(arguments.evaluation_dir) / "results.json")
    for run, plots in zip(runs, names, strict=True):
        if kinds[run] == "base":
            metrics = read_metrics(run / "metrics.jsonl")
            sections.append(base_section(run, metrics, arguments.data, arguments.cache_dir, plots, evaluation))
        elif kinds[run] == "classifier":
            sections.append(classifier_section(run, plots))
        else:
            sections.append(chat_section(run, plots, read_evaluations(arguments.passages_dir, run)))
    page = [mark, "# Trained from scratch", *(part for section in sections for parts in section for part in parts)]
    with replaced_file(output) as new:
        new.write_text("\n\n".join(page) + "\n", encoding="utf-8")

    print("\n\n".join(part for results, _ in sections for part in results))
    print(f"\nThe page with plots and samples: {output}")
    command = shortened_path(str(Path(sys.executable).with_name("scratchgpt")))
    documents = ""
    for run in runs:
        final = run / "final"
        if kinds[run] == "base":
            print(f"The model: {final}  (every checkpoint beside it loads too). Let it continue a text:")
            print(
                f'    {shortened_path(sys.executable)} -c "import scratchgpt; from transformers import pipeline; '
                f"print(pipeline('text-generation', '{final}')('The function', max_new_tokens=60)[0]"
                "['generated_text'])\""
            )
        elif kinds[run] == "classifier":
            print(f"Classify a file: {command} classify --model {final} --help")
        else:
            documents = f" --documents {run.parent / 'data/reference'}" if arguments.passages_dir is not None else ""
            print(f"Chat with it: {command} chat --model {final}{documents}")
    missing = "" if find_spec("gradio") else '  (needs pip install "scratchgpt[showcase]")'
    shown = os.path.commonpath(runs) if len(runs) > 1 else runs[0]
    print(f"Try all of it in the browser: {command} showcase {shown}{documents}{missing}")


if __name__ == "__main__":
    run_recipe(main)
