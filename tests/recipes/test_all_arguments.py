"""What holds for the options of every recipe and every data builder."""

import dataclasses
import importlib
import math
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from scratchgpt.arguments import Bounds, RecipeArguments, parse_arguments
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
        bounds = field.metadata.get("metavar")
        assert isinstance(bounds, Bounds), f"{kind.__name__}.{field.name} can be any number: declare its bounds"
        assert field.default is None or bounds.allow(field.default), field.name
        assert not any(map(bounds.allow, (math.inf, -math.inf, math.nan, -1))), field.name


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
