"""Which base an adapter belongs to: fingerprints of weights and tokenizers, and the file that holds them."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from ..tokenizers.fingerprint import fingerprint
from .names import hub_name, local_copy
from .seals import hash_file, verify_if_sealed

if TYPE_CHECKING:
    from peft import PeftModel

BASE_FILE = "base.json"


@dataclass(frozen=True)
class BaseReference:
    """The base of an adapter: where it was, and what it was."""

    base: str
    """Hub name (owner/name@commit) or directory; in the file a directory is given relative to the adapter's, which may
    be shared."""
    weights_sha256: str
    tokenizer_sha256: str
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of the model's configuration that are not the base's: the labels of a classifier."""


def hash_weights(model: torch.nn.Module) -> str:
    """XXH3 (128 bits) of names, shapes and bytes of all parameters and buffers."""
    digest = xxhash.xxh3_128()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_fingerprint(model: str | os.PathLike[str]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of a model directory (or Hub name), sorted by name.

    Raises:
        ValueError: where there are no safetensors.
    """
    files = _weight_files(os.fspath(model))
    return _weights_fingerprint(tuple(files), tuple(map(_state, files)))


def hash_weight_files(directory: Path) -> str | None:
    """XXH3 (128 bits) of the weights' files as they are, of a model or an adapter; None where there are none."""
    files = sorted(directory.glob("*model*.safetensors"))
    return xxhash.xxh3_128_hexdigest(" ".join(map(hash_file, files)).encode()) if files else None


def _state(file: str) -> tuple[int, ...]:
    """What changes whenever a file is written or replaced; the time of change cannot be set back, as mtime can."""
    stat = os.stat(file)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=16)
def _weights_fingerprint(files: tuple[str, ...], states: tuple[tuple[int, ...], ...]) -> str:
    digest, where = hashlib.sha256(), {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            where |= dict.fromkeys(tensors.keys(), file)
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as tensors:
            tensor = tensors.get_tensor(name).contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weight_files(model: str) -> list[str]:
    model, optional = local_copy(model), {"_raise_exceptions_for_missing_entries": False}
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


def base_reference(model: "PeftModel", tokenizer: PreTrainedTokenizerBase) -> BaseReference:
    """The base under an adapter, as it is on the disk now."""
    base: Any = model.get_base_model()
    labels = {"id2label": base.config.id2label, "problem_type": base.config.problem_type}
    config = {} if model.active_peft_config.task_type == "CAUSAL_LM" else labels
    name = base.name_or_path
    return BaseReference(hub_name(name), weights_fingerprint(name), tokenizer_fingerprint(tokenizer), config)


def seen_from(base: str, directory: str | os.PathLike[str]) -> str:
    """How a file in `directory` names a base: relative to `directory`, and a Hub name as it is.

    Of a base in a home directory that the adapter is not in, only the last name: the way there would tell whose it is.
    """
    if not Path(base).is_dir():
        return base
    there, here, home = (os.path.abspath(path) for path in (base, directory, Path.home()))
    if os.path.commonpath([there, home]) == home != os.path.commonpath([here, home]):
        return f"./{Path(there).name}"
    relative = Path(os.path.relpath(there, here)).as_posix()
    return relative if relative.startswith("..") else f"./{relative}"


def write_base_reference(reference: BaseReference, directory: str | os.PathLike[str]) -> None:
    """Writes `base.json` into an adapter's directory.

    Raises:
        ValueError: where there is one already that names another base: an adapter belongs to one base for good.
    """
    file = Path(directory) / BASE_FILE
    if file.is_file():
        before = read_base_reference(directory)
        if before.weights_sha256 != reference.weights_sha256:
            raise ValueError(
                f"{file} names the base {before.weights_sha256}, not {reference.weights_sha256}: an adapter is never "
                "assigned to another base"
            )
    reference = replace(reference, base=seen_from(reference.base, directory))
    file.write_text(json.dumps(asdict(reference), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_base_reference(adapter: str | os.PathLike[str]) -> BaseReference:
    """What `base.json` says; a directory relative to the adapter's becomes absolute.

    Raises:
        ValueError: where `adapter` is not the directory of an adapter that was trained here.
    """
    file = Path(adapter) / BASE_FILE
    try:
        reference = BaseReference(**json.loads(file.read_text(encoding="utf-8")))
        if reference.base.startswith("."):
            reference = replace(reference, base=os.path.abspath(Path(adapter) / reference.base))
        if names := reference.config.get("id2label"):  # JSON makes text of its numbers
            id2label = {int(number): name for number, name in names.items()}
            label2id = {name: number for number, name in id2label.items()}
            reference = replace(reference, config={**reference.config, "id2label": id2label, "label2id": label2id})
        return reference
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
    of_base, own = (
        tokenizer_fingerprint(AutoTokenizer.from_pretrained(local_copy(name))) for name in (directory, adapter_dir)
    )
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
