"""Questions that a passage of documentation answers, or does not: what `python_docs.py` puts into `passages/`.

A passage is the documentation of one function or class. What is asked for stands in it word for word: what it does
(the first sentence), how it is called, the default of a parameter, the exception that it raises, the module that it is
in, or whether it has a parameter. Some questions are about something else, and the answer is that it is not said here.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, product
from keyword import iskeyword
from pathlib import Path
from typing import Any

import yaml

from scratchgpt.data.passages import CHARACTERS, NOT_SAID
from scratchgpt.data.splits import draw

if __package__:
    from .docstrings import Entry
else:  # run as a script
    from docstrings import Entry

WORDINGS: dict[str, list[str]] = {
    kind: patterns.splitlines()
    for kind, patterns in yaml.safe_load(Path(__file__).with_name("wordings.yaml").read_text(encoding="utf-8")).items()
}
OPENERS = ("", "", "", "", "in Python, ", "please, ", "quick question: ", "tell me, ", "I wonder, ", "hello, ")
RAISING = (
    "Raises {}.", "Raises {} on failure.", "Raise {} if that is not possible.", "Otherwise a {} is raised.",
    "If there is none, {} is raised.", "It may raise {}.",
)  # fmt: skip
STRANGE = 8
"""Patterns of each kind of which training has no wording."""
NOISY, LEFT_OUT = 0.2, 0.15
"""Share of training questions that lose words, and share of their words."""

EXCEPTION = re.compile(r"\b(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Warning|Exit|Interrupt|Iteration)\b")
RAISES = re.compile(r"\b(?:[Rr]ais(?:es?|ing|ed)|[Tt]hrows?)\b")


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str


@cache
def wordings(kind: str) -> dict[str, list[list[str]]]:
    """Those of each pattern: in `known` what training may have, in `new` what it has not though it has others of their
    pattern, and in `strange` those of patterns of which it has none. A hash decides."""
    found: dict[str, list[list[str]]] = {"known": [], "new": [], "strange": []}
    order = sorted(WORDINGS[kind], key=lambda pattern: draw("pattern", pattern))
    for place, pattern in enumerate(order):
        parts = re.split(r"\[(.*?)\]", pattern)
        choices = [part.split("|") if n % 2 else [part] for n, part in enumerate(parts)]
        every = sorted(map("".join, product(*choices)), key=lambda text: draw("wording", text))
        new = 0 if len(every) == 1 else max(1, len(every) // 4)
        split = {"strange": every} if place < STRANGE else {"new": every[:new], "known": every[new:]}
        for name, texts in split.items():
            found[name] += [texts] if texts else []
    return found


def exceptions_of(text: str) -> list[str]:
    """The exceptions in the sentences that say what is raised, in their order."""
    sentences = [each for each in re.split(r"(?<=[.!?:])\s+", text) if RAISES.search(each)]
    return list(dict.fromkeys(name for each in sentences for name in EXCEPTION.findall(each)))


def passage_of(entry: Entry) -> str:
    """The heading, the first paragraph and as many more as fit, those first that say what is raised; empty where not
    even the first fits."""
    heading = f"{'class ' if entry.kind == 'class' else ''}{entry.full_name}{entry.signature}"
    paragraphs = [" ".join(paragraph.split()) for paragraph in entry.doc.split("\n\n")]
    order = sorted(range(1, len(paragraphs)), key=lambda i: not exceptions_of(paragraphs[i]))
    kept, length = [], len(heading)
    for i in [0, *order]:
        if length + 1 + len(paragraphs[i]) > CHARACTERS:
            if i == 0:
                return ""
            continue
        kept.append(i)
        length += 1 + len(paragraphs[i])
    return "\n".join([heading, *(paragraphs[i] for i in sorted(kept))])


def parameters_of(signature: str) -> dict[str, str | None]:
    """The parameters and their defaults as written, None where there is none; of what Python cannot read, none."""
    try:
        (function,) = ast.parse(f"def f{signature}: ...").body
    except (SyntaxError, ValueError):
        return {}
    assert isinstance(function, ast.FunctionDef)
    found = function.args
    names = [each.arg for each in (*found.posonlyargs, *found.args)]
    defaults: dict[str, str | None] = dict.fromkeys(names)
    for name, value in zip(reversed(names), reversed(found.defaults), strict=False):
        defaults[name] = ast.unparse(value)
    for each, value in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        defaults[each.arg] = None if value is None else ast.unparse(value)
    return defaults


def first_sentence(passage: str) -> str:
    """Of the first paragraph after the heading; empty where it is no whole sentence of moderate length."""
    text = passage.partition("\n")[2].partition("\n")[0]
    sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    return sentence if 20 <= len(sentence) <= 130 and sentence[-1] in ".!?" and len(sentence.split()) >= 4 else ""


class Questions:
    """Questions about entries, in wordings that a hash of the seed and what is asked decides.

    Args:
        which: of the `wordings`.
    """

    def __init__(self, seed: int, which: str) -> None:
        self.seed, self.which = seed, which

    def _pick(self, among: Sequence[Any], *key: object) -> Any:
        return among[int(draw(self.seed, *key) * len(among))]

    def _wording(self, kind: str, *key: object) -> str:
        pattern = self._pick(wordings(kind)[self.which], "pattern", kind, *key)
        text = self._pick(pattern, "wording", kind, *key)
        if self.which == "known" and draw(self.seed, "noisy", kind, *key) < NOISY:  # as people type
            kept = (draw(self.seed, "left out", n, kind, *key) > LEFT_OUT for n in count())
            text = " ".join(word for word, stays in zip(text.split(" "), kept, strict=False) if stays or "{" in word)
        text = self._pick(OPENERS, "opener", kind, *key) + text
        style = draw(self.seed, "style", kind, *key)
        if style < 0.75 and not text.startswith("{"):
            text = text[0].upper() + text[1:]
        return text.rstrip("?.") if style > 0.9 else text

    def _ask(self, kind: str, answer: str, about: Entry, parameter: str = "") -> Question:
        key = (about.full_name, parameter)
        full = about.full_name
        name = self._pick([full, full, full, f"{full}()", about.name], "name", kind, *key)
        text = self._wording(kind, *key).format(name=name, short=about.name, parameter=parameter)
        return Question("not said" if answer == NOT_SAID else kind, text, answer)

    def elsewhere(self, passage: str, other: Entry) -> Iterator[Question]:
        """What could be asked about `other`, of each kind, where the passage does not speak of it."""
        if other.name in passage:
            return
        parameter = next(iter(parameters_of(other.signature)), "")
        for kind, patterns in WORDINGS.items():
            if parameter or "{parameter}" not in patterns[0]:
                yield self._ask(kind, NOT_SAID, other, parameter if "{parameter}" in patterns[0] else "")

    def about(self, entry: Entry, passage: str, other: Entry) -> Iterator[Question]:
        """All that the passage of `entry` answers, and whether it has the parameters of `other`."""
        parameters = parameters_of(entry.signature)
        ask = partial(self._ask, about=entry)

        if sentence := first_sentence(passage):
            yield ask("purpose", sentence)
        if entry.signature and len(entry.full_name + entry.signature) <= 90:
            yield ask("call", entry.full_name + entry.signature)
        for parameter, default in parameters.items():
            if default is not None and len(default) <= 24:
                yield ask("default", default, parameter=parameter)
            yield ask("parameter", "Yes.", parameter=parameter)
        raised = exceptions_of(passage)
        if len(raised) == 1:
            yield ask("exception", raised[0])
        elif not re.search(r"(?i)rais|except|error|throw", passage):
            yield ask("exception", NOT_SAID)
        if "." not in entry.name and entry.module != "builtins":
            yield ask("module", entry.module)
        for parameter in parameters_of(other.signature):
            if not re.search(rf"\b{re.escape(parameter)}\b", passage):
                yield ask("parameter", "No.", parameter=parameter)
                yield ask("default", NOT_SAID, parameter=parameter)


class Mixer:
    """Makes functions that do not exist of the parts of others: what is asked of them can only be read.

    Args:
        entries: those whose parts are used.
    """

    def __init__(self, entries: Sequence[Entry], seed: int) -> None:
        self.seed = seed
        self.modules = [entry.module for entry in entries]
        self.names = [entry.name for entry in entries]
        self.docs = [entry.doc for entry in entries]
        self.kinds = [entry.kind for entry in entries]
        self.parameters = [each for entry in entries for each in parameters_of(entry.signature).items()]
        self.exceptions = [each for entry in entries for each in exceptions_of(entry.doc)]
        words = {
            word for name in (*self.names, *self.modules) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
        }
        self.words = sorted(words)

    def entry(self, number: int) -> Entry:
        """The function of this number: the same whenever it is asked for."""

        def share(*what: object) -> float:
            return draw(self.seed, "mixed", number, *what)

        def pick(among: Sequence[Any], *what: object) -> Any:
            return among[int(share(*what) * len(among))]

        def invented(*what: object) -> str:
            """A name of words and parts of words."""
            words = [pick(self.words, *what, n) for n in range(1 + int(share(*what, "words") * 2.5))]
            words = [word[: 2 + int(share(*what, n, "cut") * 9)] for n, word in enumerate(words)]
            style = share(*what, "style")
            if style < 0.2:
                return "".join(word.capitalize() for word in words)
            return ("_" if style < 0.6 else "").join(words).lower()

        def name_of(text: str, *what: object) -> str:
            """The name, or one that was made up for it."""
            name = text if share(*what, "old") < 0.4 else invented(*what)
            return name if name.isidentifier() and not iskeyword(name) else text

        module = ".".join(name_of(part, "module", part) for part in pick(self.modules, "module").split("."))
        *outer, name = pick(self.names, "name").split(".")
        parameters = dict[str, str | None]()
        for n in range(int(share("parameters") ** 1.5 * 7)):
            parameter, default = pick(self.parameters, "parameter", n)
            parameters.setdefault(name_of(parameter, "parameter", n), default)
        required = [each for each, default in parameters.items() if default is None]
        optional = [f"{each}={default}" for each, default in parameters.items() if default is not None]
        doc = pick(self.docs, "doc")
        if self.exceptions and share("raises") < 0.3 and not exceptions_of(doc):
            doc += "\n\n" + pick(RAISING, "raising").format(pick(self.exceptions, "exception"))
        name = ".".join([*(name_of(part, "outer", part) for part in outer), name_of(name, "name")])
        return Entry(module, name, pick(self.kinds, "kind"), f"({', '.join(required + optional)})", doc)


def chosen(questions: Sequence[Question], seed: int, key: str, number: int) -> list[Question]:
    """`number` of them, of different kinds as far as there are, in an order that the key decides."""
    order = sorted(questions, key=lambda each: draw(seed, key, each.text, each.answer))
    seen: dict[str, int] = {}
    ranked = []
    for each in order:
        kind = each.kind + each.answer * (each.kind == "parameter")
        seen[kind] = seen.get(kind, 0) + 1
        ranked.append((seen[kind], draw(seed, "rank", key, kind), each))
    ranked.sort(key=lambda item: item[:2])
    kept = [each for *_, each in ranked[:number]]
    return sorted(kept, key=lambda each: draw(seed, "order", key, each.text))
