"""Tokens as people read them, and how tokenizers cut a text."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..tokenizers.byte_to_unicode import from_unicode
from .drawing import coloured_lines

MARKS = {" ": "·", "\n": "↵", "\t": "⇥"}
"""What stands for a character that cannot be seen; others are shown by their number."""


def token_labels(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """A short text for each token: spaces and line ends can be seen, and a part of a character is its bytes.

    >>> token_labels(tokenizer, tokenizer(" café\\n")["input_ids"])
    ['·caf', '⟨C3⟩', '⟨A9⟩', '↵']
    """
    special = set(tokenizer.all_special_tokens)
    byte_level = "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)
    labels = []
    for piece in tokenizer.convert_ids_to_tokens(list(ids)):
        if piece is None or piece in special:
            labels.append(str(piece))
            continue
        text = piece.replace("▁", " ")
        if byte_level:
            with suppress(KeyError):  # an added token is text as it is
                raw = from_unicode(piece)
                try:
                    text = raw.decode()
                except UnicodeDecodeError:
                    labels.append(f"⟨{raw.hex('-').upper()}⟩")
                    continue
        labels.append(visible(text))
    return labels


def visible(text: str) -> str:
    """With marks for spaces and line ends, and the numbers of other characters that cannot be seen."""
    return "".join(MARKS.get(each) or (each if each.isprintable() else f"⟨{ord(each):02X}⟩") for each in text)


@dataclass(frozen=True)
class Tokenizations:
    """One text, cut by several tokenizers."""

    text: str
    ids: dict[str, list[int]]
    labels: dict[str, list[str]]

    def figure(self) -> Any:
        """A block for each tokenizer, tokens in turning colours."""
        colours = ("#cfe3f7", "#f9dcc4", "#d3f0d0", "#f3cfe0", "#e6dff5")
        blocks = [
            (f"{name}: {len(labels)} tokens", [(label, colours[i % len(colours)]) for i, label in enumerate(labels)])
            for name, labels in self.labels.items()
        ]
        return coloured_lines(blocks)


def tokenizations(tokenizers: Mapping[str, Any], text: str) -> Tokenizations:
    """How tokenizers cut a text, without the special tokens that they would add.

    Raises:
        ValueError: without a text or a tokenizer.
    """
    if not text or not tokenizers:
        raise ValueError("a text and at least one tokenizer are needed")
    ids = {name: each(text, add_special_tokens=False)["input_ids"] for name, each in tokenizers.items()}
    return Tokenizations(text, ids, {name: token_labels(tokenizers[name], each) for name, each in ids.items()})
