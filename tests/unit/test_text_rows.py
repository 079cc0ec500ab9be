"""data/text_rows.py: buckets of length, padding, and what is cut."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from scratchgpt import ScratchGPTConfig, ScratchGPTForSequenceClassification, ScratchGPTTokenizer
from scratchgpt.data.labelled_texts import LabelledTexts
from scratchgpt.data.text_rows import TextRows
from scratchgpt.tokenizers import BPETokenizer, to_transformers

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "then", "it", "sleeps"]
TEXTS = [" ".join(WORDS[: 1 + i % 12]) + f" {i}" for i in range(90)]
DATA = LabelledTexts(TEXTS, [int(i % 3 == 0) for i in range(90)], ["ham", "spam"])


@pytest.fixture(scope="module")
def tokenizer():
    return to_transformers(BPETokenizer.train(TEXTS, vocab_size=320))


def test_an_epoch_has_every_row_and_batches_have_one_length(tokenizer) -> None:
    rows = TextRows(DATA, tokenizer, 32)
    steps = [rows.indices(step, 8, seed=3) for step in range(12)]  # 90 rows: 12 batches, 6 places filled up
    seen = np.concatenate(steps)
    assert set(seen) == set(range(90))
    assert len(seen) == 96
    spread = np.mean([np.ptp(rows.lengths[indices]) for indices in steps])
    shuffled = np.random.default_rng(0).permutation(96) % 90
    assert spread < 0.3 * np.mean([np.ptp(rows.lengths[part]) for part in np.split(shuffled, 12)])
    again = TextRows(DATA, tokenizer, 32)
    assert all((again.indices(step, 8, seed=3) == steps[step]).all() for step in (7, 0, 11))  # in any order
    assert any((rows.indices(step + 12, 8, seed=3) != steps[step]).any() for step in range(12))


def test_a_role_token_that_somebody_typed_is_text(tokenizer) -> None:
    texts = ["the <|end|><|assistant|> fox", "<|endoftext|>", "<|pad|>"]
    rows = TextRows(LabelledTexts(texts, [0, 1, 0], ["ham", "spam"]), tokenizer, 64)
    assert not {*tokenizer.all_special_ids} & {int(i) for ids in rows.input_ids for i in ids}
    assert [tokenizer.decode(ids) for ids in rows.input_ids] == texts


@pytest.mark.parametrize("plain", [False, True])
def test_the_pipeline_of_a_saved_classifier_reads_what_training_reads(tokenizer, tmp_path: Path, plain: bool) -> None:
    tokenizer.save_pretrained(tmp_path / "base", plain=plain)
    own = AutoTokenizer.from_pretrained(tmp_path / "base", split_special_tokens=True)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = ScratchGPTConfig(vocab_size=len(own), pad_token_id=own.pad_token_id, num_labels=2, **shape)
    torch.manual_seed(0)
    model = ScratchGPTForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "classifier")
    own.save_pretrained(tmp_path / "classifier", **({"plain": True} if isinstance(own, ScratchGPTTokenizer) else {}))
    classify = pipeline("text-classification", model=str(tmp_path / "classifier"), device="cpu")
    text = "fox<|end|><|assistant|>dog"
    batch = TextRows(LabelledTexts([text], [0], ["a", "b"]), own, 64).batch([0])
    with torch.no_grad():
        wanted = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.softmax(-1)
    answer: Any = classify(text, top_k=None)
    scores = {each["label"]: each["score"] for each in answer}
    assert [scores["LABEL_0"], scores["LABEL_1"]] == pytest.approx(wanted[0].tolist(), abs=1e-5)
    assert classify.tokenizer(text)["input_ids"] == own(text, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_padded_where_the_tokenizer_says(tokenizer, side: str) -> None:
    tokenizer.padding_side = side
    try:
        batch = TextRows(DATA, tokenizer, 32).batch(np.array([0, 11]))
        expected = tokenizer([TEXTS[0], TEXTS[11]], padding=True, pad_to_multiple_of=8, return_tensors="pt")
        assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
        assert batch["attention_mask"].tolist() == expected["attention_mask"].tolist()
        assert batch["labels"].tolist() == [1, 0]
    finally:
        tokenizer.padding_side = "right"


@pytest.mark.parametrize("side", ["left", "right"])
def test_longer_texts_are_cut_with_a_warning_that_counts_them(tokenizer, side: str) -> None:
    whole = TextRows(DATA, tokenizer, 32)
    too_long = int((whole.lengths > 6).sum())
    assert 0 < too_long < 90
    tokenizer.truncation_side = side
    try:
        with pytest.warns(UserWarning, match=f"{too_long} of 90 texts are longer than 6 tokens and are cut .{side}"):
            cut = TextRows(DATA, tokenizer, 6)
    finally:
        tokenizer.truncation_side = "right"
    assert cut.num_truncated == too_long
    ids = whole.input_ids[11]
    assert cut.input_ids[11].tolist() == (ids[-6:] if side == "left" else ids[:6]).tolist()
    assert cut.batch(np.arange(90))["input_ids"].shape == (90, 6)
