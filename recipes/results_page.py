"""Write a page about a finished pretraining run: figures beside baselines, plots, samples, and what to do next.

    python recipes/results_page.py --run_dir runs/demo/base --data runs/demo/data/text --output runs/demo/RESULTS.md

Every number comes from the run's `results.json` and `metrics.jsonl`, or is computed here from the data.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import parse_arguments
from scratchgpt.data.corpus import tokenize_corpus
from scratchgpt.data.text import read_texts
from scratchgpt.evaluation.baselines import compressed_bits_per_byte, unigram_bits_per_byte
from scratchgpt.evaluation.language_modelling import token_byte_counts
from scratchgpt.evaluation.leakage import ngram_overlap
from scratchgpt.training.arguments import option
from scratchgpt.training.meters import read_metrics


@dataclass
class PageArguments:
    run_dir: str = option("runs/demo/base", "A finished run of recipes/pretrain.py.")
    data: str = option("runs/demo/data/text", "The data set it was trained on, with the splits train and validation.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")
    output: str = option("runs/demo/RESULTS.md", "The page to write.")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(PageArguments, argv)
    run_dir, output = Path(arguments.run_dir), Path(arguments.output)
    if not (run_dir / "results.json").is_file():
        raise ValueError(f"{run_dir} holds no results.json: it is no finished run of recipes/pretrain.py")
    results = json.loads((run_dir / "results.json").read_text())
    metrics = read_metrics(run_dir / "metrics.jsonl")
    final = run_dir / "final"
    tokenizer, config = AutoTokenizer.from_pretrained(final), AutoConfig.from_pretrained(final)
    train, evaluation = (
        tokenize_corpus(arguments.data, final, arguments.cache_dir, split) for split in ("train", "validation")
    )
    byte_counts = token_byte_counts(tokenizer, config.vocab_size).numpy()
    texts = list(read_texts(arguments.data, "validation"))
    rows = {
        "token frequencies alone (unigram)": unigram_bits_per_byte(train, evaluation, byte_counts),
        **compressed_bits_per_byte(texts),
        f"this model ({results['num_parameters']:,} parameters)": results["final"]["bits_per_byte"],
    }
    samples = next((line["samples"] for line in reversed(metrics) if "samples" in line), [])
    overlap, runs = ngram_overlap(
        [tokenizer(text, split_special_tokens=True)["input_ids"] for text in samples], train.tokens
    )
    losses = [line["loss"] for line in metrics[-10:]]
    gap = results["final"]["loss"] - sum(losses) / len(losses)
    speeds = sorted(line["tokens_per_second"] for line in metrics if "tokens_per_second" in line)
    here = os.path.relpath(run_dir, output.parent)
    page = [
        "# A language model, trained from scratch",
        f"{results['steps']:,} steps, {results['num_targets']:,} tokens read from {train.num_bytes:,} bytes of text, "
        f"{speeds[len(speeds) // 2]:,.0f} tokens per second (median). Validation on "
        f"{results['final']['num_tokens']:,} tokens ({results['final']['num_bytes']:,} bytes) of documents the model "
        f"has not read; seed {results['identity']['seed']}.",
        "| | bits per byte of validation text |\n| --- | ---: |\n"
        + "\n".join(f"| {name} | {value:.3f} |" for name, value in rows.items()),
        f"Validation loss {results['final']['loss']:.4f} nats per token (perplexity "
        f"{results['final']['perplexity']:.2f}), {gap:+.3f} against the last training losses. "
        f"{100 * overlap:.0f} % of the samples' {runs} runs of 8 tokens stand word for word in the training text"
        + (": the model repeats what it has read." if overlap > 0.5 else ".")
        + (" It has begun to memorise: fewer steps, dropout or more text would help." if gap > 1 else ""),
        f"![loss]({here}/loss.png)\n\n![throughput]({here}/throughput.png)",
        "## Samples\n\n" + "\n\n".join("> " + text.replace("\n", "\n> ") for text in samples),
    ]
    output.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print("\n\n".join(page[:4]))
    print(f"\nThe page with plots and samples: {output}\nThe model: {final}  (every checkpoint beside it loads too)")
    print("Go on writing with it:")
    print(
        f'    .venv/bin/python -c "import scratchgpt; from transformers import pipeline; '
        f"print(pipeline('text-generation', '{final}')('The function', max_new_tokens=60)[0]['generated_text'])\""
    )


if __name__ == "__main__":
    main()
