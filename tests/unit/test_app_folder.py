"""The page as a folder of its own: what is in it, that nothing else is, and that it shows the same models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import SpaceCard

from scratchgpt.data.passages import Passages
from scratchgpt.hub.push import as_on_the_hub
from scratchgpt.showcase import training_runs
from scratchgpt.showcase.app_folder import write_app
from scratchgpt.showcase.finding import find
from scratchgpt.showcase.shelf import Shelf
from scratchgpt.training.metrics import read_metrics
from tests.unit.test_showcase import TEXT, make_runs

pytest.importorskip("gradio")
ARGUMENTS = {"host": "0.0.0.0", "port": 7860, "memory_gb": 1.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = make_runs(tmp_path_factory.mktemp("app") / "runs")
    (runs / "chat" / "arguments.yaml").write_text("chat_template: role_tokens\ntuning: lora\ndata: /home/me/secret\n")
    (runs / "base" / "final" / "training_state").mkdir()
    (runs / "base" / "final" / "training_state" / "optimizer.bin").write_bytes(b"a state")
    (runs / "base" / "checkpoint-4").mkdir()
    (runs / "base" / "my_data.txt").write_text("my data")
    return runs


def logits(shelf: Shelf, name: str) -> torch.Tensor:
    opened = shelf.language_model(name)
    with torch.no_grad():
        return opened.model(**opened.tokenizer(TEXT, return_tensors="pt")).logits


def test_the_folder_shows_what_was_shown(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_app([str(runs), "openai-community/gpt2"], str(tmp_path / "app"), ARGUMENTS)
    shutil.move(tmp_path / "app", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    page = yaml.safe_load(Path("page.yaml").read_text())
    assert page == {"show": ["shown/runs", "openai-community/gpt2"], **ARGUMENTS}
    before, after = find([str(runs)]), find(page["show"][:1])
    assert {name: model.kind for name, model in before.models.items()} == {
        name: model.kind for name, model in after.models.items()
    }
    assert (list(before.tokenizers), list(before.runs)) == (list(after.tokenizers), list(after.runs))
    assert training_runs.costs(before.runs, ["reviews"]) == training_runs.costs(after.runs, ["reviews"])
    assert read_metrics(after.runs["base"] / "metrics.jsonl") == read_metrics(before.runs["base"] / "metrics.jsonl")
    assert "data:image/png;base64," in after.reports["RESULTS.md"].read_text()
    for name in ("base", "chat"):
        torch.testing.assert_close(logits(Shelf(after, 1e9), name), logits(Shelf(before, 1e9), name))


def test_the_folder_holds_what_a_space_needs_and_nothing_else(runs: Path, tmp_path: Path) -> None:
    write_app([str(runs), "openai-community/gpt2@main"], str(tmp_path / "app"), ARGUMENTS)
    app = tmp_path / "app"
    card = SpaceCard.load(app / "README.md").data.to_dict()
    assert (card["sdk"], card["app_file"], card["models"]) == ("gradio", "app.py", ["openai-community/gpt2"])
    assert "scratchgpt[showcase]==" in (app / "requirements.txt").read_text()
    compile((app / "app.py").read_text(), "app.py", "exec")
    names = {file.name for file in app.rglob("*")}
    assert not {"optimizer.bin", "my_data.txt", "checkpoint-4", "training_state"} & names
    assert not any(b"/home/me" in file.read_bytes() for file in app.rglob("*.yaml"))


def saved(folder: Path) -> Path:
    Dataset.from_dict({"text": ["Cats sleep on mats."]}).save_to_disk(folder)
    return folder


def of_texts(folder: Path) -> Path:
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a.txt").write_text("Cats sleep on mats.")
    (folder / "secret.bin").write_bytes(b"mine")
    return folder


def of_one(folder: Path) -> Path:
    return of_texts(folder) / "below" / "a.txt"


@pytest.mark.parametrize("make", [saved, of_texts, of_one])
def test_the_documents_of_the_chat_come_along(runs: Path, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    documents, app = make(tmp_path / "documents"), tmp_path / "app"
    write_app([str(runs / "base")], str(app), ARGUMENTS, str(documents))
    place = yaml.safe_load((app / "page.yaml").read_text())["documents"]
    assert place == f"documents/{documents.name}"
    found = Passages.read(app / place).find("Where do cats sleep?")
    assert found is not None
    assert found.text == "Cats sleep on mats."
    assert not list(app.rglob("secret.bin"))


def test_the_base_of_an_adapter_comes_along(runs: Path, tmp_path: Path) -> None:
    write_app([str(runs / "chat")], str(tmp_path / "app"), ARGUMENTS)
    app = tmp_path / "app"
    assert json.loads((app / "shown" / "chat" / "final" / "base.json").read_text())["base"] == "../../../bases/base"
    found = find([str(app / "shown" / "chat")])
    assert list(found.models) == ["chat"]
    original = logits(Shelf(find([str(runs / "chat")]), 1e9), "chat")
    torch.testing.assert_close(logits(Shelf(found, 1e9), "chat"), original)


def test_places_of_one_name_have_folders_of_their_own(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "other", tmp_path / "other")
    write_app([str(runs / "other"), str(tmp_path / "other" / "final")], str(tmp_path / "app"), ARGUMENTS)
    assert yaml.safe_load((tmp_path / "app" / "page.yaml").read_text())["show"] == ["shown/other", "shown/other-2"]
    assert find([str(tmp_path / "app" / "shown" / name) for name in ("other", "other-2")]).names("language model")


def test_a_folder_that_holds_something_is_left_alone(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty: give a new folder for --app_dir"):
        write_app([str(runs)], str(tmp_path), ARGUMENTS)
    with pytest.raises(ValueError, match="is a file: give a directory"):
        write_app([str(runs)], str(tmp_path / "notes.txt"), ARGUMENTS)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_a_pushed_adapter_still_names_the_hub(runs: Path) -> None:
    with as_on_the_hub(runs / "chat" / "final", "me/chat", "me/base") as folder:
        assert json.loads((folder / "base.json").read_text())["base"] == "me/base"
