"""seals.py: any later damage to a sealed directory is noticed, and named."""

import random
from pathlib import Path

import pytest

from scratchgpt.hub.seals import MANIFEST, SealError, seal, verify_if_sealed, verify_seal


def sealed(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "deep" / "b.json").write_text('{"number": 1}')
    (folder / "README.md").write_text("a card")
    seal(folder)
    return folder


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    folder, generator = sealed(tmp_path / "it"), random.Random(0)
    verify_seal(folder)
    for file in (folder / "a.bin", folder / "deep" / "b.json", folder / MANIFEST):
        content = file.read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            file.write_bytes(damaged)
            with pytest.raises(SealError, match=file.name):
                verify_seal(folder)
        file.write_bytes(content)
        file.unlink()
        with pytest.raises(SealError, match=file.name):
            verify_seal(folder)
        file.write_bytes(content)
    verify_seal(folder)


def test_cards_and_added_files_are_free(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "it")
    (folder / "README.md").write_text("another card")
    (folder / "added.txt").write_text("later")
    verify_seal(folder)


def test_only_sealed_directories_are_verified(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "it")
    (folder / "a.bin").write_bytes(b"")
    with pytest.raises(SealError, match=f"0 bytes, 10240 were written. .* delete {MANIFEST}"):
        verify_if_sealed(folder)
    (folder / MANIFEST).unlink()
    verify_if_sealed(folder)
    verify_if_sealed("user/name-on-the-hub")
