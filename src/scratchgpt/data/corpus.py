"""A tokenised corpus: one flat array of ids on disk, memory-mapped, and where each document begins in it.

    tokens.npy    [tokens]         uint16 or uint32; every document is followed by end-of-text exactly once
    offsets.npy   [documents + 1]  int64; document i, its end-of-text included, is tokens[offsets[i] : offsets[i + 1]]
    corpus.json                    counts, source, fingerprints

`tokenize_corpus` encodes each document on its own and with special tokens split, so that no text can spell a border.
Documents go to the workers in chunks of about a million characters and come back in order: the result does not depend
on the number of workers. It is kept under a key made of the source and the tokenizer, so a second call opens what the
first one wrote. Files up to a gigabyte in all count by their content: they may be moved, and no change goes unnoticed.
Larger ones count by path, size, and the times of change of content and inode: a change goes unnoticed only if it
leaves all of these as they were, which takes setting the clock back or writing below the file system.

The cache is sealed (`hub.seals`), and `tokenize_corpus` verifies it, once per call: a damaged one is made again, with
a warning. That reads all of it: 25 MB take milliseconds, 100 GB as long as the disk takes to read them (a minute at
2 GB/s; hashing is faster than that). `Corpus.open` alone maps the arrays and reads nothing.

Cost: memory for two chunks per worker, whatever the size of the corpus, and of the disk 2 or 4 bytes per token.
Speed: benchmarks/packing.py.
"""

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tokenizers import Tokenizer as RustTokenizer
from tqdm import tqdm

from ..hub.seals import SealError, hash_file, seal, verify_seal
from ..hub.staging import claimed, clear_leftovers, publish
from ..tokenizers import Tokenizer, from_json
from ..tokenizers.fingerprint import fingerprint
from .text import read_texts, text_files

logger = logging.getLogger(__name__)

CORPUS_FILE = "corpus.json"

FORMAT = 1
"""Raised when the same input would give other arrays: what is cached then counts no more."""

CHUNK = 1 << 20
"""Characters in a chunk, roughly: it ends with a document."""

HASHED = 1 << 30
"""Bytes: sources up to this size are recognised by their content, which takes about a second at most."""

Chunk = tuple[int, list[str]]
"""The number of its first document, and the documents."""

Encoded = tuple[np.ndarray, np.ndarray, int]
"""Ids, lengths of the documents in tokens, size of the texts in bytes."""


@dataclass(frozen=True)
class Encoder:
    """The bulk encoder of a saved tokenizer: the Python one, or Rust where the Python one cannot read its file."""

    tokenizer: Tokenizer | RustTokenizer
    dtype: np.dtype
    eos_token_id: int
    fingerprint: str
    """See `tokenizers.fingerprint`."""

    @classmethod
    def load(cls, tokenizer_dir: str | os.PathLike[str]) -> "Encoder":
        """Reads `tokenizer.json`, and the name of the end-of-text token from `tokenizer_config.json` if there is one.

        Raises:
            ValueError: for a file that is missing or no tokenizer, or without the end-of-text token.
        """
        path = Path(tokenizer_dir)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(f"{file} does not exist: give the directory of a saved tokenizer")
        content = file.read_text(encoding="utf-8")
        eos_token = _eos_token(file.with_name("tokenizer_config.json"))
        try:
            tokenizer = from_json(content)
            eos_token_id, vocab_size = tokenizer.special_tokens.get(eos_token), tokenizer.vocab_size
        except ValueError:
            tokenizer = _rust_tokenizer(content, file)
            eos_token_id = tokenizer.token_to_id(eos_token)
            vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        if eos_token_id is None:
            raise ValueError(
                f"{file} has no special token {eos_token!r} to end a document with: name one as eos_token in "
                "tokenizer_config.json, or train a tokenizer with recipes/train_tokenizer.py"
            )
        dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
        return cls(tokenizer, dtype, eos_token_id, fingerprint(content))

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """The ids of each text, without end-of-text; text that spells a special token stays text."""
        if isinstance(self.tokenizer, RustTokenizer):
            encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]
        return [ids.astype(self.dtype, copy=False) for ids in self.tokenizer.encode_batch(texts, True)]

    def encode_chunk(self, first: int, texts: list[str]) -> Encoded:
        """The ids of all texts in one array, each followed by end-of-text; `first` numbers them in errors.

        Raises:
            ValueError: for text that is not Unicode (lone surrogates).
        """
        num_bytes = 0
        for number, text in enumerate(texts, start=first):
            try:
                num_bytes += len(text) if text.isascii() else len(text.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"document {number} is not valid Unicode, repair or drop it: {error}") from error
        documents = self.encode_batch(texts)
        border = np.array([self.eos_token_id], dtype=self.dtype)
        ids = np.concatenate([part for document in documents for part in (document, border)])
        return ids, np.array([len(document) + 1 for document in documents], dtype=np.int64), num_bytes


@dataclass(frozen=True)
class Corpus:
    """Tokenised documents, memory-mapped: fields that are arrays are read from disk as they are used."""

    tokens: np.ndarray
    """Ids [tokens]; the last one is end-of-text."""
    offsets: np.ndarray
    """Where each document begins, and the number of tokens: int64 [documents + 1]."""
    eos_token_id: int
    num_bytes: int
    """Size of the texts in UTF-8."""
    fingerprint: str
    """SHA-256 of the arrays: the same for the same documents in the same order, wherever they came from."""
    tokenizer_fingerprint: str
    """See `tokenizers.fingerprint`."""
    source: str
    directory: Path

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> "Corpus":
        """Maps the corpus in `directory`.

        Raises:
            ValueError: where there is none, or its files do not belong together.
        """
        path = Path(directory)
        try:
            facts = json.loads((path / CORPUS_FILE).read_text(encoding="utf-8"))
            tokens = np.load(path / "tokens.npy", mmap_mode="r")
            offsets = np.load(path / "offsets.npy", mmap_mode="r")
            if tokens.shape != (facts["num_tokens"],) or tokens.dtype != facts["dtype"]:
                raise ValueError(f"tokens.npy holds {tokens.shape} {tokens.dtype}")
            if offsets.shape != (facts["num_documents"] + 1,) or offsets[-1] != len(tokens):
                raise ValueError("offsets.npy is of another corpus")
            names = ("eos_token_id", "num_bytes", "fingerprint", "tokenizer_fingerprint", "source")
            fields = {name: facts[name] for name in names}
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} is no corpus, or a broken one: remove it and tokenise again ({error})"
            ) from error
        return cls(tokens, offsets, directory=path, **fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus.open, (self.directory,)  # another process maps the files too, instead of getting a copy

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def document(self, index: int) -> np.ndarray:
        """Ids of one document, its end-of-text included."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def tokenize_corpus(
    source: str | os.PathLike[str] | Sequence[str],
    tokenizer_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    split: str = "train",
    column: str = "text",
    num_workers: int | None = None,
    progress: bool = True,
) -> Corpus:
    """Tokenises `source`, or opens what an earlier call made of it.

    The corpus is written to a directory of its own in `cache_dir`, which is there whole or not at all. Of several
    callers at once the first one does the work, and the others wait for it (where the file system has no locks, each
    does the work). What a killed process left half written is removed.

    Args:
        source: whatever `read_texts` reads, or a list of texts. Each text is a document; so is each block of a .txt.
        split, column: as in `read_texts`.
        num_workers: processes; default: one for each core this process may use. One chunk needs no second process.

    Raises:
        ValueError: for a source or tokenizer that cannot be read, and for a source without any text.
    """
    encoder = Encoder.load(tokenizer_dir)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        name, content, texts = path, describe_source(path, split), read_texts(path, split, column)
    else:
        name, content, texts = f"{len(source)} texts", _hash_texts(source), source
    key = [FORMAT, content, split, column, encoder.fingerprint, encoder.eos_token_id]
    directory = Path(cache_dir) / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    if not _is_whole(directory):
        with contextlib.suppress(OSError):  # not there yet, or without locks
            clear_leftovers(cache_dir)
        with claimed(directory) as staged:
            if not _is_whole(directory):  # else another caller has made it while we waited
                encoded = _encode(_chunks(texts), encoder, tokenizer_dir, num_workers)
                facts = {
                    "source": name,
                    "split": split,
                    "column": column,
                    "tokenizer_fingerprint": encoder.fingerprint,
                    "eos_token_id": encoder.eos_token_id,
                    "dtype": encoder.dtype.name,
                    **_write_arrays(staged, encoded, encoder.dtype, name, progress),
                }
                (staged / CORPUS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
                seal(staged)
                try:
                    publish(staged, directory)
                except OSError:  # without locks another caller may have been faster
                    if not _is_whole(directory):
                        raise
    return Corpus.open(directory)


def _is_whole(directory: Path) -> bool:
    """Whether the corpus is there, byte for byte as it was written; says so where it is damaged."""
    if not directory.is_dir():
        return False
    try:
        verify_seal(directory)
    except SealError as error:
        logger.warning("A tokenised corpus is damaged and is made again: %s", error)
        return False
    return True


def describe_source(source: str, split: str) -> Any:
    """What tells one state of `source` from another, as JSON: hashes of the files, or where that takes long their
    path, size and times."""
    path = Path(source)
    saved = path / split if (path / "dataset_dict.json").is_file() else path
    if (saved / "state.json").is_file():
        state = json.loads((saved / "state.json").read_text(encoding="utf-8"))
        return [state["_fingerprint"], _describe_files(sorted(saved.glob("*.arrow")), saved)]
    if path.is_file():
        return _describe_files([path], path.parent)
    if path.exists():
        # Only what `read_texts` reads: a cache inside the folder changes nothing.
        return _describe_files(text_files(path), path)
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return [source, datasets.load_dataset_builder(source).hash]  # of the Hub: the commit
    except (OSError, ValueError, DatasetsError):  # no such data set, or no network, which `read_texts` is going to say
        return [source]


def _describe_files(files: list[Path], folder: Path) -> list[list[Any]]:
    states = [file.stat() for file in files]
    if sum(state.st_size for state in states) <= HASHED:
        return [[file.relative_to(folder).as_posix(), hash_file(file)] for file in files]
    # The time of the last change of the inode, unlike that of the content, cannot be set back.
    return [
        [str(file.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        for file, state in zip(files, states, strict=True)
    ]


def _hash_texts(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"document {number} is {type(text).__name__}, not text")
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _chunks(texts: Iterable[str]) -> Iterator[Chunk]:
    first, chunk, size = 0, [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        # Empty texts count too, or there could be any number of them.
        if size + len(chunk) >= CHUNK:
            yield first, chunk
            first, chunk, size = first + len(chunk), [], 0
    if chunk:
        yield first, chunk


_worker_encoder: Encoder
"""In a worker process: its own."""


def _start_worker(tokenizer_dir: str | os.PathLike[str]) -> None:
    global _worker_encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker_encoder = Encoder.load(tokenizer_dir)


def _die_with_parent() -> None:
    """A pool's worker would wait for work for ever if the process that gives it is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_in_worker(first: int, texts: list[str]) -> Encoded:
    return _worker_encoder.encode_chunk(first, texts)


def _encode(
    chunks: Iterator[Chunk], encoder: Encoder, tokenizer_dir: str | os.PathLike[str], num_workers: int | None
) -> Iterator[Encoded]:
    """The chunks encoded, in their order. Processes start as the platform's default says, like a DataLoader's."""
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    start = list(islice(chunks, 2))
    chunks = chain(start, chunks)
    if num_workers <= 1 or len(start) < 2:
        for chunk in chunks:
            yield encoder.encode_chunk(*chunk)
        return
    with ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(tokenizer_dir,)) as pool:
        waiting: deque[Future[Encoded]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_encode_in_worker, *chunk))
            if len(waiting) == 2 * num_workers:  # enough to keep all busy; more would pile up in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_arrays(
    directory: Path, encoded: Iterator[Encoded], dtype: np.dtype, name: str, progress: bool
) -> dict[str, Any]:
    """Writes tokens.npy and offsets.npy; returns counts and fingerprint."""
    digest, num_tokens, num_bytes, lengths = hashlib.sha256(), 0, 0, [np.zeros(1, dtype=np.int64)]
    with (
        (directory / "tokens.npy").open("wb") as file,
        tqdm(desc="tokenising", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        _write_header(file, dtype, 0)
        begin = file.tell()
        for ids, chunk_lengths, chunk_bytes in encoded:
            file.write(ids.data)
            digest.update(ids.data)
            lengths.append(chunk_lengths)
            num_tokens += len(ids)
            num_bytes += chunk_bytes
            bar.update(chunk_bytes)
        file.seek(0)
        _write_header(file, dtype, num_tokens)
        assert file.tell() == begin, "numpy no longer leaves room in a header for the final length"
    if num_bytes == 0:
        raise ValueError(f"the corpus is empty: there is no text in {name}; check the data set and its column")
    offsets = np.cumsum(np.concatenate(lengths))
    digest.update(offsets.data)
    np.save(directory / "offsets.npy", offsets)
    return {
        "num_documents": len(offsets) - 1,
        "num_tokens": num_tokens,
        "num_bytes": num_bytes,
        "fingerprint": digest.hexdigest(),
    }


def _write_header(file: BinaryIO, dtype: np.dtype, length: int) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": description, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _eos_token(config_file: Path) -> str:
    """The name in `tokenizer_config.json`; ours where that is silent."""
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    token = config.get("eos_token") or "<|endoftext|>"
    return token["content"] if isinstance(token, dict) else token


def _rust_tokenizer(content: str, file: Path) -> RustTokenizer:
    try:
        tokenizer = RustTokenizer.from_str(content)
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"{file} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
