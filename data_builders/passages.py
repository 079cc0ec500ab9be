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
from typing import Any

from scratchgpt.data.passages import CHARACTERS, NOT_SAID
from scratchgpt.data.splits import draw

if __package__:
    from .docstrings import Entry
else:  # run as a script
    from docstrings import Entry

# Every way through the alternatives in brackets is a wording. Which of them training does not have, a hash decides.
WORDINGS = {
    "purpose": [
        "what does {name} do[?| exactly?| in short?]",
        "what is {name}[| good] for?",
        "what is the [purpose|use|point|job|task] of {name}?",
        "what [do|can|would|could] I use {name} for?",
        "what would I need {name} for?",
        "[tell me|say|show me] what {name} does[.|, please.]",
        "tell me [in a few words|in one sentence|briefly] what {name} does.",
        "[describe|summarise|explain] {name}[.| in a sentence.| in one sentence.| for me.]",
        "[sum up|outline] {name}.",
        "what is {name}?",
        "what is the [meaning|effect] of {name}?",
        "give me a [short|brief] [description|summary|explanation] of {name}.",
        "why [would|should] I [use|call] {name}?",
        "[can|could] you [explain|describe] {name}[?| to me?| in a sentence?]",
        "could you tell me what {name} [is for|does]?",
        "what [happens|is done] when I call {name}?",
        "i want to know what {name} [does|is for].",
        "what [does|will] a call of {name} do?",
        "{name}: what [does it do|is it for]?",
        "i do not know {name}[.|: what does it do?]",
        "what does {name} do [for me|here]?",
        "what did they write {name} for?",
        "what is {name} [there|used] for?",
        "what can {name} do?",
        "what does the documentation [say|tell] about {name}?",
        "in one sentence, what [is|does] {name}[ do|]?",
        "[a|the] [short|one-line] summary of {name}, please.",
        "why does {name} exist?",
        "how would you describe {name}?",
        "what is done by {name}?",
    ],
    "call": [
        "how [do|can|should|must] I call {name}?",
        "how does one call {name}?",
        "what is the [signature|syntax|call] of {name}?",
        "[show|give|tell] me the [signature|syntax|arguments|parameters] of {name}.",
        "[which|what] [arguments|parameters] does {name} [take|have|want|expect|need]?",
        "[which|what] [arguments|parameters] are there in {name}?",
        "what are the [arguments|parameters] of {name}?",
        "[list|write down|name|print] the [arguments|parameters|signature] of {name}.",
        "[show me|tell me|say] how [{name} is called|to call {name}|I call {name}].",
        "how is {name} [called|written]?",
        "in what way is {name} called?",
        "what does a call of {name} look like?",
        "with [what|which] [arguments|parameters] [is {name} called|do I call {name}]?",
        "how do I write a call of {name}?",
        "what do I write to call {name}?",
        "{name}: what [is its signature|are its arguments|are its parameters]?",
        "i want to call {name}: how[ do I do that|]?",
        "[can|could] you [show|tell] me the [signature|arguments] of {name}?",
        "what do I pass to {name}?",
        "what [goes|do I put] into the [brackets|parentheses] of {name}?",
        "how [many|which] arguments has {name}, and which?",
        "[show|give] me a call of {name}.",
        "the signature of {name}, please.",
        "what [arguments|parameters] can I [pass|give] to {name}?",
        "how do I use {name} in code?",
        "what are the inputs of {name}?",
        "{name} is called how?",
        "which arguments do I [give|pass] to {name}?",
    ],
    "default": [
        "what is the default[| value] of {parameter} [in|of|for] {name}?",
        "what is {parameter} by default in {name}?",
        "[which|what] value [has {parameter}|does {parameter} have] if I leave it out [of|in] {name}?",
        "in {name}, what does {parameter} default to?",
        "what does {parameter} default to in {name}?",
        "to what does {parameter} default in {name}?",
        "[which|what] default does {parameter} have in {name}?",
        "what is {parameter} if I do not [pass|give] it to {name}?",
        "what will {parameter} be in {name} unless I [give|pass] it?",
        "[tell me|say|give me|print|name] the default[| value] of {parameter} [in|of] {name}.",
        "if I [omit|leave out|do not give] {parameter} in {name}, what is it?",
        "when {parameter} is [left out of|not given to] {name}, what is its value?",
        "what does {name} [take|use] for {parameter} if I [give|pass] nothing?",
        "[tell me|say] what {parameter} is by default in {name}.",
        "which value does {name} [use|take] for {parameter} by default?",
        "what is the standard value of {parameter} in {name}?",
        "{name}: what is the default of {parameter}?",
        "[can|could] you tell me the default of {parameter} in {name}?",
        "the default of {parameter} in {name}, please.",
        "what default has {parameter} of {name}?",
        "how is {parameter} set in {name} if I say nothing?",
        "if {parameter} is not given, what does {name} use?",
        "what does {parameter} mean by default in {name}: which value?",
        "in a call of {name} without {parameter}, what is {parameter}?",
        "which value is the default of {parameter} in {name}?",
        "without {parameter}, what does {name} [take|use]?",
    ],
    "exception": [
        "[which|what] [exception|error] [does|can|may|will] {name} raise?",
        "what [does|can|may|will] {name} raise?",
        "[which|what] [exception|error] [do|can|may] I get from {name}?",
        "[which|what] [exception|error] comes from {name}?",
        "[name|tell me|give me] the [exception|error] [of|that I get from] {name}.",
        "[tell me|say] [which|what] [exception|error] {name} [raises|can raise].",
        "what is raised [by|in] {name}?",
        "what kind of [error|exception] does {name} raise?",
        "[does {name} raise an exception|can {name} fail], and which?",
        "[which|what] [exception|error] is raised [by|in] {name}?",
        "[which|what] [exception|error] do I have to catch around {name}?",
        "if {name} fails, what does it raise?",
        "with which [exception|error] does {name} fail?",
        "{name}: which [exception|error] does it raise?",
        "what do I have to catch when I call {name}?",
        "[can|could] you tell me what {name} raises?",
        "the exception that {name} raises, please.",
        "what goes wrong in {name}: which exception?",
        "which exceptions come out of {name}?",
        "what happens if {name} fails: which [error|exception]?",
        "does {name} raise anything?",
        "what error does {name} end with?",
        "what should I expect {name} to raise?",
        "which [error|exception] belongs in the except around {name}?",
    ],
    "module": [
        "[which|what] module is {short} in?",
        "in [which|what] module is {short}?",
        "where [do|can] I find {short}?",
        "[which|what] module [do|must|should] I import [to use|for] {short}?",
        "what is the module of {short}?",
        "where is {short} [defined|found]?",
        "from [which|what] module [does {short} come|is {short}]?",
        "[which|what] module has {short}?",
        "[name|tell me|give me] the module of {short}.",
        "[tell me|say] [which|what] module {short} is in.",
        "what do I import to [use|call|have] {short}?",
        "to which module does {short} belong?",
        "{short} is in which module?",
        "where does {short} live?",
        "which import gives me {short}?",
        "i need {short}: what do I import?",
        "{short}: which module is it in?",
        "[can|could] you tell me the module of {short}?",
        "the module of {short}, please.",
        "what do I have to import for {short}?",
        "{short} comes from which module?",
        "which module offers {short}?",
        "where is {short}, in which module?",
        "which module is the home of {short}?",
        "in what module do I find {short}?",
        "what is the name of the module [with|of] {short}?",
        "which import do I need for {short}?",
    ],
    "parameter": [
        "does {name} have [a parameter|an argument|the parameter] {parameter}?",
        "does {name} [accept|take] {parameter}?",
        "[can|could|may] I [pass|give] {parameter} to {name}?",
        "is there [a parameter|an argument] {parameter} in {name}?",
        "is {parameter} [a parameter|an argument|one of the parameters] of {name}?",
        "is {parameter} among the [parameters|arguments] of {name}?",
        "has {name} [a parameter|an argument|the argument] {parameter}?",
        "[can|could|may] I call {name} with {parameter}?",
        "does {name} [know|want|expect] {parameter}?",
        "[can|may] {name} be called with {parameter}?",
        "can {parameter} be given to {name}?",
        "is it possible to [pass|give] {parameter} to {name}?",
        "does {name} [come with|offer] [a|the] parameter {parameter}?",
        "[tell me|say] [if|whether] {name} has [a|the] [parameter|argument] {parameter}.",
        "[tell me|say] [if|whether] I [can|may] [pass|give] {parameter} to {name}.",
        "would {name} let me [pass|give] {parameter}?",
        "{name}: is there [a parameter|an argument] {parameter}?",
        "[can|could] you tell me whether {name} has a parameter {parameter}?",
        "[does|will] {name} work with {parameter}?",
        "is {parameter} something that {name} [takes|accepts]?",
        "[do|does] the [parameters|arguments] of {name} include {parameter}?",
        "is {parameter} [allowed|known] in {name}?",
        "may {parameter} be [passed|given] to {name}?",
        "among the arguments of {name}, is there {parameter}?",
        "has {name} got {parameter}?",
        "{parameter}: does {name} have it?",
        "can {name} take {parameter}?",
    ],
}  # fmt: skip
OPENERS = ("", "", "", "", "in Python, ", "please, ", "quick question: ", "tell me, ", "I wonder, ", "hello, ")
RAISING = (
    "Raises {}.", "Raises {} on failure.", "Raise {} if that is not possible.", "Otherwise a {} is raised.",
    "If there is none, {} is raised.", "It may raise {}.",
)  # fmt: skip
STRANGE = 4
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
