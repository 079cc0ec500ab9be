"""Write a page about finished runs: figures beside baselines, plots, samples, a transcript, and what to do next.

    python recipes/results_page.py --run_dir runs/demo/base --data runs/demo/data/text --output runs/demo/RESULTS.md
    python recipes/results_page.py … --classifier_dir runs/demo/classifier --chat_dir runs/demo/chat

Every number comes from the runs' `results.json`, `metrics.jsonl` and `responses.jsonl`, or is computed from the data.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import option, parse_arguments, run_recipe
from scratchgpt.data.corpus import tokenize_corpus
from scratchgpt.data.text import read_texts
from scratchgpt.evaluation.baselines import compressed_bits_per_byte, unigram_bits_per_byte
from scratchgpt.evaluation.language_modelling import token_byte_counts
from scratchgpt.evaluation.leakage import ngram_overlap
from scratchgpt.training.metrics import read_metrics


@dataclass
class PageArguments:
    run_dir: str = option("runs/demo/base", "A finished run of recipes/pretrain.py.")
    data: str = option("runs/demo/data/text", "The data set it was trained on, with the splits train and validation.")
    classifier_dir: str | None = option(None, "A finished run of recipes/finetune_classifier.py.")
    chat_dir: str | None = option(None, "A finished run of recipes/finetune_instruct.py with --num_responses.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")
    output: str = option("runs/demo/RESULTS.md", "The page to write.")


def read_json(file: Path) -> Any:
    """Raises ValueError where the run has not got that far."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: {file.parent} is no finished run")
    return json.loads(file.read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quote(text: str) -> str:
    return "> " + text.strip().replace("\n", "\n> ")


def percent(value: float, interval: list[float]) -> str:
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def base_section(arguments: PageArguments, plots: str) -> tuple[list[str], list[str]]:
    """The figures of the base model, and its samples, as paragraphs."""
    run_dir = Path(arguments.run_dir)
    results, metrics = read_json(run_dir / "results.json"), read_metrics(run_dir / "metrics.jsonl")
    final = run_dir / "final"
    tokenizer, config = AutoTokenizer.from_pretrained(final), AutoConfig.from_pretrained(final)
    train, evaluation = (
        tokenize_corpus(arguments.data, final, arguments.cache_dir, split) for split in ("train", "validation")
    )
    byte_counts = token_byte_counts(tokenizer, config.vocab_size).numpy()
    measured = results["final"]
    bits = {
        "token frequencies alone (unigram)": unigram_bits_per_byte(train, evaluation, byte_counts),
        **compressed_bits_per_byte(list(read_texts(arguments.data, "validation"))),
        f"this model ({results['num_parameters']:,} parameters)": measured["bits_per_byte"],
    }
    samples = next((line["samples"] for line in reversed(metrics) if "samples" in line), [])
    overlap, runs = ngram_overlap(
        [tokenizer(text, split_special_tokens=True)["input_ids"] for text in samples], train.tokens
    )
    losses = [line["loss"] for line in metrics[-10:]]
    gap = measured["loss"] - sum(losses) / len(losses)
    speeds = sorted(line["tokens_per_second"] for line in metrics if "tokens_per_second" in line)
    figures = [
        "## The base model",
        f"{results['steps']:,} steps, {results['num_targets']:,} tokens read from {train.num_bytes:,} bytes of text, "
        f"{speeds[len(speeds) // 2]:,.0f} tokens per second (median). Validation on {measured['num_tokens']:,} tokens "
        f"({measured['num_bytes']:,} bytes) of documents the model has not read; seed {results['identity']['seed']}.",
        table(["", "bits per byte of validation text"], [[name, f"{value:.3f}"] for name, value in bits.items()]),
        f"Validation loss {measured['loss']:.4f} nats per token (perplexity {measured['perplexity']:.2f}), {gap:+.3f} "
        f"against the last training losses. {overlap:.0%} of the samples' {runs} runs of 8 tokens stand word for word "
        "in the training text"
        + (": the model repeats what it has read." if overlap > 0.5 else ".")
        + (" It has begun to memorise: fewer steps, dropout or more text would help." if gap > 1 else ""),
    ]
    pictures = [f"![loss]({plots}/loss.png)\n\n![throughput]({plots}/throughput.png)"]
    return figures, [*pictures, "What it writes:", *(quote(text) for text in samples)]


def classifier_section(run_dir: Path, plots: str) -> tuple[list[str], list[str]]:
    results = read_json(run_dir / "results.json")
    split = results["evaluated_on"]
    measured = {**results["baselines"], f"this model ({results['tuning']})": results[split]}
    f1 = f"F1 ({results[split]['f1_of']})"
    rows = [
        [name, percent(m["accuracy"], m["accuracy_interval"]), f"{m['f1']:.3f}", f"{m['mcc']:.3f}"]
        for name, m in measured.items()
    ]
    figures = [
        "## The classifier",
        f"{results[split]['num_texts']:,} texts of the split {split}, {len(results['labels'][split])} labels, seed "
        f"{results['identity']['seed']}, {results['seconds']:.0f} s of training; in brackets 95 % intervals.",
        table(["", "accuracy", f1, "MCC"], rows),
    ]
    return figures, [f"![confusion]({plots}/confusion.png)\n\n![calibration]({plots}/calibration.png)"]


def chat_section(run_dir: Path) -> tuple[list[str], list[str]]:
    results, scores = read_json(run_dir / "results.json"), read_json(run_dir / "responses.json")
    rows = [
        [
            name,
            f"{s['rouge_l']:.3f}",
            percent(s["exact_stop_rate"], s["exact_stop_interval"]),
            f"{s['mean_tokens']:.0f}",
        ]
        for name, s in scores.items()
    ]
    figures = [
        "## The chat model",
        f"Validation loss {results['final']['loss']:.3f} nats on {results['final']['num_tokens']:,} tokens of "
        f"answers. {scores['tuned']['num_responses']} questions of the validation split, answered greedily by the "
        "base and by the tuned model; in brackets 95 % intervals.",
        table(["", "ROUGE-L", "answers that end by themselves", "tokens in an answer"], rows),
    ]
    lines = (run_dir / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    transcript = []
    for line in map(json.loads, lines[:4]):
        transcript.append(f"**{line['messages'][-1]['content']}**")
        transcript.append(quote(line["responses"]["tuned"]["text"] or "(nothing)"))
    return figures, ["The first of these questions, and what the model says:", *transcript]


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PageArguments, argv)
    output = Path(arguments.output)

    def seen_from_page(directory: str) -> str:
        return os.path.relpath(directory, output.parent)

    sections = [base_section(arguments, seen_from_page(arguments.run_dir))]
    if arguments.classifier_dir is not None:
        directory = arguments.classifier_dir
        sections.append(classifier_section(Path(directory), seen_from_page(directory)))
    if arguments.chat_dir is not None:
        sections.append(chat_section(Path(arguments.chat_dir)))
    page = ["# Trained from scratch", *(part for section in sections for parts in section for part in parts)]
    output.write_text("\n\n".join(page) + "\n", encoding="utf-8")

    print("\n\n".join(part for figures, _ in sections for part in figures))
    print(f"\nThe page with plots and samples: {output}")
    final = Path(arguments.run_dir) / "final"
    print(f"The model: {final}  (every checkpoint beside it loads too). Go on writing with it:")
    print(
        f'    .venv/bin/python -c "import scratchgpt; from transformers import pipeline; '
        f"print(pipeline('text-generation', '{final}')('The function', max_new_tokens=60)[0]['generated_text'])\""
    )
    if arguments.classifier_dir is not None:
        print(f"Classify a file: .venv/bin/python recipes/classify.py --model {arguments.classifier_dir}/final --help")
    if arguments.chat_dir is not None:
        print(f"Chat with it: .venv/bin/python recipes/chat.py --model {arguments.chat_dir}/final")


if __name__ == "__main__":
    run_recipe(main)
