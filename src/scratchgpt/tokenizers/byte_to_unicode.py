"""Bytes as visible characters, as GPT-2's files and `tokenizer.json` have them."""


def _byte_spelling() -> list[str]:
    """Byte → the character that spells it: itself where visible, else the next one from U+0100 (source: GPT-2)."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


SPELLING = _byte_spelling()
_BYTE_OF = {character: byte for byte, character in enumerate(SPELLING)}


def spell(token: bytes) -> str:
    """Bytes as visible characters, `b" the"` → `"Ġthe"`."""
    return "".join([SPELLING[byte] for byte in token])


def unspell(token: str) -> bytes:
    """The inverse of `spell`; KeyError for a character that spells no byte."""
    return bytes([_BYTE_OF[character] for character in token])
