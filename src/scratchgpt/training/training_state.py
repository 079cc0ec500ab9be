"""A tree of tensors and numbers on disk, exactly and without pickles.

`<name>.json` is the tree, in which {"$tensor": key} stands for a tensor of `<name>.safetensors`. JSON writes floats
so that they read back as the same float, and integers of any size.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TENSOR = "$tensor"


def save_tree(directory: Path, name: str, tree: Any) -> None:
    """Writes nested dicts (with strings as keys) and lists of tensors, numbers, strings, booleans and None.

    Raises:
        TypeError: for anything else.
    """
    tensors: dict[str, torch.Tensor] = {}

    def flatten(node: Any, path: str) -> Any:
        if isinstance(node, torch.Tensor):
            tensors[path] = node.detach().cpu().contiguous()
            return {TENSOR: path}
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node) or TENSOR in node:
                raise TypeError(f"{path or 'the state'}: keys must be strings, and not {TENSOR}")
            return {key: flatten(value, f"{path}/{key}" if path else key) for key, value in node.items()}
        if isinstance(node, list):
            return [flatten(value, f"{path}/{i}") for i, value in enumerate(node)]
        if node is None or type(node) in (bool, int, float, str):
            return node
        raise TypeError(f"{path or 'the state'} is a {type(node).__name__}, which is not saved")

    text = json.dumps(flatten(tree, ""), indent=1)
    save_file(tensors, directory / f"{name}.safetensors")
    (directory / f"{name}.json").write_text(text, encoding="utf-8")


def load_tree(directory: Path, name: str) -> Any:
    """What `save_tree` was given, with its tensors on the CPU."""
    tensors = load_file(directory / f"{name}.safetensors")

    def restore(node: Any) -> Any:
        if isinstance(node, dict):
            return tensors[node[TENSOR]] if TENSOR in node else {key: restore(value) for key, value in node.items()}
        return [restore(value) for value in node] if isinstance(node, list) else node

    return restore(json.loads((directory / f"{name}.json").read_text(encoding="utf-8")))
