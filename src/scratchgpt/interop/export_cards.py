"""Cards of what other engines run: README.md of a page for the browser, of a GGUF file, and of ONNX graphs.

They are written at the export, where everything is known; `scratchgpt push` leaves them as they are.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from huggingface_hub import ModelCardData, SpaceCardData

from ..hub.cards import signed
from .web import RUNTIME

FORMATS = {
    "gguf": (
        "gguf",
        "one file for llama.cpp, Ollama and LM Studio; with `Modelfile`, `ollama create my-model` imports it",
    ),
    "onnx": (
        "transformers.js",
        "graphs of a decoding step with a key-value cache, for transformers.js and onnxruntime",
    ),
}
"""Target → the Hub's name of the library, and what it is."""


class Source(NamedTuple):
    """What is known of the model that is exported."""

    title: str
    license: str | None
    on_hub: str | None
    """Its name there, or that of its base."""
    is_chat: bool


def _said(parameters: int, is_chat: bool) -> str:
    return f"A {'chat' if is_chat else 'language'} model of {parameters:,} parameters, trained with scratchgpt"


def export_card(target: str, source: Source, parameters: int, sizes: Mapping[str, int]) -> str:
    """README.md of a folder with a GGUF file or ONNX graphs, with what the Hub reads.

    Args:
        target: of `FORMATS`. sizes: name of each file with weights → its bytes.
    """
    library, kind = FORMATS[target]
    told = ModelCardData(
        license=source.license, library_name=library, pipeline_tag="text-generation",
        base_model=source.on_hub, base_model_relation="quantized" if source.on_hub else None,
        tags=["scratchgpt", target, "chat-model" if source.is_chat else "language-model"],
    )  # fmt: skip
    files = "\n".join(f"- `{name}`, {size:,} bytes" for name, size in sizes.items())
    return signed(
        f"""---
{told.to_yaml()}
---

# {source.title}

{_said(parameters, source.is_chat)}, as {kind}.

{files}"""
    )


def page_card(facts: Mapping[str, Any], license: str | None, source: str | None) -> str:
    """README.md, with what a Space of the Hub reads.

    Args:
        license: of the model, where it is known. source: its name on the Hub, where it has one.
    """
    told = SpaceCardData(title=facts["title"], sdk="static", app_file="index.html", license=license)
    told.models = [source] if source else None
    return signed(
        f"""---
{told.to_yaml()}
---

# {facts["title"]}

{_said(facts["parameters"], facts["chat"])}, that runs in the browser: nothing that is typed
leaves the machine, and nothing is fetched from elsewhere. As it is, this folder is a static Space on the Hub; anywhere
else, any file server will do:

    python -m http.server

`runtime/` holds {", ".join(f"{package} {version}" for package, version in RUNTIME)}, with their licences."""
    )
