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
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from .seals import verify_if_sealed

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
    """SHA-256 of what decides the ids of a text: vocabulary, merges, special tokens, splitting."""
    backend: Any = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]  # ours have one
    document = json.loads(backend.to_str())
    model = document["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges") or []]
    parts = [sorted(tokenizer.get_vocab().items()), model["type"], merges, document["pre_tokenizer"]]
    parts.append(sorted(tokenizer.all_special_tokens))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def base_reference(model: "PeftModel", tokenizer: PreTrainedTokenizerBase) -> BaseReference:
    """The base under an adapter, as it is on the disk now."""
    base: Any = model.get_base_model().name_or_path
    return BaseReference(base, weights_fingerprint(base), tokenizer_fingerprint(tokenizer))


def write_base_reference(
    model: "PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    directory: str | os.PathLike[str],
    reference: BaseReference | None = None,
) -> None:
    """Writes `base.json` into an adapter's directory.

    Args:
        reference: the base as it was when it was loaded; default: as it is on the disk now.

    Raises:
        ValueError: where there is one already that names another base: an adapter belongs to one base for good.
    """
    file, reference = Path(directory) / BASE_FILE, reference or base_reference(model, tokenizer)
    if file.is_file():
        before = read_base_reference(directory)
        if before.weights_sha256 != reference.weights_sha256:
            raise ValueError(
                f"{file} names the base {before.weights_sha256}, not {reference.weights_sha256}: an adapter is never "
                "assigned to another base"
            )
    file.write_text(json.dumps(asdict(reference), indent=2) + "\n", encoding="utf-8")


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


def verify_base(adapter_dir: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> None:
    """Makes sure that `base` is the model that the adapter was trained on; called wherever an adapter is used.

    Args:
        base: directory or Hub name; default: where it was when the adapter was trained.

    Raises:
        ValueError: for a base that is not there, and for other weights or another tokenizer than the adapter was
            trained with; names both fingerprints.
        SealError: where the adapter is damaged.
    """
    wanted = read_base_reference(adapter_dir)
    directory = os.fspath(base) if base is not None else wanted.base
    try:
        weights = weights_fingerprint(directory)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the base of {adapter_dir} cannot be read at {directory!r} ({error}): say where it is (--base)"
        ) from error
    of_base, own = (tokenizer_fingerprint(AutoTokenizer.from_pretrained(name)) for name in (directory, adapter_dir))
    for what, found, expected in (
        ("weights", weights, wanted.weights_sha256),
        ("tokenizer", of_base, wanted.tokenizer_sha256),
        ("own tokenizer", own, wanted.tokenizer_sha256),
    ):
        if found != expected:
            raise ValueError(
                f"{adapter_dir} was not trained on {directory}: the {what} had the SHA-256 {expected}, here it is "
                f"{found}. Give the base that it was trained on, then at {wanted.base} (--base)"
            )
    verify_if_sealed(adapter_dir)
