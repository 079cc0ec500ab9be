"""`scratchgpt <command>`: every recipe and data builder from any folder, and questions about runs and the machine.

    scratchgpt                                                        all commands
    scratchgpt pretrain demo                                          recipes/pretrain.py with its own demo.yaml
    scratchgpt data python-docs --output_dir data                     data_builders/python_docs.py
    scratchgpt launch --config_file ddp pretrain gpt2_124m --data …   in several processes, as `accelerate launch`

A command is a file in `recipes/` or `data_builders/`; there is no list of them. It runs as `python recipes/…` runs it,
and answers to its name here. Nothing heavy is imported before it is needed.
"""

import argparse
import ast
import difflib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NoReturn

HERE = Path(__file__).resolve().parents[1]
HOME = HERE / "scratchgpt" if (HERE / "scratchgpt" / "recipes").is_dir() else HERE.parent
"""Where recipes/ and data_builders/ are: in the package once it is installed, beside src/ in the repository."""

MAKES_A_MODEL = re.compile("train|tune|import|reinforce")
"""In the names of recipes that do; the others use one."""

EXIT_MISTAKE = 2  # as in scratchgpt.arguments

HELP = """\
usage: scratchgpt <command> [configuration] [--name value …]
       scratchgpt <command> --help                                what it does, and its options
Start here, with a text that every Python has, or with one of yours:
  scratchgpt data python-docs --output_dir runs/demo/data
  scratchgpt train-tokenizer demo
  scratchgpt pretrain demo
  scratchgpt pretrain --data my.txt --output_dir runs/mine
"""


def command_name(stem: str) -> str:
    """`train_tokenizer` → train-tokenizer; what is exported, merged or pushed goes without saying."""
    return re.sub("_(model|adapter|to_hub)$", "", stem.replace("-", "_")).replace("_", "-")


def scripts(folder: str) -> dict[str, Path]:
    """The scripts in recipes/ or data_builders/ by the names of their commands."""
    files = sorted((HOME / folder).glob("*.py"))
    return {command_name(file.stem): file for file in files if 'if __name__ == "__main__"' in file.read_text("utf-8")}


def configurations() -> dict[str, Path]:
    """The YAML files by folder and name: pretrain/demo, accelerate/ddp."""
    files = sorted(file for folder in ("recipes", "data_builders") for file in (HOME / folder).rglob("*.yaml"))
    return {f"{file.parent.name}/{file.stem}": file for file in files}


def find(name: str, among: Iterable[str], what: str) -> str:
    """`name`, if it is `among` the known ones. Raises ValueError with the nearest one otherwise."""
    if name not in (known := list(among)):
        close = difflib.get_close_matches(name, known, n=1)
        raise ValueError(f"unknown {what} {name}: {f'did you mean {close[0]}?' if close else '--help lists them'}")
    return name


def docstring(script: Path) -> str:
    return ast.get_docstring(ast.parse(script.read_bytes())) or ""


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Names and what they are, each on a line of the terminal."""
    rows, width = list(rows), shutil.get_terminal_size((100, 30)).columns - 1
    indent = max(len(name) for name, _ in rows) + 4
    for name, text in rows:
        print(f"  {name:{indent - 2}}{text if len(text) <= width - indent else f'{text[: width - indent - 1]}…'}")


def as_typed_here(text: str) -> str:
    """Examples of `python recipes/…` as commands, and what is named in the text."""
    text = re.sub(r"\brecipes/(?:accelerate|configs/\w+)/(\w+)\.yaml", r"\1", text)
    text = text.replace("data_builders/reports.yaml", "reports.yaml")  # after `scratchgpt configs copy`
    text = re.sub(
        r"accelerate (launch .*?)recipes/(\w+)\.py", lambda m: f"scratchgpt {m[1]}{command_name(m[2])}", text
    )
    text = re.sub(r"(?:python )?\brecipes/(\w+)\.py", lambda m: f"scratchgpt {command_name(m[1])}", text)
    return re.sub(r"(?:python )?\bdata_builders/(\w+)\.py", lambda m: f"scratchgpt data {command_name(m[1])}", text)


def run_script(script: Path, prog: str, argv: Sequence[str]) -> None:
    """As `python script`, but it is called `prog`, and its docstring has its examples as they are typed here."""
    tree = ast.parse(script.read_bytes(), script)
    if isinstance(first := tree.body[0], ast.Expr) and isinstance(first.value, ast.Constant):
        first.value.value = as_typed_here(str(first.value.value))
    module = ModuleType("__main__")
    module.__file__ = str(script)  # what processes that are spawned load it from
    before, path = (sys.argv, sys.modules["__main__"]), list(sys.path)
    if script.parent.name == "data_builders":  # they import what is beside them
        sys.path.insert(0, str(script.parent))
    sys.argv, sys.modules["__main__"] = [prog, *argv], module
    try:
        exec(compile(tree, script, "exec"), vars(module))
    finally:
        (sys.argv, sys.modules["__main__"]), sys.path[:] = before, path


def run_recipe(name: str, argv: Sequence[str]) -> None:
    """The recipe; its first argument may be the name of a configuration that comes with it."""
    run_script(scripts("recipes")[name], f"scratchgpt {name}", with_own_configuration(name, argv))


def with_own_configuration(name: str, argv: Sequence[str]) -> list[str]:
    """The arguments of a recipe, with the file of a configuration in place of its name."""
    script, argv = scripts("recipes")[name], list(argv)
    if argv and not argv[0].startswith("-") and not Path(argv[0]).exists() and Path(argv[0]).parent == Path():
        own = {file.stem: file for file in sorted((HOME / "recipes" / "configs" / script.stem).glob("*.yaml"))}
        if argv[0].removesuffix(".yaml") not in own:
            names = f"; {name} comes with {', '.join(own)}" if own else ""
            raise ValueError(f"{argv[0]} is neither a YAML file here nor a configuration that comes along{names}")
        argv[0] = str(own[argv[0].removesuffix(".yaml")])
    return argv


def refuse(message: str) -> NoReturn:
    """In place of argparse's own way to end, which prints the whole usage."""
    raise ValueError(f"{message} (--help says more)")


class Parser(argparse.ArgumentParser):
    """The options of a function of this module, whose docstring is the help."""

    def __init__(self, tool: Callable[[list[str]], None]) -> None:
        super().__init__(prog=f"scratchgpt {tool.__name__}", description=tool.__doc__, allow_abbrev=False)
        self.error = refuse


def data(argv: list[str]) -> None:
    """Build a data set; alone, it lists the builders: scratchgpt data <builder>"""
    builders = scripts("data_builders")
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: scratchgpt data <builder> [--name value …]\n       scratchgpt data <builder> --help\n")
        print_table((name, docstring(file).partition("\n")[0]) for name, file in builders.items())
    else:
        name = find(command_name(argv[0]), builders, "builder")
        run_script(builders[name], f"scratchgpt data {name}", argv[1:])


def launch(argv: list[str]) -> None:
    """Run a recipe in several processes, as accelerate launch does: scratchgpt launch --num_processes 8 pretrain …"""
    from subprocess import CalledProcessError

    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = launch_command_parser()
    parser.prog, parser.error = "scratchgpt launch", refuse
    arguments = parser.parse_args(argv)
    name = find(command_name(arguments.training_script), scripts("recipes"), "recipe")
    arguments.training_script, arguments.module = "scratchgpt_cli", True
    arguments.training_script_args.insert(0, name)
    if (config := arguments.config_file) and not Path(config).is_file():
        files = configurations()
        arguments.config_file = str(files[find(f"accelerate/{config.removesuffix('.yaml')}", files, "configuration")])
    try:
        launch_command(arguments)
    except (CalledProcessError, ChildFailedError) as error:
        one = isinstance(error, CalledProcessError)
        code = error.returncode if one else error.get_first_failure()[1].exitcode
        # The recipe has said why, and its exit code tells whether it can go on; a signal's is as shells have it.
        sys.exit(code if code >= 0 else 128 - code)


def configs(argv: list[str]) -> None:
    """List the configurations that come along, or copy one: scratchgpt configs copy pretrain/demo [DIR]"""
    parser, files = Parser(configs), configurations()
    parser.add_argument("words", nargs="*", metavar="copy NAME [DIR]", help="without: the list")
    match parser.parse_args(argv).words:
        case []:
            print_table(
                (name, file.read_text("utf-8").partition("\n")[0].lstrip("# ")) for name, file in files.items()
            )
        case ["copy", name, *folder] if len(folder) < 2:
            target = Path(*folder) / files[find(name, files, "configuration")].name
            if target.exists():
                raise ValueError(f"{target} exists: give another folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[name], target)
            print(target)
        case _:
            raise ValueError("give nothing, or: copy NAME [DIR]")


def doctor(argv: list[str]) -> None:
    """Say what this machine has, which extras are missing, and which settings suit it"""
    Parser(doctor).parse_args(argv)
    from .machine import report

    print(report())


def plan(argv: list[str]) -> None:
    """Say what a pretraining run would take, before it is begun: scratchgpt plan modern_124m --machine h100x8"""
    from .estimating import plan as planned

    print(planned(with_own_configuration("pretrain", argv)))


def info(argv: list[str]) -> None:
    """Say what a directory holds: scratchgpt info runs/mine (a run, model, adapter, tokenizer or data set)"""
    parser = Parser(info)
    parser.add_argument("directory", nargs="+", type=Path)
    directories = parser.parse_args(argv).directory
    from .directories import describe

    print("\n\n".join(map(describe, directories)))


def verify(argv: list[str]) -> None:
    """Compare files with what was once written: scratchgpt verify runs/mine (exit code 1: damaged)"""
    parser = Parser(verify)
    parser.add_argument("directory", nargs="+", type=Path)
    directories = parser.parse_args(argv).directory
    from .directories import verify_sealed

    damaged = [directory for directory in directories if not verify_sealed(directory)]
    sys.exit(1 if damaged else 0)


def card(argv: list[str]) -> None:
    """Write the card of a model, adapter, tokenizer or data set, or make it anew: scratchgpt card runs/mine/final"""
    parser = Parser(card)
    parser.add_argument("directory", nargs="+", type=Path)
    parser.add_argument("--repo_id", help="owner/name on the Hub, for the examples")
    arguments = parser.parse_args(argv)
    from scratchgpt.hub.cards import CARD, check_card, is_own, write_card

    for directory in arguments.directory:
        file = directory / CARD
        if file.is_file() and not is_own(file.read_text("utf-8")):
            raise ValueError(f"{file} was written or edited by hand and is kept: move it away for a new one")
        print(write_card(directory, arguments.repo_id))
        for problem in check_card(directory):
            print(f"  {problem}")


def compare(argv: list[str]) -> None:
    """Compare runs, or models that `evaluate` has measured: scratchgpt compare runs/a runs/b

    Of runs: their curves in one picture. Of models: which is better, or that one cannot tell, as a page with plots.
    """
    parser = Parser(compare)
    parser.add_argument("run", nargs="+", type=Path)
    parser.add_argument(
        "--output", type=Path, help="default: comparison.png; of measured models a directory, comparison"
    )
    arguments = parser.parse_args(argv)
    if any((run / "items").is_dir() for run in arguments.run):
        from scratchgpt.evaluation.comparison_report import PAGE, write_report
        from scratchgpt.hub.staging import check_writable

        output = arguments.output or Path("comparison")
        check_writable(output)
        print(f"{write_report(arguments.run, output)}\n\nThe page: {output / PAGE}")
        return
    from .comparison import compare_runs

    print(compare_runs(arguments.run, arguments.output or Path("comparison.png")))


def completion(argv: list[str]) -> None:
    """Print a script that completes commands in bash and zsh: scratchgpt completion > FILE"""
    Parser(completion).parse_args(argv)
    from .completion import script

    print(script(), end="")


TOOLS = {
    tool.__name__: tool for tool in (data, configs, doctor, plan, info, verify, card, compare, launch, completion)
}


def print_help() -> None:
    """One screen."""
    recipes = {name: re.split(r"[:.,]\s", docstring(file))[0] for name, file in scripts("recipes").items()}
    print(HELP)
    for title, makes in (("Make a tokenizer or a model:", True), ("Use one:", False)):
        print(title)
        print_table((name, text) for name, text in recipes.items() if bool(MAKES_A_MODEL.search(name)) is makes)
        print()
    print("Data, machine, directories:")
    print_table((name, (tool.__doc__ or "").partition(":")[0].rstrip(".")) for name, tool in TOOLS.items())


def main(argv: Sequence[str] | None = None) -> None:
    """The console script. A mistake is one line and exit code 2, as in the recipes."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    recipes = scripts("recipes")
    try:
        if name in ("-h", "--help", "help"):
            print_help()
        elif name == "--version":
            print(f"scratchgpt {version('scratchgpt')}")
        elif name in TOOLS:
            TOOLS[name](rest)
        else:
            run_recipe(find(command_name(name), [*recipes, *TOOLS], "command"), rest)
        sys.stdout.flush()
    except BrokenPipeError:  # `scratchgpt configs | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode:
            raise
        who = f"scratchgpt {name}" if name in TOOLS or command_name(name) in recipes else "scratchgpt"
        print(f"{who}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)


if __name__ == "__main__":
    main()
