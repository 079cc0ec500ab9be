"""Questions that a passage of documentation answers, or does not: what `python_docs.py` puts into `passages/`.

A passage is the documentation of one function or class. What is asked for stands in it word for word: what it does (the
first sentence), how it is called, the default of a parameter, the exception that it raises, the module that it is in, or
whether it has a parameter. Some questions are about something else, and the answer is that this is not said here.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scratchgpt.data.splits import draw

if __package__:
    from .docstrings import Entry
else:  # run as a script
    from docstrings import Entry

NOT_SAID = "That is not said here."

PASSAGE = 420
"""Characters of a passage, at most: with a question and its answer it fits into a context of 256 tokens."""

WORDINGS = {
    "purpose": [
        "what does {name} do?", "what is {name} for?", "what is the purpose of {name}?", "what do I use {name} for?",
        "tell me what {name} does.", "describe {name} in a sentence.", "what is {name}?", "what is the use of {name}?",
        "give me a short description of {name}.", "what happens in {name}?", "why would I use {name}?",
        "summarise {name}.", "say in one sentence what {name} does.", "explain {name} briefly.",
    ],
    "call": [
        "how do I call {name}?", "what is the signature of {name}?", "how is {name} called?", "how do I use {name} in code?",
        "show me how {name} is called.", "which arguments does {name} take?", "what are the arguments of {name}?",
        "list the parameters of {name}.", "write down the signature of {name}.", "how is {name} written?",
        "show me a call of {name}.", "which parameters has {name}?", "what does a call of {name} look like?",
        "what do I pass to {name}?",
    ],
    "default": [
        "what is the default of {parameter} in {name}?", "what is {parameter} by default in {name}?",
        "which value has {parameter} if I leave it out of {name}?", "in {name}, what does {parameter} default to?",
        "which default does {parameter} have in {name}?", "what is {parameter} if I do not pass it to {name}?",
        "tell me the default of {name}'s {parameter}.", "if I omit {parameter} in {name}, what is it?",
        "what does {name} take for {parameter} if I give nothing?", "the default of {parameter} in {name} is what?",
        "what is the default value of {parameter} of {name}?",
    ],
    "exception": [
        "which exception does {name} raise?", "what does {name} raise?", "which error can {name} raise?",
        "what goes wrong in {name}?", "which error do I get from {name}?", "what can {name} raise?",
        "which exceptions come from {name}?", "name the exception of {name}.", "what error does {name} end with?",
        "which exception do I have to catch around {name}?",
    ],
    "module": [
        "which module is {short} in?", "where do I find {short}?", "which module do I import to use {short}?",
        "what is the module of {short}?", "where is {short} defined?", "from which module does {short} come?",
        "which module has {short}?", "what must I import for {short}?", "name the module of {short}.",
        "in which module is {short}?",
    ],
    "parameter": [
        "does {name} have a parameter {parameter}?", "can I pass {parameter} to {name}?",
        "is there a parameter {parameter} in {name}?", "is {parameter} a parameter of {name}?",
        "may I give {parameter} to {name}?", "does {name} know {parameter}?", "has {name} an argument {parameter}?",
        "is {parameter} among the arguments of {name}?", "could I call {name} with {parameter}?",
        "does {name} accept {parameter}?", "does {name} take {parameter}?",
    ],
}  # fmt: skip
OPENERS = ("", "", "", "In Python, ", "Please, ", "Quick question: ", "Tell me, ", "I wonder, ")
HELD_OUT_WORDINGS = 1
"""Of each kind the last so many wordings stand in no training question."""

RAISES = re.compile(r"\b(?:[Rr]aises?|raising)\s+(?:an?\s+|the\s+)?`?((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Warning|Exit))\b")


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str


def passage_of(entry: Entry) -> str:
    """The heading and as many paragraphs of the documentation as fit; empty where not even the first does."""
    heading = f"{'class ' if entry.kind == 'class' else ''}{entry.full_name}{entry.signature}"
    kept = [heading]
    for paragraph in entry.doc.split("\n\n"):
        one = " ".join(paragraph.split())
        if len("\n".join([*kept, one])) > PASSAGE:
            break
        kept.append(one)
    return "\n".join(kept) if len(kept) > 1 else ""


def parameters_of(signature: str) -> dict[str, str | None]:
    """The parameters and their defaults as they are written, None where there is none; empty for what Python cannot read."""
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
    """
    Args:
        entries: all that may be asked about, with their passages.
        held_out: whether the wordings are those that training does not have.
    """

    def __init__(self, seed: int, held_out: bool) -> None:
        self.seed, self.held_out = seed, held_out

    def wording(self, kind: str, *key: object) -> str:
        known, new = WORDINGS[kind][:-HELD_OUT_WORDINGS], WORDINGS[kind][-HELD_OUT_WORDINGS:]
        among = new if self.held_out else known
        chosen = among[int(draw(self.seed, "wording", kind, *map(str, key)) * len(among))]
        opener = OPENERS[int(draw(self.seed, "opener", kind, *map(str, key)) * len(OPENERS))]
        return opener + chosen if opener else chosen[0].upper() + chosen[1:]

    def about(self, entry: Entry, passage: str, other: Entry) -> Iterator[Question]:
        """Every question that the passage of `entry` answers, and some that it does not; `other` is what else there is."""
        name, short = entry.full_name, entry.name
        parameters = parameters_of(entry.signature)

        def ask(kind: str, answer: str, **values: str) -> Question:
            given = {"name": name, "short": short} | values
            return Question(kind, self.wording(kind, name, *values.items()).format(**given), answer)

        if sentence := first_sentence(passage):
            yield ask("purpose", sentence)
        if entry.signature and len(name + entry.signature) <= 90:
            yield ask("call", name + entry.signature)
        for parameter, default in parameters.items():
            if default is not None and len(default) <= 24:
                yield ask("default", default, parameter=parameter)
            yield ask("parameter", "Yes.", parameter=parameter)
        raised = set(RAISES.findall(passage))
        if len(raised) == 1:
            yield ask("exception", raised.pop())
        elif not re.search(r"(?i)rais|except|error", passage):
            yield replace_kind(ask("exception", NOT_SAID))
        if "." not in short:
            yield ask("module", entry.module)
        theirs = parameters_of(other.signature)
        for parameter, default in theirs.items():
            if parameter not in parameters and not re.search(rf"\b{re.escape(parameter)}\b", passage):
                yield ask("parameter", "No.", parameter=parameter)
                yield replace_kind(ask("default", NOT_SAID, parameter=parameter))
        if other.full_name not in passage:
            kind = ("purpose", "call", "exception")[int(draw(self.seed, "other", name) * 3)]
            yield replace_kind(ask(kind, NOT_SAID, name=other.full_name, short=other.name))


def replace_kind(question: Question) -> Question:
    return Question("not said", question.text, question.answer)


def prompt(passage: str, question: str) -> str:
    """What the user says: the passage, then the question."""
    return f"{passage}\n\n{question}"


def chosen(questions: Sequence[Question], seed: int, key: str, count: int) -> list[Question]:
    """`count` of them, of different kinds as far as there are, in an order that the key decides."""
    order = sorted(questions, key=lambda each: draw(seed, key, each.text, each.answer))
    seen: dict[str, int] = {}
    ranked = []
    for each in order:
        seen[each.kind] = seen.get(each.kind, 0) + 1
        ranked.append((seen[each.kind], each))
    ranked.sort(key=lambda pair: pair[0])
    kept = [each for _, each in ranked[:count]]
    return sorted(kept, key=lambda each: draw(seed, "order", key, each.text))
