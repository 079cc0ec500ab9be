"""`scratchgpt info` and `scratchgpt verify`: what a directory holds, read from its files; whether they are whole."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import ARGUMENTS_FILE
from scratchgpt.data.builder import MARKER as BUILD
from scratchgpt.hub.fingerprints import BASE_FILE, read_base_reference
from scratchgpt.hub.seals import MANIFEST, SealError, verify_seal
from scratchgpt.training.checkpoints import list_checkpoints
from scratchgpt.training.metrics import read_metrics

SOURCES = {"data": "data", "tokenizer": "tokenizer", "model_name_or_path": "base", "lm_data": "text beside it"}
"""Arguments that say what something was trained on, and how they are called here."""


def describe(directory: Path) -> str:
    """A title, and a line for each thing that the files of `directory` say; of a run, its model too.

    Raises:
        ValueError: for a directory that holds none of what is known here, and for files that cannot be read.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory: give that of a run, model, adapter, tokenizer or data set")
    kinds = {
        "run": any((directory / name).exists() for name in ("metrics.jsonl", "results.json"))
        or bool(list_checkpoints(directory)),
        "adapter": (directory / "adapter_config.json").is_file(),
        "model": (directory / "config.json").is_file(),
        "tokenizer": (directory / "tokenizer.json").is_file(),
        "data set": (directory / BUILD).is_file(),
    }
    kind = next((name for name, found in kinds.items() if found), None)
    if kind is None:
        raise ValueError(f"{directory} holds no run, model, adapter, tokenizer or built data set")
    readers = {"run": of_run, "adapter": of_adapter, "model": of_model, "data set": of_data}
    facts = dict(readers.get(kind, of_tokenizer)(directory))
    if kind not in ("run", "data set"):
        sealed = (directory / MANIFEST).is_file()
        facts |= dict(trained_on(directory))
        facts["seal"] = "there is one: scratchgpt verify checks it" if sealed else "none"
    width = 2 + max(map(len, facts))
    title = f"{directory}: {'an' if kind == 'adapter' else 'a'} {kind}"
    text = "\n".join([title, *(f"  {name + ':':{width}}{value}" for name, value in facts.items())])
    final = directory / "final"
    return f"{text}\n\n{describe(final)}" if kind == "run" and final.is_dir() else text


def of_run(run: Path) -> Iterator[tuple[str, str]]:
    arguments, results = read_yaml(run / ARGUMENTS_FILE), read_json(run / "results.json")
    metrics = read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else []
    checkpoints = list_checkpoints(run)
    wanted = arguments.get("max_steps", "an unknown number of")
    if results and (run / "final").is_dir():
        yield "state", f"finished after {results['steps']} steps"
    else:
        step = metrics[-1]["step"] if metrics else 0
        yield "state", f"not finished: {step} of {wanted} steps (running, or stopped: --resume_from_checkpoint true)"
    if checkpoints:
        yield "checkpoints", ", ".join(str(step) for step, _ in checkpoints)
    if "num_targets" in results:
        yield "trained", f"{results['num_targets']:,} tokens, seed {results['identity']['seed']}"
    measured = results.get(results.get("evaluated_on", "final"), {})
    counts = {name: value for name, value in measured.items() if isinstance(value, int)}
    values = {name: value for name, value in measured.items() if isinstance(value, float)}
    if values:
        words = [f"{name} {value:.4f}" for name, value in values.items()]
        yield "result", ", ".join([*words, *(f"{name} {count:,}" for name, count in counts.items())])


def of_model(model: Path) -> Iterator[tuple[str, str]]:
    try:
        config: Any = AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{model / 'config.json'} cannot be read: {error}") from error
    values = config.to_dict()
    yield "architecture", f"{', '.join(config.architectures or ['not said'])} ({config.model_type})"
    key_value = values.get("num_key_value_heads", config.num_attention_heads)
    yield (
        "shape",
        f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.num_attention_heads} heads "
        f"({key_value} of keys and values), context {config.max_position_embeddings:,}, vocabulary "
        f"{config.vocab_size:,}",
    )
    if config.model_type == "scratchgpt":
        mlp = f"{'gated ' * config.gated_mlp}{config.hidden_act}{', QK-norm' * config.qk_norm}"
        head = "head tied to the embeddings" if config.tie_word_embeddings else "head of its own"
        yield "built of", f"{config.position_embedding_type} positions, {config.norm_type}, {mlp}, {head}"
    if (config.architectures or [""])[0].endswith("Classification"):
        yield "labels", ", ".join(map(str, config.id2label.values()))
    yield "parameters", weights(sorted(model.glob("model*.safetensors")))
    yield from of_tokenizer(model)


def of_adapter(adapter: Path) -> Iterator[tuple[str, str]]:
    config = read_json(adapter / "adapter_config.json")
    yield "kind", f"{config['peft_type']}, rank {config.get('r')}, of a {config.get('task_type')} model"
    yield "parameters", weights(sorted(adapter.glob("adapter_model*.safetensors")))
    if (adapter / BASE_FILE).is_file():
        base = read_base_reference(adapter)
        there = "which is there" if Path(base.base).is_dir() else "which is not there (--base says where it is)"
        yield "base", f"{read_json(adapter / BASE_FILE)['base']} (weights {base.weights_sha256[:12]}…), {there}"
    else:
        yield "base", str(config.get("base_model_name_or_path"))
    yield from of_tokenizer(adapter)


def of_data(directory: Path) -> Iterator[tuple[str, str]]:
    """One data set, or several in subfolders."""
    built = read_json(directory / BUILD)
    for name, one in built.items() if "splits" not in built else [("", built)]:
        splits = [f"{split} {count['rows']:,}" for split, count in one["splits"].items()]
        yield f"rows {name}".strip(), f"{', '.join(splits)} (SHA-256 {one['sha256'][:12]}…)"
        yield "built by", f"{one['builder']}, seed {one['seed']}"


def of_tokenizer(directory: Path) -> Iterator[tuple[str, str]]:
    file = directory / "tokenizer.json"
    if not file.is_file():
        yield "tokenizer", "none"
        return
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{file} cannot be read: {error}") from error
    config = read_json(directory / "tokenizer_config.json")
    template = (directory / "chat_template.jinja").is_file() or "chat_template" in config
    yield (
        "tokenizer",
        f"{type(tokenizer.model).__name__}, {tokenizer.get_vocab_size():,} ids, text ends with "
        f"{config.get('eos_token')}, {'a' if template else 'no'} chat template",
    )


def trained_on(directory: Path) -> Iterator[tuple[str, str]]:
    """As the arguments in the directory, or in that of its run, have it."""
    inside = directory / ARGUMENTS_FILE
    arguments = read_yaml(inside if inside.is_file() else directory.absolute().parent / ARGUMENTS_FILE)
    found = [f"{word} {arguments[name]}" for name, word in SOURCES.items() if arguments.get(name)]
    if found:
        yield "made from", ", ".join(found)


def weights(files: list[Path]) -> str:
    """Number, types and size of what is in them, from their headers."""
    number, types = 0, set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no dict
                    tensor = tensors.get_slice(name)
                    size = 1
                    for length in tensor.get_shape():
                        size *= length
                    number, types = number + size, types | {tensor.get_dtype()}
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    return f"{number:,} ({', '.join(sorted(types))}; {megabytes:,.1f} MB)" if files else "none: no safetensors here"


def read_json(file: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises ValueError where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises ValueError where it cannot be read."""
    try:
        return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.is_file() else {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def verify_sealed(directory: Path) -> bool:
    """Says of everything sealed in `directory` whether it is what was written; returns whether all of it is.

    Raises:
        ValueError: where nothing is sealed.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory: give that of a run, a model or a checkpoint")
    found = {file.parent for file in directory.rglob(MANIFEST) if is_seal(file)}
    # Of a run these are always sealed: without a manifest they were not finished, or lost it.
    found |= {
        path for path in (directory / "final", *(path for _, path in list_checkpoints(directory))) if path.is_dir()
    }
    if not found:
        raise ValueError(f"{directory} holds nothing that was sealed ({MANIFEST}): models, checkpoints and caches are")
    whole = True
    for path in sorted(found):
        try:
            verify_seal(path)
        except SealError as error:
            print(f"DAMAGED  {error}", file=sys.stderr)
            whole = False
        else:
            print(f"whole    {path}")
    return whole


def is_seal(manifest: Path) -> bool:
    """Not of a directory that is being written, and no other file of that name (a data builder's list of sources)."""
    if any(part.startswith(".") and part != ".." for part in manifest.parts):
        return False
    try:
        return not isinstance(json.loads(manifest.read_bytes()), list)
    except ValueError:
        return True  # damaged
