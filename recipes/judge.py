"""Let a language model judge answers: a score from 0 to 100 for each, or which of two answers is the better one.

    python recipes/judge.py --answers mine.json --judge Qwen/Qwen3-8B --output_dir runs/judged
    python recipes/judge.py --answers mine.json theirs.json --judge runs/judge/final --output_dir runs/judged
    python recipes/judge.py --answers mine.json --judge http://localhost:8000/v1 --judge_model NAME --output_dir out
    python recipes/judge.py --preferences people.json --judge runs/judge/final --output_dir runs/judged
    python recipes/judge.py --verdicts runs/one/judge.jsonl runs/two/judge.jsonl --output_dir runs/agreement

A file of answers has a question in `instruction` and `input` (or `question`, or `prompt`), an answer in
`model_response`, and a reference in `output` (or `Response`), if there is one. Two files hold answers to the same
questions, and are compared: each pair is shown in both orders, and counts only if both verdicts agree. `--judge` is a
model directory or Hub name, an adapter, or the address of an OpenAI-compatible server, whose key is read from the
environment variable JUDGE_API_KEY. Replies that are not exactly what was asked for are counted and not guessed.

`results.json` holds each value with its count, a 95 % interval, and a signature with the judge and its settings;
`judge.jsonl` all verdicts and replies. A rerun asks nothing twice, and a killed run goes on. `--verdicts` are others'
on the same answers, people's or another judge's: how far they agree is a table. `--preferences` has people's choice in
the columns `chosen` and `rejected`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe, shortened_path
from scratchgpt.evaluation.agreement import Agreement, Verdicts, is_pairwise, read_verdicts
from scratchgpt.evaluation.answers import ANSWER
from scratchgpt.evaluation.judges import check_judge, load_judge
from scratchgpt.evaluation.judging import Item, Judging, read_items, read_preferences
from scratchgpt.evaluation.results import FILE, Named, Results, SuiteResult, check_directory
from scratchgpt.hub.staging import check_writable
from scratchgpt.performance import check_device


@dataclass
class JudgeArguments(RecipeArguments):
    HELP_GROUPS = {"output_dir": "Output", "answers": "Answers", "judge": "Model", "verdicts": "Evaluation"}

    output_dir: str = required("Where the results go.")

    answers: list[str] = option([], "One file of answers, or two: .json, .jsonl, .csv, .tsv or .parquet.")
    answer_column: list[str] = option([], "Its column of answers, or that of each file. Default: model_response.")
    preferences: str | None = option(None, "File of pairs, of which people chose one, in place of answers.")

    judge: str | None = option(None, "Model directory, Hub name, adapter, or an address that begins with http.")
    judge_model: str | None = option(None, "Which of its models, where the judge is an address.")
    max_new_tokens: int = option(16, "Tokens in a reply, at most; a model that thinks first needs many.", at_least=1)
    batch_size: int = option(8, "Replies at a time.", at_least=1)
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "Default: bfloat16 where it is fast.")
    weight_bits: Literal[8, 4] | None = option(None, "Weights rounded to so many bits.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")

    verdicts: list[str] = option([], "Files of verdicts on the same answers: scores, or A, B and tie.")
    verdict_column: str | None = option(None, "Their column; default: verdict, or score.")

    def __post_init__(self) -> None:
        super().__post_init__()
        judged = bool(self.answers) + (self.preferences is not None)
        if judged + (len(set(self.verdicts)) > 1) == 0 or judged > 1:
            raise ValueError("give --answers or --preferences, one of the two, or two files or more to --verdicts")
        if bool(judged) != (self.judge is not None):
            raise ValueError("--judge is missing" if judged else "--judge needs --answers or --preferences")
        if len(self.answers) > 2 or len(self.answer_column) > max(1, len(self.answers)):
            raise ValueError("--answers takes one or two files, and --answer_column a name for all or one for each")
        check_judge(self.judge, self.judge_model)


def short_names(files: list[str]) -> dict[str, str]:
    """The files by what is different in their paths."""
    paths = [os.path.abspath(file) for file in files]
    common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return {Path(path).relative_to(common).as_posix(): file for path, file in zip(paths, files, strict=True)}


def read_judged(arguments: JudgeArguments) -> tuple[list[Item], dict[str, Verdicts]]:
    """What is judged, and what people say of it."""
    if arguments.preferences is not None:
        items, people = read_preferences(arguments.preferences)
        return items, {"people": people}
    if not arguments.answers:
        return [], {}
    columns = arguments.answer_column or [ANSWER]
    other = arguments.answers[1] if len(arguments.answers) > 1 else None
    return read_items(arguments.answers[0], columns[0], other, columns[-1]), {}


def record(results: Results, suite: Named, found: SuiteResult) -> None:
    """Into results.json and onto the screen."""
    results.record(suite, found)
    for name, each in found.metrics.items():
        low, high = each.interval or (None, None)
        interval = "" if low is None else f"  (95 %: {low:.4f} to {high:.4f})"
        counts = "".join(f", {key.replace('_', ' ')} {value}" for key, value in each.details.items())
        print(f"{name:<20} {each.value:>9.4f}  n = {each.count:,}{counts}{interval}")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(JudgeArguments, argv)
    directory = Path(arguments.output_dir)
    check_device(arguments.device)
    check_writable(directory)
    check_directory(directory, arguments.judge_model or shortened_path(arguments.judge))

    # Whatever can be wrong with the files is found before the judge is loaded.
    items, verdicts = read_judged(arguments)
    for name, file in short_names(arguments.verdicts).items():
        verdicts[name] = read_verdicts(file, arguments.verdict_column)
    for name, given in verdicts.items() if items else ():
        if len(given) != len(items):
            raise ValueError(f"{name} holds {len(given)} verdicts and there are {len(items)} answers: give the same")
        if is_pairwise(given) != (items[0].other is not None):
            raise ValueError(f"{name}: letters belong to two files of --answers, and scores to one")

    judge = None
    if items:
        assert arguments.judge is not None
        judge = load_judge(
            arguments.judge, arguments.judge_model, arguments.max_new_tokens, arguments.batch_size, arguments.dtype,
            arguments.weight_bits, arguments.device,
        )  # fmt: skip
    results = Results(directory, judge.identity() if judge else {})
    if (directory / FILE).exists() and not results.values["identities"]:
        raise ValueError(f"{directory / FILE} was made with other settings: give another --output_dir")
    if judge is not None:
        judging = Judging(items, judge, directory)
        found = judging.run()
        record(results, judging, found)
        if found.metrics.keys() & {"score", "win_rate"}:  # not where the judge is unfit
            verdicts = {"judge": judging.asked()[0], **verdicts}
    if len(verdicts) > 1:
        agreement = Agreement(verdicts)
        results.record(agreement, agreement.run())
        print(agreement.table())
    print(f"Signatures, and everything else: {directory / FILE}")


if __name__ == "__main__":
    run_recipe(main)
