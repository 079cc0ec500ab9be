"""Questions with a passage before them, as `chat --documents` asks them: extractive pairs of a document, each with the
passage of it that holds the answer. In a share of them it is another passage, the nearest, and nothing is said there.
"""

from collections.abc import Iterable, Iterator, Sequence

from scratchgpt.data.passages import NOT_SAID, Passage, Passages, cut
from scratchgpt.data.splits import draw

from .extractive import Pair

ELSEWHERE = 0.25
"""Share of questions whose passage does not answer them."""


def with_passages(pairs: Iterable[Pair], text: str, seed: int) -> Iterator[Pair]:
    """The pairs whose answer stands in a passage of the document, with the first such passage."""
    pieces = [Passage(piece, "") for piece in cut(text)]
    for pair in pairs:
        holding = [piece for piece in pieces if _words(pair.evidence or pair.answer) in _words(piece.text)]
        if not holding:
            continue
        passage, answer = holding[0].text, pair.answer
        others = [piece for piece in pieces if piece not in holding]
        has_its_own = bool(pair.passage)  # and asks about that one
        if others and not has_its_own and draw(seed, "elsewhere", pair.question) < ELSEWHERE:
            passage, answer = _nearest(others, pair.question), NOT_SAID
        yield Pair(pair.question, answer, "not said" if answer == NOT_SAID else pair.task, passage)


def _words(text: str) -> str:
    return f" {' '.join(text.split())} "


def _nearest(pieces: Sequence[Passage], question: str) -> str:
    try:
        found = Passages(pieces).find(question)
    except ValueError:  # nothing but the commonest words
        found = None
    return (found or pieces[0]).text
