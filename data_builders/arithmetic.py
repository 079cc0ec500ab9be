"""Questions with one right answer for small models: arithmetic, comparing, sorting, spelling, reversing, counting.

    python data_builders/arithmetic.py --output_dir data/arithmetic
    python data_builders/arithmetic.py --tasks addition --max_level 2 --questions 5000 --output_dir data/sums
    python data_builders/arithmetic.py --tasks addition subtraction --min_level 2 --longer 2 --output_dir data/digits

A level is the number of digits, of things in a list, or of letters. Of each task and level `--questions` different
questions are drawn, or all that there are, and split by a hash of what is asked: 3 + 4 and 4 + 3 are one document, so
no question of validation or test is in training, the other way round neither. The `--longer` levels beyond
`--max_level` are in a split of their own, `longer`: numbers and words longer than any that one trains on.

The output directory holds two data sets: `chat`, columns `messages` (question and answer), `answer` (what a checker
compares with), `task`, `level` and `source`; and `text`, for pretraining: question and answer as one text, of the
training and validation splits. Seed and arguments decide every row.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Features, Value

from scratchgpt.arguments import option, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, make_dataset, run_builder
from scratchgpt.data.splits import assign, check_fractions, draw

CONSONANTS, VOWELS = "bdfgklmnprstv", "aeiou"
LONGEST = 12
"""The highest level: no model that this is for gets there."""
ATTEMPTS = 20
"""Draws for each wanted question; after so many, what is there is nearly all that there is."""


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    document: str
    """The same for questions of which each gives the other one's answer away."""


def number(random: random.Random, level: int) -> int:
    """With `level` digits; of one digit 0 too."""
    return random.randrange(10 ** (level - 1) if level > 1 else 0, 10**level)


def word(random: random.Random, level: int) -> str:
    """`level` letters, consonants and vowels by turns; no dictionary has it."""
    letters = (CONSONANTS, VOWELS) if random.random() < 0.5 else (VOWELS, CONSONANTS)
    return "".join(random.choice(letters[i % 2]) for i in range(level))


def addition(random: random.Random, level: int) -> Question:
    a, b = number(random, level), number(random, level)
    return Question(f"What is {a} + {b}?", str(a + b), f"{min(a, b)} + {max(a, b)}")


def subtraction(random: random.Random, level: int) -> Question:
    """Never below 0."""
    a, b = sorted((number(random, level), number(random, level)), reverse=True)
    return Question(f"What is {a} - {b}?", str(a - b), f"{a} - {b}")


def comparison(random: random.Random, level: int) -> Question:
    a, b = number(random, level), number(random, level)
    while a == b:
        b = number(random, level)
    return Question(f"Which is larger, {a} or {b}?", str(max(a, b)), f"{min(a, b)} or {max(a, b)}")


def sorting(random: random.Random, level: int) -> Question:
    """`level` + 1 numbers below 100."""
    numbers = [random.randrange(100) for _ in range(level + 1)]
    in_order = ", ".join(map(str, sorted(numbers)))
    return Question(f"Sort {', '.join(map(str, numbers))} from small to large.", in_order, in_order)


def spelling(random: random.Random, level: int) -> Question:
    text = word(random, level + 1)
    return Question(f"Spell {text}.", "-".join(text), text)


def reversing(random: random.Random, level: int) -> Question:
    text = word(random, level + 1)
    return Question(f"Write {text} backwards.", text[::-1], min(text, text[::-1]))


def counting(random: random.Random, level: int) -> Question:
    """How often a letter is in twice `level` letters of three kinds."""
    letters = random.sample(CONSONANTS, 3)
    text = "".join(random.choice(letters) for _ in range(2 * level))
    letter = random.choice(letters)
    return Question(f"How many {letter} are in {text}?", str(text.count(letter)), f"{letter} {''.join(sorted(text))}")


TASKS: dict[str, Callable[[random.Random, int], Question]] = {
    task.__name__: task for task in (addition, subtraction, comparison, sorting, spelling, reversing, counting)
}


@dataclass(kw_only=True)
class ArithmeticArguments(BuilderArguments):
    HELP_GROUPS = {"tasks": "Data", "validation_fraction": "Splits"}

    tasks: list[str] = option(list(TASKS), f"Which: {', '.join(TASKS)}.")
    min_level: int = option(1, "Lowest level.", at_least=1, at_most=LONGEST)
    max_level: int = option(3, "Highest level that is trained on and tested.", at_least=1, at_most=LONGEST)
    longer: int = option(1, "Levels beyond that, for testing only.", at_least=0, at_most=LONGEST)
    questions: int = option(1000, "Questions of each task and level, at most.", at_least=1)
    validation_fraction: float = option(0.1, "Share that validates.", at_least=0, below=1)
    test_fraction: float = option(0.2, "Share that tests.", at_least=0, below=1)


def check(arguments: ArithmeticArguments) -> None:
    """
    Raises:
        ValueError: for arguments that do not go together; names them.
    """
    if unknown := [name for name in arguments.tasks if name not in TASKS]:
        raise ValueError(f"tasks={unknown[0]} is unknown: choose from {', '.join(TASKS)}")
    if arguments.min_level > arguments.max_level:
        raise ValueError(f"min_level={arguments.min_level} is above max_level={arguments.max_level}")
    check_fractions(validation_fraction=arguments.validation_fraction, test_fraction=arguments.test_fraction)


def questions(task: str, level: int, count: int, seed: int) -> list[Question]:
    """Up to `count` different ones; seed, task and level decide which."""
    generator, found = random.Random(f"{seed} {task} {level}"), {}
    for _ in range(ATTEMPTS * count):
        question = TASKS[task](generator, level)
        found.setdefault(question.text, question)
        if len(found) == count:
            break
    return list(found.values())


def build(arguments: ArithmeticArguments) -> dict[str, Built]:
    check(arguments)
    fractions = {"validation": arguments.validation_fraction, "test": arguments.test_fraction}
    levels = range(arguments.min_level, arguments.max_level + 1)
    longer = range(levels.stop, levels.stop + arguments.longer)
    splits: dict[str, list[dict[str, Any]]] = {"train": [], **{name: [] for name in fractions if fractions[name]}}
    splits |= {"longer": []} if longer else {}
    for task in dict.fromkeys(arguments.tasks):
        for level in (*levels, *longer):
            asked = questions(task, level, arguments.questions, arguments.seed)
            documents = list(dict.fromkeys(each.document for each in asked))
            places = assign([draw(arguments.seed, task, document) for document in documents], fractions)
            split_of = dict(zip(documents, places, strict=True))
            for each in asked:
                split = "longer" if level in longer else split_of[each.document]
                splits[split].append(_row(each, task, level))
    if empty := [name for name, rows in splits.items() if not rows]:
        raise ValueError(f"{empty[0]} would be empty: give more questions, or a fraction of 0 for none")
    for name, rows in splits.items():  # in no order of tasks and levels
        rows.sort(key=lambda row, name=name: draw(arguments.seed, name, row["task"], row["messages"][0]["content"]))
    message = {"role": Value("string"), "content": Value("string")}
    names = ("answer", "task", "level", "source")
    kinds = {name: Value("int64" if name == "level" else "string") for name in names}
    settings = {
        "builder": "arithmetic", "tasks": arguments.tasks, "levels": [*levels], "longer": [*longer],
        "questions": arguments.questions, **{f"{name}_fraction": share for name, share in fractions.items()},
    }  # fmt: skip
    found = {name: Counter(f"{row['task']} {row['level']}" for row in rows) for name, rows in splits.items()}
    lines = [f"| {kind} | {' | '.join(f'{found[name][kind]:,}' for name in splits)} |" for kind in _kinds(splits)]
    head = f"| task and level | {' | '.join(splits)} |\n| --- |{' ---: |' * len(splits)}"
    description = (
        "Questions with one right answer, built by `data_builders/arithmetic.py`. The level is the number of digits, "
        "of letters, or of things in a list. Questions that give each other's answer away (3 + 4 and 4 + 3) are in "
        f"the same split; `longer` has levels that are not in training.\n\n{head}\n" + "\n".join(lines)
    )
    texts = {
        name: [{"text": _text(row), "source": row["source"]} for row in splits[name]]
        for name in ("train", "validation")
        if name in splits
    }
    return {
        "chat": Built(
            title="Questions with one right answer", description=description, language="en", license="cc0-1.0",
            data=make_dataset(splits, Features({"messages": [message], **kinds})),
            build={**settings, "counts": {name: dict(sorted(each.items())) for name, each in found.items()}},
        ),
        "text": Built(
            title="Questions with one right answer: as text", language="en", license="cc0-1.0", build=settings,
            description="Question and answer of the training and validation splits: nothing of the others is in it.",
            data=make_dataset(texts),
        ),
    }  # fmt: skip


def _row(question: Question, task: str, level: int) -> dict[str, Any]:
    both = (("user", question.text), ("assistant", question.answer))
    return {
        "messages": [{"role": role, "content": content} for role, content in both],
        "answer": question.answer,
        "task": task,
        "level": level,
        "source": hashlib.sha256(f"{task} {question.document}".encode()).hexdigest()[:12],
    }


def _text(row: dict[str, Any]) -> str:
    return f"{row['messages'][0]['content']} {row['answer']}\n"


def _kinds(splits: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [f"{task} {level}" for task, level in sorted({(r["task"], r["level"]) for s in splits.values() for r in s})]


def main(argv: list[str] | None = None) -> None:
    run_builder(ArithmeticArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
