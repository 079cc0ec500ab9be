"""Benchmarks as files here or on the Hub hold them, brought into the form in which they are asked.

A file of a benchmark is named after it, `hellaswag_validation.jsonl.zst` or `openbook_qa.parquet`; a folder of its
name or its Hub name holds a saved data set or files named after their split, as a copy of the Hub's repository does.
The columns tell which form the rows have: that of the Hub's data set, or the plain one of llm-foundry (`query`,
`choices`, `gold`). Both become the same questions, asked as lm-eval's own tasks ask them, without examples and in
cloze form: each answer's own words are scored, not a letter, which small models cannot tell apart.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.files import ROWS, is_saved_data_set, load_split, read_rows, suffix_of

Row = Mapping[str, Any]

ANSWER = "\nAnswer:"


@dataclass(frozen=True)
class Item:
    """One question."""

    query: str
    choices: list[str]
    """Answers; or where `continuation` is given, beginnings that it could have. A single one: a word to be guessed."""
    gold: int
    """Which of them is right."""
    continuation: str = ""

    def text(self) -> str:
        """The question with its right answer, without what calls for it."""
        parts = (self.query.removesuffix(ANSWER), self.choices[self.gold].strip(), self.continuation)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark is, and how its rows are read."""

    hub: str
    split: str
    forms: tuple[tuple[tuple[str, ...], Callable[[Row], Item]], ...]
    """Columns, and what makes an item of a row that has them."""
    config: str | None = None
    names: tuple[str, ...] = ()
    """Further beginnings of file names."""
    by_length: bool = False
    """Whether the accuracy by log-likelihood per character is given too, as lm-eval does."""


def _as_it_is(text: str) -> str:
    return text


def _plain(query: Callable[[str], str], choice: Callable[[str], str] = _as_it_is) -> Any:
    def read(row: Row) -> Item:
        return Item(query(row["query"]), [choice(each) for each in _texts(row["choices"])], _number(row["gold"]))

    return ("query", "choices", "gold"), read


def _texts(value: Any) -> list[str]:
    """Raises TypeError for a text, whose characters would be the choices."""
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:40]!r} is no list")
    return value


def _number(value: Any) -> int:
    """Of a choice, which may be written as text. Raises ValueError for a fraction, which `int` would cut off."""
    number = int(value)
    if number != float(value):
        raise ValueError(f"{value} is no whole number")
    return number


def _asked(query: str) -> str:
    """`Question: …`, and what calls for the answer."""
    return f"{query.rstrip()}{ANSWER}"


def _without_markup(text: str) -> str:
    """HellaSwag's texts, cleaned as by lm-eval: what is in brackets is left of WikiHow's pages."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _hellaswag(row: Row) -> Item:
    query = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Item(
        _without_markup(query), [_without_markup(each) for each in _texts(row["endings"])], _number(row["label"])
    )


def _lambada(row: Row) -> Item:
    query, _, word = row["text"].rpartition(" ")
    return Item(query, [word], 0)


def _lettered(query: str) -> Callable[[Row], Item]:
    """Questions of AI2: answers with labels, A to D or 1 to 4."""

    def read(row: Row) -> Item:
        labels = list(row["choices"]["label"])
        text, key = str(row["question_stem" if query == "{}" else "question"]), row["answerKey"].strip()
        return Item(query.format(text), list(row["choices"]["text"]), labels.index(key) if key in labels else -1)

    return read


def _piqa(row: Row) -> Item:
    return Item(f"Question: {row['goal']}{ANSWER}", [row["sol1"], row["sol2"]], _number(row["label"]))


def _winogrande(row: Row) -> Item:
    before, after = row["sentence"].split("_", 1)
    gold = {"1": 0, "2": 1}.get(str(row["answer"]), -1)
    return Item("", [before + row["option1"], before + row["option2"]], gold, after.strip())


def _boolq(answer: str) -> Callable[[Row], Item]:
    def read(row: Row) -> Item:
        return Item(f"{row['passage']}\nQuestion: {row['question']}?{ANSWER}", ["no", "yes"], _number(row[answer]))

    return read


def _copa_choice(choice: str) -> str:
    return f" {choice[0].lower()}{choice[1:]}"  # a second space before it: lm-eval's own task has it


def _copa(row: Row) -> Item:
    connector = {"cause": "because", "effect": "therefore"}[row["question"]]
    choices = [_copa_choice(row["choice1"]), _copa_choice(row["choice2"])]
    return Item(f"{row['premise'].strip()[:-1]} {connector}", choices, _number(row["label"]))


_ARC = (_plain(_asked), (("question", "choices", "answerKey"), _lettered(f"Question: {{}}{ANSWER}")))

BENCHMARKS = {
    "hellaswag": Benchmark(
        "Rowan/hellaswag", "validation",
        (
            (("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag),
            (("ctx", "endings", "label"), lambda row: Item(row["ctx"], _texts(row["endings"]), _number(row["label"]))),
        ),
        by_length=True,
    ),
    "lambada": Benchmark(
        "EleutherAI/lambada_openai", "test",
        (
            (("context", "continuation"), lambda row: Item(row["context"], [row["continuation"]], 0)),
            (("text",), _lambada),
        ),
        "default",
    ),
    "arc_easy": Benchmark("allenai/ai2_arc", "test", _ARC, "ARC-Easy", by_length=True),
    "arc_challenge": Benchmark("allenai/ai2_arc", "test", _ARC, "ARC-Challenge", by_length=True),
    "piqa": Benchmark(
        "baber/piqa", "validation",
        (
            _plain(_asked),
            (
                ("goal", "sol1", "sol2", "label"),
                _piqa,
            ),
        ),
        by_length=True,
    ),
    "winogrande": Benchmark(
        "allenai/winogrande", "validation",
        (
            (
                ("context_options", "continuation", "gold"),
                lambda row: Item("", _texts(row["context_options"]), _number(row["gold"]), row["continuation"]),
            ),
            (("sentence", "option1", "option2", "answer"), _winogrande),
        ),
        "winogrande_xl",
    ),
    "boolq": Benchmark(
        "aps/super_glue", "validation",
        (
            _plain(lambda query: _asked(query.removeprefix("Passage: "))),
            (("passage", "question", "label"), _boolq("label")),
            (("passage", "question", "answer"), _boolq("answer")),
        ),
        "boolq",
    ),
    "openbookqa": Benchmark(
        "allenai/openbookqa", "test",
        (_plain(_as_it_is), (("question_stem", "choices", "answerKey"), _lettered("{}"))),
        "main", ("openbook_qa",), by_length=True,
    ),
    "copa": Benchmark(
        "aps/super_glue", "validation",
        (
            _plain(lambda query: re.sub(r",? (because|therefore)$", r" \1", query), _copa_choice),
            (("premise", "choice1", "choice2", "question", "label"), _copa),
        ),
        "copa",
    ),
}  # fmt: skip


def find_local(
    benchmarks_dir: str | Path | None, names: Sequence[str], split: str, config: str | None = None
) -> Path | None:
    """The file or the folder of a benchmark in `benchmarks_dir`; None where there is none.

    Args:
        names: a file's name begins with one of them; a folder is called so. The last one may be that of a data set of
            several benchmarks, in which `config` is the folder of this one.

    Raises:
        ValueError: for a directory that is not there, and where several files could be meant.
    """
    if benchmarks_dir is None:
        return None
    root = Path(benchmarks_dir)
    if not root.is_dir():
        raise ValueError(f"--benchmarks_dir {root} is no folder")
    inside = sorted(each for each in root.iterdir() if not each.name.startswith("."))
    for each in inside:
        if each.is_dir() and each.name.lower() in names:
            if config is not None and (each / config).is_dir():
                return each / config
            if each.name.lower() != names[-1] or names[-1] in names[:-1]:
                return each
    pattern = re.compile(f"({'|'.join(map(re.escape, names))})([._-]|$)", re.IGNORECASE)
    files = [each for each in inside if each.is_file() and suffix_of(each) in ROWS and pattern.match(each.name)]
    if len(files) > 1:
        files = [each for each in files if split in each.name.lower()] or files
    if len(files) > 1:
        raise ValueError(f"{root} holds {files[0].name} and {files[1].name}: leave the one that is to be scored")
    return files[0] if files else None


def read_local(place: Path, split: str) -> Iterator[dict[str, Any]]:
    """The rows of what `find_local` found.

    Raises:
        ValueError: for a folder without the split.
    """
    if place.is_file():
        yield from read_rows(place)
    elif is_saved_data_set(place):
        yield from load_split(place, split)
    else:
        files = sorted(each for each in place.rglob("*") if each.is_file() and suffix_of(each) in ROWS)
        wanted = [each for each in files if split in each.stem.lower()] or (files if len(files) == 1 else [])
        if not wanted:
            raise ValueError(f"{place} holds no saved data set and no file of the split {split}")
        for file in wanted:
            yield from read_rows(file)


def read_hub(name: str, hub: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a data set of the Hub.

    Raises:
        ValueError: where it cannot be reached.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        data: Any = datasets.load_dataset(hub, config, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"the benchmark {name} is neither here nor to be had from the Hub: put a file named {name}.jsonl into "
            f"--benchmarks_dir (docs/evaluation.md says what it holds), or a copy of {hub} ({error})"
        ) from error
    yield from data


def read_items(name: str, benchmarks_dir: str | Path | None) -> list[Item]:
    """The questions of a benchmark of `BENCHMARKS`.

    Raises:
        ValueError: as `find_local`, `read_local` and `read_hub`; for columns that are missing, and a row that holds
            something else than text, an empty answer, or no right one.
    """
    benchmark = BENCHMARKS[name]
    place = _place(name, benchmarks_dir)
    rows = (
        read_local(place, benchmark.split)
        if place
        else read_hub(name, benchmark.hub, benchmark.config, benchmark.split)
    )
    where = place or benchmark.hub
    items = []
    for number, row in enumerate(rows, start=1):
        columns, form = next((each for each in benchmark.forms if set(each[0]) <= set(row)), ((), None))
        if form is None:
            wanted = " or ".join(f"({', '.join(columns)})" for columns, _ in benchmark.forms)
            raise ValueError(f"{where}, row {number}: {name} needs the columns {wanted}, and it has {list(row)}")
        if nothing := [column for column in columns if row[column] is None]:
            raise ValueError(f"{where}, row {number}: {nothing[0]!r} is null: repair the row or leave it out")
        try:
            item = form(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}, row {number} cannot be read as a question of {name}: {error!r}") from error
        if not 0 <= item.gold < len(item.choices):
            raise ValueError(f"{where}, row {number}: the right answer is not given: take the split {benchmark.split}")
        _check(item, items[0] if items else item, f"{where}, row {number}")
        items.append(item)
    if not items:
        raise ValueError(f"{where} holds no questions")
    return items


def _check(item: Item, first: Item, where: str) -> None:
    """Raises ValueError for what cannot be scored as text, or not in the same way as the first question."""
    if not all(isinstance(each, str) for each in (item.query, *item.choices, item.continuation)):
        raise ValueError(f"{where}: the question and its answers must be text: repair the row or leave it out")
    if not all(each.strip() for each in item.choices):
        raise ValueError(f"{where}: an answer is empty: repair the row or leave it out")
    kinds = [(len(each.choices) == 1, bool(each.continuation.strip())) for each in (first, item)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{where} is asked in another way than row 1: one answer or several, before a text or not")


def is_local(name: str, benchmarks_dir: str | Path | None) -> bool:
    """Whether `read_items` would read files."""
    return _place(name, benchmarks_dir) is not None


def _place(name: str, benchmarks_dir: str | Path | None) -> Path | None:
    benchmark = BENCHMARKS[name]
    folder = benchmark.hub.rpartition("/")[2]
    several = sum(other.hub == benchmark.hub for other in BENCHMARKS.values()) > 1
    names = [name, *benchmark.names, folder]
    return find_local(benchmarks_dir, names if several else [*names, folder], benchmark.split, benchmark.config)


def spread(items: Sequence[Any], count: int | None) -> list[Any]:
    """So many of the items, from all over them."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
