"""The documentation inside Python: chapters of the language reference, docstrings of the standard library.

Docstrings are read from the library's source files with `ast`, so nothing of them runs; those of modules written in C
by importing the modules listed in `C_MODULES`. What is found depends on the version of Python alone, and on what the
platform has of the modules in C.
"""

import ast
import importlib
import inspect
import re
import sys
import sysconfig
import types
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

# Tests, applications, and what only repeats other modules.
SKIPPED = {"__phello__", "ensurepip", "idlelib", "lib2to3", "ntpath", "pydoc_data", "site-packages", "test"}
SKIPPED_PARTS = {"test", "tests", "turtledemo"}

# Where the Python version of a module, or a part of it, has another name than the one it is used by.
PUBLIC_NAME = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "posixpath": "os.path",
    "genericpath": "os.path",
}

# Modules that are in C, or hold functions that are. Importing them does nothing else.
C_MODULES = (
    "array atexit binascii bisect builtins bz2 cmath codecs collections contextvars csv curses datetime errno "
    "faulthandler fcntl functools gc grp heapq io itertools lzma marshal math mmap operator os pickle pwd queue "
    "random readline resource select signal socket sqlite3 ssl struct sys syslog termios time tracemalloc unicodedata "
    "warnings weakref zlib"
)

LEGAL = re.compile(r"copyright|all rights reserved|licensed to|\$id|generated (from|by)|^written by", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """Something that has a docstring, or only a name."""

    module: str
    name: str
    """Within the module: `TextWrapper.fill`; empty for the module itself."""
    kind: str
    """module, class, function, method or property."""
    signature: str
    """`(text, width=70)`, without self; empty where none is known."""
    doc: str

    @property
    def full_name(self) -> str:
        """As one writes it after importing the module."""
        return ".".join(part for part in (self.module, self.name) if part and part != "builtins") or "builtins"

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") for part in f"{self.module}.{self.name}".split("."))


def read_library() -> dict[str, list[Entry]]:
    """The entries of each module, by the module's public name; a docstring stands only where it is met first."""
    root = Path(sysconfig.get_paths()["stdlib"])
    modules: dict[str, dict[str, Entry]] = defaultdict(dict)
    # A module's own file says best what it is, the Python version of it what is in it.
    order = {name: index for index, name in enumerate(PUBLIC_NAME)}
    files = sorted(_source_files(root), key=lambda module: (order.get(module[0], -1), module[0]))
    for name, file in tqdm(files, desc="reading modules", unit="module"):
        public_name = PUBLIC_NAME.get(name, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escape sequences in the library's own strings
            tree = ast.parse(file.read_bytes())
        known = modules[public_name]
        for entry in _entries_of_source(public_name, tree):
            if entry.name not in known or (entry.doc and not known[entry.name].doc):
                known[entry.name] = entry
    for name in C_MODULES.split():
        for entry in _entries_of_c(name, set(modules[name])):
            modules[name].setdefault(entry.name, entry)

    # Public modules first: a docstring that stands twice stays where a reader would look for it.
    seen: set[str] = set()
    library = {}
    for name in sorted(modules, key=lambda name: ("_" in (part[0] for part in name.split(".")), name)):
        library[name] = []
        for entry in modules[name].values():
            content = " ".join(entry.doc.split())
            library[name].append(replace(entry, doc="") if content in seen else entry)
            seen.add(content)
    return library


def _source_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of every module that is written in Python."""
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] not in sys.stdlib_module_names or parts[0] in SKIPPED or SKIPPED_PARTS & set(parts):
            continue
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def _entries_of_source(module: str, tree: ast.Module) -> Iterator[Entry]:
    yield Entry(module, "", "module", "", _clean_module(module, ast.get_docstring(tree) or ""))
    yield from _entries_of_body(module, "", tree.body)


def _entries_of_body(module: str, prefix: str, body: Iterable[ast.stmt]) -> Iterator[Entry]:
    for node in body:
        match node:
            case ast.ClassDef():
                methods = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}
                signature = _signature(methods["__init__"], True) if "__init__" in methods else ""
                yield Entry(module, prefix + node.name, "class", signature, clean(ast.get_docstring(node) or ""))
                yield from _entries_of_body(module, f"{prefix}{node.name}.", node.body)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
                kind = "method" if prefix else "function"
                signature = _signature(node, bool(prefix) and "staticmethod" not in decorators)
                if decorators & {"property", "cached_property", "functools.cached_property"}:
                    kind, signature = "property", ""
                yield Entry(module, prefix + node.name, kind, signature, clean(ast.get_docstring(node) or ""))
            case ast.If() | ast.Try():
                yield from _entries_of_body(module, prefix, node.body)
                yield from _entries_of_body(module, prefix, node.orelse)
                for handler in node.handlers if isinstance(node, ast.Try) else []:
                    yield from _entries_of_body(module, prefix, handler.body)
            case ast.Assign():  # names without docstrings: another function of the same name is not the only one
                for target in node.targets if not prefix else []:
                    if isinstance(target, ast.Name):
                        yield Entry(module, target.id, "assignment", "", "")


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> str:
    arguments = ast.unparse(node.args)
    if bound:
        arguments = re.sub(r"^\w+(, )?(/, |/$)?", "", arguments)
    return f"({arguments})" if len(arguments) <= 400 else "(…)"


def _entries_of_c(name: str, known: set[str]) -> Iterator[Entry]:
    """What `name` has that its source, if there is one, does not show."""
    try:
        module = importlib.import_module(name)
    except ImportError:  # not on this platform, or left out of this Python
        return
    if "" not in known:
        yield Entry(name, "", "module", "", _clean_module(name, module.__doc__ or ""))
    homes = {name, f"_{name}", "posix" if name == "os" else name}
    # By the names that they were made with: a program may have replaced sys.excepthook and the like, and then only
    # sys.__excepthook__ still is what the documentation is about.
    for value in sorted(
        (value for value in vars(module).values() if isinstance(value, type | types.BuiltinFunctionType)),
        key=lambda value: value.__name__,
    ):
        key = value.__name__.rpartition(".")[2]
        if value.__module__ not in homes or key not in vars(module):
            continue
        if key not in known:
            kind = "class" if isinstance(value, type) else "function"
            yield Entry(name, key, kind, _c_signature(value), _c_doc(value))
        if isinstance(value, type):
            yield from _methods_of_c(name, key, value, known)


def _methods_of_c(module: str, name: str, kind: type, known: set[str]) -> Iterator[Entry]:
    """The methods of a class in C, with those that a class in Python has from its base class in `_module`."""
    for base in kind.__mro__:
        if base is not kind and base.__module__ != f"_{module}":
            continue
        for key, value in vars(base).items():
            method = f"{name}.{key}"
            if key.startswith("_") or method in known:
                continue
            if isinstance(value, types.MethodDescriptorType | types.ClassMethodDescriptorType | staticmethod):
                yield Entry(module, method, "method", _c_signature(value), _c_doc(value))
            elif isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType):
                yield Entry(module, method, "property", "", _c_doc(value))


def _c_doc(value: Any) -> str:
    return clean(inspect.cleandoc(value.__doc__)) if isinstance(value.__doc__, str) else ""


def _c_signature(value: Any) -> str:
    signature = getattr(value, "__text_signature__", None) or ""  # classmethods and staticmethods have none
    return re.sub(r"\(\$\w+(, )?(/, |/(?=\)))?", "(", signature)


def clean(doc: str) -> str:
    """A docstring without Sphinx markup, legal notices and generated tables; empty where nothing else is there."""
    doc = re.sub(r":[a-z:]+:`[~!]?([^`]*)`", r"\1", doc.expandtabs())
    doc = doc.replace("``", "`")
    paragraphs = [paragraph.strip("\n") for paragraph in re.split(r"\n[ \t]*\n", doc)]
    doc = "\n\n".join(paragraph.rstrip() for paragraph in paragraphs if paragraph and not LEGAL.search(paragraph))
    letters = sum(character.isalpha() for character in doc)
    return doc if letters >= 0.6 * len("".join(doc.split())) and len(doc) >= 12 else ""


def _clean_module(name: str, doc: str) -> str:
    """Some module docstrings begin with a line that is only the module's name."""
    first, _, rest = doc.lstrip().partition("\n")
    return clean(rest.strip() if first.strip(" .") in (name, name.rpartition(".")[2]) else doc)


def read_topics() -> dict[str, str]:
    """The chapters of the language reference by title, without the paragraphs that stand in a longer one."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("This Python comes without pydoc_data: use one from python.org, conda or pyenv") from error
    seen: set[str] = set()
    chapters: dict[str, str] = {}
    for _, text in sorted(topics.items(), key=lambda topic: (-len(topic[1]), topic[0])):
        kept = []
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            content = " ".join(paragraph.split())
            if len(content) < 60 or content not in seen:  # headings and short examples may stand twice
                kept.append(paragraph.rstrip())
            seen.add(content)
        chapter = "\n\n".join(kept)
        if len(chapter) >= 0.5 * len(text):
            chapters[text.split("\n", 1)[0].replace('"', "")] = chapter + "\n"
    return dict(sorted(chapters.items()))
