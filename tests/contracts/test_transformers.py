"""What transformers does with any model of its own: generate, pipeline, Trainer."""

import logging
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import DataCollatorForLanguageModeling, GenerationConfig, Trainer, TrainingArguments, pipeline
from transformers.utils.logging import warning_once

from scratchgpt import ScratchGPTForCausalLM, ScratchGPTForSequenceClassification

NEW = 12


@pytest.fixture(autouse=True)
def _nothing_is_deprecated() -> Iterator[None]:
    """transformers neither warns nor logs that something of ours has another name by now."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    warning_once.cache_clear()  # what an earlier test was told once would not be told again
    logging.getLogger("transformers").addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    messages += [str(warning.message) for warning in caught if "transformers" in warning.filename]
    own = (
        "generation_config` together with generation-related arguments"  # transformers' own call in assisted decoding
    )
    assert [message for message in messages if "deprecat" in message and own not in message] == []


@pytest.fixture
def model(preset: str, make_config) -> ScratchGPTForCausalLM:
    """It never stops early: an end-of-text would leave less to compare."""
    torch.manual_seed(0)
    return ScratchGPTForCausalLM(make_config(preset, eos_token_id=None)).eval()


@pytest.fixture
def prompt(tokenizer) -> dict[str, torch.Tensor]:
    return dict(tokenizer(["To be, or not"], return_tensors="pt"))


def generate(model: ScratchGPTForCausalLM, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    return model.generate(**inputs, max_new_tokens=NEW, **options)


@torch.no_grad()
def greedy(model: ScratchGPTForCausalLM, input_ids: torch.Tensor) -> torch.Tensor:
    """The definition: the whole text through the model again for every token."""
    for _ in range(NEW):
        logits = model(input_ids, use_cache=False).logits[:, -1]
        input_ids = torch.cat([input_ids, logits.argmax(-1, keepdim=True)], dim=-1)
    return input_ids


def test_greedy(model, prompt) -> None:
    expected = greedy(model, prompt["input_ids"])
    assert expected[0, prompt["input_ids"].shape[1] :].unique().numel() > 2  # no trivial repetition
    assert torch.equal(generate(model, prompt, do_sample=False), expected)
    assert torch.equal(generate(model, prompt, do_sample=False, use_cache=False), expected)


def test_static_cache(model, prompt) -> None:
    static = generate(model, prompt, do_sample=False, cache_implementation="static")
    assert torch.equal(static, greedy(model, prompt["input_ids"]))


@pytest.mark.slow  # it warms up for up to 20 s, and takes most of the memory that is free
def test_continuous_batching(model, tokenizer) -> None:
    """`generate_batch` hands over a paged cache of its own kind."""
    prompts = tokenizer(["To be, or not", "All"])["input_ids"]
    settings = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    answers = model.generate_batch(prompts, generation_config=settings, progress_bar=False)
    found = sorted((answer.prompt_ids, answer.generated_tokens) for answer in answers.values())
    expected = [(ids, greedy(model, torch.tensor([ids]))[0, len(ids) :].tolist()) for ids in prompts]
    assert found == sorted(expected)


def test_left_padded_batch(model, tokenizer) -> None:
    """A text is continued in a batch as it is alone."""
    texts = ["To be, or not", "A journey of a thousand miles begins", "All"]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    continued = generate(model, batch, do_sample=False)[:, -NEW:]
    alone = [greedy(model, tokenizer(text, return_tensors="pt")["input_ids"])[0, -NEW:] for text in texts]
    assert torch.equal(continued, torch.stack(alone))


def test_sampling(model, prompt) -> None:
    def sample(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return generate(model, prompt, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=4)

    first = sample(1)
    assert torch.equal(first, sample(1))
    assert not torch.equal(first, sample(2))
    assert len({tuple(row.tolist()) for row in first}) > 1
    tight = generate(model, prompt, do_sample=True, top_k=1)
    assert torch.equal(tight, greedy(model, prompt["input_ids"]))


def test_beams(model, prompt) -> None:
    found = generate(
        model, prompt, num_beams=3, num_return_sequences=3, return_dict_in_generate=True, output_scores=True
    )
    assert found.sequences.shape == (3, prompt["input_ids"].shape[1] + NEW)
    assert found.sequences_scores.tolist() == sorted(found.sequences_scores.tolist(), reverse=True)
    # A beam's score is its log-probability by a plain forward pass.
    with torch.no_grad():
        logits = model(found.sequences).logits[:, -NEW - 1 : -1]
    log_probs = logits.log_softmax(-1).gather(-1, found.sequences[:, -NEW:, None]).sum((1, 2))
    torch.testing.assert_close(found.sequences_scores * NEW, log_probs, rtol=1e-4, atol=1e-4)


def test_assisted(model, prompt, make_config, preset) -> None:
    """Another model proposes; the answer stays this model's own."""
    torch.manual_seed(1)
    assistant = ScratchGPTForCausalLM(make_config(preset, num_hidden_layers=1, eos_token_id=None)).eval()
    expected = greedy(model, prompt["input_ids"])
    # Before 5.10 it needs an id that ends a text: one that does not occur.
    options = {"do_sample": False, "eos_token_id": next(i for i in range(300) if i not in expected)}
    assert torch.equal(generate(model, prompt, assistant_model=assistant, **options), expected)
    # 5.5.4 can go a token beyond max_new_tokens there.
    found = generate(model, prompt, prompt_lookup_num_tokens=3, **options)
    assert torch.equal(found[:, : expected.shape[1]], expected)


def test_generation_config_is_saved(model, prompt, tmp_path: Path) -> None:
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=3, eos_token_id=7, pad_token_id=0)
    model.save_pretrained(tmp_path)
    loaded = ScratchGPTForCausalLM.from_pretrained(tmp_path)
    assert loaded.generation_config.max_new_tokens == 3
    assert loaded.generation_config.eos_token_id == 7
    assert loaded.generate(**prompt, min_new_tokens=3).shape[1] == prompt["input_ids"].shape[1] + 3


def test_text_generation_pipeline(model, tokenizer) -> None:
    tokenizer = deepcopy(tokenizer)  # the pipeline turns its padding side
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    texts = ["To be, or not", "A journey of a thousand miles begins", "All"]
    options = {"do_sample": False, "max_new_tokens": NEW, "return_full_text": False}
    batched = generator(texts, batch_size=3, **options)
    assert batched == [generator(text, **options) for text in texts]


def test_text_classification_pipeline(preset, make_config, tokenizer) -> None:
    torch.manual_seed(0)
    config = make_config(preset, num_labels=3, id2label={0: "no", 1: "yes", 2: "maybe"})
    classifier = pipeline(
        "text-classification", model=ScratchGPTForSequenceClassification(config).eval(), tokenizer=tokenizer, device=-1
    )
    texts = ["To be, or not", "A journey of a thousand miles begins with a single step", "All<|endoftext|>"]
    batched = classifier(texts, batch_size=3, top_k=None)
    alone = [classifier(text, top_k=None) for text in texts]
    assert {entry["label"] for entry in batched[0]} == {"no", "yes", "maybe"}
    for in_batch, by_itself in zip(batched, alone, strict=True):
        assert [entry["label"] for entry in in_batch] == [entry["label"] for entry in by_itself]
        scores = [[entry["score"] for entry in entries] for entries in (in_batch, by_itself)]
        torch.testing.assert_close(*map(torch.tensor, scores), rtol=1e-4, atol=1e-5)


def test_an_empty_text_is_refused_by_name(preset, make_config, tokenizer, model) -> None:
    classifier = ScratchGPTForSequenceClassification(make_config(preset, num_labels=3)).eval()
    with pytest.raises(ValueError, match="no tokens"):
        pipeline("text-classification", model=classifier, tokenizer=tokenizer)("")
    with pytest.raises(ValueError, match="no tokens"):
        model.generate(**tokenizer("", return_tensors="pt"), max_new_tokens=2)
    beginning = torch.tensor([[model.config.bos_token_id]])
    begun = generate(model, {"input_ids": beginning}, do_sample=False)
    assert torch.equal(generate(model, {}, do_sample=False), begun)
    said = pipeline("text-generation", model=model, tokenizer=deepcopy(tokenizer))(
        "", do_sample=False, max_new_tokens=3
    )
    assert isinstance(said[0]["generated_text"], str)


class Texts(Dataset):
    """Texts of unequal length: whoever averages means of micro-batches gets another loss than of the whole batch."""

    def __init__(self, tokenizer, texts: list[str]) -> None:
        lengths = [5, 40, 9, 23, 60, 7, 31, 12, 18, 50, 6, 28]
        self.rows = [{"input_ids": tokenizer(" ".join(texts))["input_ids"][:length]} for length in lengths]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def train(model, tokenizer, texts: list[str], output_dir: Path, batch_size: int, accumulation: int) -> list[float]:
    """Three optimizer steps with transformers' Trainer; the losses it logs."""
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=3,
        learning_rate=1e-2,
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Texts(tokenizer, texts),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_trainer_accumulates_gradients(preset, make_config, tokenizer, texts, tmp_path: Path) -> None:
    """Four micro-batches of one text are one batch of four: `num_items_in_batch` is honoured."""
    runs = {}
    for batch_size, accumulation in ((4, 1), (1, 4)):
        torch.manual_seed(0)
        model = ScratchGPTForCausalLM(make_config(preset))
        losses = train(model, tokenizer, texts, tmp_path, batch_size, accumulation)
        runs[batch_size] = (torch.tensor(losses), torch.cat([weight.flatten() for weight in model.parameters()]))
    assert len(runs[4][0]) == 3
    assert runs[4][0][-1] < runs[4][0][0]
    for whole, accumulated in zip(runs[4], runs[1], strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-5)


def test_trainer_saves_what_loads(preset, make_config, tokenizer, texts, tmp_path: Path) -> None:
    model = ScratchGPTForCausalLM(make_config(preset))
    train(model, tokenizer, texts, tmp_path, batch_size=4, accumulation=1)
    Trainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])).save_model(str(tmp_path / "final"))
    loaded = ScratchGPTForCausalLM.from_pretrained(tmp_path / "final").eval()
    inputs = tokenizer("To be", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model.eval()(**inputs).logits)
