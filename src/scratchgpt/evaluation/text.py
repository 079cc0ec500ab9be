"""Language modelling on any text: loss, perplexity, bits per byte and per word, beside what needs no neural network.

Whole documents, each begun by the start token, whose own end is not predicted. A document longer than the context is
read through a window that moves by `stride` tokens; only what is new in it counts. So each token is predicted once,
from context - stride tokens before it at least, where there are as many. The stride belongs to the result: from the
whole context to half of it, published bits per byte fall by 2 %.

Bits per byte and per word divide by the text's own length, so models with different tokenizers compare.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from ..data.encoding import encode_typed
from ..data.files import source_name
from ..data.text import read_documents
from ..hub.fingerprints import tokenizer_fingerprint
from .baselines import compressed_bits_per_byte, unigram_bits
from .log_likelihoods import Scorer, context_length, num_ids, prefix_token
from .ngram import NgramModel
from .results import WEIGHTS, DoesNotFit, Measurement, SuiteResult
from .statistics import ratio_interval

VERSION = "scratchgpt 1"

FEW_DOCUMENTS = 20
"""Of fewer than these the interval is estimated from windows instead of documents."""


@dataclass
class Text:
    """The documents of a source that `data.text` reads.

    Raises:
        ValueError: as `read_documents`, and for a source without text.
    """

    source: str
    split: str = "train"
    column: str = "text"

    def __post_init__(self) -> None:
        self._ngram: tuple[str, NgramModel] | None = None
        if not any(text.strip() for _, text in read_documents(self.source, self.split, self.column)):
            raise ValueError(f"{self.source} holds no text")

    def documents(self) -> Iterator[str]:
        """Whole ones: a file of running text is one, though it is read in blocks."""
        found = read_documents(self.source, self.split, self.column)
        for _, blocks in groupby(found, key=lambda document: document[0]):
            if (text := "".join(text for _, text in blocks)).strip():
                yield text

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for document in self.documents():
            digest.update(json.dumps(document).encode())
        return digest.hexdigest()

    def ngram(self, tokenizer: Any) -> NgramModel:
        """A 5-gram of its tokens."""
        name = tokenizer_fingerprint(tokenizer)
        if self._ngram is None or self._ngram[0] != name:
            start, end = prefix_token(tokenizer), tokenizer.eos_token_id
            end = start if end is None else end
            self._ngram = name, NgramModel(tokenize(tokenizer, self.documents()), num_ids(tokenizer), start, end)
        return self._ngram[1]


@dataclass
class TextSuite:
    """Measures a model on a text.

    Args:
        train: text for the unigram and the 5-gram to count; default: neither.
        stride: tokens by which the window moves; default: half of the model's context.
    """

    text: Text
    train: Text | None = None
    stride: int | None = None
    name: str = "text"
    documents: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.documents = list(self.text.documents())

    def identity(self) -> dict[str, Any]:
        """Both texts, the stride, and this module's version."""
        train = self.train.fingerprint() if self.train else None
        return {"text": self.text.fingerprint(), "train": train, "stride": self.stride, "version": VERSION}

    def texts(self, tokenizer: Any) -> Iterable[str]:
        return self.documents

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError for a tokenizer without a token that begins or ends texts, and a stride that is too long.

        Args:
            config: None for a model without a context, such as an n-gram.
        """
        prefix_token(tokenizer)
        if config is not None and self.stride is not None and self.stride > context_length(config):
            raise DoesNotFit(
                f"--stride {self.stride} is more than the model's context, {context_length(config)} tokens"
            )

    def run(self, model: Scorer, tokenizer: Any) -> SuiteResult:
        stride = min(model.context, self.stride or max(1, model.context // 2))
        tokens = tokenize(tokenizer, self.documents)
        start = prefix_token(tokenizer)
        pieces = [list(windows(each, start, model.context, stride)) for each in tokens]
        scores = model.score([window for piece in pieces for window in piece])
        nats = np.array([-score.log_likelihood for score in scores])
        owners = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
        of_document = np.bincount(owners, weights=nats, minlength=len(pieces))
        window_sizes = np.array([count for piece in pieces for _, count in piece])
        sizes = {
            "loss": np.array([len(each) for each in tokens]),
            "bits_per_byte": np.array([len(text.encode()) for text in self.documents]),
            "bits_per_word": np.array([len(text.split()) for text in self.documents]),
        }
        by_window = ratio_interval(nats, window_sizes)
        loss = float(nats.sum() / window_sizes.sum())
        few = len(pieces) < FEW_DOCUMENTS
        how = (
            f"stride:{stride}|context:{model.context}|start:{tokenizer.convert_ids_to_tokens(start)}|end:not predicted"
        )
        details = {
            "documents": len(pieces), "tokens": int(sizes["loss"].sum()), "bytes": int(sizes["bits_per_byte"].sum()),
            "words": int(sizes["bits_per_word"].sum()), "stride": stride, "context": model.context,
            "source": source_name(self.text.source),
        }  # fmt: skip
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown not in (start, tokenizer.eos_token_id):
            details["unknown_tokens"] = sum(each.count(unknown) for each in tokens)
        altered = sum(not is_spelled(tokenizer, *each) for each in zip(tokens, self.documents, strict=True))
        note = f"too low: the tokenizer alters {altered:,} of {len(pieces):,} documents" if altered else ""
        found: dict[str, Measurement] = {}
        for name, size in sizes.items():
            scale = 1.0 if name == "loss" else 1 / math.log(2)
            value = float(of_document.sum() * scale / size.sum())
            if few:
                interval = by_window and (by_window[0] * value / loss, by_window[1] * value / loss)
            else:
                interval = ratio_interval(of_document * scale, size)
            signature = f"{name}|{how}|interval:over {'windows' if few else 'documents'}|version:{VERSION}"
            notes = {"note": note} if note and name == "bits_per_byte" else {}
            found[name] = Measurement(value, int(size.sum()), interval, signature, details | notes)
        low, high = found["loss"].interval or (math.nan, math.nan)
        found["perplexity"] = Measurement(
            _exp(loss), details["tokens"], None if math.isnan(low) else (_exp(low), _exp(high)),
            found["loss"].signature.replace("loss", "perplexity", 1), details,
        )  # fmt: skip
        found |= self._baselines(tokens, details["bytes"], tokenizer)
        # Of each document; with these weights their mean is the value, so that models compare document by document.
        weights = sizes["bits_per_byte"]
        items = {"bits_per_byte": (of_document / math.log(2) / weights).tolist(), WEIGHTS: weights.tolist()}
        return SuiteResult(found, items)

    def _baselines(self, tokens: Sequence[Sequence[int]], num_bytes: int, tokenizer: Any) -> dict[str, Measurement]:
        """Bits per byte of the same text without a neural network."""
        found = {}
        for name, bits in compressed_bits_per_byte(self.documents).items():
            found[f"bits_per_byte_{name.split()[0]}"] = Measurement(
                bits, num_bytes, None, f"bits_per_byte|{name}|documents joined by line ends|version:{VERSION}"
            )
        if self.train is None:
            return found
        trained = f"trained on:{source_name(self.train.source)}|version:{VERSION}"
        counted = np.concatenate([np.array(each, int) for each in tokenize(tokenizer, self.train.documents())])
        of_id = unigram_bits(counted, num_ids(tokenizer))
        unigram = sum(float(of_id[np.array(each, int)].sum()) for each in tokens)
        found["bits_per_byte_unigram"] = Measurement(
            unigram / num_bytes, num_bytes, None, f"bits_per_byte|unigram, Laplace|{trained}"
        )
        ngram, start = self.train.ngram(tokenizer), prefix_token(tokenizer)
        nats = -sum(float(ngram.log_probabilities([start, *each])[1:].sum()) for each in tokens)
        found["bits_per_byte_5-gram"] = Measurement(
            nats / math.log(2) / num_bytes, num_bytes, None,
            f"bits_per_byte|5-gram, modified Kneser-Ney|{trained}",
        )  # fmt: skip
        return found


def tokenize(tokenizer: Any, texts: Iterable[str]) -> list[list[int]]:
    """The tokens of each text, without special ones: whatever a text spells is text, as in training."""
    found: list[list[int]] = []
    batch: list[str] = []

    def encode() -> None:
        if batch:
            found.extend(encode_typed(batch, tokenizer))
            batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == 1000:
            encode()
    encode()
    return found


def is_spelled(tokenizer: Any, tokens: Sequence[int], text: str) -> bool:
    """Whether tokens spell a text, but for spaces. What a tokenizer drops, replaces or turns into small letters costs
    no bits."""
    spelled = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    return "".join(spelled.split()) == "".join(text.split())


def windows(tokens: Sequence[int], start: int, context: int, stride: int) -> Iterator[tuple[Sequence[int], int]]:
    """A document as sequences with the number of tokens, at the end of each, that are new in it."""
    everything, end = [start, *tokens], 0
    while end < len(tokens):
        new = min(stride if end else context, len(tokens) - end)
        end += new
        yield everything[max(0, end - context) : end + 1], new


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700))
