"""Passages of technical reports → instruction pairs: by a teacher, or without one.

    python data_builders/instructions.py --source data/reports --output_dir data/reports_chat
    python data_builders/instructions.py --source data/reports --output_dir data/chat \\
        --teacher Qwen/Qwen2.5-7B-Instruct
    python data_builders/instructions.py --source data/reports --output_dir data/chat \\
        --endpoint http://localhost:8000/v1 --teacher my-model --requests_per_minute 120

`--source` is what `pdf_reports.py` wrote. Its splits are kept: no report is on both sides. Columns: `messages`,
`source` (the report's file), `kind`, `passage` (what stands before the question), `passage_id` (what a teacher read).

Without a teacher the pairs are made of the reports' own words (`teaching/extractive.py`): nothing is made up. With
`--with_passage` each has the passage that holds the answer before the question, and in a share of them another, as
`chat --documents` asks (`teaching/reading.py`); `evaluate --suite passages` measures on such data. Without a teacher
`--source` may be what `text_files.py` wrote, too.

A teacher is asked what `teaching/prompts.yaml` says (or your own `--prompts`), for `--pairs_per_passage` tasks of each
passage, and its answers are filtered (`teaching/filters.py`), with the count of each reason in the card. Every answer
goes to a journal beside the output first: started again, the build asks only what is missing. A teacher of whose
answers less than `--min_accepted` pass is named unfit, and nothing is written.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from datasets import DatasetDict, Features, Value, load_from_disk
from tqdm import tqdm

from scratchgpt.arguments import option, required, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, fingerprint, make_dataset, run_builder
from scratchgpt.data.passages import NOT_SAID, with_passage
from scratchgpt.data.splits import draw

if __package__:
    from .teaching.extractive import make_pairs
    from .teaching.filters import DUPLICATE, Filters, Seen, counts_of
    from .teaching.reading import with_passages
    from .teaching.teacher import LEAST_PARAMETERS, EndpointTeacher, Journal, LocalTeacher, Teacher, request_key
    from .teaching.terms import is_term, mentions, names
else:  # run as a script
    from teaching.extractive import make_pairs
    from teaching.filters import DUPLICATE, Filters, Seen, counts_of
    from teaching.reading import with_passages
    from teaching.teacher import LEAST_PARAMETERS, EndpointTeacher, Journal, LocalTeacher, Teacher, request_key
    from teaching.terms import is_term, mentions, names

PROMPTS = Path(__file__).resolve().parent / "teaching" / "prompts.yaml"
TASKS = ("summarise", "explain", "term", "compare", "extract")


@dataclass(kw_only=True)
class InstructionsArguments(BuilderArguments):
    HELP_GROUPS = {"source": "Data", "teacher": "Teacher", "min_answer_words": "Filters"}

    source: str = required("What pdf_reports.py wrote; without a teacher also what text_files.py wrote.")
    teacher: str | None = option(
        None, "A chat model (folder or Hub name), or the endpoint's name of one; none: extractive."
    )
    endpoint: str | None = option(None, "Address of an OpenAI-compatible endpoint, as far as /v1.")
    prompts: str | None = option(None, "A file like teaching/prompts.yaml.")
    tasks: list[str] = option(list(TASKS), "Which tasks of the prompts file.")
    pairs_per_passage: int = option(2, "How many of the tasks each passage is given.", at_least=1)
    max_requests: int | None = option(None, "Ask the teacher no more than so many times.", at_least=1)
    max_new_tokens: int = option(300, "Tokens of an answer, at most.", at_least=1)
    with_passage: bool = option(
        False,
        "Without a teacher: ask with the passage that holds the answer, at times with another (chat --documents).",
    )
    temperature: float = option(0.0, "0: the likeliest answer.", at_least=0, at_most=2)
    batch_size: int = option(8, "Requests that a local teacher answers together.", at_least=1)
    requests_per_minute: float = option(60.0, "For an endpoint, at most.", above=0)
    journal: str | None = option(None, "Where answers are kept; by default beside output_dir.")
    min_answer_words: int = option(8, "Shorter answers are rejected.", at_least=1)
    max_answer_words: int = option(250, "Longer answers are rejected.", at_least=1)
    max_copied: float = option(
        0.6, "Share of an answer that may be copied from the passage, eight words in a row.", at_least=0, at_most=1
    )
    min_support: float = option(
        0.6, "Share of an answer's content words that the passage must hold.", at_least=0, at_most=1
    )
    min_accepted: float = option(0.5, "A teacher of whose answers fewer pass is unfit.", at_least=0, at_most=1)


@dataclass
class Request:
    """A question for the teacher, and what becomes of its answer."""

    split: str
    row: dict[str, Any]
    task: str
    prompt: list[dict[str, str]]
    question: str
    may_copy: bool
    key: str = ""


def check(arguments: InstructionsArguments) -> None:
    """
    Raises:
        ValueError: for arguments that do not go together; names them.
    """
    if arguments.max_answer_words < arguments.min_answer_words:
        raise ValueError(f"max_answer_words={arguments.max_answer_words} is below min_answer_words")
    if arguments.with_passage and arguments.teacher:
        raise ValueError("--with_passage is for pairs without a teacher: leave out --teacher")
    if arguments.endpoint and not arguments.teacher:
        raise ValueError("--endpoint needs --teacher, the name of the model there")


def load(source: Path, name: str, columns: set[str]) -> DatasetDict:
    """
    Raises:
        ValueError: for a folder that `pdf_reports` did not write.
    """
    if not (source / name / "dataset_dict.json").is_file():
        raise ValueError(f"{source} holds no {name}/: give the folder that data_builders/pdf_reports.py wrote")
    data = load_from_disk(source / name)
    assert isinstance(data, DatasetDict)
    for split, rows in data.items():
        if missing := columns - set(rows.column_names):
            raise ValueError(f"{source / name} ({split}) lacks the columns {sorted(missing)}")
    return data


def load_documents(source: Path) -> DatasetDict:
    """Those of `pdf_reports.py`, or texts of `text_files.py`, named after their files.

    Raises:
        ValueError: for a folder that neither wrote.
    """
    if not (source / "dataset_dict.json").is_file():
        return load(source, "documents", {"title", "text", "source", "captions"})
    rows = {
        str(split): [
            # Lines of a paragraph are one text, as in a report.
            {
                "title": Path(row["source"]).stem,
                "text": re.sub(r"(?<=[^\n])\n(?=\w)", " ", row["text"]),
                "captions": list[str](),
                "source": row["source"],
            }
            for row in texts.to_list()
        ]
        for split, texts in load(source, "", {"text", "source"}).items()
    }
    names = dict.fromkeys(("title", "text", "source"), Value("string"))
    return make_dataset(rows, Features({**names, "captions": [Value("string")]}))


def read_prompts(file: Path, tasks: list[str]) -> dict[str, Any]:
    """
    Raises:
        ValueError: for a file that is no prompts file, and a task that it lacks.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    known = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(known, dict):
        raise ValueError(f"{file} has no `tasks`: see {PROMPTS.name} for the form")
    for task in tasks:
        if task not in known:
            raise ValueError(f"{file} has no task {task!r}: it has {sorted(known)}")
        if not isinstance(known[task].get("request"), str) or not known[task].get("questions"):
            raise ValueError(f"{file}: the task {task!r} needs `request` and `questions`")
    return content


def extractive_rows(
    documents: DatasetDict, seed: int, read: bool
) -> tuple[dict[str, list[dict[str, Any]]], Counter[str]]:
    """Rows by split, and how many were rejected. What a report of an earlier split asks is not asked again.

    Args:
        read: whether the questions have their passages before them.
    """
    seen, rejected = Seen(), Counter[str]()
    rows: dict[str, list[dict[str, Any]]] = {str(split): [] for split in documents}
    for split, data in documents.items():
        for document in data.to_list():
            pairs = make_pairs(document["title"], document["text"], document["captions"], seed)
            text = "\n\n".join([document["text"], *document["captions"]])
            for pair in with_passages(pairs, text, seed) if read else pairs:
                question = f"{pair.question}\n\n{pair.passage}" if pair.passage else pair.question
                if read:
                    question = with_passage(pair.passage, pair.question)
                is_refused = pair.answer == NOT_SAID  # an answer that many have
                if not seen.is_new(question, question if is_refused else f"{pair.task} {pair.answer}"):
                    rejected[DUPLICATE] += 1
                    continue
                row = make_row(
                    question, pair.answer, document["source"], pair.task, passage=pair.passage if read else ""
                )
                rows[str(split)].append(row)
    return rows, rejected


def make_row(
    question: str, answer: str, source: str, kind: str, *, passage: str = "", passage_id: str = ""
) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "source": source, "kind": kind, "passage": passage, "passage_id": passage_id}


def plan(passages: DatasetDict, prompts: dict[str, Any], arguments: InstructionsArguments) -> Iterator[Request]:
    """What the teacher is asked: for each passage the tasks that suit it, in an order that the seed decides."""
    seed = arguments.seed
    for split, rows in passages.items():
        by_document: dict[str, list[str]] = {}
        listed: list[dict[str, Any]] = rows.to_list()
        for row in listed:
            by_document.setdefault(row["source"], []).append(row["text"])
        known = {source: names(texts) for source, texts in by_document.items()}
        for row in listed:
            terms = [term for term in known[row["source"]] if mentions(term, row["text"]) and is_term(term)]
            terms.sort(key=lambda term: (-mentions(term, row["text"]), draw(seed, row["id"], term)))
            order = sorted(arguments.tasks, key=lambda task: draw(seed, row["id"], task))
            chosen = [task for task in order if len(terms) >= _terms_needed(prompts["tasks"][task])]
            for task in chosen[: arguments.pairs_per_passage]:
                form = prompts["tasks"][task]
                heading = re.sub(r"^(?:\d+(?:\.\d+)*|[A-Z](?:\.\d+)*)[.:]?\s+", "", row["section"]) or "this section"
                fill = {
                    "title": row["title"],
                    "section": heading,
                    "passage": row["text"],
                    "term": terms[0] if terms else "",
                    "other": terms[1] if len(terms) > 1 else "",
                }
                questions = form["questions"]
                question = fill_in(questions[int(draw(seed, row["id"], task, "question") * len(questions))], fill)
                if form.get("with_passage"):
                    question = f"{question}\n\n{row['text']}"
                prompt = [{"role": "user", "content": fill_in(form["request"], fill)}]
                if prompts.get("system"):
                    prompt.insert(0, {"role": "system", "content": prompts["system"]})
                yield Request(str(split), row, task, prompt, question, bool(form.get("may_copy")))


def fill_in(template: str, values: dict[str, str]) -> str:
    """The template with its {names}; braces in the passage itself stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def _terms_needed(form: dict[str, Any]) -> int:
    return {"term": 1, "two terms": 2}.get(str(form.get("needs")), 0)


def ask(requests: list[Request], teacher: Teacher, journal: Journal, arguments: InstructionsArguments) -> None:
    """Fills the journal with the answers that it lacks."""
    for request in requests:
        request.key = request_key(
            prompt=request.prompt,
            teacher=teacher.name,
            seed=arguments.seed,
            temperature=arguments.temperature,
            max_new_tokens=arguments.max_new_tokens,
        )
    missing = [request for request in requests if request.key not in journal.answers]
    print(f"{len(requests):,} requests, {len(requests) - len(missing):,} of them answered before")
    with tqdm(total=len(missing), desc="asking the teacher", unit="request") as bar:
        for start in range(0, len(missing), teacher.batch_size):
            batch = missing[start : start + teacher.batch_size]
            # The seed of a batch follows from what is in it: an interruption changes no later answer.
            seed = int(draw(arguments.seed, *(request.key for request in batch)) * 2**31)
            answers = teacher.answer([request.prompt for request in batch], seed)
            for request, answer in zip(batch, answers, strict=True):
                journal.add(request.key, answer, task=request.task, passage=request.row["id"], seed=seed)
            bar.update(len(batch))


def taught_rows(
    requests: list[Request], journal: Journal, arguments: InstructionsArguments, splits: list[str]
) -> tuple[dict[str, list[dict[str, Any]]], Counter[str]]:
    """Rows by split of what passed, and how many answers each filter rejected."""
    filters = Filters(
        min_words=arguments.min_answer_words,
        max_words=arguments.max_answer_words,
        max_copied=arguments.max_copied,
        min_support=arguments.min_support,
    )
    seen, rejected = Seen(), Counter[str]()
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    for request in requests:
        answer, row = journal.answers[request.key], request.row
        reason = filters.judge(answer.text, row["text"], answer.finished, request.may_copy)
        if not reason and not seen.is_new(request.question, answer.text):
            reason = DUPLICATE
        if reason:
            rejected[reason] += 1
        else:
            about = (row["source"], request.task)
            made = make_row(request.question, answer.text.strip(), *about, passage_id=row["id"])
            rows[request.split].append(made)
    return rows, rejected


def check_fitness(name: str, accepted: int, rejected: Counter[str], least: float, parameters: int | None) -> None:
    """
    Raises:
        ValueError: for a teacher of whose answers too few passed.
    """
    total = accepted + rejected.total()
    if total and accepted < least * total:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in rejected.most_common(3))
        size = ""
        if parameters and parameters < LEAST_PARAMETERS:
            size = (
                f" It has {parameters / 1e9:.2g} billion parameters; below {LEAST_PARAMETERS / 1e9:g} most are unfit."
            )
        raise ValueError(
            f"{name} is unfit as a teacher: {accepted} of {total} answers passed ({reasons}).{size} Use a larger "
            "teacher, or lower min_accepted"
        )


def build(arguments: InstructionsArguments) -> Built:
    check(arguments)
    source = Path(arguments.source)
    record: dict[str, Any] = {"builder": "instructions", "source": source.name}
    if arguments.teacher is None:
        documents = load_documents(source)
        rows, rejected = extractive_rows(documents, arguments.seed, arguments.with_passage)
        record |= {"teacher": None, "data": fingerprint_of(documents)}
        how = (
            "Without a teacher: questions are made from titles, headings, definitions, acronyms, captions, lists and "
            "passages, and every answer is text of the report."
        )
        if arguments.with_passage:
            how += f" The passage with the answer is before the question; in a share of them it is another: {NOT_SAID}"
    else:
        passages = load(source, "passages", {"title", "text", "source", "id", "section"})
        prompts_file = Path(arguments.prompts) if arguments.prompts else PROMPTS
        prompts = read_prompts(prompts_file, arguments.tasks)
        requests = list(plan(passages, prompts, arguments))[: arguments.max_requests]
        teacher = make_teacher(arguments)
        output = Path(arguments.output_dir)
        journal = Journal(Path(arguments.journal or output.with_name(output.name + "_journal.jsonl")))
        ask(requests, teacher, journal, arguments)
        rows, rejected = taught_rows(requests, journal, arguments, [str(split) for split in passages])
        parameters = teacher.num_parameters if isinstance(teacher, LocalTeacher) else None
        accepted = sum(map(len, rows.values()))
        check_fitness(teacher.name, accepted, rejected, arguments.min_accepted, parameters)
        record |= {
            "teacher": teacher.name,
            "data": fingerprint_of(passages),
            "prompts": prompts,
            **{name: asdict(arguments)[name] for name in SETTINGS},
        }
        how = f"Answers by {teacher.name} to `{prompts_file.name}`, asked at temperature {arguments.temperature:g}."
    if not any(rows.values()):
        raise ValueError(f"{source} gave no pairs: its documents are too short")
    rows = {split: found for split, found in rows.items() if found}
    message = {"role": Value("string"), "content": Value("string")}
    features = {
        "messages": [message],
        **{name: Value("string") for name in ("source", "kind", "passage", "passage_id")},
    }
    data = make_dataset(rows, Features(features))
    record |= {"rejected": counts_of(rejected)}
    return Built(
        title=f"Instruction pairs from {source.name}",
        description=(
            f"Built by `data_builders/instructions.py` from `{source.name}`. {how} A report is in one split.\n\n"
            f"{tables(rows, rejected)}\n\nThe reports belong to their authors, and so does what is quoted from them: "
            "see the card of the data set that the passages come from."
        ),
        data=data,
        license="other",
        build=record,
    )


SETTINGS = list(
    """
    tasks pairs_per_passage max_requests max_new_tokens temperature min_answer_words max_answer_words
    max_copied min_support
    """.split()
)


def fingerprint_of(data: DatasetDict) -> str:
    """Of the rows as they are, whatever their folder is called."""
    return fingerprint(
        make_dataset({str(s): rows.to_list() for s, rows in data.items()}, next(iter(data.values())).features)
    )


def make_teacher(arguments: InstructionsArguments) -> Teacher:
    assert arguments.teacher is not None
    if arguments.endpoint:
        return EndpointTeacher(
            arguments.endpoint,
            arguments.teacher,
            arguments.max_new_tokens,
            arguments.temperature,
            arguments.requests_per_minute,
        )
    return LocalTeacher(arguments.teacher, arguments.batch_size, arguments.max_new_tokens, arguments.temperature)


def tables(rows: dict[str, list[dict[str, Any]]], rejected: Counter[str]) -> str:
    """Pairs by task and split, and what was rejected, in Markdown."""
    kinds = sorted({row["kind"] for found in rows.values() for row in found})
    lines = [f"| kind | {' | '.join(rows)} |", "| --- |" + " ---: |" * len(rows)]
    for kind in kinds:
        counts = (sum(row["kind"] == kind for row in found) for found in rows.values())
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    lines += ["", "| rejected because | answers |", "| --- | ---: |"]
    lines += [f"| {reason} | {count:,} |" for reason, count in counts_of(rejected).items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    run_builder(InstructionsArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
