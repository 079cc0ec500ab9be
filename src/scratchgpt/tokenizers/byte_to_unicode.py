"""Bytes as visible characters, as GPT-2's files and `tokenizer.json` have them (GPT-2's `bytes_to_unicode`)."""


def _byte_to_unicode() -> list[str]:
    """Byte → its character: itself where visible, else the next one from U+0100 (source: GPT-2's encoder.py)."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


BYTE_TO_UNICODE = _byte_to_unicode()
_UNICODE_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_TO_UNICODE)}


def to_unicode(token: bytes) -> str:
    """A character for each byte, `b" the"` → `"Ġthe"`."""
    return "".join([BYTE_TO_UNICODE[byte] for byte in token])


def from_unicode(token: str) -> bytes:
    """The inverse of `to_unicode`; KeyError for a character that stands for no byte."""
    return bytes([_UNICODE_TO_BYTE[character] for character in token])
