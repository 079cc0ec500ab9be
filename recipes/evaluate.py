"""Measure how good language models are, and score answers: a model's, or finished ones in a file.

    python recipes/evaluate.py --model runs/base/final --benchmarks_dir data/eval --output_dir runs/scores
    python recipes/evaluate.py --model runs/base/final --text held_out.jsonl --train_text train.jsonl --output_dir out
    python recipes/evaluate.py --model runs/a/final --model runs/b/final --suite blimp hellaswag --output_dir runs/both
    python recipes/evaluate.py --model runs/chat/final --data data/chats --output_dir runs/scores
    python recipes/evaluate.py --answers answers.json --output_dir runs/scores

`--model` is a model directory or Hub name, or the directory of an adapter, which is merged into its base in memory.
`--suite` takes names: text, answers, passages, blimp, hellaswag, lambada, arc_easy, arc_challenge, piqa, winogrande,
boolq, openbookqa, copa; or quick or full, which is all that the other options allow, of the benchmarks in quick a
sample. Benchmarks are read from `--benchmarks_dir`, or from the Hub. `--train_text` adds a 5-gram, as one more model.
The suite passages asks the questions in `--data` with the right passage, with one that is found, a wrong one, and
none.

`results.json` in the output directory, for several models in OUTPUT_DIR/NAME, holds each value with the number of
items, a 95 % interval, and a signature with settings and versions. What is there already and still valid is not
computed again, and a killed run goes on. Needs the extra [eval]: pip install -e '.[eval]'
"""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, shortened_path
from scratchgpt.evaluation.answers import FinishedAnswers, ModelAnswers, Scoring, read_answers
from scratchgpt.evaluation.comparison_report import write_report
from scratchgpt.evaluation.contamination import Overlap, check_overlap
from scratchgpt.evaluation.journal import Journal
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods, Remembered
from scratchgpt.evaluation.models import describe_model
from scratchgpt.evaluation.passages import PassageSuite
from scratchgpt.evaluation.results import FILE, Results, Suite, check_directory
from scratchgpt.evaluation.suites import build_suites, directories, fitting, suite_names
from scratchgpt.evaluation.text import Text
from scratchgpt.hub.fingerprints import hash_weight_files, hash_weights, tokenizer_fingerprint
from scratchgpt.hub.model_directory import is_quantized
from scratchgpt.hub.names import local_copy
from scratchgpt.hub.staging import check_writable
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.performance import check_device

NGRAM = "5-gram"
"""Name of the model that counts --train_text."""


@dataclass
class EvaluateArguments(RecipeArguments):
    HELP_GROUPS = {
        "output_dir": "Output", "model": "Model", "text": "Data", "suite": "Evaluation", "answers": "Answers",
    }  # fmt: skip

    output_dir: str = required("Where the results go.")

    model: list[str] = option([], "Model directories or Hub names, or directories of adapters.")
    base: str | None = option(None, "The base of an adapter, if it is no longer where it was.")
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "Default: float32; rounded, bfloat16.")
    weight_bits: Literal[8, 4] | None = option(None, "Weights rounded to so many bits.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")

    text: str | None = option(None, "Text to measure on: a file, a folder or a data set.")
    text_column: str = option("text", "Its column.")
    train_text: str | None = option(None, "Text that a unigram and a 5-gram count, to compare with.")
    data: str | None = option(None, "Conversations that are asked: Hub name, folder or file.")
    split: str = option("validation", "Split of text and data; a file of conversations has only train.")

    suite: list[str] = option([], "What to measure: quick, full, or names (see above). Default: quick.")
    benchmarks_dir: str | None = option(None, "Folder of the benchmarks' files; default: they come from the Hub.")
    allow_overlap: bool = option(False, "Score what the model was trained on too, apart from the rest.")
    stride: int | None = option(None, "Tokens that the window over texts moves; default: half a context.", at_least=1)

    answers: str | None = option(None, "File of finished answers: .json, .jsonl, .csv, .tsv or .parquet.")
    reference_column: str | None = option(None, "Its column of references; default: output, or Response.")
    answer_column: str | None = option(None, "Its column of answers; default: model_response.")
    count: int | None = option(None, "Ask so many questions, from all over the data; default: all.", at_least=1)
    max_new_tokens: int = option(128, "Tokens in an answer, at most.", at_least=1)
    batch_size: int = option(16, "Answers at a time.", at_least=1)
    bertscore_model: str | None = option(None, "Encoder for BERTScore: directory or Hub name; default: no BERTScore.")
    bertscore_layer: int | None = option(None, "Its layer; default: as bert-score chooses, or the last.", at_least=1)
    bertscore_baseline: str | None = option(None, "File of its baseline; default: values are not rescaled.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.answers is None) == (not self.model):
            raise ValueError("give --answers, a file of finished answers, or --model, one of the two")
        of_models = {"suite": self.suite, "text": self.text, "data": self.data, "benchmarks_dir": self.benchmarks_dir}
        if self.answers is not None and (unused := [name for name, value in of_models.items() if value]):
            raise ValueError(f"--{unused[0]} needs --model: finished answers are only scored")

    def scoring(self) -> Scoring:
        return Scoring(self.bertscore_model, self.bertscore_layer, self.bertscore_baseline)


def measure(
    suites: list[Suite], results: Results, model: Any, tokenizer: Any, overlaps: dict[str, Overlap] | None = None
) -> None:
    """Runs each suite, unless its results are there, and prints what was found."""
    for suite in suites:
        if results.has(suite):
            print(f"{results.directory / FILE} has the results already: {suite.name}", flush=True)
        else:
            results.record(suite, suite.run(model, tokenizer), (overlaps or {}).get(suite.name))
        print(results.table(suite.name), flush=True)


def asked_suites(
    arguments: EvaluateArguments, names: list[str], directory: Path, identity: dict[str, Any]
) -> list[Suite]:
    """Those of the suites in which the model answers questions."""
    data, split = arguments.data or "", arguments.split
    count, tokens, batch_size = arguments.count, arguments.max_new_tokens, arguments.batch_size
    found = list[Suite]()
    if "answers" in names:
        found.append(ModelAnswers(data, split, directory, identity, arguments.scoring(), count, tokens, batch_size))
    if "passages" in names:
        found.append(PassageSuite(data, split, directory, identity, count, tokens, batch_size))
    return found


def find_overlaps(name: str, suites: list[Suite], tokenizer: Any, allowed: bool) -> dict[str, Overlap]:
    """What of each suite stands in the model's training text.

    Raises:
        ValueError: for more than is tolerated, unless it is allowed.
    """
    overlaps = {suite.name: check_overlap(list(suite.texts(tokenizer)), local_copy(name)) for suite in suites}
    for suite, overlap in overlaps.items():
        if overlap.seen.any() or overlap.only_whole.any():
            print(f"{name}, {suite}: {overlap}", flush=True)
        if not allowed:
            overlap.refuse(f"{suite}, for {name},")
    if not all(overlap.is_checked for overlap in overlaps.values()):
        print(f"{name}: not checked against its training text, of which it has no record", flush=True)
    return overlaps


def evaluate(
    arguments: EvaluateArguments, name: str, directory: Path, suites: list[Suite], names: list[str],
    overlaps: dict[str, Overlap],
) -> None:  # fmt: skip
    """Measures one model.

    Args:
        suites: all but those of `names` in which the model answers questions.
    """
    dtype = arguments.dtype or (None if arguments.weight_bits or is_quantized(name) else "float32")
    model, tokenizer = load_for_decoding(name, arguments.base, dtype, arguments.weight_bits, arguments.device)
    identity = {
        "name": shortened_path(name),
        "weights": hash_weights(model),
        "files": hash_weight_files(Path(local_copy(name))),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "weight_bits": arguments.weight_bits,
    }
    results = Results(directory, identity)
    measure(asked_suites(arguments, names, directory, identity), results, model, tokenizer, overlaps)
    journal = directory / "journal" / "log_likelihoods.jsonl"
    measure(suites, results, Remembered(LogLikelihoods(model), Journal(journal, identity)), tokenizer, overlaps)
    journal.unlink(missing_ok=True)  # all that it remembers is in the results
    with suppress(OSError):
        journal.parent.rmdir()  # unless the answers' is there


def main(argv: list[str] | None = None) -> None:
    # A script's folder comes first on the path, where `import evaluate` would find this file instead of the library.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if not folder or Path(folder).resolve() != here]
    arguments = parse_arguments(EvaluateArguments, argv)
    output_dir = Path(arguments.output_dir)
    check_device(arguments.device)
    check_writable(output_dir)
    if arguments.answers is not None:
        answers = read_answers(arguments.answers, arguments.reference_column, arguments.answer_column)
        finished = FinishedAnswers(answers, arguments.scoring())
        finished.check(None, None)
        check_directory(output_dir, None)
        measure([finished], Results(output_dir, {}), None, None)
        print(f"Signatures, and everything else: {output_dir / FILE}")
        return

    # Whatever can be wrong, with any of the models, is found before the first is measured.
    names = suite_names(arguments.suite, arguments.text, arguments.data, arguments.benchmarks_dir)
    places = directories(arguments.model, output_dir)
    if output_dir / NGRAM in places:
        raise ValueError(f"a model directory called {NGRAM} has the name of what counts --train_text: rename it")
    for name, place in zip([*arguments.model, NGRAM], [*places, output_dir / NGRAM], strict=True):
        check_directory(place, shortened_path(name))
    ours = [found for name in (FILE, "journal") for found in (*output_dir.glob(name), *output_dir.glob(f"*/{name}"))]
    if output_dir.is_dir() and any(output_dir.iterdir()) and not ours:
        raise ValueError(f"{output_dir} is not empty and holds no {FILE}: give another --output_dir")
    described = [describe_model(name, arguments.base) for name in arguments.model]
    text = Text(arguments.text, arguments.split, arguments.text_column) if arguments.text else None
    train = Text(arguments.train_text, column=arguments.text_column) if arguments.train_text else None
    quick = arguments.suite in ([], ["quick"])
    suites = build_suites(names, quick, arguments.benchmarks_dir, text, train, arguments.stride)
    chosen: list[tuple[list[Suite], dict[str, Overlap]]] = []
    for name, place, (config, tokenizer) in zip(arguments.model, places, described, strict=True):
        asked = asked_suites(arguments, names, place, {})
        fits = fitting([*asked, *suites], config, tokenizer, name, needed=arguments.suite)
        chosen.append((fits[len(asked) :], find_overlaps(name, fits, tokenizer, arguments.allow_overlap)))

    for name, place, (fits, overlaps) in zip(arguments.model, places, chosen, strict=True):
        print(f"{name}:", flush=True)
        evaluate(arguments, name, place, fits, names, overlaps)
    if train is not None and suites:
        print(f"{NGRAM}:", flush=True)
        tokenizer = described[0][1]
        identity = {"name": NGRAM, "text": train.fingerprint(), "tokenizer": tokenizer_fingerprint(tokenizer)}
        places.append(output_dir / NGRAM)
        results = Results(places[-1], identity)
        measure(suites, results, None if all(map(results.has, suites)) else train.ngram(tokenizer), tokenizer)
    print(f"Signatures, and everything else: {', '.join(str(place / FILE) for place in places)}")
    if len(places) > 1:
        try:
            print(f"\n{write_report(places, output_dir)}")
        except ValueError as error:  # no mistake: what was measured is there
            print(f"\nNo comparison: {error}")


if __name__ == "__main__":
    run_recipe(main)
