"""The warnings of a card: what a reader must know before using a model, each from a number."""

import statistics
from collections.abc import Iterator
from typing import Any

from .card_facts import Facts

SMALL, LITTLE, FEW, GAP, TOKENS_PER_PARAMETER = 100_000_000, 1000, 1000, 0.5, 20
"""From where on a card warns: parameters; training texts; evaluated texts or answers; nats between training and
validation loss; and tokens read for each parameter (Hoffmann et al. 2022 found 20 to be about right)."""


def warnings(facts: Facts) -> Iterator[str]:
    """What a reader must know before using it, each with the number behind it."""
    if facts.kind == "tokenizer":
        yield from _tokenizer_warnings(facts)
        return
    found, final, number = facts.results, facts.results.get("final", {}), facts.num_parameters
    if 0 < number < SMALL:
        yield (
            f"**Small model**: {number:,} parameters. Expect no knowledge of the world beyond its training text, and "
            "fluent nonsense."
            if facts.kind != "classifier"
            else f"**Small model**: {number:,} parameters. It knows little of words that are not in its training text."
        )
    if facts.kind == "base model" and found and not facts.base and number:
        read = found["num_targets"] / number
        if read < TOKENS_PER_PARAMETER:
            yield f"**Trained for a short time**: {read:.2g} tokens read for each parameter; about 20 are usual."
    best, loss = found.get("best", {}).get("loss"), final.get("loss")
    training_losses = [line["loss"] for line in facts.metrics if "loss" in line][-10:]
    if training_losses and loss is not None:
        gap = loss - statistics.fmean(training_losses)
        if gap > GAP:
            yield (
                f"**Overfitted**: the validation loss of {loss:.3f} is {gap:.3f} nats above the last training losses. "
                "It has begun to memorise its training text."
            )
    if best is not None and loss is not None and loss > 1.01 * best:
        yield f"**Trained too long**: the validation loss ended at {loss:.3f}, above its best of {best:.3f}."
    if final.get("is_falling"):
        yield (
            f"**Falling apart**: the chosen answers themselves are {-final['chosen_change']:.3f} nats per token less "
            "likely than before it was tuned on preferences."
        )
    yield from (f"**Perhaps a way round the reward**: {alarm}." for alarm in final.get("alarms", []))
    yield from _few(facts)
    if found and facts.evaluated_on_its_training_rows:
        yield "**Measured on its training text**: the results say nothing about other text."
    if facts.kind == "classifier" and "evaluated_on" in found:
        yield from _beside_baselines(found)
    if skipped := found.get("skipped_steps"):
        yield f"**Unstable training**: {skipped:,} of {found['steps']:,} steps were skipped: no finite gradients."
    yield from _contamination(facts)
    if not found and facts.made_by != "import-gpt2":
        yield "**No record of its training** lies beside it: nothing is known of its data and results."
    if facts.made_by == "import-gpt2":
        yield f"Its limits are those of {f'`{facts.base}`' if facts.base else 'the original'}: see the card of that."
    else:
        yield "It was not tuned or tested for safety, and repeats whatever bias its training text has."


def _few(facts: Facts) -> Iterator[str]:
    """Few examples to learn from, or few to measure on."""
    found = facts.results
    texts = sum(found["labels"]["train"].values()) if "labels" in found else 0
    if facts.kind != "base model" and (count := texts or facts.num_texts):
        if count < LITTLE:
            unit = "texts" if texts else facts.unit
            yield f"**Few examples**: it was tuned on {count:,} {unit}."
    elif facts.kind == "base model" and facts.sketch is not None and facts.sketch.num_words < 1_000_000:
        yield f"**Little text**: it was trained on {facts.sketch.num_words:,} words."
    measured = found.get(found.get("evaluated_on", "final"), {})
    if 0 < (count := measured.get("num_texts", 0)) < FEW:
        yield f"**Measured on few texts**: {count:,}. The intervals say how much the results may be off."
    for unit in ("pairs", "questions"):
        if 0 < (count := measured.get(f"num_{unit}", 0)) < FEW:
            yield f"**Measured on few {unit}**: {count:,}. The intervals say how much the results may be off."
    if 0 < (count := measured.get("num_tokens", 0)) < 10 * FEW:
        yield f"**Measured on little text**: {count:,} tokens, which is too little for a precise result."
    scores = facts.responses
    if scores and (count := scores["tuned"]["num_responses"]) < FEW:
        yield f"**Few answers were scored**: {count:,}."


def _beside_baselines(found: dict[str, Any]) -> Iterator[str]:
    split = found["evaluated_on"]
    name, best = max(found["baselines"].items(), key=lambda item: item[1]["accuracy"])
    accuracy, low = found[split]["accuracy"], found[split]["accuracy_interval"][0]
    if accuracy <= best["accuracy"]:
        yield f"**No better than a simple baseline**: {accuracy:.1%}, where {name} has {best['accuracy']:.1%}."
    elif low <= best["accuracy"]:
        yield (
            f"**Not surely better than a simple baseline**: the interval from {low:.1%} on holds the "
            f"{best['accuracy']:.1%} of {name}."
        )
    if split == "validation":
        yield "**Measured on the validation split**: there was no test split, so the result is somewhat too good."


def _contamination(facts: Facts) -> Iterator[str]:
    """What `evaluation.contamination` has found, as the classifier's recipe and recipes/evaluate.py record it."""
    found = [("", facts.results.get("overlap", {}))]
    found += [item for evaluation in facts.evaluations for item in evaluation.get("overlap", {}).items()]
    for suite, overlap in found:
        if overlap.get("seen"):
            yield (
                f"**Contaminated**: {overlap['seen']:,} of the {overlap['count']:,} test texts"
                f"{f' of {suite}' if suite else ''} stand in the training text, so the results are too good."
            )


def _tokenizer_warnings(facts: Facts) -> Iterator[str]:
    report = facts.tokenizer_report
    if not report:
        return
    if report["train"]["num_bytes"] < 10_000_000:
        yield f"**Little text**: it was trained on {report['train']['num_bytes']:,} bytes."
    if report["eval_on_train"]:
        yield "**Measured on its training text**: other text takes more tokens."
    if unknown := next(iter(report["tokenizers"].values()))["unknown_rate"]:
        yield f"**Unknown pieces**: {unknown:.2%} of the words and characters become `<|unk|>` and are lost."
