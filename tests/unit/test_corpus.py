"""data/corpus.py: documents to ids on disk, the same for any number of workers, and not twice."""

import contextlib
import gzip
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from tokenizers import normalizers

from scratchgpt.data import corpus as corpus_module
from scratchgpt.data.corpus import CORPUS_FILE, Corpus, Encoder, tokenize_corpus
from scratchgpt.tokenizers import BPETokenizer, CharTokenizer, to_json, to_rust

TEXTS = ["One two, one two.\n", "drei vier äöü 日本", "", "spells <|endoftext|> and <|pad|> out", "one"]


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train(TEXTS, 300)


@pytest.fixture(scope="module")
def tokenizer_dir(tokenizer: BPETokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(to_json(tokenizer), encoding="utf-8")
    return folder


def documents(corpus: Corpus) -> list[list[int]]:
    return [corpus.document(i).tolist() for i in range(corpus.num_documents)]


def expected(tokenizer: BPETokenizer, texts: list[str]) -> list[list[int]]:
    eos = tokenizer.special_tokens["<|endoftext|>"]
    return [[*tokenizer.encode(text, split_special_tokens=True), eos] for text in texts]


def no_tokenising(*_: object) -> None:
    raise AssertionError("this should have come from the cache")


def test_documents_with_end_of_text_between_them(tokenizer: BPETokenizer, tokenizer_dir: Path, tmp_path: Path) -> None:
    corpus = tokenize_corpus(TEXTS, tokenizer_dir, tmp_path, progress=False)
    assert documents(corpus) == expected(tokenizer, TEXTS)
    eos = tokenizer.special_tokens["<|endoftext|>"]
    assert (corpus.tokens == eos).sum() == corpus.num_documents == len(TEXTS)
    assert corpus.eos_token_id == eos
    assert corpus.num_tokens == sum(map(len, expected(tokenizer, TEXTS)))
    assert corpus.num_bytes == sum(len(text.encode()) for text in TEXTS)
    assert corpus.tokens.dtype == np.uint16
    assert isinstance(corpus.tokens, np.memmap)
    assert not corpus.tokens.flags.writeable
    copy = pickle.loads(pickle.dumps(corpus))
    assert isinstance(copy.tokens, np.memmap)
    assert documents(copy) == documents(corpus)
    facts = json.loads((corpus.directory / CORPUS_FILE).read_text())
    assert facts["num_documents"] == 5
    assert facts["source"] == "5 texts"


def test_the_number_of_workers_changes_nothing(
    tokenizer: BPETokenizer, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{text} {i}" for i in range(30) for text in TEXTS]
    whole = tokenize_corpus(texts, tokenizer_dir, tmp_path / "whole", num_workers=3, progress=False)
    monkeypatch.setattr(corpus_module, "CHUNK", 200)
    assert len(list(corpus_module._chunks(texts))) > 12  # more than wait at a time
    for workers in (1, 2, 3):
        corpus = tokenize_corpus(texts, tokenizer_dir, tmp_path / str(workers), num_workers=workers, progress=False)
        assert documents(corpus) == expected(tokenizer, texts)
        assert corpus.fingerprint == whole.fingerprint


def test_cache_is_used_until_source_or_tokenizer_change(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text(to_json(CharTokenizer.train(TEXTS)), encoding="utf-8")
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    saved = tmp_path / "saved"
    data = datasets.Dataset.from_dict({"text": TEXTS})
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(saved)

    def make(source: Path | list[str], tokenizer: Path = tokenizer_dir, split: str = "train") -> Corpus:
        return tokenize_corpus(source, tokenizer, cache, split=split, progress=False)

    made = [make(file), make(saved), make(saved, split="test"), make(TEXTS), make(TEXTS[:1]), make(TEXTS, other)]
    assert len({corpus.directory for corpus in made}) == len(made)
    assert made[0].fingerprint == made[1].fingerprint == made[3].fingerprint
    with monkeypatch.context() as context:
        context.setattr(Encoder, "encode_chunk", no_tokenising)
        for corpus, source in zip(made, (file, saved), strict=False):
            assert make(source).directory == corpus.directory
        assert make(list(TEXTS)).directory == made[3].directory
        assert make(TEXTS, other).fingerprint == made[5].fingerprint
        os.utime(file, (1, 1))
        assert make(file).directory == made[0].directory
    before = file.stat()
    file.write_text(file.read_text().replace("One two", "Six two"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # size and time are what they were
    assert file.stat().st_size == before.st_size
    assert make(file).fingerprint != made[0].fingerprint
    with monkeypatch.context() as context:
        context.setattr(corpus_module, "HASHED", 0)  # as if it were too large to hash
        one = make(file)
        before = file.stat()
        file.write_text(file.read_text().replace("Six two", "Ten two"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert make(file).fingerprint != one.fingerprint
    with file.open("a") as lines:
        lines.write(json.dumps({"text": "more"}) + "\n")
    assert make(file).num_documents == len(TEXTS) + 1


def test_folders_of_files_and_a_cache_inside(tokenizer_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two"))
    first = tokenize_corpus(tmp_path, tokenizer_dir, tmp_path / "cache", progress=False)
    assert first.num_documents == 2
    assert tokenize_corpus(tmp_path, tokenizer_dir, tmp_path / "cache", progress=False).directory == first.directory


def test_rust_tokenizers_that_python_cannot_read(
    tokenizer: BPETokenizer, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rust = to_rust(tokenizer)
    rust.normalizer = normalizers.NFC()
    rust.enable_truncation(2)
    rust.enable_padding()
    (tmp_path / "tokenizer.json").write_text(rust.to_str(), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|end|>"}}')
    encoder = Encoder.load(tmp_path)
    assert not isinstance(encoder.tokenizer, BPETokenizer)
    assert encoder.eos_token_id == tokenizer.special_tokens["<|end|>"]
    monkeypatch.setattr(corpus_module, "CHUNK", 20)
    corpus = tokenize_corpus(TEXTS, tmp_path, tmp_path / "cache", num_workers=2, progress=False)
    assert documents(corpus) == [[*ids[:-1], encoder.eos_token_id] for ids in expected(tokenizer, TEXTS)]


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    characters = [chr(0x4E00 + i) for i in range(20_000)] + [chr(0x20000 + i) for i in range(40_000)]
    characters += [chr(0xAC00 + i) for i in range(10_000)]
    tokenizer = CharTokenizer.train(["".join(characters)], min_frequency=1)
    (tmp_path / "tokenizer.json").write_text(to_json(tokenizer), encoding="utf-8")
    corpus = tokenize_corpus(["".join(characters[:5]) + "힣"], tmp_path, tmp_path / "cache", progress=False)
    assert corpus.tokens.dtype == np.uint32
    assert corpus.num_tokens == 5 + 3 + 1


def test_errors_name_the_remedy_and_leave_nothing(
    tokenizer: BPETokenizer, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"

    def make(source: object, tokenizer: Path = tokenizer_dir) -> Corpus:
        return tokenize_corpus(source, tokenizer, cache, num_workers=2, progress=False)  # pyright: ignore

    for empty in ([], ["", ""]):
        with pytest.raises(ValueError, match="corpus is empty"):
            make(empty)
    with pytest.raises(ValueError, match="document 1 is NoneType"):
        make(["a", None])
    with pytest.raises(ValueError, match="document 1 is not valid Unicode"):
        make(["a", "\ud800"])
    monkeypatch.setattr(corpus_module, "CHUNK", 20)
    with pytest.raises(ValueError, match="document 40 is not valid Unicode"):  # from a worker
        make(["some text"] * 40 + ["\ud800"])
    with pytest.raises(ValueError, match="neither a file or saved data set here nor"):
        make(tmp_path / "nothing")
    with pytest.raises(ValueError, match="does not exist: give the directory of a saved tokenizer"):
        make(TEXTS, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer"):
        make(TEXTS, tmp_path)
    plain = BPETokenizer.train(TEXTS, 300, special_tokens=["<|pad|>"])
    (tmp_path / "tokenizer.json").write_text(to_json(plain), encoding="utf-8")
    with pytest.raises(ValueError, match=r"no special token '<\|endoftext\|>'"):
        make(TEXTS, tmp_path)
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize("broken", ["tokens.npy", "offsets.npy", CORPUS_FILE])
def test_broken_corpora_are_refused(tokenizer_dir: Path, tmp_path: Path, broken: str) -> None:
    corpus = tokenize_corpus(TEXTS, tokenizer_dir, tmp_path, progress=False)
    directory = corpus.directory
    content = (directory / broken).read_bytes()
    for damaged in (content[:-3], b""):
        (directory / broken).unlink()
        (directory / broken).write_bytes(damaged)
        with pytest.raises(ValueError, match="remove it and tokenise again"):
            Corpus.open(directory)
    (directory / broken).unlink()
    with pytest.raises(ValueError, match="remove it and tokenise again"):
        Corpus.open(directory)
    with pytest.raises(ValueError, match="no corpus"):
        Corpus.open(tmp_path / "nothing")


def flip(file: Path, offset: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


def zero(file: Path) -> None:
    array = np.load(file)
    np.save(file, np.zeros_like(array))


def edit(file: Path) -> None:
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "num_bytes": facts["num_bytes"] * 2}, indent=2))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tokens.npy", flip),
        ("tokens.npy", zero),
        ("offsets.npy", lambda file: flip(file, -8 * len(TEXTS))),
        (CORPUS_FILE, edit),
        ("tokens.npy", Path.unlink),
        ("manifest.json", Path.unlink),
    ],
)
def test_a_damaged_cache_is_made_again(
    tokenizer_dir: Path,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of these, the missing files apart, was trained on, with the fingerprint of the undamaged data."""
    before = tokenize_corpus(TEXTS, tokenizer_dir, tmp_path, progress=False)
    expected = documents(before), before.fingerprint, before.num_bytes
    damage(before.directory / name)
    after = tokenize_corpus(TEXTS, tokenizer_dir, tmp_path, progress=False)
    assert "is damaged and is made again" in caplog.text
    assert (documents(after), after.fingerprint, after.num_bytes) == expected
    caplog.clear()
    tokenize_corpus(TEXTS, tokenizer_dir, tmp_path, progress=False)
    assert not caplog.text
    assert len(list(tmp_path.iterdir())) == 1


def test_many_callers_at_once(tokenizer_dir: Path, tmp_path: Path) -> None:
    """Of 360 callers 10 crashed: no such file, directory not empty. Now one does the work and the others wait."""
    crashed = 0
    for trial in range(15):
        cache, children = tmp_path / str(trial), []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                try:
                    tokenize_corpus(TEXTS * 3, tokenizer_dir, cache, num_workers=1, progress=False)
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        crashed += sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
        assert len(list(cache.iterdir())) == 1
    assert crashed == 0


def test_workers_die_with_a_killed_run_and_the_next_clears_up(tokenizer_dir: Path, tmp_path: Path) -> None:
    """They lived on and waited for work, 440 MB each; half a cache stayed."""
    cache = tmp_path / "cache"
    script = (
        "import sys; from scratchgpt.data import corpus\n"
        "corpus.CHUNK = 1000\n"
        "if __name__ == '__main__':\n"
        "    corpus.tokenize_corpus(['some words to read ' * 40] * 500_000, *sys.argv[1:], num_workers=3)\n"
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tokenizer_dir, cache],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def alive() -> list[int]:
        processes = [Path(p) for p in Path("/proc").iterdir() if p.name.isdecimal()]
        found = []
        for each in processes:
            with contextlib.suppress(OSError):
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == process.pid and fields[0] != "Z":  # of its session
                    found.append(int(each.name))
        return found

    deadline = time.monotonic() + 60
    while len(alive()) < 4 or not list(cache.glob(".*.new/tokens.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while alive():
        assert time.monotonic() < deadline, "the workers live on"
        time.sleep(0.05)
    assert len(list(cache.iterdir())) == 1
    made = tokenize_corpus(TEXTS, tokenizer_dir, cache, progress=False)
    assert list(cache.iterdir()) == [made.directory]
