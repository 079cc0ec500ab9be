"""Instruction tuning: language modelling on the assistant's tokens of chats."""

from dataclasses import dataclass
from typing import Any

from ...data.chat import Message
from ...evaluation.responses import generate_responses
from .language_modelling import LanguageModelling


@dataclass
class InstructionTuning(LanguageModelling):
    """Language modelling on chat rows; the samples are answers."""

    def samples(self, model: Any) -> list[str]:
        """Greedy answers to `sample_prompts`."""
        questions: list[list[Message]] = [[{"role": "user", "content": p}] for p in self.arguments.sample_prompts]
        if not questions:
            return []
        answers = generate_responses(model, self.tokenizer, questions, self.arguments.sample_tokens)
        return [
            f"{q[0]['content']} → {a.text}{'' if a.stopped else ' …'}" for q, a in zip(questions, answers, strict=True)
        ]
