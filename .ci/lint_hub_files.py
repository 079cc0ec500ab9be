"""transformers-mlinter on the Hub files, with the rules that fit a package outside of the transformers repository.

Its command line can add rules to the default ones but leave none out.
"""

import sys
from pathlib import Path

import mlinter

SKIPPED = {
    "TRF027": "an assert here tells the programmer of a broken invariant; users get a ValueError",
    "TRF028": "the licence is one file for the package and a field of the model card, not a header on each file",
    "TRF041": "the notes are to name published checkpoints; our switches are explained in the configuration",
    "TRF053": "the training loss never makes the logits that `loss_function` wants, so it shifts the labels itself",
    "TRF057": "@auto_docstring feeds the transformers website; these docstrings are written",
    "TRF058": "`dynamic_rope_update` replaces these buffers with register_buffer itself",
}


def main() -> int:
    files = list(mlinter.iter_modeling_files(search_paths=[Path("src/scratchgpt")]))
    rules = set(mlinter.DEFAULT_ENABLED_TRF_RULES) - set(SKIPPED)
    found = [v for file in files for v in mlinter.analyze_file(file, file.read_text(encoding="utf-8"), rules)]
    for violation in found:
        print(mlinter.format_violation(violation))
    print(f"transformers-mlinter: {len(files)} files, {len(rules)} rules, {len(found)} violations")
    return int(bool(found) or not files)


if __name__ == "__main__":
    sys.exit(main())
