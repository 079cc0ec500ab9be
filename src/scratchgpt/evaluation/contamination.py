"""Whether a model is tested on what it was trained on: texts of a test set beside the sketches that the model carries.

    overlap = check_overlap(texts, "runs/chat/final")
    overlap.refuse("data/test.jsonl")          # ValueError where more than 1 % of them were seen
    print(overlap)

See `hub.training_texts` for what is compared. A model without sketches is not checked, and nothing is claimed of it.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..adapters import is_adapter
from ..hub.fingerprints import read_base_reference
from ..hub.training_texts import TrainingTexts

ENOUGH = 0.5
"""A text counts as seen where so much of it stands in the training text."""

TOLERATED = 0.01
"""Share of a test set that may be seen: texts of one kind share a few by chance."""


@dataclass(frozen=True)
class Overlap:
    """What of a test set stands in the training texts of a model."""

    is_checked: bool
    """Whether the model says what it was trained on."""
    is_complete: bool
    """Whether the models that it began with do, too."""
    seen: np.ndarray
    """bool [texts]."""
    findable: np.ndarray
    """bool [texts]: within a longer document they would have been seen, too, and not only as whole ones."""
    examples: tuple[str, ...]
    """Beginnings of a few of those that were seen."""

    @property
    def clean(self) -> np.ndarray:
        """bool [texts]: neither whole nor within a document."""
        return ~self.seen & self.findable

    @property
    def only_whole(self) -> np.ndarray:
        """bool [texts]: no whole document; whether they stand within one is not known."""
        return ~self.seen & ~self.findable

    @property
    def share(self) -> float:
        return float(self.seen.mean()) if len(self.seen) else 0.0

    @property
    def is_contaminated(self) -> bool:
        """Whether too much was seen, of all, or of those that would have been seen anywhere."""
        of_findable = float(self.seen[self.findable].mean()) if self.findable.any() else 0.0
        return max(self.share, of_findable) > TOLERATED

    def __str__(self) -> str:
        if not self.is_checked:
            return "not checked against the training text: the model has no record of it"
        found = f"{int(self.seen.sum()):,} of {len(self.seen):,} texts ({self.share:.1%}) stand in the training text"
        if whole := int(self.only_whole.sum()):
            found += f"; {whole:,} others could have been found as whole documents only"
        return found + ("" if self.is_complete else "; that of the model it began with is not known")

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        if not self.is_checked:
            return {"checked": False}
        counts = {"count": len(self.seen), "seen": int(self.seen.sum()), "only_whole": int(self.only_whole.sum())}
        return {"checked": True, "complete": self.is_complete, **counts}

    def refuse(self, name: str) -> None:
        """
        Raises:
            ValueError: where too many texts of the test set `name` were seen; gives their share and an example.
        """
        if self.is_contaminated:
            example = json.dumps(self.examples[0], ensure_ascii=False)
            raise ValueError(
                f"{name} is contaminated: {self}; seen was, for example, {example}; test on "
                "other texts, or give --allow_overlap true to score those that were seen and the others apart"
            )


def check_overlap(texts: Sequence[str], model: str | os.PathLike[str]) -> Overlap:
    """
    Args:
        texts: of a test set, one for each item: question and answer, or the whole document.
        model: a model directory, that of an adapter, or a Hub name. An adapter without a record has its base's.
    """
    known = TrainingTexts.read(model)
    if known is None and is_adapter(model) and (below := TrainingTexts.read(read_base_reference(model).base)):
        known = replace(below, is_complete=False)
    if known is None:
        nothing = np.zeros(len(texts), dtype=bool)
        return Overlap(False, False, nothing, nothing, ())
    shares, findable = known.look_up(texts)
    seen = shares >= ENOUGH
    examples = [" ".join(text.split())[:80] for text, is_seen in zip(texts, seen, strict=True) if is_seen]
    return Overlap(True, known.is_complete, seen, findable, tuple(examples[:3]))
