"""A page about finished runs, in Markdown: every number is read from the runs' files or computed from the data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import AutoConfig, AutoTokenizer

from ..data.corpus import tokenize_corpus
from ..data.passages import NOT_SAID
from ..data.text import read_texts
from ..hub.markdown import percent, quote, table
from .baselines import compressed_bits_per_byte, unigram_bits_per_byte
from .comparison import Pair, compare
from .language_modelling import token_byte_counts
from .leakage import ngram_overlap
from .rouge import NAMES, rouge_f1

BASELINES = {
    "bits_per_byte_unigram": "token frequencies alone (unigram)",
    "bits_per_byte_gzip": "gzip -9",
    "bits_per_byte_xz": "xz -9e",
    "bits_per_byte_5-gram": "5-gram with Kneser–Ney smoothing",
}
"""What the suite `text` compares with, in words."""

Section = tuple[list[str], list[str]]
"""Paragraphs with the results, and those with plots and samples."""


def read_json(file: Path) -> Any:
    """Raises ValueError where the run has not got that far."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: {file.parent} is no finished run")
    return json.loads(file.read_text(encoding="utf-8"))


def kind_of_run(run_dir: Path) -> str:
    """base, classifier or chat. Raises ValueError for a run that is not finished."""
    results = read_json(run_dir / "results.json")
    arguments = yaml.safe_load((run_dir / "arguments.yaml").read_text(encoding="utf-8"))
    if "evaluated_on" in results:
        return "classifier"
    return "chat" if "chat_template" in arguments else "base"


def base_section(
    run_dir: Path,
    metrics: Sequence[Mapping[str, Any]],
    data: str | None,
    cache_dir: str,
    plots: str,
    evaluation: Mapping[str, Any] | None = None,
) -> Section:
    """The base model beside baselines, and what it writes.

    Args:
        metrics: the lines of its metrics.jsonl.
        data: the data set it was trained on, with the splits train and validation; default: as in its arguments.yaml.
        plots: where the plots are, as seen from the page.
        evaluation: the results.json that recipes/evaluate.py wrote about the model, whose numbers are shown then.

    Raises:
        ValueError: for a run that is not finished, and for data that is not where it was.
    """
    results, final = read_json(run_dir / "results.json"), run_dir / "final"
    if data is None:
        data = str(yaml.safe_load((run_dir / "arguments.yaml").read_text(encoding="utf-8"))["data"])
    tokenizer, config = AutoTokenizer.from_pretrained(final), AutoConfig.from_pretrained(final)
    train, validation = (tokenize_corpus(data, final, cache_dir, split) for split in ("train", "validation"))
    byte_counts = token_byte_counts(tokenizer, config.vocab_size).numpy()
    measured, this = results["final"], f"this model ({results['num_parameters']:,} parameters)"
    if evaluation and "text" in evaluation:
        found = {
            this if name == "bits_per_byte" else BASELINES.get(name, ""): of for name, of in evaluation["text"].items()
        }
        bits = {name: _with_interval(found[name]) for name in (*BASELINES.values(), this) if name in found}
        how = " Bits per byte on whole documents, in brackets 95 % intervals (recipes/evaluate.py)."
    else:
        numbers = {
            BASELINES["bits_per_byte_unigram"]: unigram_bits_per_byte(train, validation, byte_counts),
            **compressed_bits_per_byte(list(read_texts(data, "validation"))),
            this: measured["bits_per_byte"],
        }
        bits, how = {name: f"{value:.3f}" for name, value in numbers.items()}, ""
    samples = next((line["samples"] for line in reversed(metrics) if "samples" in line), [])
    overlap, runs = ngram_overlap(
        [tokenizer(text, split_special_tokens=True)["input_ids"] for text in samples], train.tokens
    )
    losses = [line["loss"] for line in metrics[-10:]]
    gap = measured["loss"] - sum(losses) / len(losses)
    speeds = sorted(line["tokens_per_second"] for line in metrics if "tokens_per_second" in line)
    return [
        "## The base model",
        f"{results['steps']:,} steps, {results['num_targets']:,} tokens read from {train.num_bytes:,} bytes of text, "
        f"{speeds[len(speeds) // 2]:,.0f} tokens per second (median). Validation on {measured['num_tokens']:,} tokens "
        f"({measured['num_bytes']:,} bytes) of documents the model has not read; seed {results['identity']['seed']}."
        f"{how}",
        table(["", "bits per byte of validation text"], [[name, value] for name, value in bits.items()]),
        f"Validation loss {measured['loss']:.4f} nats per token (perplexity {measured['perplexity']:.2f}), {gap:+.3f} "
        f"against the last training losses. {overlap:.0%} of the samples' {runs} runs of 8 tokens stand word for word "
        "in the training text"
        + (": the model repeats what it has read." if overlap > 0.5 else ".")
        + (" It has begun to memorise: fewer steps, dropout or more text would help." if gap > 1 else ""),
    ], [
        f"![loss]({plots}/loss.png)\n\n![throughput]({plots}/throughput.png)",
        "What it writes:",
        *map(quote, samples),
    ]


def classifier_section(run_dir: Path, plots: str) -> Section:
    """The classifier beside its baselines. Raises ValueError for a run that is not finished."""
    results = read_json(run_dir / "results.json")
    split = results["evaluated_on"]
    measured = {**results["baselines"], f"this model ({results['tuning']})": results[split]}
    rows = [
        [name, percent(m["accuracy"], m["accuracy_interval"]), f"{m['f1']:.3f}", f"{m['mcc']:.3f}"]
        for name, m in measured.items()
    ]
    return [
        "## The classifier",
        f"{results[split]['num_texts']:,} texts of the split {split}, {len(results['labels'][split])} labels, seed "
        f"{results['identity']['seed']}, {results['seconds']:.0f} s of training; in brackets 95 % intervals.",
        table(["", "accuracy", f"F1 ({results[split]['f1_of']})", "MCC"], rows),
    ], [f"![confusion]({plots}/confusion.png)\n\n![calibration]({plots}/calibration.png)"]


def chat_section(run_dir: Path, plots: str, evaluations: Sequence[Mapping[str, Any]] = ()) -> Section:
    """The chat model beside its base, and some of its answers.

    Args:
        evaluations: each the results.json of a model that recipes/evaluate.py wrote with the suite `passages`.

    Raises:
        ValueError: for a run that is not finished.
    """
    results = read_json(run_dir / "results.json")
    loss = (
        f"Validation loss {results['final']['loss']:.3f} nats on {results['final']['num_tokens']:,} tokens of answers."
    )
    if not (run_dir / "responses.json").is_file():
        return ["## The chat model", f"{loss} No questions were answered: --num_responses does that."], [
            f"![loss]({plots}/loss.png)"
        ]
    scores = read_json(run_dir / "responses.json")
    rows = [
        [
            name,
            f"{score['rouge_l']:.3f}",
            percent(score["exact_stop_rate"], score["exact_stop_interval"]),
            f"{score['mean_tokens']:.0f}",
        ]
        for name, score in scores.items()
    ]
    lines = list(map(json.loads, (run_dir / "responses.jsonl").read_text(encoding="utf-8").splitlines()))
    transcript = []
    for line in lines[:4]:
        transcript.append(f"**{line['messages'][-1]['content']}**")
        transcript.append(quote(line["responses"]["tuned"]["text"] or "(nothing)"))
    return [
        "## The chat model",
        f"{loss} {scores['tuned']['num_responses']} questions of the validation split, answered greedily by the "
        "base and by the tuned model; in brackets 95 % intervals.",
        table(["", "ROUGE-L", "answers that end by themselves", "tokens in an answer"], rows),
        *_answers_compared(lines),
        *passages_section(evaluations),
    ], ["The first of these questions, and what the model says:", *transcript]


PASSAGE_ROWS = {
    "exact_match": "{}, right passage",
    "exact_match_found": "{}, the passage found for the question",
    "exact_match_without": "{}, no passage",
    "exact_match_first_sentence": "the passage's first sentence, always",
}
"""Of the suite `passages`, in words."""


def passages_section(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """How well models answer from passages, of several the last one in full; nothing for none."""
    measured = [each for each in evaluations if "passages" in each]
    if not measured:
        return []
    of = measured[-1]["passages"]
    names = [each["model"]["name"] for each in measured]
    rows = [
        [PASSAGE_ROWS["exact_match"].format(f"`{name}`"), *_passage_cells(each["passages"], "exact_match")]
        for name, each in zip(names[:-1], measured[:-1], strict=True)
    ]
    rows += [
        [words.format(f"`{names[-1]}`"), *_passage_cells(of, name)]
        for name, words in PASSAGE_ROWS.items()
        if name in of
    ]
    parts = [name.partition("/")[2] for name in of if name.startswith("exact_match/")]
    controls = []
    if "found" in of:
        controls.append(
            f"The right passage is found for {_share(of['found'])} of {of['found']['count']:,} questions that have an "
            f"answer; with a passage that does not hold it, {_share(of['not_said_wrong'])} of "
            f"{of['not_said_wrong']['count']:,} are answered “{NOT_SAID}”, as they should."
        )
    return [
        "Questions of documents that no training stage has read, with a passage, in wordings that training does not "
        "have. An exact answer is the reference, character by character; in brackets 95 % intervals by bootstrap over "
        "documents.",
        table(["", "exact", "token-F1", "questions"], rows),
        *controls,
        table(
            ["right passage, by kind", "exact", "token-F1", "questions"],
            [[part, *_passage_cells(of, "exact_match", f"/{part}")] for part in parts],
        ),
    ]


def _passage_cells(of: Mapping[str, Any], name: str, part: str = "") -> list[str]:
    f1 = of.get(f"token_f1{part}") if name == "exact_match" else None
    found = of[name + part]
    return [_share(found), f"{f1['value']:.3f}" if f1 else "", f"{found['count']:,}"]


def _share(found: Mapping[str, Any]) -> str:
    return percent(found["value"], found["interval"]) if found["interval"] else f"{found['value']:.1%}"


def _answers_compared(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the tuned model answers better than the base, question by question; nothing for a single question."""
    if len(lines) < 2 or set(lines[0]["responses"]) != {"base", "tuned"}:
        return []
    answers = {name: [line["responses"][name] for line in lines] for name in ("tuned", "base")}
    references = [line["reference"] for line in lines]
    scores = {
        "ROUGE-L": [
            rouge_f1([each["text"] for each in given], references)[:, NAMES.index("rougeL")]
            for given in answers.values()
        ],
        "ends by itself": [np.array([float(each["stopped"]) for each in given]) for given in answers.values()],
    }
    found = compare([Pair(tuned[None], base[None], np.ones(len(lines))) for tuned, base in scores.values()])
    words = [
        f"{name}: {each.in_words('tuned', 'base')} ({each.difference:+.3f}, {each.interval[0]:+.3f} to "
        f"{each.interval[1]:+.3f})"
        for name, each in zip(scores, found, strict=True)
    ]
    return [f"Compared question by question: {'; '.join(words)}. In brackets the difference, with a 95 % interval."]


def _with_interval(found: Mapping[str, Any]) -> str:
    low, high = found["interval"] or (None, None)
    return f"{found['value']:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")
