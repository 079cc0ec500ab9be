"""Serve a model over HTTP, with the interface of OpenAI: `transformers serve`, which knows only its own classes.

    python recipes/serve.py runs/demo/chat/final --device cpu --port 8000
    transformers chat runs/demo/chat/final http://localhost:8000/v1          # in another terminal

All options are those of `transformers serve` (`--help`). Needs the extra [serve].
"""

import sys
from typing import Any

import transformers
from transformers.cli.transformers import app

import scratchgpt  # registers configuration and tokenizer

if __name__ == "__main__":
    # It takes the class that config.json names from the module transformers, and from nowhere else.
    module: Any = transformers
    module.ScratchGPTForCausalLM = scratchgpt.ScratchGPTForCausalLM
    sys.argv.insert(1, "serve")
    app()
