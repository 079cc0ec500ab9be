"""data/packing.py: nothing lost, nothing twice, nothing across borders, and one order for all processes."""

import itertools
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.data.corpus import Corpus, tokenize_corpus
from scratchgpt.data.packing import (
    PackedRows,
    SlidingWindows,
    StreamingRows,
    batch_indices,
    rank_slice,
    row_order,
)
from scratchgpt.tokenizers import BPETokenizer, to_json

EOS, VOCAB_SIZE, LONGEST = 0, 12, 10

PINNED_ORDER = [4, 1, 3, 6, 0, 7, 2, 5]

documents_strategy = st.lists(st.lists(st.integers(1, VOCAB_SIZE - 1), max_size=9), min_size=1, max_size=8).filter(any)


def corpus_of(documents: list[list[int]]) -> Corpus:
    tokens = np.array([token for document in documents for token in (*document, EOS)], dtype=np.uint16)
    offsets = np.cumsum([0] + [len(document) + 1 for document in documents])
    return Corpus(tokens, offsets, EOS, 0, "", "", "", Path())


def everything(rows: SlidingWindows) -> dict[str, torch.Tensor]:
    return rows.batch(range(len(rows)))


def transitions(rows: SlidingWindows) -> list[tuple[int, int]]:
    batch = everything(rows)
    pairs = zip(batch["input_ids"].flatten().tolist(), batch["shift_labels"].flatten().tolist(), strict=True)
    return [pair for pair in pairs if pair[1] != -100]


@settings(max_examples=500, deadline=None)
@given(documents=documents_strategy, length=st.integers(1, LONGEST), masked=st.booleans())
def test_every_transition_once(documents: list[list[int]], length: int, masked: bool) -> None:
    corpus = corpus_of(documents)
    rows = PackedRows(corpus, length, mask_documents=masked)
    tokens = corpus.tokens.tolist()
    # In order, so not only each token as often as in the corpus: each one, at its place.
    assert transitions(rows) == list(itertools.pairwise(tokens))
    batch = everything(rows)
    assert all(values.shape == (len(rows), length) and values.dtype == torch.int64 for values in batch.values())
    flat, targets = batch["input_ids"].flatten(), batch["shift_labels"].flatten()
    assert (flat[len(tokens) :] == EOS).all()
    assert (targets[len(tokens) - 1 :] == -100).all()
    assert (batch["shift_labels"] != -100).any(1).all(), "a row without targets"
    assert ("position_ids" in batch) == masked
    for i in range(len(rows)):
        assert all(torch.equal(values, batch[name][i]) for name, values in rows[i].items())


@pytest.fixture(scope="module", params=["learned", "rotary"])
def model(request: pytest.FixtureRequest) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
        position_embedding_type=request.param,
        initializer_range=0.5,
    )
    return ScratchGPTForCausalLM(config).eval()


@settings(max_examples=500, deadline=None)
@given(documents=documents_strategy, length=st.integers(1, LONGEST))
def test_packed_logits_are_those_of_the_documents_alone(
    model: ScratchGPTForCausalLM, documents: list[list[int]], length: int
) -> None:
    corpus = corpus_of(documents)
    batch = everything(PackedRows(corpus, length, mask_documents=True))
    with torch.no_grad():
        packed = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        # The pieces, found without positions: documents, cut where a row ends.
        last = corpus.num_tokens - 1  # the last token may be in the padding
        cuts = sorted({*corpus.offsets.tolist(), *range(0, last, length)} - {last + 1} | {last})
        pieces = [torch.from_numpy(corpus.tokens[a:b].astype(np.int64)) for a, b in itertools.pairwise(cuts)]
        alone = model(torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)).logits
    alone = torch.cat([logits[: len(piece)] for logits, piece in zip(alone, pieces, strict=True)])
    torch.testing.assert_close(packed.flatten(0, 1)[:last], alone, rtol=1e-5, atol=1e-5)


def test_without_the_mask_attention_crosses(model: ScratchGPTForCausalLM) -> None:
    batch = everything(PackedRows(corpus_of([[1, 2, 3], [4, 5, 6]]), 8, mask_documents=True))
    with torch.no_grad():
        masked = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        plain = model(batch["input_ids"]).logits
    torch.testing.assert_close(masked[:, :4], plain[:, :4], rtol=1e-5, atol=1e-5)
    assert (masked[:, 4:7] - plain[:, 4:7]).abs().amax(-1).min() > 1e-3


def test_rows_by_hand() -> None:
    rows = PackedRows(corpus_of([[1, 2], [3, 4, 5], [6, 7]]), 4, mask_documents=True)
    batch = everything(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 0, 3], [4, 5, 0, 6], [7, 0, 0, 0]]
    assert batch["shift_labels"].tolist() == [[2, 0, 3, 4], [5, 0, 6, 7], [0, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 0, 0]]


@settings(max_examples=200, deadline=None)
@given(documents=documents_strategy, length=st.integers(1, LONGEST), data=st.data())
def test_windows_are_the_books(documents: list[list[int]], length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    corpus = corpus_of(documents)
    rows, tokens = SlidingWindows(corpus, length, stride), corpus.tokens.tolist()
    batch = everything(rows)
    book = range(0, len(tokens) - length, stride)
    assert batch["input_ids"][: len(book)].tolist() == [tokens[i : i + length] for i in book]
    assert batch["shift_labels"][: len(book)].tolist() == [tokens[i + 1 : i + length + 1] for i in book]
    # What the book leaves out comes in the last row, and in no more than that.
    assert len(book) <= len(rows) <= len(book) + 1
    begins = range(0, len(rows) * stride, stride)
    seen = Counter(i + k for i in begins for k in range(length) if i + k < len(tokens) - 1)
    assert set(seen) == set(range(len(tokens) - 1))
    assert max(seen.values()) <= -(-length // stride)
    assert len(transitions(rows)) == seen.total()
    if stride == length:
        assert torch.equal(batch["input_ids"], everything(PackedRows(corpus, length))["input_ids"])


@settings(max_examples=200, deadline=None)
@given(
    num_rows=st.integers(1, 40),
    batch_size=st.integers(1, 15).map(lambda n: 6 * n),
    seed=st.integers(0, 2**63),
    shuffle=st.booleans(),
)
def test_each_epoch_is_a_permutation_for_every_world_size(
    num_rows: int, batch_size: int, seed: int, shuffle: bool
) -> None:
    steps = 1 + 3 * num_rows // batch_size
    batches = [batch_indices(num_rows, step, batch_size, seed, shuffle) for step in range(steps)]
    sequence = np.concatenate(batches)
    for epoch in range(3):
        rows = sequence[epoch * num_rows : (epoch + 1) * num_rows]
        assert sorted(rows.tolist()) == list(range(num_rows))
        assert rows.tolist() == (row_order(num_rows, seed, epoch).tolist() if shuffle else list(range(num_rows)))
    for world_size in (1, 2, 3):
        slices = [[rank_slice(batch, rank, world_size) for rank in range(world_size)] for batch in batches]
        assert np.concatenate([part for parts in slices for part in parts]).tolist() == sequence.tolist()
        assert {len(part) for parts in slices for part in parts} == {batch_size // world_size}
    # The size of a batch cuts the sequence elsewhere, no more.
    ones = [batch_indices(num_rows, step, 1, seed, shuffle) for step in range(batch_size)]
    assert np.concatenate(ones).tolist() == batches[0].tolist()


def test_order_is_pinned_and_epochs_and_seeds_differ() -> None:
    """A run that is resumed years later must find this order."""
    assert row_order(8, 42, 0).tolist() == PINNED_ORDER
    orders = {tuple(row_order(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    with pytest.raises(ValueError, match="read-only"):
        row_order(8, 42, 0)[0] = 1
    first, other = batch_indices(8, 0, 8, 42), batch_indices(8, 0, 8, 42)
    first[0] = 99  # a caller's own
    assert other[0] != 99


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = BPETokenizer.train(["one two three, one two\n"] * 3, 280)
    (folder / "tokenizer.json").write_text(to_json(tokenizer), encoding="utf-8")
    return folder


texts_strategy = st.lists(st.text("one tw,\nä", max_size=12), min_size=1, max_size=8).filter(any)


def as_lists(batch: dict[str, torch.Tensor]) -> dict[str, list[list[int]]]:
    return {name: values.tolist() for name, values in batch.items()}


@settings(max_examples=100, deadline=None)
@given(
    texts=texts_strategy,
    length=st.integers(1, LONGEST),
    masked=st.booleans(),
    world_size=st.integers(1, 3),
    size=st.integers(1, 4),
)
def test_streamed_rows_are_the_packed_ones_and_resume_anywhere(
    tokenizer_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    length: int,
    masked: bool,
    world_size: int,
    size: int,
) -> None:
    corpus = tokenize_corpus(texts, tokenizer_dir, tmp_path_factory.mktemp("cache"), progress=False)
    packed = PackedRows(corpus, length, masked)

    def stream() -> StreamingRows:
        return StreamingRows(lambda: iter(texts), tokenizer_dir, length, masked)

    def expected(step: int, size: int) -> dict[str, list[list[int]]]:
        return as_lists(packed.batch(np.arange(step * size, (step + 1) * size) % len(packed)))

    # Two epochs and a bit, every process reading its part of a batch of `size` rows for each of them.
    streams, size = [stream() for _ in range(world_size)], size * world_size
    steps = 2 * len(packed) // size + 2
    assert as_lists(streams[0].batch([0])) == as_lists(packed.batch([0]))  # before the first step: how rows look
    states = []
    for step in range(steps):
        states.append(streams[0].state_dict())
        assert all(rows.state_dict() == states[-1] for rows in streams[1:])
        parts = [
            as_lists(rows.batch(rank_slice(rows.indices(step, size, 0), rank, world_size)))
            for rank, rows in enumerate(streams)
        ]
        assert {name: [row for part in parts for row in part[name]] for name in parts[0]} == expected(step, size)

    for step, state in enumerate(states):  # whatever the world size was
        again = stream()
        again.load_state_dict(json.loads(json.dumps(state)))
        assert again.state_dict() == state
        for later in range(step, steps):
            assert as_lists(again.batch(again.indices(later, size, 0))) == expected(later, size)
            assert again.state_dict() == (states[later + 1] if later + 1 < steps else streams[0].state_dict())


def test_a_stream_goes_on_with_another_batch_size(tokenizer_dir: Path) -> None:
    texts = [f"one two three {number}" for number in range(20)]
    first, second = (StreamingRows(lambda: texts, tokenizer_dir, 4) for _ in range(2))
    whole = first.batch(first.indices(0, 12, 0))["input_ids"]
    second.indices(2, 4, 0)  # whose numbers say nothing: the stream begins where it begins
    third = StreamingRows(lambda: texts, tokenizer_dir, 4)
    third.load_state_dict(second.state_dict())
    assert torch.equal(third.batch(third.indices(5, 3, 0))["input_ids"], whole[4:7])
    assert torch.equal(third.batch(third.indices(6, 3, 0))["input_ids"], whole[7:10])
    with pytest.raises(ValueError, match="row 15 has gone by, the next one is 18"):
        third.indices(5, 3, 0)


def test_endless_streams_are_read_as_needed(tokenizer_dir: Path) -> None:
    read = 0

    def texts():
        nonlocal read
        while True:
            read += 1
            yield "one two three " * read

    rows = StreamingRows(texts, tokenizer_dir, 16, mask_documents=True)
    assert rows.batch(rows.indices(0, 5, 0))["input_ids"].shape == (5, 16)
    assert read == StreamingRows.CHUNK
    for step in range(1, 1000):
        rows.batch(rows.indices(step, 5, 0))
    assert len(rows._windows) == 5  # what has gone by is not kept


def test_stream_errors(tokenizer_dir: Path, tmp_path: Path) -> None:
    def read(texts: list[str], **place: int) -> None:
        rows = StreamingRows(lambda: texts, tokenizer_dir, 4)
        rows.load_state_dict({"epoch": 0, "documents": 0, "tokens": 0} | place)
        rows.batch(rows.indices(0, 1, 0))

    for nothing in ([], [""]):
        with pytest.raises(ValueError, match="stream is empty"):
            read(nothing)
    with pytest.raises(ValueError, match="ends before document 3"):
        read(["one"], documents=3)
    with pytest.raises(ValueError, match="document 0 is shorter"):
        read(["one"], tokens=50)
    with pytest.raises(ValueError, match="document 1 is not valid Unicode"):
        read(["one", "\ud800"])
    with pytest.raises(ValueError, match="context_length must be at least 1"):
        StreamingRows(lambda: ["one"], tokenizer_dir, 0)
    with pytest.raises(ValueError, match="give the directory of a saved tokenizer"):
        StreamingRows(lambda: ["one"], tmp_path, 4)


def test_row_errors() -> None:
    corpus = corpus_of([[1, 2, 3]])
    with pytest.raises(ValueError, match="context_length must be at least 1"):
        PackedRows(corpus, 0)
    for stride in (0, 5):
        with pytest.raises(ValueError, match="stride must be in 1 … context_length=4"):
            SlidingWindows(corpus, 4, stride)
    for index in (-1, 1):
        with pytest.raises(IndexError, match=r"rows are 0 … 0"):
            PackedRows(corpus, 4)[index]
    for arguments in ((0, 0, 1), (1, -1, 1), (1, 0, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            batch_indices(*arguments, seed=0)
    with pytest.raises(ValueError, match="10 rows cannot be divided among 3 processes"):
        rank_slice(np.arange(10), 0, 3)


def test_rows_go_to_loader_workers_as_a_map(tokenizer_dir: Path, tmp_path: Path) -> None:
    corpus = tokenize_corpus(["one two three"] * 10, tokenizer_dir, tmp_path, progress=False)
    rows = PackedRows(corpus, 8)
    assert isinstance(pickle.loads(pickle.dumps(rows)).corpus.tokens, np.memmap)
    batches = list(DataLoader(rows, batch_size=2))  # pyright: ignore[reportArgumentType]: a map without the base class
    loaded = torch.cat([batch["shift_labels"] for batch in batches])
    assert torch.equal(loaded, everything(rows)["shift_labels"])
