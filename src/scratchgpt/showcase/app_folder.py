"""The page as a folder of its own: an app for a gradio Space of the Hub, or for any machine.

    app.py  page.yaml  requirements.txt  README.md     what is run, with which arguments; the Space's front matter
    shown/<place>/…                                    of each folder: models, tokenizers, curves, results, reports
    bases/<name>/                                      of adapters whose base is in none of these folders
    documents/<name>                                   that the chat answers from

What the page does not read stays here: checkpoints' training state, data, whatever else lies beside it. Models on the
Hub are named, not copied.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import SpaceCard, SpaceCardData

from ..arguments import ARGUMENTS_FILE
from ..data.files import is_saved_data_set
from ..data.text import text_files
from ..hub.names import local_copy
from ..hub.push import write_adapter
from ..hub.push_checks import files_to_push
from ..hub.staging import staged_directory
from .drawing import with_pictures
from .finding import base_of, find

APP = '''\
"""The page for the models in this folder and those that page.yaml names: python app.py"""

import os
from pathlib import Path

from scratchgpt_cli.commands import main

os.chdir(Path(__file__).resolve().parent)
main(["showcase", "page.yaml"])
'''

REQUIREMENTS = """\
--extra-index-url https://download.pytorch.org/whl/cpu
scratchgpt[showcase]=={version}
"""

CARD = """\
---
{front_matter}
---

# Models to try and to look into

Made by `scratchgpt showcase --app_dir`. As it is, this folder is a gradio Space on the Hub; anywhere else:

    pip install -r requirements.txt
    python app.py

`page.yaml` says what is shown and how much memory it may take. `host: 0.0.0.0` lets other machines in, which a Space
needs; there is no access control.
"""

OF_A_RUN = ("metrics.jsonl", "results.json")
OF_ITS_ARGUMENTS = ("chat_template", "tuning")
"""What the page reads of a run; other arguments may name places here."""


def write_app(places: Sequence[str], folder: str, arguments: Mapping[str, Any], documents: str | None = None) -> None:
    """
    Args:
        places: as for `find`.
        folder: where to; it must be new or empty.
        arguments: of the page, by their names; `show` is filled in.
        documents: as for `Passages.read`; a data set of the Hub is named, not copied.

    Raises:
        ValueError: as `find`; for a folder that is not empty or cannot be written to, and for links in a model.
    """
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{folder} is not empty: give a new folder for --app_dir")
    here = [place for place in dict.fromkeys(places) if Path(place).expanduser().exists()]
    names = [place for place in dict.fromkeys(places) if place not in here]
    with staged_directory(folder, overwrite=False, marker="app.py") as new:
        copies = _Copies(new)
        shown = [copies.add(Path(local_copy(place))) for place in here]
        copies.write_adapters()
        values = {"show": [*shown, *names], **arguments}
        if documents is not None:
            values["documents"] = _copy_documents(Path(documents), new) if Path(documents).exists() else documents
        (new / "app.py").write_text(APP, encoding="utf-8")
        (new / "page.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
        (new / "requirements.txt").write_text(REQUIREMENTS.format(version=version("scratchgpt")), encoding="utf-8")
        facts = SpaceCardData(
            title="scratchgpt", sdk="gradio", sdk_version=version("gradio"), app_file="app.py",
            models=[name.partition("@")[0] for name in names] or None,
        )  # fmt: skip
        SpaceCard(CARD.format(front_matter=facts.to_yaml())).save(new / "README.md")


def _copy_documents(source: Path, app: Path) -> str:
    """What is read of them, and where that is in the app."""
    copy = app / "documents" / source.resolve().name
    if source.is_dir() and is_saved_data_set(source):
        shutil.copytree(source, copy)
    else:
        for file in [source] if source.is_file() else text_files(source):
            place = copy / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return copy.relative_to(app).as_posix()


class _Copies:
    """What has been copied, and where it is now."""

    def __init__(self, app: Path) -> None:
        self.app = app
        self.models: dict[Path, Path] = {}
        self.adapters: dict[Path, Path] = {}

    def add(self, place: Path) -> str:
        """Copies what the page reads of a place; returns the copy's path in the app."""
        found, top = find([str(place)]), place.resolve()
        top = top.parent if top.name == "final" else top
        copy = self._free("shown", top.name)

        def new_place(old: Path) -> Path:
            return copy / old.resolve().relative_to(top)

        for model in found.models.values():
            self._copy(model.directory, new_place(model.directory))
            self._write_arguments(model.directory.parent, new_place(model.directory).parent, top)
        for folder in found.tokenizers.values():
            self._copy(folder, new_place(folder))
        for run in found.runs.values():
            new_place(run).mkdir(parents=True, exist_ok=True)
            for name in OF_A_RUN:
                if (run / name).is_file():
                    shutil.copyfile(run / name, new_place(run) / name)
            self._write_arguments(run, new_place(run), top)
        for report in found.reports.values():
            new_place(report).parent.mkdir(parents=True, exist_ok=True)
            new_place(report).write_text(with_pictures(report), encoding="utf-8")
        return copy.relative_to(self.app).as_posix()

    def write_adapters(self) -> None:
        """With their bases, which are copied unless they were."""
        for adapter, copy in self.adapters.items():
            base = base_of(adapter)
            assert base is not None
            if base not in self.models:
                name = base.parent.name if base.name == "final" else base.name
                self._copy(base, self._free("bases", name))
            write_adapter(adapter, copy, Path(os.path.relpath(self.models[base], copy)).as_posix())

    def _free(self, kind: str, name: str) -> Path:
        place, number = self.app / kind / name, 1
        while place.exists():
            number += 1
            place = self.app / kind / f"{name}-{number}"
        return place

    def _copy(self, folder: Path, copy: Path) -> None:
        folder = folder.resolve()
        if copy.exists():
            return
        copy.mkdir(parents=True)
        if base_of(folder):
            self.adapters[folder] = copy
            return
        self.models[folder] = copy
        for file in files_to_push(folder):
            (copy / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy / file.relative_to(folder))

    def _write_arguments(self, run: Path, copy: Path, top: Path) -> None:
        file = run / ARGUMENTS_FILE
        if file.is_file() and run.resolve().is_relative_to(top):
            given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            kept = {name: given[name] for name in OF_ITS_ARGUMENTS if name in given}
            (copy / ARGUMENTS_FILE).write_text(yaml.safe_dump(kept), encoding="utf-8")
