"""GPT-2 checkpoints in the forms that people have, read as one: transformers' names, tensor by tensor.

- transformers: `config.json` with `model.safetensors` or `pytorch_model.bin`, in one file or several, from a folder
  or the Hub.
- OpenAI's original: `hparams.json` with `model.ckpt.index` and `model.ckpt.data-…` of TensorFlow.
- nanoGPT's `ckpt.pt`, and state dicts of nanoGPT and minGPT, whose linear layers are stored the other way round.

Pickles are read by `torch.load(weights_only=True)` alone, which runs no code of theirs. Nothing here holds more than
one tensor in memory, except for pickles that are not zip files (torch before 1.6).
"""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import GenerationConfig

from ..hub.names import check_source
from .tensorflow_checkpoint import Entry, read_index

CONFIGURATION_FILES = ["config.json", "generation_config.json"]
TOKENIZER_FILES = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "encoder.json", "vocab.bpe",
]  # fmt: skip
SAFETENSORS_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
PICKLE_FILES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of safetensors that weights have."""

LINEAR = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
MINGPT_TYPES = ("gpt-mini", "gpt-micro", "gpt-nano")
"""What minGPT writes where transformers writes the architecture."""

MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
"""The causal mask, which old checkpoints hold as a tensor."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    """None for what weights cannot be: whole numbers, quantised values."""
    read: Callable[[], torch.Tensor]

    def transposed(self) -> "StoredTensor":
        return StoredTensor(self.shape[::-1], self.dtype, lambda: self.read().T)


@dataclass(frozen=True)
class GPT2Checkpoint:
    """A GPT-2, in files or in memory."""

    name: str
    """For messages."""
    config: dict[str, Any]
    """As for `GPT2Config`."""
    tensors: dict[str, StoredTensor]
    """Named and laid out as in `GPT2LMHeadModel` (linear weights are [in, out]), without the prefix `transformer.`.
    A tied head is left out."""
    use_bias: bool = True
    """False only for nanoGPT, which can leave out all biases."""
    generation_config: GenerationConfig | None = None
    folder: Path | None = None
    """Where its tokenizer may lie."""


def open_checkpoint(
    source: str,
    num_attention_heads: int | None = None,
    activation_function: str | None = None,
    revision: str | None = None,
) -> GPT2Checkpoint:
    """Finds a checkpoint's files, and reads what they hold but not yet the weights.

    Args:
        source: a folder, a file, or a name on the Hub.
        num_attention_heads: for a state dict without configuration, whose tensors do not tell it.
        activation_function: of a state dict. Default: `gelu` for nanoGPT's `ckpt.pt`, which has the exact GELU, and
            `gelu_new` for others, as minGPT and GPT-2 have it.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: where there is no checkpoint of these forms, it is damaged, or it is another architecture's.
    """
    path = find_files(source, revision)
    folder = path if path.is_dir() else path.parent
    config = _read_json(folder / "config.json")
    hints: dict[str, Any] = {}
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(path):
        if file.suffix == ".safetensors":
            tensors |= _read_safetensors(file)
        elif file.suffix == ".index":
            tensors |= {_tensorflow_name(name): _in_tensorflow(entry) for name, entry in read_index(file).items()}
            hints |= _read_json(folder / "hparams.json")
        else:
            part, found = _read_pickle(file)
            tensors |= part
            hints |= found
    tensors = {name.removeprefix("_orig_mod.").removeprefix("transformer."): t for name, t in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not MASK.fullmatch(name)}

    of_transformers = "model_type" in config and config["model_type"] not in MINGPT_TYPES
    if of_transformers:
        if config["model_type"] != "gpt2":
            raise ValueError(f"{source} is a {config['model_type']} model by its config.json, and not a GPT-2")
        if num_attention_heads is not None or activation_function is not None:
            raise ValueError(f"{source} has a config.json: leave num_attention_heads and activation_function out")
    else:
        hints |= config.get("model", config)  # minGPT keeps it in a section of its own
        hints |= {"n_head": num_attention_heads or hints.get("n_head")}
        hints |= {"activation_function": activation_function or hints.get("activation_function", "gelu_new")}
        config = _describe(source, tensors, hints)
        c_attn = tensors.get("h.0.attn.c_attn.weight")
        if c_attn is not None and c_attn.shape[0] > c_attn.shape[-1]:  # [3 D, D]: nn.Linear's way round
            tensors = {name: t.transposed() if LINEAR.fullmatch(name) else t for name, t in tensors.items()}
    if "lm_head.weight" in tensors and config.get("tie_word_embeddings", True):
        if _same(tensors, "lm_head.weight", "wte.weight"):
            del tensors["lm_head.weight"]
        elif of_transformers:
            raise ValueError(
                f"{source}: lm_head.weight is not wte.weight, but its config.json says that they are tied "
                "(tie_word_embeddings): files of two models are mixed up"
            )
        else:
            config["tie_word_embeddings"] = False
    use_bias = of_transformers or "ln_f.bias" in tensors
    generation = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
    return GPT2Checkpoint(source, config, tensors, use_bias, generation, folder)


def find_files(source: str, revision: str | None = None) -> Path:
    """The local file or folder `source`; else the folder of what is needed of that model on the Hub, downloaded.

    Raises:
        ValueError: where there is neither.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if (index := Path(f"{path}.index")).is_file():  # TensorFlow names a checkpoint by its prefix
        return index
    check_source(source)
    try:
        wanted = CONFIGURATION_FILES + TOKENIZER_FILES + SAFETENSORS_FILES
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=wanted))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=wanted + PICKLE_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(f"{source} is neither a local folder or file, nor found on the Hub: {error}") from error
    return folder


def _describe(source: str, tensors: dict[str, StoredTensor], hints: dict[str, Any]) -> dict[str, Any]:
    """A configuration for `GPT2Config`, from what the tensors' shapes tell and what is known besides."""
    if missing := [name for name in ("wte.weight", "wpe.weight") if name not in tensors]:
        raise ValueError(f"{source} is no GPT-2: {' and '.join(missing)} missing among {sorted(tensors)[:5]} …")
    hints = {name: value for name, value in hints.items() if value is not None}
    dropout = hints.get("dropout", 0.1)  # nanoGPT's; GPT-2's is 0.1
    config = {
        "vocab_size": tensors["wte.weight"].shape[0],
        "n_positions": hints.get("block_size", hints.get("n_ctx", tensors["wpe.weight"].shape[0])),
        "n_embd": tensors["wte.weight"].shape[-1],
        "n_layer": len({name.split(".")[1] for name in tensors if name.startswith("h.")}),
        "attn_pdrop": dropout,
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
    }
    known = ("n_embd", "n_layer", "n_head", "vocab_size", "attn_pdrop", "embd_pdrop", "resid_pdrop")
    config |= {name: hints[name] for name in (*known, "activation_function") if name in hints}
    if "n_head" not in config:
        raise ValueError(f"{source} does not tell the number of attention heads: give --num_attention_heads")
    end_of_text = 50256 if config["vocab_size"] > 50256 else None
    return config | {"n_ctx": config["n_positions"], "bos_token_id": end_of_text, "eos_token_id": end_of_text}


def _read_json(file: Path) -> dict[str, Any]:
    """The content of `file`; nothing where there is none."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): copy it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no object of names and values: copy it again")
    return content


def weight_files(path: Path) -> list[Path]:
    """The file `path` itself; or what holds the weights in the folder `path`: a file, or the parts of one.

    Raises:
        ValueError: where there are none, or a part is missing; names a tensor that it would hold.
    """
    if path.is_file():
        return [path]
    for name in ("model.safetensors", "pytorch_model.bin", "model.ckpt.index", "ckpt.pt", "model.pt"):
        if (path / name).is_file():
            return [path / name]
        if placed := _read_json(path / f"{name}.index.json").get("weight_map"):
            for tensor, part in placed.items():
                if not (path / part).is_file():
                    raise ValueError(f"{path / part} is missing, which holds {tensor}: copy it, or download it again")
            return [path / part for part in sorted(set(placed.values()))]
    raise ValueError(
        f"{path} holds no checkpoint: expected model.safetensors, pytorch_model.bin, model.ckpt.index, ckpt.pt or "
        "model.pt; give the file itself if it has another name"
    )


def _read_safetensors(file: Path) -> dict[str, StoredTensor]:
    def read(name: str) -> torch.Tensor:
        # Opened anew for every tensor: what is mapped into memory counts as used until the file is closed.
        with safe_open(file, "pt") as content:
            return content.get_tensor(name)

    try:
        with safe_open(file, "pt") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118 - it is no mapping
            return {
                name: StoredTensor(tuple(part.get_shape()), DTYPES.get(part.get_dtype()), partial(read, name))
                for name, part in slices.items()
            }
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file ({error}): copy it again") from error


def _read_pickle(file: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """Tensors of a state dict, or of nanoGPT's checkpoint around one; and what the latter says of the model."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{file} is refused: it is damaged, or holds more than tensors, which could run any code when read. Get "
            f"the model as safetensors. ({str(error).splitlines()[0]})"
        ) from error
    hints: dict[str, Any] = {}
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        hints = {"activation_function": "gelu"} | content.get("model_args", {})
        content = content["model"]
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no state dict, but a {type(content).__name__}")
    if others := [name for name, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise ValueError(f"{file} is no state dict: {others[0]!r} is no tensor")
    return {name: in_memory(tensor) for name, tensor in content.items()}, hints


def in_memory(tensor: torch.Tensor) -> StoredTensor:
    """A tensor that has been read, or is mapped into memory."""
    dtype = tensor.dtype if tensor.dtype in DTYPES.values() else None
    return StoredTensor(tuple(tensor.shape), dtype, tensor.detach)


def _in_tensorflow(entry: Entry) -> StoredTensor:
    shape = entry.shape[1:] if len(entry.shape) == 3 else entry.shape  # linear weights were [1, in, out]
    dtype = torch.from_numpy(np.empty(0, entry.dtype)).dtype
    return StoredTensor(shape, dtype, lambda: entry.read().reshape(shape))


def _tensorflow_name(name: str) -> str:
    """`model/h0/attn/c_attn/w` → `h.0.attn.c_attn.weight`."""
    *path, last = name.removeprefix("model/").split("/")
    last = {"w": "weight", "g": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight"}.get(last, last)
    return re.sub(r"^h(\d+)", r"h.\1", ".".join([*path, last]))


def _same(tensors: dict[str, StoredTensor], first: str, second: str) -> bool:
    return (
        second in tensors
        and tensors[first].shape == tensors[second].shape
        and torch.equal(tensors[first].read(), tensors[second].read())
    )
