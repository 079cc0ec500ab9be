"""Teachers: a chat model through transformers, or one behind an OpenAI-compatible endpoint. And the journal.

The journal has a line for each answer, written and synced before the next request: a kill loses what was under way,
nothing else. A request is known by everything that its answer depends on.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LEAST_PARAMETERS = 3e9
"""Below this, most answers of the models that were tried were unusable."""


@dataclass
class Answer:
    text: str
    finished: bool
    """False where the limit of tokens cut it off."""


class Teacher(Protocol):
    name: str
    batch_size: int

    def answer(self, requests: Sequence[list[dict[str, str]]], seed: int) -> list[Answer]:
        """An answer to each conversation; the same seed and requests give the same answers where the model can."""
        ...


class LocalTeacher:
    """A chat model in this process.

    Raises:
        ValueError: for a model without a chat template.
    """

    def __init__(self, name: str, batch_size: int, max_new_tokens: int, temperature: float) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        if not tokenizer.chat_template:
            raise ValueError(f"{name} has no chat template: a teacher must be a chat model")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        self.model = model.to(device).eval()
        self.tokenizer, self.name, self.batch_size = tokenizer, Path(name).name, batch_size
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())

    def answer(self, requests: Sequence[list[dict[str, str]]], seed: int) -> list[Answer]:
        import torch
        from transformers import set_seed

        set_seed(seed)
        texts = [
            self.tokenizer.apply_chat_template(request, tokenize=False, add_generation_prompt=True)
            for request in requests
        ]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature:
            sampling = {"do_sample": True, "temperature": self.temperature}
        with torch.inference_mode():
            output = self.model.generate(
                **inputs, max_new_tokens=self.max_new_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling
            )
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends, self.tokenizer.eos_token_id])
        answers = []
        for ids in output[:, inputs["input_ids"].shape[1] :].tolist():
            finished = any(token in ends for token in ids)
            answers.append(Answer(self.tokenizer.decode(ids, skip_special_tokens=True).strip(), finished))
        return answers


class EndpointTeacher:
    """A model behind an OpenAI-compatible endpoint, asked at most so many times a minute.

    Args:
        token: sent as the bearer token; by default the variable TEACHER_API_KEY.
    """

    batch_size = 1

    def __init__(
        self,
        url: str,
        model: str,
        max_new_tokens: int,
        temperature: float,
        requests_per_minute: float,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from huggingface_hub import InferenceClient

        token = os.environ.get("TEACHER_API_KEY", "none")
        self.client = InferenceClient(base_url=url, api_key=token, timeout=120)
        self.name, self.max_new_tokens, self.temperature = model, max_new_tokens, temperature
        self.pause, self.attempts, self.sleep = 60.0 / requests_per_minute, attempts, sleep
        self.last = -1e9

    def answer(self, requests: Sequence[list[dict[str, str]]], seed: int) -> list[Answer]:
        return [self._one(request, seed) for request in requests]

    def _one(self, request: list[dict[str, str]], seed: int) -> Answer:
        problem: Exception | None = None
        for attempt in range(self.attempts):
            wait = self.pause - (time.monotonic() - self.last)
            if wait > 0:
                self.sleep(wait)
            self.last = time.monotonic()
            try:
                reply = self.client.chat_completion(
                    messages=request,
                    model=self.name,
                    max_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    seed=seed,
                )
                choice = reply.choices[0]
                return Answer((choice.message.content or "").strip(), choice.finish_reason != "length")
            except Exception as error:  # the client raises what its HTTP library does, of either generation
                problem = error
                if attempt + 1 < self.attempts:
                    self.sleep(min(60.0, 2.0 * 2**attempt))
        raise ValueError(
            f"the teacher did not answer ({' '.join(str(problem).split())[:200]}): start again later; "
            "the answers so far are kept"
        )


class Journal:
    """Answers on disk, a JSON object a line; a torn last line is dropped."""

    def __init__(self, file: Path) -> None:
        self.file, self.answers = file, {}
        if file.is_file():
            whole = 0
            content = file.read_bytes()
            for line in content.splitlines(keepends=True):
                try:
                    row = json.loads(line)
                    self.answers[row["key"]] = Answer(row["text"], row["finished"])
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
            if whole < len(content):
                with file.open("r+b") as stream:
                    stream.truncate(whole)

    def add(self, key: str, answer: Answer, **more: Any) -> None:
        self.answers[key] = answer
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "text": answer.text, "finished": answer.finished, **more}, ensure_ascii=False)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def request_key(**parts: Any) -> str:
    """SHA-256 of everything that an answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
