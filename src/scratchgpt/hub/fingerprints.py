"""Which base an adapter belongs to: fingerprints of weights and tokenizers, and the file that holds them."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from ..tokenizers.fingerprint import fingerprint

if TYPE_CHECKING:
    from peft import PeftModel

BASE_FILE = "base.json"


@dataclass(frozen=True)
class BaseReference:
    """The base of an adapter: where it was, and what it was."""

    base: str
    """Directory or Hub name, as it was given."""
    weights_sha256: str
    tokenizer_sha256: str


def weights_fingerprint(model: str | os.PathLike[str]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of a model directory (or Hub name), sorted by name.

    Raises:
        ValueError: where there are no safetensors.
    """
    files = _weight_files(os.fspath(model))
    return _weights_fingerprint(tuple((file, os.stat(file).st_mtime_ns) for file in files))


@lru_cache(maxsize=16)
def _weights_fingerprint(files: tuple[tuple[str, int], ...]) -> str:
    digest, where = hashlib.sha256(), {}
    for file, _ in files:
        with safe_open(file, framework="pt") as tensors:
            where |= dict.fromkeys(tensors.keys(), file)
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as tensors:
            tensor = tensors.get_tensor(name).contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weight_files(model: str) -> list[str]:
    optional = {"_raise_exceptions_for_missing_entries": False}
    if file := cached_file(model, "model.safetensors", **optional):
        return [file]
    index = cached_file(model, "model.safetensors.index.json", **optional)
    if index is None:
        raise ValueError(f"{model} holds no model.safetensors: give the directory of a model")
    shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    return [str(cached_file(model, shard)) for shard in sorted(shards)]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """`tokenizers.fingerprint` of a loaded tokenizer."""
    backend: Any = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]  # ours have one
    return fingerprint(backend.to_str())


def write_base_reference(
    model: "PeftModel", tokenizer: PreTrainedTokenizerBase, directory: str | os.PathLike[str]
) -> None:
    """Writes `base.json` into an adapter's directory."""
    base: Any = model.get_base_model().name_or_path
    reference = BaseReference(base, weights_fingerprint(base), tokenizer_fingerprint(tokenizer))
    (Path(directory) / BASE_FILE).write_text(json.dumps(asdict(reference), indent=2) + "\n", encoding="utf-8")


def read_base_reference(adapter: str | os.PathLike[str]) -> BaseReference:
    """
    Raises:
        ValueError: where `adapter` is not the directory of an adapter that was trained here.
    """
    file = Path(adapter) / BASE_FILE
    try:
        return BaseReference(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file} cannot be read ({error}): give the directory of an adapter trained here") from error
