"""HellaSwag, LAMBADA, ARC, PIQA, WinoGrande, BoolQ, OpenBookQA and COPA: asked and scored by lm-eval.

The tasks are lm-eval's classes with items of `benchmark_data`, and the model is a subclass of its `TemplateLM`, so
that prompts are cut into tokens as it does; only the loop that computes log-likelihoods is ours (`log_likelihoods`).
Its own command line gives the same scores.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .answers import check_installed
from .benchmark_data import BENCHMARKS, Item, read_items, spread
from .log_likelihoods import Scorer, context_length, prefix_token
from .results import DoesNotFit, Measurement, SuiteResult, score_against_chance
from .statistics import ratio_interval

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

VERSION = "scratchgpt 1"


@dataclass
class BenchmarkSuite:
    """One of `BENCHMARKS`.

    Args:
        benchmarks_dir: folder of its file, if it is not to come from the Hub.
        count: ask so many questions, from all over the benchmark; default: all.

    Raises:
        ValueError: as `read_items`, and where lm-eval is not installed.
    """

    name: str
    benchmarks_dir: str | Path | None = None
    count: int | None = None
    items: list[Item] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_installed("lm_eval")
        self.items = spread(read_items(self.name, self.benchmarks_dir), self.count)

    def identity(self) -> dict[str, Any]:
        """The questions, and the version of lm-eval."""
        items = hashlib.sha256(json.dumps([asdict(item) for item in self.items]).encode()).hexdigest()
        return {"items": items, "lm_eval": version("lm_eval"), "version": VERSION}

    def texts(self, tokenizer: Any) -> Iterable[str]:
        return (item.text() for item in self.items)

    def check(self, config: Any, tokenizer: Any) -> None:
        """Raises ValueError where an answer is longer than the context, which lm-eval does not expect.

        Args:
            config: None for a model without a context, such as an n-gram.
        """
        prefix_token(tokenizer)
        if config is None:
            return
        context = context_length(config)
        for number, item in enumerate(self.items, start=1):
            for scored in [item.continuation] if item.continuation else item.choices:
                text = f" {scored}"
                # Cutting into tokens takes long, and a text has at most as many as bytes.
                if len(text.encode()) > context and len(tokenizer.encode(text)) > context:
                    raise DoesNotFit(
                        f"{self.name}: an answer of question {number} is longer than the model's context of {context} "
                        "tokens; leave the benchmark out for this model"
                    )

    def task(self) -> "ConfigurableTask":
        """The task as lm-eval knows it."""
        import datasets
        from lm_eval.api.task import ConfigurableTask

        guessed, given = len(self.items[0].choices) == 1, bool(self.items[0].continuation)
        metrics = ["acc", *(["perplexity"] if guessed else []), *(["acc_norm"] if self._by_length() else [])]
        config: dict[str, Any] = {
            "task": self.name,
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list([asdict(item) for item in self.items])},
            "test_split": "test",
            "output_type": "loglikelihood" if guessed else "multiple_choice",
            # Where the beginnings are the choices, lm-eval takes them from doc_to_choice and the right one from here.
            "doc_to_text": lambda doc: doc["gold"] if given else doc["query"],
            "doc_to_target": lambda doc: f" {doc['choices'][0]}" if guessed else doc["continuation"] or doc["gold"],
            "metric_list": [
                {"metric": each, "aggregation": "perplexity" if each == "perplexity" else "mean",
                 "higher_is_better": each != "perplexity"}
                for each in metrics
            ],
            "num_fewshot": 0,
        }  # fmt: skip
        if not guessed:
            config["doc_to_choice"] = lambda doc: doc["choices"]
        return ConfigurableTask(config=config)

    def _by_length(self) -> bool:
        return BENCHMARKS[self.name].by_length

    def run(self, model: Scorer, tokenizer: Any) -> SuiteResult:
        from lm_eval.evaluator import evaluate

        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every custom data set
        asked = as_lm_eval_model(model, tokenizer)
        found: Any = evaluate(asked, {self.name: self.task()}, bootstrap_iters=0, log_samples=True)
        samples = sorted(found["samples"][self.name], key=lambda sample: sample["doc_id"])
        start = tokenizer.convert_ids_to_tokens(asked.prefix_token_id)
        how = f"0-shot|start:{start}|version:lm-eval {version('lm_eval')}"
        chance = float(np.mean([1 / len(item.choices) if len(item.choices) > 1 else 0 for item in self.items]))
        metrics: dict[str, Measurement] = {}
        items: dict[str, list[float]] = {}
        for name, theirs in (("accuracy", "acc"), ("accuracy_norm", "acc_norm")):
            if theirs in samples[0]:
                items[name] = [float(sample[theirs]) for sample in samples]
                metrics[name] = score_against_chance(items[name], chance, f"{self.name} {theirs}|{how}")
        benchmark = BENCHMARKS[self.name]
        # By these two the Hub knows a benchmark.
        named = {"dataset": benchmark.hub, "task": benchmark.config or "default"}
        extra: dict[str, Any] = {"truncated": asked.truncated, **named}
        if all(item.choices == self.items[0].choices for item in self.items) and chance:
            # Who always gives the same answer, the most frequent one, has this.
            extra["majority"] = float(np.bincount([item.gold for item in self.items]).max() / len(self.items))
        metrics = {
            name: Measurement(each.value, each.count, each.interval, each.signature, {**each.details, **extra})
            for name, each in metrics.items()
        }
        if "perplexity" in samples[0]:
            nats = -np.array([float(sample["perplexity"]) for sample in samples])
            interval = ratio_interval(nats, np.ones(len(nats)))
            metrics["perplexity"] = Measurement(
                float(np.exp(min(nats.mean(), 700))), len(nats),
                interval and (float(np.exp(min(interval[0], 700))), float(np.exp(min(interval[1], 700)))),
                f"{self.name} perplexity of the last word|{how}",
            )  # fmt: skip
        return SuiteResult(metrics, items)


def as_lm_eval_model(scorer: Scorer, tokenizer: Any) -> Any:
    """A scorer as lm-eval's `TemplateLM`, which has a `truncated` beside: how many sequences had lost their beginning.

    It cuts a text into tokens as the tokenizer does by itself, as lm-eval's `hf` does.
    """
    from lm_eval.api.model import TemplateLM

    class ScorerLM(TemplateLM):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer, self.truncated = tokenizer, 0

        @property
        def eot_token_id(self) -> int:
            return tokenizer.eos_token_id

        @property
        def prefix_token_id(self) -> int:
            return prefix_token(tokenizer)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            if add_special_tokens is None and string.startswith(tokenizer.decode(self.prefix_token_id)):
                add_special_tokens = False
            given = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            return tokenizer.encode(string, **given)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            return super().loglikelihood(requests, disable_tqdm)

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
        ) -> list[tuple[float, bool]]:
            whole = [(context + scored, len(scored)) for _, context, scored in requests]
            self.truncated += sum(len(tokens) > scorer.context + 1 for tokens, _ in whole)
            found = scorer.score([(tokens[-scorer.context - 1 :], count) for tokens, count in whole])
            return [(each.log_likelihood, each.is_greedy) for each in found]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError("texts are measured by evaluation.text")

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError("answers are generated by evaluation.answers")

    return ScorerLM()
