"""Writes the reference in docs/python_api.md from the docstrings: `python .ci/python_api.py [--check]`.

What is between the two markers of the page comes from here; the examples above them are written by hand.
"""

import argparse
import ast
import importlib
import inspect
import re
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python_api.md"
BEGIN, END = "<!-- api:begin -->", "<!-- api:end -->"

# The modules that a notebook or another program uses, and what of each; None: what its __all__ names.
PUBLIC: dict[str, list[str] | None] = {
    "scratchgpt": None,
    "scratchgpt.tokenizers": None,
    "scratchgpt.interop": None,
    "scratchgpt.training.on_text": ["train_on_text"],
    "scratchgpt.training.loop": ["build_accelerator", "train"],
    "scratchgpt.training.tasks.language_modelling": ["LanguageModelling"],
    "scratchgpt.data.pretraining_rows": ["training_rows"],
    "scratchgpt.data.corpus": ["tokenize_corpus"],
    "scratchgpt.data.preferences": ["read_pairs", "Pair"],
    "scratchgpt.data.passages": ["with_passage", "Passages", "Passage"],
    "scratchgpt.data.preference_rows": ["PreferenceRows"],
    "scratchgpt.training.tasks.preference": ["PreferenceTuning", "add_reference", "preference_losses"],
    "scratchgpt.data.prompts": ["read_prompts", "Prompt"],
    "scratchgpt.data.sampled_rows": ["SampledRows"],
    "scratchgpt.evaluation.rewards": ["Rewards"],
    "scratchgpt.training.tasks.reinforcement": ["Reinforcement", "advantages", "policy_losses"],
    "scratchgpt.adapters": ["add_adapter", "load_adapter", "merge_adapter"],
    "scratchgpt.inference.decoding": ["load_for_decoding", "prepare_for_decoding", "compiled_decoding"],
    "scratchgpt.inference.chat": ["ChatSession", "Sampling"],
    "scratchgpt.hub.model_directory": ["save_model", "load_model"],
    "scratchgpt.inspection": None,
}
SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")


def markdown(docstring: str) -> str:
    """A docstring as Markdown: its sections become lists, examples code, everything else stays."""
    lines: list[str] = []
    in_section = False
    for line in inspect.cleandoc(docstring).splitlines():
        indent = len(line) - len(line.lstrip())
        if SECTION.match(line):
            in_section = True
            lines += ["", f"**{line[:-1]}**", ""]
        elif in_section and indent == 4:
            lines.append("- " + re.sub(r"^`*([\w*., ]+?)`*:", r"`\1`:", line.strip()))
        elif in_section and indent > 4:
            lines[-1] += " " + line.strip()
        else:
            in_section = in_section and not line.strip()
            lines.append(line)
            if line == "Example:":  # or what follows is no code block
                lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def parsed(value: Any) -> Any:
    """The definition as it is written: what the process makes of it changes with the versions of the libraries."""
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def signature(function: Any) -> str:
    node = parsed(function)
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("cls, ")
    arguments = "" if arguments in ("self", "cls") else arguments
    return f"```text\n{node.name}({arguments}) -> {ast.unparse(node.returns)}\n```"


def fields(value: type) -> str:
    """The fields of a class that have a docstring under them, as a list."""
    body = parsed(value).body
    lines = []
    for statement, following in pairwise(body):
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and documented:
            default = f" = {ast.unparse(statement.value)}" if isinstance(statement.value, ast.Constant) else ""
            text = " ".join(str(following.value.value).split())
            lines.append(f"- `{ast.unparse(statement.target)}: {ast.unparse(statement.annotation)}{default}`: {text}")
    return "**Fields**\n\n" + "\n".join(lines) if lines else ""


def methods(value: type) -> list[tuple[str, Any]]:
    """Public methods that the class itself defines and describes."""
    found = []
    for name, member in vars(value).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        ours = inspect.isfunction(function) and function.__module__.startswith("scratchgpt")
        if ours and not name.startswith("_") and function.__doc__:
            found.append((name, function))
    return found


def entry(name: str, value: Any) -> list[str]:
    """One name: its signature and what its docstring says, then its fields and methods."""
    if not callable(value):
        return [f"### `{name}`", f"A constant, a {type(value).__name__}."]
    parts = [f"### `{name}`"]
    if not inspect.isclass(value):
        return [*parts, signature(value), markdown(value.__doc__ or "")]
    own = ast.get_docstring(parsed(value)) or ""  # not what dataclasses write
    parts += [markdown(own), fields(value)]
    for method, function in methods(value):
        parts += [f"#### `{name}.{method}`", signature(function), markdown(function.__doc__)]
    return parts


def reference() -> str:
    parts = []
    for module_name, names in PUBLIC.items():
        module = importlib.import_module(module_name)
        parts += [f"## `{module_name}`", markdown(module.__doc__ or "")]
        for name in sorted(module.__all__ if names is None else names):
            if name != "__version__":
                parts += entry(name, vars(module)[name])
    return "\n\n".join(part for part in parts if part)


def written(page: str) -> str:
    """`page` with today's reference between its markers."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} needs the markers {BEGIN} and {END}, in this order")
    return f"{head}{BEGIN}\n\n{reference()}\n\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference in docs/python_api.md from the docstrings.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page is not up to date")
    page = PAGE.read_text(encoding="utf-8")
    wanted = written(page)
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != page:
        sys.exit("docs/python_api.md does not show the docstrings: run python .ci/python_api.py")


if __name__ == "__main__":
    main()
