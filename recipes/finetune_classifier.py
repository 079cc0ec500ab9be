"""Tune a base into a classifier of texts, and measure it on the whole test split beside simple baselines.

    python recipes/finetune_classifier.py --data reviews.csv --text_column review --label_column stars \\
        --model_name_or_path runs/base/final --output_dir runs/reviews          # a labelled file in, a classifier out
    python recipes/finetune_classifier.py recipes/configs/finetune_classifier/sms_spam.yaml --seed 1
    python recipes/finetune_classifier.py my.yaml --tuning lora                 # also: frozen, last_layers
    python recipes/finetune_classifier.py my.yaml --class_weights balanced
    python recipes/finetune_classifier.py my.yaml --from_scratch True           # random weights in the base's shape
    python recipes/finetune_classifier.py my.yaml --lm_steps 500 --lm_data more_text   # read on first, then tune

`--data` is a data set of schema {"text", "label"} with splits (a Hub name, or a folder that a builder wrote), or one
.csv, .tsv, .jsonl or .parquet file, which is split by a hash of the texts unless `--eval_data` and `--test_data` are
given. The output directory holds `final/`, which `pipeline("text-classification", …)` loads (for LoRA `final/` is the
adapter and `merged/` the whole model), `results.json` with the test figures and the baselines', and plots.
"""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from scratchgpt import ScratchGPTForCausalLM, ScratchGPTForSequenceClassification
from scratchgpt.adapters import (
    AdapterArguments,
    add_adapter,
    describe_parameters,
    load_adapter,
    merge_adapter,
)
from scratchgpt.arguments import option, parse_arguments
from scratchgpt.data.corpus import tokenize_corpus
from scratchgpt.data.labelled_texts import (
    LabelledTexts,
    check_classes,
    deduplicate,
    fingerprint_texts,
    read_labelled,
    split_rows,
)
from scratchgpt.data.packing import PackedRows
from scratchgpt.data.splits import check_fractions
from scratchgpt.data.text_rows import TextRows
from scratchgpt.evaluation.baselines import linear_baseline, majority_baseline
from scratchgpt.evaluation.classification import (
    ClassificationResult,
    measure,
    model_card,
    predict,
    results_table,
)
from scratchgpt.evaluation.plots import plot_classification
from scratchgpt.hub.model_directory import save_model
from scratchgpt.training.arguments import TrainingArguments
from scratchgpt.training.guards import EXIT_INTERRUPTED
from scratchgpt.training.loop import build_accelerator, train
from scratchgpt.training.meters import peak_memory_mb
from scratchgpt.training.tasks.classification import TextClassification, balanced_weights, freeze
from scratchgpt.training.tasks.language_modelling import LanguageModelling


@dataclass
class ClassifierArguments(AdapterArguments, TrainingArguments):
    data: str = option("", 'Data set of schema {"text", "label"}: Hub name, folder or file.')
    eval_data: str | None = option(None, "File to validate on, where data is a file.")
    test_data: str | None = option(None, "File to test on, where data is a file.")
    train_split: str = option("train", "Split to train on, where data has splits.")
    eval_split: str = option("validation", "Split to validate on.")
    test_split: str = option("test", "Split to test on.")
    text_column: str = option("text", "Column that holds the text.")
    label_column: str = option("label", "Column that holds the label.")
    validation_fraction: float = option(0.1, "Share that validates, where data is one file.")
    test_fraction: float = option(0.1, "Share that tests, where data is one file.")

    model_name_or_path: str = option("", "The base: directory or Hub name of a scratchgpt model.")
    from_scratch: bool = option(False, "Random weights in the base's shape instead of its own.")
    max_length: int | None = option(None, "Tokens of a text that are read; default: the base's context.")
    truncation_side: Literal["left", "right"] = option("right", "Where longer texts are cut.")
    hidden_dropout: float = option(0.1, "Dropout on embeddings and residual branches.")
    attention_dropout: float = option(0.1, "Dropout on attention weights.")

    tuning: Literal["full", "last_layers", "frozen", "lora"] = option(
        "full", "What is trained beside the head: everything, last_layers of the layers, nothing, or an adapter."
    )
    last_layers: int = option(2, "tuning=last_layers: how many.")
    lora_r: int = option(4, "Rank of the adapter's matrices.")
    lora_alpha: int = option(16, "The adapter's output is scaled by alpha / rank (rsLoRA: alpha / √rank).")
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: every label has the same share of the loss."
    )
    r_drop: float = option(
        0.0, "Weight of the divergence between two passes of a text with other dropout (R-Drop); for small data."
    )
    num_train_epochs: float | None = option(None, "Passes over the training texts, instead of max_steps.")

    lm_steps: int = option(0, "Steps of language modelling on lm_data before tuning.")
    lm_data: str | None = option(None, 'Data set of schema {"text"} with the splits train and validation.')
    lm_learning_rate: float = option(1e-3, "Peak learning rate of that.")
    lm_batch_size: int = option(16, "Rows of it in a step.")
    cache_dir: str = option("runs/cache", "Where tokenised corpora are kept.")

    baselines: list[str] = option(["word"], "TF-IDF baselines: of words (word), of characters (char_wb), or none.")
    compile: bool = option(False, "Compile the training step; every length of a batch anew.")
    learning_rate: float = option(3e-4, "Peak learning rate of AdamW.")
    per_device_train_batch_size: int = option(32, "Texts per process and forward pass.")
    on_loss_spike: Literal["warn", "skip", "stop", "ignore"] = option(
        "ignore", "What to do when the loss jumps far up; batches of like length differ, and most losses are near 0."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("data", "model_name_or_path"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing: {self.__dataclass_fields__[name].metadata['help']}")
        if self.tuning == "lora" and self.from_scratch:
            raise ValueError("tuning=lora needs a base with weights: leave from_scratch out, or tune in full")
        if unknown := set(self.baselines) - {"word", "char_wb", "none"}:
            raise ValueError(f"unknown baselines {sorted(unknown)}: choose from word, char_wb, none")
        if self.r_drop < 0:
            raise ValueError(f"r_drop={self.r_drop}: it is 0 (none) or above")
        if self.r_drop and not (self.hidden_dropout or self.attention_dropout):
            raise ValueError("r_drop compares passes with other dropout: give hidden_dropout or attention_dropout too")
        if self.lm_steps and self.lm_data is None:
            raise ValueError("lm_steps needs --lm_data: the text to read")
        check_fractions(validation_fraction=self.validation_fraction, test_fraction=self.test_fraction)


def load_splits(arguments: ClassifierArguments) -> dict[str, LabelledTexts]:
    """The splits train, validation and, where there is one, test.

    Raises:
        ValueError: as `read_labelled`; for an empty split, and for a training split without two labels.
    """
    columns = {"text_column": arguments.text_column, "label_column": arguments.label_column}
    data = read_labelled(arguments.data, arguments.train_split, **columns)
    check_classes(data, arguments.data)
    if not Path(arguments.data).is_file():
        splits = {"train": data}
        for name, split in (("validation", arguments.eval_split), ("test", arguments.test_split)):
            splits[name] = read_labelled(arguments.data, split, **columns, names=data.names)
    elif arguments.eval_data is not None:
        splits = {"train": data, "validation": read_labelled(arguments.eval_data, **columns, names=data.names)}
        if arguments.test_data is not None:
            splits["test"] = read_labelled(arguments.test_data, **columns, names=data.names)
    else:
        kept, removed = deduplicate(data.texts, data.labels, data.names)
        data = data.select(kept)
        fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
        rows = split_rows(data.texts, data.labels, fractions, arguments.seed)
        splits = {name: data.select(members) for name, members in rows.items()}
        check_classes(splits["train"], f"the training split of {arguments.data}")
        print("Left out: " + ", ".join(f"{reason}: {count:,}" for reason, count in removed.items()))
    for name in ("validation", "test"):
        if name in splits and not len(splits[name]):
            raise ValueError(f"the split {name!r} is empty: give more texts or a larger fraction")
    if "validation" not in splits:
        raise ValueError("there is nothing to validate on: give validation_fraction above 0, or --eval_data")
    return splits


def read_on(arguments: ClassifierArguments, tokenizer: PreTrainedTokenizerBase) -> str:
    """Trains the base as a language model on `lm_data`; returns the directory of the result."""
    folder = Path(arguments.output_dir) / "language_model"
    if (folder / "results.json").is_file():
        return str(folder / "final")  # an interrupted run that goes on
    if build_accelerator(arguments).num_processes > 1:
        raise ValueError("lm_steps is for one process: with several, run recipes/pretrain.py first")
    assert arguments.lm_data is not None
    model = load_model(ScratchGPTForCausalLM, arguments.model_name_or_path, arguments)
    length = model.config.max_position_embeddings
    corpora = [
        tokenize_corpus(arguments.lm_data, arguments.model_name_or_path, arguments.cache_dir, split)
        for split in ("train", "validation")
    ]
    train_rows, eval_rows = (PackedRows(corpus, length, mask_documents=True) for corpus in corpora)
    settings = replace(
        arguments,
        output_dir=str(folder),
        max_steps=arguments.lm_steps,
        eval_steps=arguments.lm_steps,
        save_steps=arguments.lm_steps,
        learning_rate=arguments.lm_learning_rate,
        per_device_train_batch_size=arguments.lm_batch_size,
        gradient_accumulation_steps=1,
        ema_decay=None,
        early_stopping_patience=None,
    )
    task = LanguageModelling(train_rows, eval_rows, tokenizer, settings)
    if not train(task, model, tokenizer, settings, build_accelerator(settings), corpora[0].fingerprint):
        sys.exit(EXIT_INTERRUPTED)
    return str(folder / "final")


def load_model(kind: Any, directory: str, arguments: ClassifierArguments, **kwargs: Any) -> Any:
    """A model of class `kind` on the base in `directory`, or in its shape only."""
    kwargs |= {"hidden_dropout": arguments.hidden_dropout, "attention_dropout": arguments.attention_dropout}
    set_seed(arguments.seed)
    if arguments.from_scratch:
        return kind(AutoConfig.from_pretrained(directory, **kwargs))
    return kind.from_pretrained(directory, dtype=torch.float32, **kwargs)


def label_map(names: list[str]) -> dict[str, Any]:
    """What a classifier's configuration says of its labels."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def test_result(
    arguments: ClassifierArguments, rows: TextRows, device: torch.device
) -> tuple[ClassificationResult, torch.Tensor]:
    """Measures what was saved, as a user would load it; for LoRA that is written, merged, first."""
    output_dir = Path(arguments.output_dir)
    kind = ScratchGPTForSequenceClassification
    if arguments.tuning == "lora":
        labels = label_map(rows.data.names)
        adapted, tokenizer = load_adapter(output_dir / "final", kind=kind, **labels)
        model: Any = merge_adapter(adapted)
        save_model(model, tokenizer, output_dir / "merged", overwrite=True)
    else:
        model = kind.from_pretrained(output_dir / "final", dtype=torch.float32)
    names = rows.data.names
    logits = predict(model.to(device), rows, len(names), arguments.per_device_train_batch_size)
    return measure(logits, rows.labels, names), logits


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ClassifierArguments, argv)
    if arguments.dry_run:
        print(json.dumps(asdict(arguments), indent=2, ensure_ascii=False))
        return
    started = time.perf_counter()
    splits = load_splits(arguments)
    names = splits["train"].names
    tokenizer = AutoTokenizer.from_pretrained(arguments.model_name_or_path, split_special_tokens=True)
    config = AutoConfig.from_pretrained(arguments.model_name_or_path)
    max_length = arguments.max_length or config.max_position_embeddings
    tokenizer.truncation_side, tokenizer.model_max_length = arguments.truncation_side, max_length
    rows = {name: TextRows(data, tokenizer, max_length) for name, data in splits.items()}
    base = read_on(arguments, tokenizer) if arguments.lm_steps else arguments.model_name_or_path
    if arguments.lm_steps:
        arguments.from_scratch = False

    accelerator = build_accelerator(arguments)
    if arguments.num_train_epochs is not None:
        a_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        texts = arguments.num_train_epochs * len(rows["train"])
        arguments.max_steps = max(1, math.ceil(texts / (a_step * accelerator.num_processes)))
    model = load_model(ScratchGPTForSequenceClassification, base, arguments, **label_map(names))
    if arguments.tuning == "lora":
        model = add_adapter(model, arguments, task_type="SEQ_CLS")
    elif arguments.tuning != "full":
        freeze(model, arguments.last_layers if arguments.tuning == "last_layers" else 0)
    accelerator.print(f"{arguments.tuning}: {describe_parameters(model)}")
    num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = balanced_weights(splits["train"]) if arguments.class_weights == "balanced" else None
    task = TextClassification(
        rows["train"], rows["validation"], arguments.per_device_train_batch_size, weights, arguments.r_drop
    )
    if not train(task, model, tokenizer, arguments, accelerator, fingerprint_texts(splits["train"])):
        sys.exit(EXIT_INTERRUPTED)
    trained = time.perf_counter()
    if not accelerator.is_main_process:
        return

    name = "test" if "test" in splits else "validation"
    result, logits = test_result(arguments, rows[name], accelerator.device)
    baselines = {"majority": majority_baseline(splits["train"], splits[name]).as_dict()}
    for analyzer in [name for name in arguments.baselines if name != "none"]:
        linear, strength = linear_baseline(splits["train"], splits["validation"], splits[name], analyzer)
        baselines[f"TF-IDF logistic regression ({analyzer})"] = {"C": strength, **linear.as_dict()}
    output_dir = Path(arguments.output_dir)
    results = json.loads((output_dir / "results.json").read_text(encoding="utf-8"))
    results |= {
        name: result.as_dict(),
        "evaluated_on": name,
        "baselines": baselines,
        "labels": {split: data.counts() for split, data in splits.items()},
        "truncated": {split: each.num_truncated for split, each in rows.items()},
        "tuning": arguments.tuning,
        "class_weights": arguments.class_weights,
        "base": "random weights" if arguments.from_scratch else base,
        "num_trained_parameters": num_trained,
        "seconds": round(trained - started, 1),
        "peak_memory_mb": round(peak_memory_mb(accelerator.device)),
    }
    (output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    plot_classification(logits, rows[name].labels, names, output_dir)
    print(results_table(results))
    for folder in ("final", "merged"):
        if (output_dir / folder).is_dir():
            (output_dir / folder / "README.md").write_text(model_card(results, names), encoding="utf-8")
    print(f"The classifier: {output_dir / ('merged' if arguments.tuning == 'lora' else 'final')}")


if __name__ == "__main__":
    main()
