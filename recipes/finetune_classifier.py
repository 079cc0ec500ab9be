"""Tune a base into a classifier of texts, and measure it on the whole test split beside simple baselines.

    python recipes/finetune_classifier.py --data reviews.csv --text_column review --label_column stars \\
        --model_name_or_path runs/base/final --output_dir runs/reviews          # a labelled file in, a classifier out
    python recipes/finetune_classifier.py recipes/configs/finetune_classifier/sms_spam.yaml --seed 1
    python recipes/finetune_classifier.py my.yaml --tuning lora                 # also: frozen, last_layers
    python recipes/finetune_classifier.py my.yaml --class_weights balanced
    python recipes/finetune_classifier.py my.yaml --from_scratch True           # random weights in the base's shape
    python recipes/finetune_classifier.py my.yaml --lm_steps 500 --lm_data more_text     # continued pretraining first

`--data` is a data set of schema {"text", "label"} with splits (a Hub name, or a folder that a builder wrote), or one
.csv, .tsv, .jsonl or .parquet file, which is split by a hash of the texts unless `--eval_data` and `--test_data` are
given. The output directory holds `final/`, which `pipeline("text-classification", …)` loads (for LoRA `final/` is the
adapter and `merged/` the whole model), `results.json` with the results on the test split and the baselines',
plots, and `arguments.yaml` (given to the recipe, it reproduces the run).
"""

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoTokenizer

from scratchgpt import ScratchGPTForSequenceClassification
from scratchgpt.adapters import describe_parameters, load_adapter, merge_adapter
from scratchgpt.arguments import option, parse_arguments, required, run_recipe, shortened_path
from scratchgpt.data.labelled_splits import LabelledDataArguments, load_splits
from scratchgpt.data.labelled_texts import fingerprint_texts
from scratchgpt.data.text_rows import TextRows
from scratchgpt.evaluation.classification import predict
from scratchgpt.evaluation.classification_report import write_report
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.names import local_copy
from scratchgpt.hub.training_texts import TrainingTexts
from scratchgpt.training.arguments import MAX_LEARNING_RATE
from scratchgpt.training.bases import StagedArguments, base_config, base_model, continue_pretraining, own_base
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.metrics import peak_memory_mb
from scratchgpt.training.tasks.classification import ClassificationArguments, TextClassification, balanced_weights


@dataclass
class ClassifierArguments(LabelledDataArguments, ClassificationArguments, StagedArguments):
    HELP_GROUPS = {"model_name_or_path": "Model", "num_train_epochs": "Training", "baselines": "Evaluation"}

    model_name_or_path: str = required("The base: directory or Hub name of a scratchgpt model, or a GPT-2.")
    from_scratch: bool = option(False, "Random weights in the base's shape instead of its own.")
    max_length: int | None = option(None, "Tokens of a text that are read; default: the base's context.", at_least=1)
    truncation_side: Literal["left", "right"] = option("right", "Where longer texts are cut.")
    hidden_dropout: float = option(0.1, "Dropout on embeddings and residual branches.", at_least=0, below=1)
    attention_dropout: float = option(0.1, "Dropout on attention weights.", at_least=0, below=1)

    num_train_epochs: float = option(3.0, "Passes over the training texts.", above=0)
    max_steps: int = option(0, "Optimizer steps; above 0 this wins over num_train_epochs.", at_least=0)

    baselines: list[str] = option(["word"], "TF-IDF baselines: of words (word), of characters (char_wb), or none.")
    compile: bool = option(False, "Compile the training step; every length of a batch anew.")
    learning_rate: float = option(3e-4, "Peak learning rate of AdamW.", above=0, at_most=MAX_LEARNING_RATE)
    per_device_train_batch_size: int = option(32, "Texts per process and forward pass.", at_least=1)
    on_loss_spike: Literal["warn", "skip", "stop", "ignore"] = option(
        "ignore",
        "What to do when the loss jumps, as it does here: batches are sorted by length, and most losses are near 0.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tuning == "lora" and self.from_scratch:
            raise ValueError("tuning=lora needs a base with weights: leave from_scratch out, or tune in full")
        if unknown := set(self.baselines) - {"word", "char_wb", "none"}:
            raise ValueError(f"unknown baselines {sorted(unknown)}: choose from word, char_wb, none")
        if self.r_drop and not (self.hidden_dropout or self.attention_dropout):
            raise ValueError("r_drop compares passes with different dropout: give hidden_dropout or attention_dropout")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ClassifierArguments, argv)
    started = time.perf_counter()
    accelerator, output_dir = build_accelerator(arguments), Path(arguments.output_dir)
    base = own_base(arguments.model_name_or_path, arguments.output_dir, accelerator)
    splits = load_splits(arguments, arguments.seed)
    longest = base_config(base).max_position_embeddings
    if (max_length := arguments.max_length or longest) > longest:
        raise ValueError(f"max_length={max_length} is beyond the model's context of {longest} tokens")
    tokenizer = AutoTokenizer.from_pretrained(local_copy(base), split_special_tokens=True)
    tokenizer.truncation_side, tokenizer.model_max_length = arguments.truncation_side, max_length
    rows = {name: TextRows(data, tokenizer, max_length) for name, data in splits.items()}
    model_options = {name: vars(arguments)[name] for name in ("from_scratch", "hidden_dropout", "attention_dropout")}
    if arguments.lm_steps:
        found = continue_pretraining(base, arguments, tokenizer, accelerator, **model_options)
        if found is None:
            sys.exit(EXIT_INTERRUPTED)
        base, model_options = found, {**model_options, "from_scratch": False}

    batch_size = arguments.per_device_train_batch_size
    a_step = batch_size * arguments.gradient_accumulation_steps * accelerator.num_processes
    steps = arguments.max_steps or math.ceil(arguments.num_train_epochs * len(rows["train"]) / a_step)
    arguments = replace(arguments, max_steps=steps)
    accelerator.print(f"{steps:,} steps: {steps * a_step / len(rows['train']):.3g} passes over the training texts")
    names = splits["train"].names
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    kind = ScratchGPTForSequenceClassification
    model = arguments.prepare(base_model(kind, base, arguments.seed, **model_options, **labels))
    accelerator.print(f"{arguments.tuning}: {describe_parameters(model)}")
    num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = balanced_weights(splits["train"]) if arguments.class_weights == "balanced" else None
    task = TextClassification(rows["train"], rows["validation"], batch_size, weights, arguments.r_drop)
    if not train(task, model, tokenizer, arguments, accelerator, fingerprint_texts(splits["train"])):
        sys.exit(EXIT_INTERRUPTED)
    seconds = time.perf_counter() - started
    if not accelerator.is_main_process:
        return

    # What was saved is measured, as a user would load it; for LoRA that is written, merged, first.
    if arguments.tuning == "lora":
        adapted, _ = load_adapter(output_dir / "final", base, "SEQ_CLS", **labels)
        model = merge_adapter(adapted)
        texts = TrainingTexts.read(output_dir / "final")
        save_model(model, tokenizer, output_dir / "merged", overwrite=True, training_texts=texts)
    else:
        model = kind.from_pretrained(output_dir / "final", dtype=torch.float32)
    split = "test" if "test" in splits else "validation"
    logits = predict(model.to(accelerator.device), rows[split], len(names), batch_size)
    facts = {
        "tuning": arguments.tuning,
        "class_weights": arguments.class_weights,
        "base": "random weights" if model_options["from_scratch"] else shortened_path(base),
        "num_trained_parameters": num_trained,
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(accelerator.device)),
    }
    analyzers = [name for name in arguments.baselines if name != "none"]
    write_report(logits, rows, split, analyzers, facts, output_dir)
    print(f"The classifier: {output_dir / ('merged' if arguments.tuning == 'lora' else 'final')}")


if __name__ == "__main__":
    run_recipe(main)
