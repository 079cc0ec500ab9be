"""A model on a text in one call, for notebooks; recipes/pretrain.py is the same with every choice open."""

import os
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ..data.files import open_text
from ..hub.model_directory import load_model
from ..hub.names import local_copy
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..tokenization_scratchgpt import ScratchGPTTokenizer
from .loop import build_accelerator, train
from .pretraining import PretrainArguments, prepare, with_texts

DEFAULTS: dict[str, Any] = {"max_steps": 300, "per_device_train_batch_size": 16, "learning_rate": 2e-3}

SHORTEST = 2000
"""Characters: less text than this teaches nothing, and is most often the name of a file."""


def train_on_text(
    text: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    vocab_size: int = 1024,
    context_length: int = 128,
    hidden_size: int = 128,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
    **options: Any,
) -> tuple[ScratchGPTForCausalLM, ScratchGPTTokenizer]:
    """Trains a tokenizer and a small `modern` model on a text, and validates it on the last tenth of the text.

        from pathlib import Path
        from scratchgpt.training.on_text import train_on_text

        model, tokenizer = train_on_text(Path("my.txt"), "runs/mine", max_steps=500)

    Args:
        text: the text itself, or a `Path` to a file with it.
        output_dir: gets what recipes/pretrain.py writes (the model is in `final/`), and the text.
        vocab_size: at most; a short text gets fewer tokens.
        options: options of recipes/pretrain.py: `max_steps`, `learning_rate`, `seed`, …

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        ValueError: for a text that is too short, and as `train`.
        TypeError: for an option that there is not.
        KeyboardInterrupt: where a signal ended the run; its state is saved, and the same call with
            `resume_from_checkpoint="true"` goes on.
    """
    if not isinstance(text, str):
        with open_text(Path(text)) as file:
            text = file.read()
    if len(text) < SHORTEST:
        raise ValueError(
            f"a text of {len(text)} characters ({text[:40]!r}) is too short, at least {SHORTEST:,}: give the "
            "text itself, or Path(…) for a file"
        )
    data = Path(output_dir) / "text.txt"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(text, encoding="utf-8")
    arguments = PretrainArguments(
        data=str(data),
        output_dir=os.fspath(output_dir),
        cache_dir=str(data.parent / "cache"),
        vocab_size=vocab_size,
        context_length=context_length,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        **{**DEFAULTS, **options},
    )
    accelerator = build_accelerator(arguments)
    arguments = with_texts(arguments, accelerator.print)
    tokenizer = AutoTokenizer.from_pretrained(local_copy(str(arguments.tokenizer), weights=False))
    prepared = prepare(arguments, tokenizer)
    model = prepared.model(arguments)
    if not train(prepared.task, model, tokenizer, arguments, accelerator, prepared.fingerprint):
        raise KeyboardInterrupt('interrupted and saved: resume_from_checkpoint="true" goes on')
    return load_model(ScratchGPTForCausalLM, str(Path(output_dir) / "final")).eval(), tokenizer
