"""A model on a text in one call, for notebooks; recipes/pretrain.py is the same with every choice open."""

import os
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from ..configuration_scratchgpt import ScratchGPTConfig
from ..data.corpus import tokenize_corpus
from ..data.files import open_text
from ..data.packing import PackedRows
from ..hub.model_directory import load_model
from ..modeling_scratchgpt import ScratchGPTForCausalLM
from ..tokenization_scratchgpt import ScratchGPTTokenizer
from ..tokenizers import BPETokenizer, to_transformers
from .arguments import LanguageModelArguments
from .loop import build_accelerator, train
from .tasks.language_modelling import LanguageModelling

VALIDATION = 0.1
"""Share of the text, from its end, that validates."""

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
        output_dir: gets what recipes/pretrain.py writes (the model is in `final/`), and the two parts of the text, the
            tokenizer and the tokenised corpus in `data/`.
        options: fields of `LanguageModelArguments`: `max_steps`, `learning_rate`, `seed`, …

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
    defaults: dict[str, Any] = {"max_steps": 300, "per_device_train_batch_size": 16, "learning_rate": 2e-3}
    arguments = LanguageModelArguments(output_dir=os.fspath(output_dir), **{**defaults, **options})
    data = Path(output_dir) / "data"
    data.mkdir(parents=True, exist_ok=True)
    cut = int(len(text) * (1 - VALIDATION))
    for name, part in (("train", text[:cut]), ("validation", text[cut:])):
        (data / f"{name}.txt").write_text(part, encoding="utf-8")
    tokenizer = to_transformers(BPETokenizer.train([text[:cut]], vocab_size))
    tokenizer.save_pretrained(data / "tokenizer")
    train_rows, eval_rows = (
        PackedRows(
            tokenize_corpus(str(data / f"{name}.txt"), str(data / "tokenizer"), str(data / "cache")), context_length
        )
        for name in ("train", "validation")
    )
    accelerator = build_accelerator(arguments)
    set_seed(arguments.seed)
    config = ScratchGPTConfig.from_preset(
        "modern",
        vocab_size=-(len(tokenizer) // -64) * 64,
        max_position_embeddings=context_length,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    task = LanguageModelling(train_rows, eval_rows, tokenizer, arguments)
    if not train(task, ScratchGPTForCausalLM(config), tokenizer, arguments, accelerator, train_rows.fingerprint()):
        raise KeyboardInterrupt('interrupted and saved: resume_from_checkpoint="true" goes on')
    return load_model(ScratchGPTForCausalLM, str(Path(output_dir) / "final")).eval(), tokenizer
