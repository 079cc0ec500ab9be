"""Which module imports which: arrows between rooms point one way, nothing goes in a circle, no module is long.

Read from the source, so imports inside functions and under TYPE_CHECKING count like any other, and so does a module's
name given to `import_module`.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import scratchgpt

PACKAGE = Path(scratchgpt.__file__).parent

# From the ground up: a room imports from its own floor and from those below. `hub` is so low because data and adapters
# write staged directories and fingerprints; `scratchgpt` is __init__.py.
FLOORS = (
    {"configuration_scratchgpt", "loss_scratchgpt", "modeling_scratchgpt", "tokenization_scratchgpt"},
    {"tokenizers"},
    {"arguments", "attention", "hub", "performance"},
    {"adapters", "data"},
    {"evaluation", "inference", "inspection", "interop", "training"},
    {"showcase"},
    {"scratchgpt"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

OUTSIDE = {"benchmarks", "data_builders", "recipes", "tests"}

LONGEST = 450
"""Lines of a module; the model alone may have more, since it is one file for the Hub."""


class Arrow(NamedTuple):
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} → {self.imported} (line {self.line})"


def modules(package: Path) -> dict[str, Path]:
    """Dotted names below the package, `scratchgpt.data.text`, and the files."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = (package.name, *file.relative_to(package).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def arrows(package: Path) -> list[Arrow]:
    """Every import of a module of the package, or of what is in `OUTSIDE`."""
    known = modules(package)
    return [
        Arrow(name, imported, line)
        for name, file in known.items()
        for imported, line in _imports(name, file, known)
        if imported.partition(".")[0] in {package.name, *OUTSIDE}
    ]


def _imports(name: str, file: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from ((alias.name, node.lineno) for alias in node.names)
            case ast.ImportFrom():
                parts = name.split(".") + [""] * (file.name == "__init__.py")
                start = [*parts[: -node.level], *filter(None, [node.module])] if node.level else [node.module or ""]
                for alias in node.names:
                    full = ".".join([*start, alias.name])
                    yield (full if full in known else ".".join(start)), node.lineno
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(str(module)), *_]):
                if called in ("import_module", "__import__"):
                    yield module, node.lineno


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def upward(found: list[Arrow]) -> list[str]:
    """The arrows that the floors do not allow."""
    wrong = []
    for arrow in found:
        importer, imported = room_of(arrow.importer), room_of(arrow.imported)
        if arrow.imported.partition(".")[0] in OUTSIDE:
            wrong.append(f"{arrow}: nothing in the package imports what is outside of it")
        elif unknown := {importer, imported} - FLOOR_OF.keys():
            wrong.append(f"{arrow}: {unknown.pop()} has no floor, give it one in FLOORS")
        elif FLOOR_OF[imported] > FLOOR_OF[importer]:
            wrong.append(f"{arrow}: {imported} stands above {importer}")
        elif imported == "training" and importer != "training" and importer != "scratchgpt":
            wrong.append(f"{arrow}: what is trained is used without training")
    return wrong


def circle(found: list[Arrow], of_rooms: bool = False) -> str | None:
    """The first circle of imports, between modules or between rooms; None where there is none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for importer, imported, _ in found:
        one, other = (room_of(importer), room_of(imported)) if of_rooms else (importer, imported)
        if not of_rooms or one != other:
            graph[one].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return None


def test_arrows_point_down() -> None:
    found = arrows(PACKAGE)
    assert len(found) > 50
    assert not (wrong := upward(found)), "\n".join(wrong)


@pytest.mark.parametrize("of_rooms", [False, True], ids=["modules", "rooms"])
def test_nothing_goes_in_a_circle(of_rooms: bool) -> None:
    assert (found := circle(arrows(PACKAGE), of_rooms)) is None, found


def test_no_module_is_long() -> None:
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules(PACKAGE).items()}
    del lengths["scratchgpt.modeling_scratchgpt"]
    long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not long, f"more than {LONGEST} lines, so ask whether it is two things: {long}"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"data/text.py": "from ..training import loop"},
            "data.text → scratchgpt.training.loop (line 1): ",
        ),
        ({"hub/staging.py": "def f():\n    from .. import adapters"}, "hub.staging → scratchgpt.adapters (line 2): "),
        ({"inference/chat.py": "import scratchgpt.training.loop"}, "is used without training"),
        ({"tokenizers/bpe.py": "from recipes.chat import main"}, "nothing in the package imports what is outside"),
        (
            {"performance.py": 'import_module("scratchgpt.interop")'},
            "performance → scratchgpt.interop (line 1): ",
        ),
        ({"shed.py": "from . import hub"}, "shed has no floor"),
        (
            {"hub/__init__.py": "from scratchgpt import ScratchGPTModel"},
            "scratchgpt.hub → scratchgpt (line 1): ",
        ),
    ],
)
def test_a_wrong_arrow_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    (wrong,) = upward(arrows(build(tmp_path, files)))
    assert message in wrong


def test_a_circle_is_named(tmp_path: Path) -> None:
    condition = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import x"
    found = arrows(build(tmp_path, {"data/a.py": condition, "data/b.py": "def f():\n    from . import a"}))
    assert circle(found) in (
        "scratchgpt.data.a → scratchgpt.data.b → scratchgpt.data.a",
        "scratchgpt.data.b → scratchgpt.data.a → scratchgpt.data.b",
    )
    assert circle(found, of_rooms=True) is None
    rooms = {"evaluation/a.py": "from ..inference import b", "inference/c.py": "from ..evaluation.d import x"}
    found = arrows(build(tmp_path / "rooms", rooms))
    assert circle(found) is None
    assert set(str(circle(found, of_rooms=True)).split(" → ")) == {"evaluation", "inference"}


def build(folder: Path, files: dict[str, str]) -> Path:
    """A package with these files and, empty, all modules that the tests import from."""
    package = folder / "scratchgpt"
    empty = (
        "__init__",
        "adapters",
        "training/loop",
        "evaluation/d",
        "inference/b",
        "hub/__init__",
        "interop/__init__",
    )
    for name, content in {**{f"{name}.py": "" for name in empty}, **files}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content, encoding="utf-8")
    return package
