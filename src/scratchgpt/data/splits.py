"""What decides to which split a document goes: its content and the seed, not its place."""

import hashlib


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: the same in every process, on every machine, in any order."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def check_fractions(**fractions: float) -> None:
    """
    Raises:
        ValueError: unless each is in [0, 1) and something is left for training.
    """
    if any(not 0 <= fraction < 1 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        named = ", ".join(f"{name}={fraction}" for name, fraction in fractions.items())
        raise ValueError(f"{named}: each must be 0 or more, and together less than 1")
