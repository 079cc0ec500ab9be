"""run_identity.py: whatever changes between two runs is named, and what cannot change a result is not."""

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from recipes.finetune_classifier import ClassifierArguments
from recipes.finetune_instruct import InstructArguments
from recipes.finetune_preference import PreferenceTuningArguments
from recipes.reinforce import ReinforcementArguments
from scratchgpt import ScratchGPTConfig, ScratchGPTForSequenceClassification
from scratchgpt.adapters import AdapterArguments, add_adapter
from scratchgpt.data.labelled_texts import LabelledTexts
from scratchgpt.data.text_rows import TextRows
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from scratchgpt.training import run_identity as module
from scratchgpt.training.pretraining import PretrainArguments
from scratchgpt.training.run_identity import ARGUMENTS_NOT_COUNTING, differences, run_identity
from scratchgpt.training.tasks.classification import TextClassification

RECIPES: dict[str, Any] = {
    "pretrain": PretrainArguments(data="data", tokenizer="tokenizer"),
    "classifier": ClassifierArguments(data="data", model_name_or_path="base"),
    "instruct": InstructArguments(data="data", model_name_or_path="base"),
    "preference": PreferenceTuningArguments(data="data", model_name_or_path="base"),
    "reinforce": ReinforcementArguments(data="data", model_name_or_path="base"),
}
TEXTS = [f"{word} {number}" for number in range(6) for word in ("good", "bad", "the film was rather long")]
DATA = LabelledTexts(TEXTS, [int("good" in text) for text in TEXTS], ["bad", "good"])


@cache
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train(TEXTS, 300))


def classifier(**changed: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    config = ScratchGPTConfig(vocab_size=len(tokenizer()), pad_token_id=tokenizer().pad_token_id, **shape, **changed)
    return ScratchGPTForSequenceClassification(config)


def identity(**changed: Any) -> dict[str, Any]:
    """Of a classifier; `changed` are arguments of `run_identity` and of the task."""
    rows = TextRows(DATA, changed.pop("rows_tokenizer", tokenizer()), changed.pop("max_length", 16))
    task_settings = {"train_rows": rows, "eval_rows": rows, "batch_size": 4, "class_weights": None, "r_drop": 0.0}
    task_settings |= {name: changed.pop(name) for name in tuple(changed) if name in task_settings}
    settings = {
        "arguments": RECIPES["classifier"],
        "task": TextClassification(**task_settings),
        "model": classifier(),
        "tokenizer": tokenizer(),
        "data_fingerprint": "0" * 64,
        "environment": {"world_size": 1},
    }
    return run_identity(**settings | changed)


def other_value(value: Any, kind: Any) -> Any:
    """A value of the same type that is not `value`."""
    options = [kind, *get_args(kind)] if get_origin(kind) is UnionType or type(None) in get_args(kind) else [kind]
    for option in options:
        if get_origin(option) is Literal:
            return next(choice for choice in get_args(option) if choice != value)
        if option is bool:
            return not value
        if option in (int, float):
            return option((value or 0) + 1)
        if option is str:
            return f"{value} changed"
        if get_origin(option) is list:
            return [*value, "changed"]
    raise AssertionError(f"no other value for {kind}")


def every_argument() -> Iterator[tuple[str, str]]:
    for recipe, arguments in RECIPES.items():
        yield from ((recipe, field.name) for field in fields(arguments))


@pytest.mark.parametrize(("recipe", "name"), every_argument())
def test_every_argument_counts_unless_it_is_listed(recipe: str, name: str) -> None:
    arguments = RECIPES[recipe]
    before = identity(arguments=arguments)
    changed = copy.copy(arguments)
    kind = get_type_hints(type(arguments))[name]
    setattr(changed, name, other_value(getattr(arguments, name), kind))
    found = differences(before, identity(arguments=changed))
    if name in ARGUMENTS_NOT_COUNTING:
        assert found == []
    else:
        assert found == [f"{name} was {module._short(asdict(arguments), name)}, is now "
                         f"{module._short(asdict(changed), name)}"]  # fmt: skip


def test_the_list_of_what_does_not_count_names_real_arguments() -> None:
    assert {name for _, name in every_argument()} >= ARGUMENTS_NOT_COUNTING
    assert sum(name not in ARGUMENTS_NOT_COUNTING for _, name in every_argument()) > 60


def test_nothing_differs_in_the_same_run() -> None:
    assert differences(identity(), json.loads(json.dumps(identity()))) == []


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"r_drop": 1.0}, ["task.r_drop was 0.0, is now 1.0"]),
        ({"class_weights": torch.tensor([0.5, 2.0])}, ["task.class_weights was None, is now [0.5, 2.0]"]),
        ({"batch_size": 8}, ["task.batch_size was 4, is now 8"]),
        ({"max_length": 4}, ["task.eval_rows", "task.train_rows"]),
        ({"eval_rows": TextRows(DATA.select([0, 1, 2]), tokenizer(), 16)}, ["task.eval_rows"]),
        ({"model": classifier(hidden_dropout=0.1)}, ["model.hidden_dropout was 0.0, is now 0.1"]),
        ({"data_fingerprint": "1" * 64}, ["data was 000000000000…, is now 111111111111…"]),
        ({"environment": {"world_size": 2}}, ["world_size was 1, is now 2"]),
    ],
)
def test_what_a_task_and_a_model_hold_counts(changed: dict[str, Any], names: list[str]) -> None:
    found = differences(identity(), identity(**changed))
    for text, name in zip(found, names, strict=True):
        assert text.startswith(name)


def test_another_base_of_the_same_shape_counts() -> None:
    model = classifier()
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-6
    [found] = differences(identity(), identity(model=model))
    assert found.startswith("base was ")


def test_the_tokenizer_counts_and_how_it_was_last_called_does_not() -> None:
    other = to_transformers(BPETokenizer.train([text.upper() for text in TEXTS], 300))
    assert any(text.startswith("tokenizer was ") for text in differences(identity(), identity(tokenizer=other)))
    before = identity()
    tokenizer()(TEXTS, padding=True, truncation=True, max_length=3)
    assert differences(before, identity()) == []
    cut = copy.deepcopy(tokenizer())
    cut.truncation_side = "left"
    assert [text.partition(" ")[0] for text in differences(before, identity(tokenizer=cut))] == ["tokenizer"]


@pytest.mark.parametrize(
    "changed", [{"lora_alpha": 3}, {"lora_dropout": 0.5}, {"use_rslora": True}, {"lora_targets": ["q_proj"]}]
)
def test_how_an_adapter_is_set_up_counts(changed: dict[str, Any]) -> None:
    def adapted(**settings: Any) -> dict[str, Any]:
        return identity(model=add_adapter(classifier(), AdapterArguments(lora_r=2, **settings), task_type="SEQ_CLS"))

    assert differences(adapted(), adapted()) == []
    found = differences(adapted(), adapted(**changed))
    assert any(text.startswith("adapter.") for text in found)


def test_a_record_of_another_version_is_never_exact() -> None:
    before, now = identity(), identity()
    del before["seed"]
    assert differences(before, now) == ["seed was not recorded, is now 0"]
    before = identity()
    before["versions"]["torch"] = "1.0"
    assert differences(before, now) == [f"versions.torch was 1.0, is now {torch.__version__}"]


def test_a_task_that_holds_something_unknown_is_refused() -> None:
    with pytest.raises(TypeError, match=r"task: class_weights holds a object.*fingerprint\(\)"):
        identity(class_weights=object())
