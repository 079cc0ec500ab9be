"""From measuring to a run's options: `plan` has the arithmetic, this asks the machine and keeps the answer.

The plan is written to `plan.json` in the output directory. A run that is resumed takes it from there: measured anew,
it would be another run.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..data.corpus import Corpus
from ..hub.staging import replaced_file
from .plan import (
    COMPILED_GAIN,
    MAX_PASSES,
    MEMORY_GROWTH,
    REFERENCE,
    WORTH_COMPILING,
    Measured,
    Schedule,
    Size,
    choose_schedule,
    choose_size,
    flops_per_token,
    make_size,
)

PLAN_FILE = "plan.json"

OPTIONS = {
    "optimizer": "muon", "learning_rate": 0.002, "lr_schedule": "wsd", "min_lr_ratio": 0.0, "load_best_at_end": True,
}  # fmt: skip
"""Of every planned run, whatever its size: the demo's, and the best checkpoint at the end."""

PLACES = {"resume_from_checkpoint", "data", "eval_data", "output_dir", "tokenizer", "cache_dir"}
"""Options that say where things are; what is there counts by its fingerprint."""


@dataclass
class Planner:
    """
    Args:
        arguments: a recipe's, with the fields of `Size` and `Schedule`, context_length and compile.
        given: names of the options that were given: they win.
        measure: times real steps of a run with such arguments.
    """

    arguments: Any
    given: set[str]
    train: Corpus
    evaluation: Corpus
    vocab_size: int
    measure: Callable[[Any], Measured]
    say: Callable[[str], object]

    def plan(self, minutes: float) -> tuple[Any, dict[str, float]]:
        """The arguments with a size and a number of steps; and what is predicted, `seconds` and `memory_mb`."""
        file = Path(self.arguments.output_dir) / PLAN_FILE
        inputs = {
            "text": self.train.fingerprint,
            "validation": self.evaluation.fingerprint,
            "tokenizer": self.train.tokenizer_fingerprint,
            "given": {
                name: str(vars(self.arguments)[name])
                for name in sorted((self.given - PLACES) & vars(self.arguments).keys())
            },
        }
        if self.arguments.resume_from_checkpoint is not None and file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["inputs"] == inputs:
                return self._with(found["values"]), found["predicted"]
        values, measured, schedule = self._choose(60 * minutes)
        steps = {name: value for name, value in asdict(schedule).items() if name != "seconds"}
        values |= {**steps, "save_steps": schedule.eval_steps, "logging_steps": max(1, schedule.max_steps // 50)}
        predicted = {"seconds": schedule.seconds, "memory_mb": MEMORY_GROWTH * measured.memory_mb}
        content = {"inputs": inputs, "values": values, "measured": asdict(measured), "predicted": predicted}
        with replaced_file(file) as new:
            new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return self._with(values), predicted

    def _with(self, values: dict[str, Any]) -> Any:
        """What was given wins."""
        kept = {name: value for name, value in values.items() if name not in self.given}
        return replace(self.arguments, **{**kept, "minutes": None})

    def _measured(self, values: dict[str, Any], what: str) -> Measured:
        self.say(f"Measuring this machine: {what} …")
        steps = {"eval_tokens": 4096, "lr_schedule": "constant", "warmup_steps": 0}
        return self.measure(replace(self._with(values), **steps))

    def _schedule(self, values: dict[str, Any], measured: Measured, seconds: float) -> Schedule:
        tried = self._with(values)
        per_step = tried.context_length * tried.per_device_train_batch_size * tried.gradient_accumulation_steps
        return choose_schedule(self.train.num_tokens, self.evaluation.num_tokens, per_step, measured, seconds)

    def _choose(self, seconds: float) -> tuple[dict[str, Any], Measured, Schedule]:
        num_tokens, vocab_size = self.train.num_tokens, self.vocab_size
        reference = make_size(num_tokens, *REFERENCE, tokens=MAX_PASSES * num_tokens)
        measured = self._measured({**_options(reference), "compile": False}, "a small model")
        tried = self._with(_options(reference))
        per_step = tried.context_length * tried.per_device_train_batch_size * tried.gradient_accumulation_steps
        flops = per_step * flops_per_token(
            reference.hidden_size, reference.num_hidden_layers, vocab_size, tried.context_length
        )
        gain = COMPILED_GAIN if tried.compile else 1.0
        size = choose_size(num_tokens, vocab_size, gain * flops / measured.step_seconds, seconds)
        values = {**_options(size), "compile": False}
        if size != reference:
            measured = self._measured(values, "a model of the size it can train")
        schedule = self._schedule(values, measured, seconds)
        if self.arguments.compile and schedule.seconds > WORTH_COMPILING:
            compiled = {**values, "compile": True}
            again = self._measured(compiled, "the same, compiled, which takes about half a minute")
            other = self._schedule(compiled, again, seconds)
            if (other.max_steps, -other.seconds) > (schedule.max_steps, -schedule.seconds):
                return compiled, again, other
        return values, measured, schedule


def _options(size: Size) -> dict[str, Any]:
    values = asdict(size)
    return {**OPTIONS, "per_device_train_batch_size": values.pop("batch_size"), **values}
