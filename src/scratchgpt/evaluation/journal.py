"""What was found out so far, in a file: a kill loses at most what was under way, and a rerun asks nothing twice.

Each line is a JSON object with the key of what it answers: a hash of everything that the answer depends on.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Answers by key, kept in a file of JSON lines.

    Args:
        file: made with the first answer; a line that a kill or a full disk cut off is dropped, with all after it.
        owner: what all answers depend on: the model, its settings. Answers of another owner stay in the file unused.
    """

    def __init__(self, file: Path, owner: Mapping[str, Any]) -> None:
        self.file, self.owner = file, json.dumps(owner, sort_keys=True)
        self.answers: dict[str, dict[str, Any]] = {}
        whole = 0
        for line in file.read_bytes().splitlines(keepends=True) if file.is_file() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(entry, dict) or "key" not in entry:
                break
            whole += len(line)
            self.answers[entry.pop("key")] = entry
        if file.is_file() and whole < file.stat().st_size:
            os.truncate(file, whole)

    def key(self, question: Any) -> str:
        return hashlib.sha256(f"{self.owner}\n{json.dumps(question, sort_keys=True)}".encode()).hexdigest()[:32]

    def add(self, found: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Several answers at once; they are on the disk when this returns."""
        lines = []
        for key, answer in found:
            self.answers[key] = dict(answer)
            lines.append(json.dumps({"key": key, **answer}, ensure_ascii=False) + "\n")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))
            stream.flush()
            os.fsync(stream.fileno())
