"""Intermediate models: what a run makes on its way and finds there when it is started again.

Beside the directory of an intermediate, `<name>_made_from.json` records what it was made from and, once it is
finished, the fingerprint of its weights. It is used again only if both are today's: a run that is started in the same
place with another base, other data or other arguments gets a new one.

What is not a model (data, a tokenizer) and is made in one go, `made_once` makes: its record is inside, under its seal.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from .fingerprints import tokenizer_fingerprint, weights_fingerprint
from .names import local_copy
from .seals import SealError, seal, verify_seal
from .staging import staged_directory

RECORD = "made_from.json"
"""Of what `made_once` makes, in its directory."""


def base_inputs(base: str | os.PathLike[str]) -> dict[str, str]:
    """What an intermediate made from the model `base` (directory or Hub name) depends on."""
    directory = local_copy(base)
    config = AutoConfig.from_pretrained(directory).to_json_string()
    return {
        "weights of the base": weights_fingerprint(directory),
        "tokenizer of the base": tokenizer_fingerprint(AutoTokenizer.from_pretrained(directory)),
        "configuration of the base": hashlib.sha256(config.encode()).hexdigest(),
    }


@dataclass
class Intermediate:
    """
    Args:
        directory: what is made; the record stands beside it.
        model: the model directory in it, or itself.
        inputs: whatever the result depends on, as JSON has it.
    """

    directory: Path
    model: Path
    inputs: dict[str, Any]

    @property
    def record(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}_made_from.json")

    def begin(self, say: Callable[[str], object]) -> bool:
        """Whether it is there and finished. One that is not today's is removed, and said; then it has to be made.

        One that was begun from the same inputs stays as it is.

        Raises:
            ValueError: for a directory without a record, which something else has made.
        """
        if not self.directory.exists():
            self._write(None)
            return False
        if not self.record.is_file():
            raise ValueError(
                f"{self.directory} is in the way, and is not of this recipe: move it, or give another output_dir"
            )
        reason = self._difference()
        if reason is None:
            return self._read()["weights"] is not None
        say(f"{self.directory} {reason}: it is made anew")
        shutil.rmtree(self.directory)
        self._write(None)
        return False

    def finish(self) -> None:
        """Records that it is complete."""
        self._write(weights_fingerprint(self.model))

    def _difference(self) -> str | None:
        try:
            recorded = self._read()
            inputs, weights = recorded["inputs"], recorded["weights"]
        except (ValueError, KeyError, TypeError):
            return f"has the broken record {self.record.name}"
        # As JSON has them: a tuple comes back as a list.
        today = json.loads(json.dumps(self.inputs))
        if changed := sorted(name for name in {*inputs, *today} if inputs.get(name) != today.get(name)):
            return f"was made with other {', '.join(changed)}"
        try:
            damaged = weights is not None and weights_fingerprint(self.model) != weights
        except Exception as error:  # safetensors' own errors have no common class
            return f"cannot be read ({error})"
        return "has other weights than were written" if damaged else None

    def _read(self) -> dict[str, Any]:
        return json.loads(self.record.read_text(encoding="utf-8"))

    def _write(self, weights: str | None) -> None:
        self.record.parent.mkdir(parents=True, exist_ok=True)
        content = {"inputs": self.inputs, "weights": weights}
        self.record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def made_once(directory: Path, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Makes `directory` with `make(new folder)`, unless it is there, was made from the same inputs and is undamaged.

    Returns:
        What `make` returned, now or then.

    Raises:
        ValueError: where something else is in the way.
    """
    record = directory / RECORD
    inputs = json.loads(json.dumps(inputs))
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        if found["inputs"] == inputs:
            verify_seal(directory)
            return found["facts"]
    except (OSError, ValueError, KeyError, TypeError, SealError):
        pass  # not there, or not what was written: it is made anew
    with staged_directory(directory, overwrite=directory.exists() and record.is_file(), marker=RECORD) as folder:
        facts = make(folder)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        (folder / RECORD).write_text(json.dumps({"inputs": inputs, "facts": facts}, indent=2) + "\n", encoding="utf-8")
        seal(folder)
    return facts
