"""The text of a card, section by section: what the facts say, and a warning wherever a number calls for one."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .card_facts import Facts, shown
from .card_loading import loading
from .card_warnings import warnings
from .markdown import cell, classifier_table, facts_table, fenced, percent, quote, table, tokenizer_table

PICTURES = ("loss.png", "reward.png", "throughput.png", "confusion.png", "roc.png", "calibration.png")
"""Of a run, in the order in which a card shows them."""

NUM_SAMPLES = 4


def body(facts: Facts, repo_id: str) -> str:
    """Everything below the metadata."""
    sections = {
        f"# {facts.title}": summary(facts),
        "## How to load it": loading(facts, repo_id),
        "## Limits": "\n".join(f"- {warning}" for warning in warnings(facts)),
        "## Results": results(facts),
        "## Samples": samples(facts),
        "## Architecture": architecture(facts),
        "## Data": data(facts),
        "## Training": training(facts),
    }
    return "\n\n".join(f"{heading}\n\n{text}" for heading, text in sections.items() if text)


def summary(facts: Facts) -> str:
    """A sentence or two."""
    if facts.kind == "tokenizer":
        return (
            f"A tokenizer of the kind {facts.made_with.get('kind', 'bpe')}, trained from scratch with scratchgpt. It "
            "loads as any tokenizer of transformers."
        )
    base = f"`{facts.base}`" if facts.base else "a base"
    number = f"{facts.num_parameters:,} parameters" if facts.num_parameters else "An unknown number of parameters"
    tuning, labels = facts.arguments.get("tuning", "full"), ", ".join(facts.labels)
    what = "on preferences" if facts.is_of_pairs else "on rewards" if facts.is_of_rewards else ""
    how = ", ".join(filter(None, (tuning, what)))
    made = {
        "base model": f"It continues a text. {number}, trained from scratch with scratchgpt",
        "chat model": f"It answers. {number}, tuned from {base} ({how}) with scratchgpt",
        "classifier": f"It tells {labels} apart. {number}, tuned from {base} ({tuning}) with scratchgpt",
    }[facts.kind]
    if facts.kind == "base model" and facts.base and facts.run:
        made = f"It continues a text. {number}, trained further from {base} with scratchgpt"
    if facts.made_by == "import-gpt2":
        made = f"It continues a text. A GPT-2 imported from {base}: {number}, unchanged, in the form of scratchgpt"
    what = "An adapter for a" if facts.is_adapter else "A"
    text = f"{what} {facts.kind}. {made}."
    if facts.made_by == "export" and facts.made_with["to"] != "scratchgpt":
        text += f" Exported to the {facts.made_with['to']} architecture, which needs no code of its own."
    if facts.weight_bits is not None:
        text += (
            f" Its linear layers are rounded to {facts.weight_bits} bits, by bitsandbytes.{_rounding(facts.rounding)}"
        )
    if facts.made_by == "merge":
        text += " The adapter is merged into its base here, so it loads as any other model."
    return text


def _rounding(cost: dict[str, Any]) -> str:
    """A sentence on what rounding costs, where that was measured."""
    if not cost:
        return ""
    count, before, after = cost["before"]["count"], cost["before"]["value"], cost["after"]["value"]
    return (
        f" On {count:,} bytes of {shown(cost['text'])} that costs {after - before:+.4f} bits per byte: {before:.4f} "
        f"before, {after:.4f} after."
    )


# Results and samples


def results(facts: Facts) -> str:
    """Tables: value, 95 % interval, and on how much it was measured."""
    parts = []
    if facts.kind == "tokenizer" and (report := facts.tokenizer_report):
        parts.append(tokenizer_table(report).strip())
    if "evaluated_on" in facts.results:
        split = facts.results["evaluated_on"]
        parts += [
            classifier_table(facts.results),
            f"Expected calibration error {facts.results[split]['calibration_error']:.4f}. Texts cut to the context: "
            f"{facts.results['truncated'][split]:,}.",
        ]
    elif rows := list(_loss_rows(facts)):
        parts.append(table([f"on the split {facts.eval_split!r}", "value", "measured on"], rows))
    if scores := facts.responses:
        rows = [
            [
                name,
                f"{score['rouge_l']:.4f}",
                percent(score["exact_stop_rate"], score["exact_stop_interval"]),
                f"{score['mean_tokens']:.0f}",
                f"{score['num_responses']:,}",
            ]
            for name, score in scores.items()
        ]
        header = ["answers", "ROUGE-L", "end by themselves (95 %)", "tokens in an answer", "questions"]
        parts.append(table(header, rows))
    for evaluation in facts.evaluations:
        rows = list(_evaluation_rows(evaluation))
        parts.append(table(["measured by scratchgpt evaluate", "value", "95 %", "n", "chance"], rows))
        signatures = sorted({found["signature"] for _, _, found in measurements(evaluation)})
        parts.append("Signatures: " + ", ".join(f"`{cell(signature)}`" for signature in signatures) + ".")
    if facts.kind != "tokenizer" and facts.run:
        parts += [f"![{Path(name).stem}]({name})" for name in PICTURES if (facts.run / name).is_file()]
    return "\n\n".join(parts)


def _loss_rows(facts: Facts) -> Iterator[list[str]]:
    final = facts.results.get("final", {})
    unit = next((unit for unit in ("texts", "pairs", "questions") if f"num_{unit}" in final), "tokens")
    counts = {"loss": (f"loss, nats per {unit[:-1]}", unit), "perplexity": ("perplexity of a token", unit)}
    counts |= {"bits_per_byte": ("bits per byte", "bytes")}
    if unit == "questions":
        counts = {}
        yield from _reward_rows(final, "")
    for name, (label, of) in counts.items():
        if name in final:
            yield [label, f"{final[name]:.4f}", f"{final[f'num_{of}']:,} {of}"]
    if unit == "pairs":
        yield from _pair_rows(final, "")
    file = facts.run / "untuned.json" if facts.run else None
    if file is not None and file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if unit == "pairs":
            yield from _pair_rows(before, " before tuning")
        if unit == "questions":
            yield from _reward_rows(before, " before tuning")
            return
        yield ["loss before tuning", f"{before['loss']:.4f}", f"{before[f'num_{unit}']:,} {unit}"]


def _pair_rows(found: dict[str, Any], when: str) -> Iterator[list[str]]:
    number = f"{found['num_pairs']:,} pairs"
    yield [f"ranked right{when} (95 %)", percent(found["ranked_right"], found["ranked_right_interval"]), number]
    if not when:
        yield ["KL to the model before tuning, nats per token", f"{found['kl']:.4f}", number]
        yield ["change of the chosen answers, nats per token", f"{found['chosen_change']:+.4f}", number]
    if found["answer_tokens"] is not None:
        yield [f"tokens in an answer{when}", f"{found['answer_tokens']:.1f}", f"{found['num_answers']:,} answers"]


def _reward_rows(found: dict[str, Any], when: str) -> Iterator[list[str]]:
    number = f"{found['num_questions']:,} questions"
    yield [f"reward{when}", f"{found['reward']:.4f}", number]
    yield [f"right{when} (95 %)", percent(found["right"], found["right_interval"]), number]
    if found["exact"] is not None:
        yield [f"right by the letter{when} (95 %)", percent(found["exact"], found["exact_interval"]), number]
    yield [f"tokens in an answer{when}", f"{found['answer_tokens']:.1f}", number]


def measurements(evaluation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Suite, metric, and what was measured; parts of another, such as `accuracy/ellipsis`, are left out."""
    for suite, metrics in evaluation.items():
        for name, found in metrics.items() if isinstance(metrics, dict) else ():
            if isinstance(found, dict) and "signature" in found and "/" not in name:
                yield suite, name, found


def _evaluation_rows(evaluation: dict[str, Any]) -> Iterator[list[str]]:
    for suite, name, found in measurements(evaluation):
        low, high = found["interval"] or (None, None)
        interval = "–" if low is None else f"{low:.4f} to {high:.4f}"
        chance = f"{found['chance']:.4f} ({found['verdict']})" if "chance" in found else "–"
        yield [cell(f"{suite}: {name}"), f"{found['value']:.4f}", interval, f"{found['count']:,}", chance]


def samples(facts: Facts) -> str:
    """What it wrote by itself at the last evaluation, or answered; not chosen."""
    if facts.kind == "chat model" and facts.run and (file := facts.run / "responses.jsonl").is_file():
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:NUM_SAMPLES]]
        parts = [f"The first questions of the split {facts.eval_split!r}, and what it says:"]
        for line in lines:
            parts += [quote(f"**{line['messages'][-1]['content'].strip()}**"), fenced(_answer(line))]
        return "\n\n".join(parts)
    texts = next((line["samples"] for line in reversed(facts.metrics) if "samples" in line), [])
    if not texts:
        return ""
    return "\n\n".join(["What it wrote at the end of training, not chosen:", *map(fenced, texts[:NUM_SAMPLES])])


def _answer(line: dict[str, Any]) -> str:
    return line["responses"]["tuned"]["text"] or "(nothing)"


# What it is made of


def architecture(facts: Facts) -> str:
    """Shape and size."""
    if facts.kind == "tokenizer":
        return ""
    config, (number, types, size) = facts.config, facts.size
    rows = {
        "layers": config.get("num_hidden_layers", config.get("n_layer")),
        "width": config.get("hidden_size", config.get("n_embd")),
        "heads (of keys and values)": _heads(config),
        "context, tokens": config.get("max_position_embeddings", config.get("n_positions")),
        "vocabulary": config.get("vocab_size"),
        "positions": config.get("position_embedding_type"),
        "normalisation": f"{config['norm_type']}{', and of queries and keys' * config['qk_norm']}"
        if "norm_type" in config
        else None,
        "feed-forward": f"{'gated ' * config['gated_mlp']}{config['hidden_act']}" if "gated_mlp" in config else None,
        "head": "tied to the embedding" if config.get("tie_word_embeddings") else "of its own",
    }
    if facts.is_adapter:
        adapter = facts.adapter
        rows["adapter"] = (
            f"{adapter['peft_type']}, rank {adapter.get('r')}, alpha {adapter.get('lora_alpha')}, on "
            f"{', '.join(sorted(adapter.get('target_modules') or []))}"
        )
    rows["parameters in these files"] = f"{number:,} ({', '.join(types)}, {size / 1e6:,.1f} MB)"
    written = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in rows.items() if value}
    names = config.get("architectures") or []
    return facts_table("architecture", {**({"class": ", ".join(names)} if names else {}), **written})


def _heads(config: dict[str, Any]) -> str | None:
    heads = config.get("num_attention_heads", config.get("n_head"))
    return f"{heads} ({config.get('num_key_value_heads') or heads})" if heads else None


def data(facts: Facts) -> str:
    """What it was trained on: name, licence, counts, fingerprints."""
    found, arguments = facts.data, facts.arguments
    if found is None:
        return ""
    name = f"[{found.name}](https://huggingface.co/datasets/{found.hub_name})" if found.hub_name else f"`{found.name}`"
    split = arguments.get("train_split", arguments.get("split"))
    rows = {"trained on": f"{name}{f', split {split}' if split else ''}"}
    if "eval_split" in arguments:
        source = shown(str(arguments.get("eval_data") or arguments["data"]))
        rows["measured on" if facts.kind == "tokenizer" else "validated on"] = (
            f"`{source}`, split {arguments['eval_split']}"
        )
    rows["licence of the data"] = found.license or "not known"
    if found.build and "splits" in found.build:
        counts = ", ".join(f"{split} {count['rows']:,}" for split, count in found.build["splits"].items())
        rows |= {"rows": counts, "SHA-256 of the rows": f"`{found.build['sha256']}`"}
    for split, labels in facts.results.get("labels", {}).items():
        rows[f"texts in {split}"] = ", ".join(f"{label} {count:,}" for label, count in labels.items())
    if facts.sketch is not None:
        rows[f"{facts.unit}, words"] = f"{facts.num_texts:,}, {facts.sketch.num_words:,}"
    identity = facts.identity
    if identity:
        rows["fingerprint of the training rows"] = f"`{identity['data']}`"
        rows["fingerprint of the tokenizer"] = f"`{identity['tokenizer']}`"
    text = facts_table("data", rows)
    if facts.sketch is not None:
        text += (
            "\n\n`training_texts.safetensors` is a sketch of the training text: by it scratchgpt tells whether "
            "the texts of a test set were in it."
        )
    return text


def training(facts: Facts) -> str:
    """The command, what it took, versions and hardware."""
    parts = []
    if facts.kind != "tokenizer" and facts.results:
        parts.append(facts_table("training", _training_rows(facts)))
    commands = []
    if facts.run:
        commands.append((facts.trained_by, facts.arguments))
    if facts.made_with:
        commands.append((facts.made_by or facts.trained_by, facts.made_with))
    for name, arguments in commands:
        values = {option: _shown_all(value) for option, value in arguments.items()}
        content = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=119)
        parts += [
            f"The command was `scratchgpt {name} arguments.yaml`, with this file:",
            f"<details><summary>arguments.yaml</summary>\n\n{fenced(content, 'yaml')}\n\n</details>",
        ]
    return "\n\n".join(parts)


def _shown_all(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown_all(each) for each in value]
    return shown(value) if isinstance(value, str) else value


def _training_rows(facts: Facts) -> dict[str, str]:
    found, identity = facts.results, facts.identity
    targets = "texts read" if facts.kind == "classifier" else "tokens learned from"
    rows = {
        "steps": f"{found['steps']:,}",
        "pairs read" if facts.is_of_pairs else targets: f"{found['num_targets']:,}",
        "seed": str(identity["seed"]),
        "precision": str(identity["mixed_precision"]).removeprefix("torch.").replace("None", "float32"),
    }
    speeds = [line["tokens_per_second"] for line in facts.metrics if "tokens_per_second" in line]
    if speeds:
        rows["tokens per second (median)"] = f"{statistics.median(speeds):,.0f}"
    if memory := [line["peak_memory_mb"] for line in facts.metrics if "peak_memory_mb" in line]:
        rows["memory, at most"] = f"{max(memory) / 1000:.2f} GB"
    device = [str(identity["device"])]
    device += [str(identity["instructions"])] if identity.get("instructions") else []
    device += [f"{identity['threads']} threads"] if identity.get("threads") else []
    device += [f"CUDA {identity['cuda']}"] if identity.get("cuda") else []
    processes = f" × {identity['world_size']} processes" if identity["world_size"] > 1 else ""
    rows["hardware"] = ", ".join(device) + processes
    rows["versions"] = ", ".join(f"{name} {version}" for name, version in identity["versions"].items() if version)
    return rows
