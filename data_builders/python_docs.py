"""The documentation inside every Python: a corpus that needs no download.

    python data_builders/python_docs.py --output_dir data/python_docs
    python data_builders/python_docs.py --output_dir data/python_docs --dry_run True

The language reference (`pydoc_data`) and the docstrings of the standard library become data sets, in subfolders that
`datasets.load_from_disk` loads:

    text/             {"text", "source"}            a document per module and per chapter of the language reference
    chat/             {"messages", "source"}        questions about modules, classes and functions, and their answers
    classification/   {"text", "label", "source"}   a description, and the area of the library that it comes from
    passages/         {"messages", "passage", "kind", "wording", "source"}   questions that a passage answers
    reference/        {"text", "source"}            the passages of all functions and classes, to look things up in

Reading (`docstrings.py`) runs nothing of the library; the same Python, arguments and seed give the same
bytes. A module or chapter is on one side of the split with everything that was made of it, in every data set.
"""

import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from datasets import ClassLabel, DatasetDict, Features, Value
from tqdm import tqdm

from scratchgpt.arguments import option, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, make_dataset, run_builder
from scratchgpt.data.passages import with_passage
from scratchgpt.data.splits import check_fractions, draw

if __package__:
    from .docstrings import Entry, read_library, read_topics
    from .passages import STRANGE, Mixer, Questions, chosen, passage_of
else:  # run as a script
    from docstrings import Entry, read_library, read_topics
    from passages import STRANGE, Mixer, Questions, chosen, passage_of

# The chapters of the Library Reference, those with little text joined to their neighbours. A submodule belongs where
# its package does unless it is named itself. What is named nowhere has no area: builtins and packaging are about
# everything, multimedia and functional programming are too small.
AREAS = {
    "text processing": "string re difflib textwrap unicodedata stringprep readline rlcompleter gettext locale codecs "
    "encodings struct",
    "data types": "datetime calendar zoneinfo collections heapq bisect array weakref types copy pprint reprlib enum "
    "graphlib",
    "mathematics": "numbers math cmath decimal fractions random statistics",
    "files and storage": "pathlib os.path fileinput stat filecmp tempfile glob fnmatch linecache shutil io pickle "
    "pickletools copyreg shelve marshal dbm sqlite3 zlib gzip bz2 lzma zipfile tarfile csv configparser tomllib netrc "
    "plistlib",
    "internet": "email json mailbox mailcap mimetypes base64 binascii quopri uu html xml webbrowser wsgiref urllib "
    "http ftplib poplib imaplib nntplib smtplib smtpd telnetlib socketserver xmlrpc ipaddress socket ssl select "
    "selectors asyncore asynchat cgi cgitb uuid",
    "concurrency": "threading multiprocessing concurrent subprocess sched queue contextvars asyncio",
    "operating system": "os time argparse getopt optparse logging getpass curses platform errno ctypes cmd shlex pwd "
    "grp termios tty pty fcntl resource syslog signal mmap msilib",
    "graphical interfaces": "tkinter turtle",
    "development tools": "pydoc doctest unittest bdb faulthandler pdb timeit trace tracemalloc profile cProfile "
    "pstats",
    "language and runtime": "sys sysconfig warnings dataclasses contextlib abc atexit traceback gc inspect site code "
    "codeop zipimport pkgutil modulefinder runpy importlib ast symtable token keyword tokenize tabnanny pyclbr "
    "py_compile compileall dis typing",
}
AREA_OF = {module: area for area, modules in AREAS.items() for module in modules.split()}

SIGNATURE = re.compile(r"^[\w.]+ ?\(.*\)( ?(->|--|:) ?.*)?$")
"""A line as C docstrings begin with: `range(start, stop[, step]) -> range object`."""

UNFINISHED = re.compile(r"^(\W*(internal|todo|xxx|fixme|see|ditto|helper|override|same as|undocumented)\b|@|:)", re.I)
SENTENCE_END = re.compile(r"(?<=[.!?]) +(?=[A-Z`'\"(])")

BRIEF = 300
"""Characters of a summary, at most."""
DETAILED = 1000
"""Characters of a detailed answer, at most."""
DESCRIPTION = 500
"""Characters of a text to classify, at most."""
PER_AREA = 300
"""Texts to classify of an area, at most: about twice what the smallest has."""

SPLITS = ("train", "validation", "test")

MIXED = 2
"""Functions that do not exist, for each that does, among the passages to train on."""
TURNS, ELSEWHERE = 6, 1
"""Questions in a conversation to train on, and how many of them are about something else."""
PER_PASSAGE = 2
"""Questions about a passage that validates or tests, at most."""

QUESTIONS = {
    "function": ["What does {} do?", "In Python, what does {} do?", "What is {} for?", "What is the purpose of {}?"],
    "class": ["What is {}?", "What is the class {}?", "In Python, what is {}?", "What is the class {} for?"],
    "property": ["What is {}?", "What does the property {} hold?", "In Python, what is {}?"],
    "module": ["What is the module {} for?", "What does the module {} do?", "What is in the module {}?"],
}
QUESTIONS["method"] = QUESTIONS["function"]
DETAIL_QUESTIONS = [
    "Explain {} in detail.",
    "Can you explain {} in detail?",
    "Describe {} in detail.",
    "Show me the documentation of {}.",
]
FOLLOW_UPS = ["Can you tell me more?", "Please explain in detail.", "Tell me more about it.", "What else is there?"]
WHERE_QUESTIONS = [
    "Which module has the function {}?",
    "Where do I find the function {}?",
    "Which module do I import to use the function {}?",
]
WHERE_ANSWERS = ["The function {} is in the module {}.", "{} is in the module {}."]


@dataclass(kw_only=True)
class PythonDocsArguments(BuilderArguments):
    HELP_GROUPS = {"validation_fraction": "Splits"}

    validation_fraction: float = option(0.1, "Share of the text that validates.", at_least=0, below=1)
    test_fraction: float = option(0.1, "Share of the text that tests.", at_least=0, below=1)


# Splitting.


def split_modules(sizes: dict[str, int], areas: dict[str, str], arguments: PythonDocsArguments) -> dict[str, str]:
    """The split of each document, by a hash of its name and the seed, area by area.

    In the order of the hash, validation and then test are filled to their share of the area's characters, so that
    every area is in every split. A document that would overfill them by itself is for training.
    """
    splits = dict.fromkeys(sizes, "train")
    for area in sorted(set(areas.values())):
        members = sorted(
            (name for name in sizes if areas[name] == area), key=lambda name: (draw(arguments.seed, name), name)
        )
        total = sum(sizes[name] for name in members)
        for split, fraction in (("validation", arguments.validation_fraction), ("test", arguments.test_fraction)):
            room = fraction * total
            for name in members:
                if splits[name] == "train" and sizes[name] <= 1.2 * room:
                    splits[name] = split
                    room -= sizes[name]
    return splits


def area_of(module: str) -> str:
    """The area of a module, or of the package that it is in; empty where it has none."""
    while module not in AREA_OF and "." in module:
        module = module.rpartition(".")[0]
    return AREA_OF.get(module, "")


# Writing documents, chats and descriptions.


def document(module: str, entries: list[Entry]) -> str:
    """Everything a module says of itself, laid out as the language reference is."""
    parts = [f"{module}\n{'*' * len(module)}"]
    for entry in entries:
        if not entry.doc:
            continue
        if entry.kind == "module":
            parts.append(entry.doc)
        else:
            heading = f"{'class ' if entry.kind == 'class' else ''}{entry.name}{entry.signature}"
            parts.append(heading + "\n\n" + re.sub(r"(?m)^(?=.)", "   ", entry.doc))
    return "\n\n".join(parts) + "\n"


def paragraphs_of(doc: str) -> list[str]:
    """The paragraphs, those of running text on one line; the signatures that C docstrings begin with are one, too."""
    body = without_signature(doc)
    paragraphs = body.split("\n\n") if body else []
    paragraphs = [_one_line(text) if _is_prose(text) else text for text in paragraphs]
    signatures = doc.removesuffix(body).strip()
    return [signatures, *paragraphs] if signatures else paragraphs


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_prose(paragraph: str) -> bool:
    """Whether the lines are one running text: none indented, code or an item of a list; short ones end a sentence."""
    lines = paragraph.split("\n")
    return all(re.match(r"[^\W_]|[`'\"*]\w|\([A-Z]", line) for line in lines) and all(
        len(line) >= 40 or line.endswith((".", "!", "?")) for line in lines[:-1]
    )


def without_signature(doc: str) -> str:
    """`doc` without the lines that C docstrings begin with."""
    lines = doc.split("\n")
    while lines and (SIGNATURE.match(lines[0]) or not lines[0].strip()):
        lines.pop(0)
    return "\n".join(lines)


def sentences_of(text: str, limit: int) -> str:
    """As many whole sentences of `text` as fit in `limit` characters, none that ends with a colon last."""
    result = ""
    for sentence in SENTENCE_END.split(text):
        if len(result) + len(sentence) >= limit or sentence.endswith(":"):
            break
        result = f"{result} {sentence}".strip()
    return result


def summary(doc: str) -> str:
    """What the first paragraph says, when it says something; empty otherwise."""
    paragraph = (paragraphs_of(without_signature(doc)) or [""])[0]
    if not _is_prose(paragraph) or UNFINISHED.match(paragraph):
        return ""
    text = sentences_of(paragraph, BRIEF)
    if len(text) < 20 or len(text.split()) < 4:
        return ""
    return text if text[-1] in ".!?" else text + "."


def details(doc: str) -> str:
    """The docstring, or as many of its first paragraphs as are a bounded answer; empty where none is running text."""
    kept: list[str] = []
    for paragraph in paragraphs_of(doc):
        if len("\n\n".join([*kept, paragraph])) > DETAILED:
            break
        kept.append(paragraph)
    while kept and kept[-1].rstrip().endswith(":"):
        kept.pop()
    return "\n\n".join(kept) if any(map(_is_prose, kept)) else ""


def beyond(brief: str, doc: str) -> str:
    """`details` of what `brief`, the summary of `doc`, leaves unsaid."""
    first, _, rest = without_signature(doc).partition("\n\n")
    return details(rest if _one_line(first).rstrip(".") == brief.rstrip(".") else doc)


def description(entry: Entry) -> str:
    """The running text of a docstring, when it says enough and does not name its module; empty otherwise."""
    prose = " ".join(filter(_is_prose, paragraphs_of(without_signature(entry.doc))))
    text = sentences_of(prose, DESCRIPTION)
    if len(text) < 40 or len(text.split()) < 7 or UNFINISHED.match(text):
        return ""
    names = "|".join(re.escape(part) for part in entry.module.split("."))
    return "" if re.search(rf"(?i)\b({names})s?\b", text) else text


def chats_of(entry: Entry, homes: Counter[str], seed: int) -> Iterator[list[str]]:
    """Conversations about `entry`: questions and answers in turn.

    Args:
        homes: in how many modules each name is.
    """

    def choose(phrasings: list[str], which: str) -> str:
        return phrasings[int(draw(seed, entry.full_name, entry.kind, which) * len(phrasings))]

    name, brief, detailed = entry.full_name, summary(entry.doc), details(entry.doc)
    subject = f"the module {name}" if entry.kind == "module" else name
    question = choose(QUESTIONS[entry.kind], "brief").format(name)
    more = beyond(brief, entry.doc) if brief else ""
    if len(more) >= 40 and draw(seed, name, "turns") < 0.3:
        yield [question, brief, choose(FOLLOW_UPS, "follow-up"), more]
    else:
        if brief:
            yield [question, brief]
        if len(detailed) >= len(brief) + 40 and not UNFINISHED.match(detailed):
            yield [choose(DETAIL_QUESTIONS, "detail").format(subject), detailed]
    unambiguous = homes[entry.name] == 1 and (entry.module == "os.path" or "." not in entry.module)
    if entry.kind == "function" and unambiguous and entry.module != "builtins" and draw(seed, name, "where") < 0.4:
        answer = choose(WHERE_ANSWERS, "answer").format(entry.name, entry.module)
        yield [choose(WHERE_QUESTIONS, "where").format(entry.name), answer]


# The three data sets.


def build(arguments: PythonDocsArguments) -> dict[str, Built]:
    check_fractions(validation_fraction=arguments.validation_fraction, test_fraction=arguments.test_fraction)
    chapters, library = read_topics(), read_library()
    texts = {f"reference: {title}": text for title, text in chapters.items()}
    for module, entries in library.items():
        text = document(module, entries)
        if len(text) >= 200:
            texts[module] = text
    areas = {name: "language reference" if name.startswith("reference: ") else area_of(name) for name in texts}
    splits = split_modules({name: len(text) for name, text in texts.items()}, areas, arguments)

    public = [entry for module in sorted(texts) for entry in library.get(module, []) if entry.public]
    data = {
        "text": _make_texts(texts, splits),
        "chat": _make_chats(public, library, splits, arguments.seed),
        "classification": _make_descriptions(public, splits, arguments.seed),
        "passages": _make_passages(public, splits, arguments.seed),
        "reference": _make_reference(public),
    }
    return {name: _describe(name, each) for name, each in data.items()}


def _make_texts(texts: dict[str, str], splits: dict[str, str]) -> DatasetDict:
    rows = {split: [] for split in SPLITS}
    for source in sorted(texts):
        rows[splits[source]].append({"text": texts[source], "source": source})
    return make_dataset(rows)


def _make_chats(
    public: list[Entry], library: dict[str, list[Entry]], splits: dict[str, str], seed: int
) -> DatasetDict:
    homes = Counter(
        entry.name for entries in library.values() for entry in entries if entry.public and "." not in entry.name
    )
    rows = {split: [] for split in SPLITS}
    first_split: dict[str, str] = {}
    for entry in tqdm(public, desc="asking questions", unit="entry"):
        for chat in chats_of(entry, homes, seed) if entry.doc else []:
            # Short answers may be the same for two functions: all of them stay on the side of the first.
            split = splits[entry.module]
            if any(first_split.setdefault(answer, split) != split for answer in chat[1::2]):
                continue
            roles = ("user", "assistant") * (len(chat) // 2)
            messages = [{"role": role, "content": turn} for role, turn in zip(roles, chat, strict=True)]
            rows[split].append({"messages": messages, "source": entry.module})
    message = {"role": Value("string"), "content": Value("string")}
    return make_dataset(rows, Features({"messages": [message], "source": Value("string")}))


def _make_descriptions(public: list[Entry], splits: dict[str, str], seed: int) -> DatasetDict:
    areas: dict[str, set[str]] = defaultdict(set)
    found: dict[str, Entry] = {}
    for entry in public:
        if (area := area_of(entry.module)) and (text := description(entry)):
            areas[text].add(area)
            found.setdefault(text, entry)
    by_area: dict[str, list[str]] = defaultdict(list)
    for text in sorted(found, key=lambda text: (draw(seed, text), text)):
        if len(areas[text]) == 1:  # what describes things of two areas tells neither
            by_area[area_of(found[text].module)].append(text)
    rows = {split: [] for split in SPLITS}
    for text, entry in found.items():
        area = area_of(entry.module)
        if text in by_area[area][:PER_AREA]:
            rows[splits[entry.module]].append({"text": text, "label": area, "source": entry.module})
    labels = ClassLabel(names=list(AREAS))
    for split, members in rows.items():
        for row in members:
            row["label"] = labels.str2int(row["label"])
        members.sort(key=lambda row: draw(seed, split, row["text"]))  # not one class after the other
    return make_dataset(rows, Features({"text": Value("string"), "label": labels, "source": Value("string")}))


def _passages(public: list[Entry]) -> list[tuple[Entry, str]]:
    """What has parameters or is called, with its passage, where that fits."""
    callable_ = [entry for entry in public if entry.kind in ("function", "class", "method") and entry.doc]
    return [(entry, passage) for entry in callable_ if (passage := passage_of(entry))]


def _make_passages(public: list[Entry], splits: dict[str, str], seed: int) -> DatasetDict:
    rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
    found: dict[str, list[tuple[Entry, str]]] = {split: [] for split in SPLITS}
    for entry, passage in _passages(public):
        found[splits[entry.module]].append((entry, passage))
    known = [entry for entry, _ in found["train"]]
    mixer = Mixer(known, seed)
    made = [mixer.entry(number) for number in range(MIXED * len(known))]
    found["train"] += [(entry, passage) for entry in made if (passage := passage_of(entry))]
    for split, entries in found.items():
        for place, (entry, passage) in enumerate(tqdm(entries, desc=f"asking of passages ({split})", unit="passage")):
            near = draw(seed, "near", entry.full_name, place)  # more often a neighbour than anything
            distance = 1 + int(near * 5) if near < 0.6 else int(near * 1e6)
            other = entries[(place + distance) % len(entries)][0]
            wording = "known" if split == "train" else "strange" if place % 3 == 0 else "new"
            questions, key = Questions(seed, wording), f"{entry.full_name} {place}"
            here, elsewhere = list(questions.about(entry, passage, other)), list(questions.elsewhere(passage, other))
            if split == "train":
                here, elsewhere = chosen(here, seed, key, TURNS - ELSEWHERE), chosen(elsewhere, seed, key, ELSEWHERE)
            asked = chosen([*here, *elsewhere], seed, key, TURNS if split == "train" else PER_PASSAGE)
            source = entry.module if place < len(known) or split != "train" else ""
            for group in [asked] if split == "train" and asked else [[each] for each in asked]:
                turns = [text for each in group for text in (each.text, each.answer)]
                turns[0] = with_passage(passage, turns[0])
                roles = ("user", "assistant") * len(group)
                messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
                kind = ", ".join(dict.fromkeys(each.kind for each in group))
                columns = {"passage": passage, "kind": kind, "wording": wording, "source": source}
                rows[split].append({"messages": messages, **columns})
    for split, members in rows.items():
        members.sort(key=lambda row: draw(seed, split, row["messages"][0]["content"]))
    message = {"role": Value("string"), "content": Value("string")}
    text = dict.fromkeys(("passage", "kind", "wording", "source"), Value("string"))
    return make_dataset(rows, Features({"messages": [message], **text}))


def _make_reference(public: list[Entry]) -> DatasetDict:
    return make_dataset({"train": [{"text": text, "source": entry.module} for entry, text in _passages(public)]})


def _describe(name: str, data: DatasetDict) -> Built:
    version = f"Python {platform.python_version()}"
    common = (
        f"Built by `data_builders/python_docs.py` from the documentation inside {version}: the language reference "
        "(`pydoc_data`) and the docstrings of the standard library.\n\n"
    )
    splitting = (
        "\n\nA module or chapter is on one side of the split with everything that was made of it, the same side in "
        "every data set (`text`, `chat`, `classification`, `passages`): a hash of its name and the seed decides, "
        "within each area of the library. A docstring that stands in several modules is kept in the first; tests, "
        "legal notices and generated tables are left out. Modules of one package are documents of their own, so a "
        "style or a subject may be on both sides."
    )
    if name == "text":
        title, task = "Python documentation: texts", "text-generation"
        body = "Documents: a chapter of the language reference, or a module's signatures and docstrings in one text."
    elif name == "chat":
        title, task = "Python documentation: chats", "text-generation"
        body = (
            "Questions about public modules, classes, functions, methods and properties. The answer to a short "
            f"question is the first paragraph of the docstring (whole sentences, {BRIEF} characters at most); to one "
            f"for details, the docstring's first paragraphs ({DETAILED} characters at most). Some go on with a second "
            "question, and some ask for the module of a function that is in one module only. Phrasings are chosen by "
            "a hash of the name. Answers are extracts: none was written or judged by a person for this purpose."
        )
    elif name == "passages":
        title, task = "Python documentation: questions with passages", "text-generation"
        body = (
            "Questions about a function or class, its documentation before them: what it does, how it is called, the "
            "default of a parameter, the exception that it raises, its module, whether it has a parameter; and some "
            "that the passage does not answer. Answers are text of the passage, yes, no, or that it is not said. "
            "Validation and test ask single questions, in wordings that training does not have: new ones, of which "
            f"training has similar ones, and strange ones, of {STRANGE} patterns of each kind that training does not "
            f"have. Of the passages to train on, {MIXED} of {MIXED + 1} are of functions that do not exist, made of "
            "the parts of others (`source` is empty): what is asked of them can only be read."
        )
    elif name == "reference":
        title, task = "Python documentation: reference", "text-generation"
        body = (
            "The documentation of public functions, classes and methods, one a row, as the passages of the data set "
            "`passages` have it. There is one split: it is to look things up in, and holds what validates and tests."
        )
    else:
        title, task = "Python documentation: areas of the library", "text-classification"
        body = (
            f"Running text of docstrings ({DESCRIPTION} characters at most), and the area of the library that the "
            "module is in, as the chapters of the Library Reference have it. Texts that name their module, and those "
            f"that stand in two areas, are left out; an area has {PER_AREA} at most.\n\n{_label_table(data)}"
        )
    build = {"builder": "python_docs", "python": platform.python_version(), "data": name}
    return Built(
        title=title,
        description=common + body + splitting,
        data=data,
        license="psf-2.0",
        task=task,
        language="en",
        build=build,
    )


def _label_table(data: DatasetDict) -> str:
    lines = [f"| label | {' | '.join(map(str, data))} | modules |", f"| --- | {'---: | ' * len(data)}--- |"]
    per_split = [Counter(split["label"]) for split in data.values()]
    for label, (area, modules) in enumerate(AREAS.items()):
        numbers = " | ".join(str(counter[label]) for counter in per_split)
        lines.append(f"| {area} | {numbers} | {', '.join(modules.split())} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    run_builder(PythonDocsArguments, build, argv)


if __name__ == "__main__":
    run_recipe(main)
