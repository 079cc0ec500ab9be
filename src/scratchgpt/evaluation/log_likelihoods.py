"""How likely a model finds the tokens of many sequences: the loop under every benchmark and every text.

Three things make it fast, and none changes a number beyond rounding. Rows of similar length share a batch, so there is
next to no padding; what there is stands on the right, where a causal model does not see it. Logits are computed only
from the first scored token of a batch on. And what sequences have in common is computed once: the choices of a
question, or the two sentences of a minimal pair, become one row, a trunk with branches,

    The cats | annoy Tim . | annoys Tim .        positions 0 1 | 2 3 4 | 2 3 4

in which each token sees its own branch and the trunk (tree attention, as in Medusa, Cai et al. 2024). That needs a
model that takes a mask for each query; whether this one does is tried out, not assumed.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from .journal import Journal

MAX_LOGITS = 1 << 26
"""Of a batch: 256 MB in fp32."""

MAX_TOKENS = 4096
"""Of a batch, padding included; a longer row is a batch of its own."""

MOST_BRANCHES = 8

CACHED_ROWS = 64

LARGEST_DIFFERENCE = {torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Between the logits of a sequence in a tree and by itself, relative to the largest; else there are no trees.
In other types, 1e-4."""

WRITTEN_AT_ONCE = 1 << 18
"""Tokens of what a killed run has to compute again, at most."""

Sequences = Sequence[tuple[Sequence[int], int]]
"""Tokens, and how many of them, at the end, are scored; at least one token comes before these."""


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of the scored tokens of one sequence."""

    log_likelihood: float
    """Their sum, in nats."""
    is_greedy: bool
    """Whether each of them is the model's first choice."""


class Scorer(Protocol):
    """A language model, as far as benchmarks and texts are concerned: see `LogLikelihoods`, `NgramModel`."""

    context: int
    """Tokens that it sees at most, the first one included that nothing predicts."""

    def score(self, sequences: Sequences) -> list[Scored]: ...


@dataclass(frozen=True)
class _Row:
    """Sequences that share their beginning, laid out as a trunk and branches."""

    numbers: list[int]
    """Which sequences."""
    tokens: list[int]
    trunk: int
    """Length of the shared beginning; the whole row, if there is one sequence."""
    first: int
    """First place whose logits are needed."""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.tokens), self.first


class LogLikelihoods:
    """Scores sequences with one model.

    Args:
        model: a causal language model, in evaluation mode.
        trees: whether to compute shared beginnings once; default: if the model turns out to give the same logits.
        max_tokens: of a batch.

    Raises:
        ValueError: for a model whose logits depend on what comes after, such as BERT: it would guess what it sees.
    """

    def __init__(self, model: Any, trees: bool | None = None, max_tokens: int = MAX_TOKENS) -> None:
        self.model, self.device = model, model.device
        self.context = context_length(model.config)
        self.vocab_size = model.config.get_text_config().vocab_size
        self.max_tokens = max_tokens
        self.keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._check_causal()
        self.trees = trees if trees is not None else self._takes_trees()

    def score(self, sequences: Sequences) -> list[Scored]:
        """What the model makes of each sequence, in their order. Those that share a beginning should be neighbours.

        Raises:
            ValueError: where a log-likelihood is infinite or not a number.
        """
        scored: list[Scored] = [Scored(0.0, True)] * len(sequences)
        rows = self._rows(sequences, self.trees)
        rows.sort(key=lambda row: row.shape, reverse=True)  # what takes the most memory first
        for batch in self._batches(rows):
            self._score(batch, sequences, scored)
        return scored

    def _batches(self, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
        """As many rows at a time as `max_tokens` and `MAX_LOGITS` allow."""
        batch: list[_Row] = []
        width, first = 0, 0
        for row in rows:
            size, start = len(batch) + 1, min(first, row.first)
            if batch and (size * width > self.max_tokens or size * (width - start) * self.vocab_size > MAX_LOGITS):
                yield batch
                batch = []
            if not batch:
                width, start = len(row.tokens), row.first
            batch.append(row)
            first = start
        if batch:
            yield batch

    def _rows(self, sequences: Sequences, trees: bool) -> list[_Row]:
        rows, start = [], 0
        while start < len(sequences):
            shared, end = _group(sequences, start) if trees else (0, start + 1)
            inputs = [list(tokens[:-1]) for tokens, _ in sequences[start:end]]
            numbers = list(range(start, end))
            first = min(len(tokens) - 1 - scored for tokens, scored in sequences[start:end])
            if len(inputs) == 1:
                rows.append(_Row(numbers, inputs[0], len(inputs[0]), first))
            else:
                branches = [token for tokens in inputs for token in tokens[shared:]]
                rows.append(_Row(numbers, inputs[0][:shared] + branches, shared, min(first, shared)))
            start = end
        return rows

    @torch.inference_mode()
    def _score(self, rows: Sequence[_Row], sequences: Sequences, scored: list[Scored]) -> None:
        first = min(row.first for row in rows)
        logits = self._logits(rows, sequences, first)
        places, targets, sizes, numbers = [], [], [], []
        for i, row in enumerate(rows):
            end = row.trunk
            for number in row.numbers:
                tokens, count = sequences[number]
                branch = len(tokens) - 1 - row.trunk
                own = list(range(row.trunk)) + list(range(end, end + branch))
                end += branch
                places += [i * logits.shape[1] + place - first for place in own[len(own) - count :]]
                targets += tokens[len(tokens) - count :]
                sizes.append(count)
                numbers.append(number)
        index, wanted = torch.tensor(places, device=self.device), torch.tensor(targets, device=self.device)
        flat = logits.reshape(-1, logits.shape[-1])
        if len(places) != len(flat) or places != list(range(len(flat))):
            flat = flat[index]
        flat = flat.float()
        of_target = flat.gather(1, wanted[:, None])[:, 0]
        best = flat.amax(dim=1)
        # A few rows at a time stay in the cache of a CPU: five times as fast there as all at once.
        size = CACHED_ROWS if self.device.type == "cpu" else len(flat)
        parts = zip(flat.split(size), wanted.split(size), strict=True)
        values = -torch.cat([F.cross_entropy(part, of, reduction="none") for part, of in parts]).double()
        owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(self.device)
        sums = torch.zeros(len(sizes), dtype=torch.float64, device=self.device).index_add_(0, owner, values)
        if not sums.isfinite().all():
            raise ValueError(
                f"what the model says is infinite or not a number in {str(self.model.dtype).removeprefix('torch.')}: "
                "give --dtype float32; if it is that, the model is broken"
            )
        misses = torch.zeros(len(sizes), device=self.device).index_add_(0, owner, (of_target < best).float())
        for number, value, missed in zip(numbers, sums.tolist(), misses.tolist(), strict=True):
            scored[number] = Scored(value, missed == 0)

    def _logits(self, rows: Sequence[_Row], sequences: Sequences, first: int) -> torch.Tensor:
        """[rows, width - first, vocabulary]."""
        width = max(len(row.tokens) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row.tokens)] = torch.tensor(row.tokens)
        arguments: dict[str, Any] = {"input_ids": ids.to(self.device)}
        if any(len(row.numbers) > 1 for row in rows):
            positions, mask = _tree(rows, sequences, width)
            arguments["position_ids"] = positions.to(self.device)
            blocked = torch.zeros(mask.shape, dtype=self.model.dtype).masked_fill_(
                ~mask, torch.finfo(self.model.dtype).min
            )
            arguments["attention_mask"] = blocked.to(self.device)
        if self.keeps:
            return self.model(**arguments, use_cache=False, logits_to_keep=width - first).logits
        return self.model(**arguments, use_cache=False).logits[:, first:]

    def _check_causal(self) -> None:
        """Tries two sequences that differ in their last token: the logits before it must be the same."""
        both = [([token % self.vocab_size for token in (1, 7, last, 0)], 3) for last in (5, 2)]
        with torch.inference_mode():
            one, other = (self._logits(self._rows([each], trees=False), [each], 0)[0, :2] for each in both)
        if not self._same(one, other):
            raise ValueError(
                f"{type(self.model).__name__} sees what comes after a token, so it cannot be asked how likely that "
                "token is: give --model a causal language model"
            )

    def _same(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether logits are the same but for rounding, or both are not numbers, which is found out later."""
        largest = max(float(one.abs().max()), float(other.abs().max()))
        difference = float((one - other).abs().max())
        return not difference > LARGEST_DIFFERENCE.get(self.model.dtype, 1e-4) * largest

    def _takes_trees(self) -> bool:
        """Tries a trunk with two branches: both must have the logits that they have as rows of their own."""
        config = self.model.config.get_text_config().to_dict()
        if config.get("sliding_window"):  # a mask of our own would take the window's place
            return False
        tokens = [token % self.vocab_size for token in (1, 7, 3, 11, 5, 2, 9)]
        together = [(tokens, 3), ([*tokens[:4], *tokens[:3:-1]], 3)]
        (row, *more) = self._rows(together, trees=True)
        if more or row.trunk != 4:  # of a handful of tokens, some of these are the same
            return False
        try:
            with torch.inference_mode():
                alone = [self._logits([each], together, 0)[0] for each in self._rows(together, trees=False)]
                tree = self._logits([row], together, 0)[0]
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False
        parts = (tree[:6], torch.cat([tree[:4], tree[6:8]]))
        return all(self._same(a, b) for a, b in zip(alone, parts, strict=True))


def context_length(config: Any) -> int:
    """Tokens that a model sees at most; 2048 where its configuration does not say, as in lm-eval."""
    values = config.get_text_config()
    values = {name: values.to_dict().get(name) for name in ("n_positions", "max_position_embeddings", "n_ctx")}
    return next((value for value in values.values() if value), 2048)


def prefix_token(tokenizer: Any) -> int:
    """What stands before a text that nothing precedes: the token that begins texts, or else that ends them.

    Raises:
        ValueError: for a tokenizer without either.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise ValueError(
        "the tokenizer has no end-of-text token, nor one that begins texts: set its eos_token; the probability of a "
        "text's first token cannot be told without"
    )


def num_ids(tokenizer: Any) -> int:
    """One more than the highest id of a tokenizer; more than its length where ids are left out."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))


class Remembered:
    """Another scorer that writes down what it found, so that a killed run goes on.

    Args:
        journal: of this model alone.
    """

    def __init__(self, scorer: Scorer, journal: Journal) -> None:
        self.scorer, self.journal, self.context = scorer, journal, scorer.context

    def score(self, sequences: Sequences) -> list[Scored]:
        """As the other scorer, which is asked for what is not in the journal, `WRITTEN_AT_ONCE` tokens at a time."""
        keys = [self.journal.key([list(tokens), count]) for tokens, count in sequences]
        missing = list({key: i for i, key in enumerate(keys) if key not in self.journal.answers}.values())
        start = 0
        while start < len(missing):
            end, size = start, 0
            while end < len(missing) and size < WRITTEN_AT_ONCE:
                size += len(sequences[missing[end]][0])
                end += 1
            found = self.scorer.score([sequences[i] for i in missing[start:end]])
            self.journal.add(
                (keys[i], {"nats": each.log_likelihood, "greedy": each.is_greedy})
                for i, each in zip(missing[start:end], found, strict=True)
            )
            start = end
        answers = [self.journal.answers[key] for key in keys]
        return [Scored(answer["nats"], answer["greedy"]) for answer in answers]


def _group(sequences: Sequences, start: int) -> tuple[int, int]:
    """How much the sequences from `start` up to which one have in common: a group, where that is a quarter of each."""
    first, end = sequences[start][0], start + 1
    shared = len(first) - 1
    while end < min(len(sequences), start + MOST_BRANCHES):
        tokens = sequences[end][0]
        common, limit = 0, min(shared, len(tokens) - 1)
        while common < limit and tokens[common] == first[common]:
            common += 1
        if common < 2 or 4 * common < len(tokens) or 4 * common < len(first):
            break
        shared, end = common, end + 1
    return shared, end


def _tree(rows: Sequence[_Row], sequences: Sequences, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [rows, width], and for each query what it sees, [rows, 1, width, width]."""
    positions = torch.arange(width).repeat(len(rows), 1)
    branch = torch.zeros(len(rows), width, dtype=torch.long)  # 0: the trunk
    for i, row in enumerate(rows):
        end = row.trunk
        for order, number in enumerate(row.numbers, start=1):
            length = len(sequences[number][0]) - 1 - row.trunk
            positions[i, end : end + length] = torch.arange(row.trunk, row.trunk + length)
            branch[i, end : end + length] = order
            end += length
        positions[i, end:] = 0  # padding
    same = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
    return positions, (same & torch.ones(width, width, dtype=torch.bool).tril()).unsqueeze(1)
