"""Rows of pairs: which tokens count, the order of a batch, its width, and the pairs that do not fit."""

import numpy as np
import pytest

from scratchgpt import ScratchGPTTokenizer
from scratchgpt.data.chat import PLAIN_TEMPLATE
from scratchgpt.data.packing import IGNORE_INDEX
from scratchgpt.data.preference_rows import NARROWEST, PreferenceRows
from scratchgpt.data.preferences import Pair
from scratchgpt.tokenizers import BPETokenizer, to_transformers

WORDS = "one two three four five six seven eight".split()


@pytest.fixture(scope="module")
def tokenizer() -> ScratchGPTTokenizer:
    return to_transformers(BPETokenizer.train([" ".join(WORDS)] * 9, vocab_size=300))


def pair(question: str, chosen: str, rejected: str) -> Pair:
    earlier = [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two."}]
    return Pair([*earlier, {"role": "user", "content": question}], chosen, rejected)


PAIRS = [pair("three?", "four.", "no idea, sorry."), pair("five?", "six seven eight.", "six.")]


@pytest.mark.parametrize("plain", [False, True])
def test_the_last_answer_and_its_end_are_the_targets(tokenizer, plain: bool, monkeypatch) -> None:
    if plain:
        monkeypatch.setattr(tokenizer, "chat_template", PLAIN_TEMPLATE)
    rows = PreferenceRows(PAIRS, tokenizer, 200)
    batch = rows.batch([1, 0])
    assert batch["input_ids"].shape == batch["shift_labels"].shape == batch["attention_mask"].shape
    end = "<|endoftext|>" if plain else "<|end|>"
    answers = ["six seven eight.", "four.", "six.", "no idea, sorry."]  # chosen of both, then rejected of both
    for row, answer in enumerate(answers):
        targets, inputs = batch["shift_labels"][row], batch["input_ids"][row]
        assert tokenizer.decode(targets[targets != IGNORE_INDEX]) == answer + end
        real = batch["attention_mask"][row].bool()
        text = tokenizer.decode(inputs[real])
        assert ("five?" if row % 2 == 0 else "three?") in text
        assert text.endswith(answer)
        assert (targets[~real] == IGNORE_INDEX).all()
    lengths = (batch["shift_labels"] != IGNORE_INDEX).sum(-1).view(2, 2).t()
    assert lengths.tolist() == rows.lengths[[1, 0]].tolist()


def test_rows_are_as_wide_as_a_batch_needs_in_few_widths(tokenizer) -> None:
    long = [pair("one?", " ".join(WORDS * n), "no.") for n in range(1, 60)]
    rows = PreferenceRows(long, tokenizer, 2000)
    widths = {rows.batch([i])["input_ids"].shape[1] for i in range(len(rows))}
    assert len(widths) <= 4
    assert max(widths) == rows.context_length
    assert min(widths) >= NARROWEST
    for i in range(len(rows)):
        assert rows.batch([i])["input_ids"].shape[1] >= max(len(ids) for ids in rows.sequences[i]) - 1


def test_what_does_not_fit_is_left_out_and_counted(tokenizer) -> None:
    length = max(len(ids) for ids in PreferenceRows(PAIRS[:1], tokenizer, 200).sequences[0]) - 1
    long = pair("three?", "four.", "no idea at all, sorry, really sorry.")
    prompt = pair("three? " * 100, "four.", "five.")
    rows = PreferenceRows([PAIRS[0], long, prompt], tokenizer, length)  # exactly fits the first
    assert len(rows) == 1
    assert rows.left_out == {
        f"an answer that ends beyond the context of {length} tokens": 1,
        f"a prompt that fills the context of {length} tokens": 1,
    }
    assert "left out: 1 a" in str(rows)
    with pytest.raises(
        ValueError, match=r"none of the 1 pairs can be learned from: 1 an answer that ends beyond .*longer"
    ):
        PreferenceRows(PAIRS[:1], tokenizer, length - 1)


def test_the_fingerprint_is_of_tokens_and_reference(tokenizer) -> None:
    rows = PreferenceRows(PAIRS, tokenizer, 200)
    before = rows.fingerprint()
    assert PreferenceRows(PAIRS, tokenizer, 200).fingerprint() == before
    assert PreferenceRows(PAIRS[::-1], tokenizer, 200).fingerprint() != before
    swapped = [Pair(each.prompt, each.rejected, each.chosen) for each in PAIRS]
    assert PreferenceRows(swapped, tokenizer, 200).fingerprint() != before
    assert "reference" not in rows.batch([0])
    rows.reference = np.array([[-1, -2], [-3, -4]], dtype=np.float32)
    assert rows.batch([1, 0])["reference"].tolist() == [[-3, -4], [-1, -2]]
    assert rows.fingerprint() != before


def test_the_texts_are_conversations_with_each_answer(tokenizer) -> None:
    texts = list(PreferenceRows(PAIRS, tokenizer, 200).texts(tokenizer))
    assert len(texts) == 2 * len(PAIRS)
    for text, answer in zip(texts, ["four.", "no idea, sorry."], strict=False):
        assert "three?" in text
        assert answer in text
