"""Which tokens two texts share; tokens are what stands between white space, case kept."""

from collections import Counter


def token_overlap(answer: str, reference: str) -> tuple[int, int, int]:
    """How many tokens stand in both, as often as they do; how many in the answer, and in the reference."""
    said, wanted = Counter(answer.split()), Counter(reference.split())
    return (said & wanted).total(), said.total(), wanted.total()


def token_f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of the tokens, 0 to 1 (Rajpurkar et al. 2016, without normalising)."""
    both, said, wanted = token_overlap(answer, reference)
    return 2 * both / (said + wanted) if both else 0.0
