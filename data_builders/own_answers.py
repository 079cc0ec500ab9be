"""Answers of a model of one's own, graded by a checker or a judge → pairs for preference tuning, and the best answers.

    python data_builders/own_answers.py --model runs/sums/final --data data/sums/chat --output_dir data/own
    python data_builders/own_answers.py --model runs/chat/final --data questions.jsonl --output_dir data/own \\
        --reward my_rewards:score --right_at 0.5
    python data_builders/own_answers.py --model runs/chat/final --data questions.jsonl --output_dir data/own \\
        --judge http://localhost:8000/v1 --judge_model my-judge --right_at 0.7

The model answers each question `--answers` times, drawn from its distribution. Rewards are those of
`recipes/reinforce.py`; a judge's score of 0 to 100 is a reward of 0 to 1. The output directory holds two data sets:
`pairs`, of each question the best and the worst answer, where one is better, for `recipes/finetune_preference.py`; and
`best`, of each question the best answer, where its reward is `--right_at` or more (best-of-n, rejection sampling), for
`recipes/finetune_instruct.py`. Answers that are cut at `--max_new_tokens` are in neither.

The splits of the questions stay; of a file a part validates. Answers and a judge's replies go to journals beside the
output: started again, the build asks only what is missing.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Value
from tqdm import tqdm

from scratchgpt.arguments import option, required, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, make_dataset, run_builder
from scratchgpt.data.chat_sources import describe
from scratchgpt.data.files import source_name
from scratchgpt.data.prompts import ANSWER, Prompt, read_prompts, split_prompts
from scratchgpt.data.sampled_rows import SampledRows
from scratchgpt.data.splits import draw
from scratchgpt.evaluation.journal import Journal
from scratchgpt.evaluation.judge import Judge, ask, parse_score
from scratchgpt.evaluation.judges import check_judge, load_judge
from scratchgpt.evaluation.judging import MOST_UNREADABLE, Item
from scratchgpt.evaluation.log_likelihoods import context_length
from scratchgpt.evaluation.models import describe_model
from scratchgpt.evaluation.responses import Response, generate_responses
from scratchgpt.evaluation.rewards import Rewards
from scratchgpt.hub.fingerprints import hash_weights, tokenizer_fingerprint
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.performance import check_device


@dataclass(kw_only=True)
class OwnAnswersArguments(BuilderArguments):
    HELP_GROUPS = {"model": "Model", "data": "Data", "answers": "Answers"}

    model: str = required("Whose answers: directory or Hub name of an assistant, or an adapter.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")

    data: str = required("Questions, as recipes/reinforce.py reads them: Hub name, folder or file.")
    splits: list[str] = option(["train", "validation"], "Splits of data that has some.")
    validation_fraction: float = option(0.1, "Share that validates, where data is one file.", above=0, below=1)

    answers: int = option(8, "Answers to each question.", at_least=2)
    max_new_tokens: int = option(64, "Tokens in an answer, at most.", at_least=1)
    temperature: float = option(1.0, "Of the draws.", above=0, at_most=10)
    batch_size: int = option(64, "Answers, and replies of a judge, at a time.", at_least=1)

    reward: list[str] = option(
        ["exact_match"], "exact_match, number_match, format, or module:function; name=weight, and they are summed."
    )
    answer_format: str | None = option(None, "Of the reward format: a regular expression for the whole answer.")
    reward_time_limit: float = option(10.0, "Seconds that a reward of yours may take for an answer.", above=0)
    judge: str | None = option(None, "In place of rewards: model directory, Hub name, or an address.")
    judge_model: str | None = option(None, "Which of its models, where the judge is an address.")
    right_at: float = option(1.0, "A best answer has this reward or more.")


def check(arguments: OwnAnswersArguments) -> None:
    """
    Raises:
        ValueError: for arguments that do not go together, a device that is not there, and what is no language model.
    """
    check_judge(arguments.judge, arguments.judge_model)
    if arguments.judge is not None and arguments.reward != ["exact_match"]:
        raise ValueError("--judge takes the place of --reward: give one of them")
    check_device(arguments.device)
    describe_model(arguments.model)


def read_questions(arguments: OwnAnswersArguments) -> dict[str, list[Prompt]]:
    """By split."""
    if Path(arguments.data).is_file():
        prompts, _ = read_prompts(arguments.data)
        training, validation = split_prompts(prompts, arguments.validation_fraction, arguments.seed)
        return {"train": training, "validation": validation}
    return {split: read_prompts(arguments.data, split)[0] for split in arguments.splits}


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], journal: Journal, arguments: OwnAnswersArguments
) -> list[list[Response]]:
    """`answers` to each question."""
    count, found = arguments.answers, list[list[Response]]()
    together = max(1, arguments.batch_size // count)
    for start in tqdm(range(0, len(prompts), together), desc=f"sampling {count} answers each", unit="batch"):
        asked = [prompt.messages for prompt in prompts[start : start + together] for _ in range(count)]
        responses = generate_responses(
            model, tokenizer, asked, arguments.max_new_tokens, arguments.batch_size, do_sample=True,
            seed=int(draw(arguments.seed, start) * 2**31), journal=journal, temperature=arguments.temperature,
            top_k=0, top_p=1.0,
        )  # fmt: skip
        found += [responses[i : i + count] for i in range(0, len(responses), count)]
    return found


def short_name(model: str) -> str:
    """A directory by its own name and its parent's, without where it lies; Hub names and addresses as they are."""
    return "/".join(Path(model).resolve().parts[-2:]) if Path(model).is_dir() else model


def beside(arguments: OwnAnswersArguments, name: str) -> Path:
    output = Path(arguments.output_dir)
    return output.with_name(f"{output.name}_{name}.jsonl")


Grader = Callable[[list[Prompt], list[str]], np.ndarray]
"""float64 [N], what each of N answers to as many questions is worth; NaN where nobody knows."""


def grader(arguments: OwnAnswersArguments, questions: dict[str, list[Prompt]]) -> Grader:
    """The rewards, or the judge. Made before anything is sampled, so that a mistake is found first.

    Raises:
        ValueError: as `Rewards`, `Rewards.check` and `load_judge`.
    """
    if arguments.judge is None:
        rewards = Rewards(arguments.reward, arguments.answer_format, arguments.reward_time_limit)
        for prompts in questions.values():
            rewards.check(prompts, arguments.data)
        return rewards
    judge = load_judge(
        arguments.judge, arguments.judge_model, batch_size=arguments.batch_size, device=arguments.device
    )
    return lambda prompts, answers: judged(prompts, answers, judge, arguments)


def judged(prompts: list[Prompt], answers: list[str], judge: Judge, arguments: OwnAnswersArguments) -> np.ndarray:
    """float64 [N]: a judge's scores, 0 to 1; NaN where it was not understood.

    Raises:
        ValueError: for a judge that was seldom understood.
    """
    items = zip(prompts, answers, strict=True)
    asked = [Item(each.question, str(each.row.get(ANSWER, "")), answer).prompts()[0] for each, answer in items]
    replies = ask(judge, asked, Journal(beside(arguments, "judge"), judge.identity()))
    scores = [parse_score(reply or "") for reply in replies]
    if scores.count(None) > MOST_UNREADABLE * len(scores):
        raise ValueError(
            f"--judge {arguments.judge} is unfit: {scores.count(None):,} of {len(scores):,} replies "
            "are no score; take another one"
        )
    return np.array([np.nan if score is None else score / 100 for score in scores])


def choose(
    prompt: Prompt, answers: list[Response], rewards: np.ndarray, right_at: float, reasons: Counter[str]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The pair and the best answer of a question, as rows, where there are such.

    Args:
        rewards: [N]; NaN is an answer whose worth nobody knows.
        reasons: counts what is left out.
    """
    sound = [i for i, each in enumerate(answers) if each.stopped and each.text.strip() and not np.isnan(rewards[i])]
    if not sound:
        reasons["questions without an answer that ends"] += 1
        return None, None
    best, worst = max(sound, key=lambda i: rewards[i]), min(sound, key=lambda i: rewards[i])
    key = hashlib.sha256(repr(prompt.messages).encode()).hexdigest()[:12]
    common = {"source": str(prompt.row.get("source", key))}
    said = [[{"role": "assistant", "content": answers[i].text}] for i in (best, worst)]
    pair = right = None
    if rewards[best] > rewards[worst]:
        both = {"chosen_reward": float(rewards[best]), "rejected_reward": float(rewards[worst])}
        pair = {"prompt": prompt.messages, "chosen": said[0], "rejected": said[1], **both, **common}
    else:
        reasons["questions whose answers are all worth the same"] += 1
    if rewards[best] >= right_at:
        right = {"messages": [*prompt.messages, *said[0]], "reward": float(rewards[best]), **common}
    else:
        reasons["questions without a right answer"] += 1
    return pair, right


def build(arguments: OwnAnswersArguments) -> dict[str, Built]:
    check(arguments)
    questions = read_questions(arguments)
    grade = grader(arguments, questions)
    model, tokenizer = load_for_decoding(arguments.model, device=arguments.device)
    # Questions that leave no room for an answer are left out, and counted.
    context = context_length(model.config)
    fitting = {
        split: SampledRows(prompts, tokenizer, context, arguments.max_new_tokens)
        for split, prompts in questions.items()
    }
    questions = {split: rows.prompts for split, rows in fitting.items()}
    owner = {"weights": hash_weights(model), "tokenizer": tokenizer_fingerprint(tokenizer)}
    journal = Journal(beside(arguments, "answers"), owner)
    answers = {split: sample(model, tokenizer, prompts, journal, arguments) for split, prompts in questions.items()}
    pairs: dict[str, list[dict[str, Any]]] = {}
    best: dict[str, list[dict[str, Any]]] = {}
    reasons: dict[str, dict[str, int]] = {}
    for split, prompts in questions.items():
        repeated = [prompt for prompt in prompts for _ in range(arguments.answers)]
        texts = [each.text for of_one in answers[split] for each in of_one]
        found = grade(repeated, texts)
        left_out = Counter(fitting[split].left_out)
        rows = [
            choose(*each, arguments.right_at, left_out)
            for each in zip(prompts, answers[split], found.reshape(len(prompts), -1), strict=True)
        ]
        pairs[split] = [pair for pair, _ in rows if pair]
        best[split] = [right for _, right in rows if right]
        reasons[split] = dict(left_out)
    for name, splits in (("pairs", pairs), ("best", best)):
        if empty := [split for split, rows in splits.items() if not rows]:
            raise ValueError(
                f"{name} would be empty in the split {empty[0]} ({describe(reasons[empty[0]])}): give more questions "
                "or --answers, or an assistant that is right now and then"
            )
    return built(arguments, pairs, best, reasons)


def built(
    arguments: OwnAnswersArguments,
    pairs: dict[str, list[dict[str, Any]]],
    best: dict[str, list[dict[str, Any]]],
    reasons: dict[str, dict[str, int]],
) -> dict[str, Built]:
    messages = [{"role": Value("string"), "content": Value("string")}]
    model = short_name(arguments.model)
    graded = " + ".join(arguments.reward) if arguments.judge is None else short_name(arguments.judge)
    record = {
        "builder": "own_answers", "model": model, "data": source_name(arguments.data), "graded_by": graded,
        **{name: getattr(arguments, name) for name in ("answers", "max_new_tokens", "temperature", "right_at")},
        "left_out": reasons,
    }  # fmt: skip
    left_out = "; ".join(f"{split}: {describe(found) or 'none'}" for split, found in reasons.items())
    how = (
        f"`data_builders/own_answers.py` drew {arguments.answers} answers of `{model}` to each question of "
        f"`{source_name(arguments.data)}` at temperature {arguments.temperature:g}, graded by `{graded}`. Answers cut "
        f"at {arguments.max_new_tokens} tokens are left out. Of the questions: {left_out}."
    )
    number, source = Value("float64"), {"source": Value("string")}
    of_pairs = {**dict.fromkeys(("prompt", "chosen", "rejected"), messages), **source}
    of_pairs |= {"chosen_reward": number, "rejected_reward": number}
    return {
        "pairs": Built(
            title="Pairs of a model's own answers", description=f"The best and the worst answer. {how}", build=record,
            data=make_dataset(pairs, Features(of_pairs)),
        ),
        "best": Built(
            title="The best of a model's own answers", build=record,
            description=f"The best answer, where its reward is {arguments.right_at:g} or more. {how}",
            data=make_dataset(best, Features({"messages": messages, "reward": number, **source})),
        ),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    run_builder(OwnAnswersArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
