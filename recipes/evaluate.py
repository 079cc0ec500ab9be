"""Score answers against references: finished ones in a file, or a model's to the questions of a data set.

    python recipes/evaluate.py --answers answers.json --output_dir runs/scores
    python recipes/evaluate.py --answers mine.csv --reference_column gold --answer_column said --output_dir runs/scores
    python recipes/evaluate.py --model runs/chat/final --data data/chats --output_dir runs/scores

A file of answers has the columns `instruction, input, output, model_response` (or `Response` for the reference), in
capitals or not. `--model` is a model directory or Hub name, or an adapter. `results.json` in the output directory
holds BLEU, chrF++, ROUGE, METEOR, token-F1 and more, and BERTScore if an encoder is named: each with its value, the
number of answers, a 95 % interval, and a signature with the versions of the libraries. What is there already and still
valid is not computed again, and a killed run goes on with the answers it has.
Needs the extra [eval]: pip install -e '.[eval]'
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, shortened_path
from scratchgpt.evaluation.answers import FinishedAnswers, ModelAnswers, Scoring, read_answers
from scratchgpt.evaluation.results import FILE, Results, Suite
from scratchgpt.hub.fingerprints import tokenizer_fingerprint
from scratchgpt.hub.staging import check_writable
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.performance import check_device
from scratchgpt.training.run_identity import hash_weights


@dataclass
class EvaluateArguments(RecipeArguments):
    HELP_GROUPS = {"output_dir": "Output", "answers": "Answers", "model": "Model", "bertscore_model": "Evaluation"}

    output_dir: str = required("Where the results go.")

    answers: str | None = option(None, "File of finished answers: .json, .jsonl, .csv, .tsv or .parquet.")
    reference_column: str | None = option(None, "Its column of references; default: output, or Response.")
    answer_column: str | None = option(None, "Its column of answers; default: model_response.")

    model: str | None = option(None, "Model directory or Hub name, or the directory of an adapter.")
    base: str | None = option(None, "The base of an adapter, if it is no longer where it was.")
    data: str | None = option(None, "Conversations that it is asked: Hub name, folder or file.")
    split: str = option("validation", "Split of data; a file has only train.")
    count: int | None = option(None, "Ask so many questions, from all over the data; default: all.", at_least=1)
    max_new_tokens: int = option(128, "Tokens in an answer, at most.", at_least=1)
    batch_size: int = option(16, "Answers at a time.", at_least=1)
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "Default: bfloat16 where it is fast.")
    weight_bits: Literal[8, 4] | None = option(None, "Weights rounded to so many bits.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")

    bertscore_model: str | None = option(None, "Encoder for BERTScore: directory or Hub name; default: no BERTScore.")
    bertscore_layer: int | None = option(None, "Its layer; default: as bert-score chooses, or the last.", at_least=1)
    bertscore_baseline: str | None = option(None, "File of its baseline; default: values are not rescaled.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.answers is None) == (self.model is None):
            raise ValueError("give --answers, a file of finished answers, or --model with --data, one of the two")
        if self.model is not None and self.data is None:
            raise ValueError("--model needs --data: the questions it is asked")


def main(argv: list[str] | None = None) -> None:
    # A script's folder comes first on the path, where `import evaluate` would find this file instead of the library.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if not folder or Path(folder).resolve() != here]
    arguments = parse_arguments(EvaluateArguments, argv)
    directory = Path(arguments.output_dir)
    check_device(arguments.device)
    check_writable(directory)
    if directory.is_dir() and any(directory.iterdir()) and not (directory / FILE).is_file():
        raise ValueError(f"{directory} is not empty and holds no {FILE}: give another --output_dir")
    scoring = Scoring(arguments.bertscore_model, arguments.bertscore_layer, arguments.bertscore_baseline)
    model, tokenizer, identity = None, None, dict[str, Any]()
    suite: Suite
    if arguments.answers is not None:
        suite = FinishedAnswers(
            read_answers(arguments.answers, arguments.reference_column, arguments.answer_column), scoring
        )
        suite.check(None, None)
    else:
        assert arguments.model is not None
        assert arguments.data is not None
        model, tokenizer = load_for_decoding(
            arguments.model, arguments.base, arguments.dtype, arguments.weight_bits, arguments.device
        )
        identity = {
            "name": shortened_path(arguments.model),
            "weights": hash_weights(model),
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "dtype": str(model.dtype).removeprefix("torch."),
            "weight_bits": arguments.weight_bits,
        }
        suite = ModelAnswers(
            arguments.data, arguments.split, directory, identity, scoring, arguments.count, arguments.max_new_tokens,
            arguments.batch_size,
        )  # fmt: skip
        suite.check(model.config, tokenizer)
    results = Results(directory, identity)
    if results.has(suite):
        print(f"{directory / FILE} has the results already")
    else:
        results.record(suite, suite.run(model, tokenizer))
    for name, found in results.values[suite.name].items():
        low, high = found["interval"] or (None, None)
        interval = "" if low is None else f"  (95 %: {low:.4f} to {high:.4f})"
        print(f"{name:<20} {found['value']:>9.4f}  n = {found['count']:,}{interval}")
    print(f"Signatures, and everything else: {directory / FILE}")


if __name__ == "__main__":
    run_recipe(main)
