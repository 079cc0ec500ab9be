"""Bits per byte of a text: against sums by hand, lm-eval's, and whatever must not change them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods, num_ids
from scratchgpt.evaluation.results import DoesNotFit
from scratchgpt.evaluation.text import Text, TextSuite, tokenize, windows
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.unit.test_ngram import Direct

TRAIN = ["The cat sat on the mat.", "The cat ate the fat rat.", "A rat sat on a mat.", "The mat is flat."]
EVALUATION = ["The rat sat on the cat.", "A flat cat, naïvely.", "The mat ate."]
CONTEXT = 12


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train(TRAIN * 3, vocab_size=270))


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> ScratchGPTForCausalLM:
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = ScratchGPTForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data *= 3
    return model


def write(file: Path, texts: list[str]) -> Text:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return Text(str(file))


@torch.no_grad()
def nats(model: Any, tokenizer: Any, text: str, stride: int) -> float:
    """Token by token: each from what the window shows of the text before it."""
    tokens = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    total = 0.0
    for i in range(1, len(tokens)):
        steps = max(0, math.ceil((i - CONTEXT) / stride))
        end = min(CONTEXT + steps * stride, len(tokens) - 1)  # of the window in which token i is new
        seen = tokens[max(0, end - CONTEXT) : i]
        total -= float(model(torch.tensor([seen])).logits[0, -1].double().log_softmax(-1)[tokens[i]])
    return total


@given(
    tokens=st.lists(st.integers(1, 9), max_size=60),
    sizes=st.integers(1, 20).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, context))),
)
def test_windows_are_those_of_lm_eval(tokens: list[int], sizes: tuple[int, int]) -> None:
    context, stride = sizes
    found = [(list(each[:-1]), list(each[len(each) - new :])) for each, new in windows(tokens, 0, context, stride)]
    assert found == list(get_rolling_token_windows(tokens, 0, context, context - stride + 1))
    assert sum(len(new) for _, new in found) == len(tokens)


@pytest.mark.parametrize("stride", [None, 1, 5, CONTEXT])
def test_by_hand(model: Any, tokenizer: Any, stride: int | None, tmp_path: Path) -> None:
    suite = TextSuite(write(tmp_path / "text.jsonl", EVALUATION), stride=stride)
    found = suite.run(LogLikelihoods(model), tokenizer).metrics
    total = sum(nats(model, tokenizer, text, stride or CONTEXT // 2) for text in EVALUATION)
    num_tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in EVALUATION)
    num_bytes = sum(len(text.encode()) for text in EVALUATION)
    assert found["loss"].value == pytest.approx(total / num_tokens, rel=1e-5)
    assert found["perplexity"].value == pytest.approx(math.exp(total / num_tokens), rel=1e-4)
    assert found["bits_per_byte"].value == pytest.approx(total / math.log(2) / num_bytes, rel=1e-5)
    assert found["bits_per_word"].value == pytest.approx(total / math.log(2) / 13, rel=1e-5)
    assert found["bits_per_byte"].count == num_bytes == found["bits_per_byte_gzip"].count
    assert f"stride:{stride or CONTEXT // 2}|" in found["bits_per_byte"].signature


def test_what_spells_a_special_token_is_text(tokenizer: Any) -> None:
    """A page about language models, say: as one token that ends texts it would cost next to nothing."""
    (tokens,) = tokenize(tokenizer, [f"It ends with {tokenizer.eos_token}, as they do."])
    assert not set(tokens) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(tokens) == f"It ends with {tokenizer.eos_token}, as they do."


@pytest.mark.parametrize("max_tokens", [1, 13, 40])
def test_neither_batches_nor_neighbours_change_it(model: Any, tokenizer: Any, max_tokens: int, tmp_path: Path) -> None:
    suite = TextSuite(write(tmp_path / "text.jsonl", EVALUATION))
    expected = suite.run(LogLikelihoods(model), tokenizer)
    found = suite.run(LogLikelihoods(model, max_tokens=max_tokens), tokenizer)
    assert found.metrics["bits_per_byte"].value == pytest.approx(expected.metrics["bits_per_byte"].value, rel=1e-6)
    turned = TextSuite(write(tmp_path / "turned.jsonl", EVALUATION[::-1])).run(LogLikelihoods(model), tokenizer)
    assert turned.items["bits_per_byte"][::-1] == pytest.approx(expected.items["bits_per_byte"], rel=1e-5)


def test_a_5_gram_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    """The formulas of Kneser and Ney, one probability at a time, over the text's bytes."""
    train = write(tmp_path / "train.jsonl", TRAIN)
    suite = TextSuite(write(tmp_path / "text.jsonl", EVALUATION[:1]), train)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    direct = Direct(
        [encode(text) for text in TRAIN], 5, len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id
    )
    padded = [*[tokenizer.bos_token_id] * 4, *encode(EVALUATION[0])]
    bits = -sum(math.log2(direct.probability(tuple(padded[i - 4 : i]), padded[i])) for i in range(4, len(padded)))
    ngram = train.ngram(tokenizer)
    result = suite.run(ngram, tokenizer)
    expected = pytest.approx(bits / len(EVALUATION[0].encode()), rel=1e-9)
    assert result.metrics["bits_per_byte"].value == expected
    assert result.metrics["bits_per_byte_5-gram"].value == expected
    assert train.ngram(tokenizer) is ngram
    counts = np.bincount([token for text in TRAIN for token in encode(text)], minlength=len(tokenizer)) + 1
    unigram = -sum(math.log2(counts[token] / counts.sum()) for token in padded[4:])
    assert result.metrics["bits_per_byte_unigram"].value == pytest.approx(unigram / len(EVALUATION[0].encode()))


def test_as_lm_eval(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Its windows move by the whole context; its own loop, and its own metric."""
    texts = [*EVALUATION, " ".join(TRAIN)]
    their_class: Any = HFLM  # a decorator hides its arguments from type checkers
    theirs = their_class(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=2, max_length=CONTEXT)
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    sums = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    expected = bits_per_byte([(nats, len(text.encode())) for nats, text in zip(sums, texts, strict=True)])
    found = TextSuite(write(tmp_path / "text.jsonl", texts), stride=CONTEXT).run(LogLikelihoods(model), tokenizer)
    assert found.metrics["bits_per_byte"].value == pytest.approx(expected, rel=1e-6)


def test_intervals(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Over documents, where there are enough; the mean of the items is the value."""
    texts = [f"The cat number {i * i} sat on {'a mat ' * (i % 4)}flat." for i in range(40)]
    result = TextSuite(write(tmp_path / "text.jsonl", texts)).run(LogLikelihoods(model), tokenizer)
    bits = result.metrics["bits_per_byte"]
    assert "over documents" in bits.signature
    assert bits.interval is not None
    assert bits.interval[0] < bits.value < bits.interval[1]
    items, weights = (np.array(result.items[name]) for name in ("bits_per_byte", "weights"))
    assert np.average(items, weights=weights) == pytest.approx(bits.value)
    rng, totals = np.random.default_rng(0), np.array([len(text.encode()) for text in texts])
    document_bits = items * totals
    draws = [rng.integers(0, 40, 40) for _ in range(4000)]
    resampled = [document_bits[draw].sum() / totals[draw].sum() for draw in draws]
    assert np.std(resampled) == pytest.approx((bits.interval[1] - bits.interval[0]) / 3.92, rel=0.1)
    (tmp_path / "running.txt").write_text("\n".join(texts))
    running = TextSuite(Text(str(tmp_path / "running.txt"))).run(LogLikelihoods(model), tokenizer)
    assert running.metrics["bits_per_byte"].details["documents"] == 1
    assert running.metrics["bits_per_byte"].interval is not None
    assert "over windows" in running.metrics["bits_per_byte"].signature


def test_a_long_file_is_one_document(tmp_path: Path) -> None:
    """It is read in blocks, and a block's border is none of the text's."""
    line = "A line of text that is written down again and again.\n"
    (tmp_path / "long.txt").write_text(line * 50_000)
    assert list(Text(str(tmp_path / "long.txt")).documents()) == [line * 50_000]
    assert list(Text(str(tmp_path)).documents()) == [line * 50_000]


def test_mistakes(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"empty\.txt holds no text"):
        Text(str(tmp_path / "empty.txt"))
    suite = TextSuite(write(tmp_path / "text.jsonl", EVALUATION), stride=CONTEXT + 1)
    with pytest.raises(DoesNotFit, match="--stride 13 is more than the model's context, 12 tokens"):
        suite.check(ScratchGPTConfig(max_position_embeddings=CONTEXT), tokenizer)


def test_a_tokenizer_that_leaves_out_ids(tmp_path: Path) -> None:
    ids = {"[UNK]": 0, "<s>": 1, "the": 2, "cat": 30}
    rust = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    rust.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]", bos_token="<s>")
    assert num_ids(tokenizer) == 31
    text = write(tmp_path / "text.jsonl", ["the cat", "cat the the"])
    found = TextSuite(text, text).run(text.ngram(tokenizer), tokenizer).metrics
    assert 0 < found["bits_per_byte_5-gram"].value < found["bits_per_byte_unigram"].value


def test_a_tokenizer_that_alters_the_text_is_told(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Small letters for capitals, and one token for every word that is not known, make a text easier."""
    rust = Tokenizer(WordLevel({"[UNK]": 0, "<s>": 1, "the": 2, "cat": 3}, unk_token="[UNK]"))
    rust.pre_tokenizer, rust.normalizer = Whitespace(), Lowercase()
    lossy = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]", bos_token="<s>")
    suite = TextSuite(write(tmp_path / "text.jsonl", ["the cat", "the  cat", "The cat", "the dog"]))
    found = suite.run(suite.text.ngram(lossy), lossy).metrics["bits_per_byte"]
    assert found.details["note"] == "too low: the tokenizer alters 2 of 4 documents"
    assert "note" not in suite.run(LogLikelihoods(model), tokenizer).metrics["bits_per_byte"].details
