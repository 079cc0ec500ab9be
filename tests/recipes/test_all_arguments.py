"""What holds for the options of every recipe and every data builder."""

import dataclasses
import importlib
import math
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from scratchgpt.arguments import HEADINGS, Bounds, RecipeArguments, headings, parse_arguments
from tests.runs import ROOT


def argument_classes() -> list[type]:
    """The dataclass of options of each recipe and builder."""
    found = []
    for folder in ("recipes", "data_builders"):
        for file in sorted((ROOT / folder).glob("*.py")):
            if "parse_arguments" not in file.read_text(encoding="utf-8"):
                continue
            module = importlib.import_module(f"{folder}.{file.stem}")
            own = [each for each in vars(module).values() if dataclasses.is_dataclass(each)]
            found += [each for each in own if isinstance(each, type) and each.__name__.endswith("Arguments")]
    return list(dict.fromkeys(found))


CLASSES = argument_classes()
OF_COMMANDS = [kind for kind in CLASSES if kind.__module__.startswith(("recipes.", "data_builders."))]


def printed_help(kind: type, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(kind, ["--help"])
    assert not stopped.value.code
    return capsys.readouterr().out


def numbers(kind: Any) -> list[dataclasses.Field]:
    hints = get_type_hints(kind)
    return [
        each for each in dataclasses.fields(kind) if {int, float} & {hints[each.name], *get_args(hints[each.name])}
    ]


def test_every_recipe_and_builder_is_looked_at() -> None:
    assert {"PretrainArguments", "ClassifierArguments", "TextFilesArguments", "TokenizerArguments"} <= {
        each.__name__ for each in CLASSES
    }


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_number_has_bounds_and_a_default_within_them(kind: Any) -> None:
    for field in numbers(kind):
        bounds = field.metadata.get("bounds")
        assert isinstance(bounds, Bounds), f"{kind.__name__}.{field.name} can be any number: declare its bounds"
        assert field.default is None or bounds.allow(field.default), field.name
        assert not any(map(bounds.allow, (math.inf, -math.inf, math.nan, -1))), field.name


@pytest.mark.parametrize("kind", OF_COMMANDS, ids=lambda kind: kind.__name__)
def test_help_begins_with_examples_and_has_each_option_once(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It was two screens of usage first; then one list, each option by two or three names, without an example."""
    file = kind.__module__.replace(".", "/") + ".py"
    printed = printed_help(kind, capsys)
    assert f"\n    python {file} " in printed[: printed.index("options:")]
    for field in dataclasses.fields(kind):
        assert len(re.findall(rf"^  --{field.name}\b", printed, re.MULTILINE)) == 1, field.name
        hyphens = f"--{field.name.replace('_', '-')}"
        assert "_" not in field.name or hyphens not in printed[printed.index("options:") :], field.name
    assert printed.count("(required)") == sum(field.default == "" for field in dataclasses.fields(kind))
    assert "--no_" not in printed


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_many_options_are_in_groups_and_inherited_ones_stay_in_theirs(
    kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = headings(kind)
    assert set(found.values()) <= {None, *HEADINGS}
    assert len(found) <= 10 or len(set(found.values())) > 2, "HELP_GROUPS is missing"
    if not any(found.values()):
        return
    printed = printed_help(kind, capsys)
    positions = [printed.index(f"\n{heading}:\n") for heading in HEADINGS if heading in found.values()]
    assert positions == sorted(positions)
    for parent in kind.__mro__[:-1]:
        inherited = {each.name for base in parent.__bases__ if base is not object for each in dataclasses.fields(base)}
        new = [field.name for field in dataclasses.fields(parent) if field.name not in inherited]
        if new and parent is not RecipeArguments:
            assert new[0] in vars(parent).get("HELP_GROUPS", {}), (
                f"{parent.__name__}: under which heading is {new[0]}?"
            )


@pytest.mark.parametrize(
    "kind",
    [kind for kind in CLASSES if any(field.default == "" for field in dataclasses.fields(kind))],
    ids=lambda kind: kind.__name__,
)
def test_every_required_option_is_named_when_it_is_missing(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"--\w+ is missing: \w|are required: --name"):
        parse_arguments(kind, [])


@pytest.mark.parametrize("file", sorted((ROOT / "recipes" / "configs").glob("*/*.yaml")), ids=lambda file: file.stem)
def test_every_configuration_is_understood(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = importlib.import_module(f"recipes.{file.parent.name}")
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    more = [f"--{name}=x" for name in ("data", "tokenizer") if name not in given and file.parent.name == "pretrain"]
    with pytest.raises(SystemExit):
        recipe.main([str(file), *more, "--dry_run"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert given.items() <= printed.items()


def test_no_option_of_a_classifier_is_of_language_models_alone() -> None:
    from recipes.finetune_classifier import ClassifierArguments

    names = {field.name for field in dataclasses.fields(ClassifierArguments)}
    assert not names & {"eval_tokens", "sample_prompts", "sample_tokens", "train_role_tokens"}
    assert issubclass(ClassifierArguments, RecipeArguments)
