"""Draws the pictures of docs/from_paper_to_code.md: `python .ci/walk_pictures.py runs/demo/base/final`."""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.inspection import (
    ablation,
    attention,
    depth_norms,
    logit_lens,
    next_token,
    size,
    surprise,
    tokenizations,
)

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
TEXT = "Return the value of the attribute. If there is no such attribute, raise AttributeError."

if __name__ == "__main__":
    model, tokenizer = (each.from_pretrained(sys.argv[1]) for each in (AutoModelForCausalLM, AutoTokenizer))
    pictures = {
        "tokens": tokenizations({"the demo's tokenizer": tokenizer}, TEXT),
        "norms": depth_norms(model, tokenizer, TEXT),
        "attention": attention(model, tokenizer, TEXT, layer=3),
        "ablation": ablation(model, tokenizer, TEXT),
        "size": size(model),
        "lens": logit_lens(model, tokenizer, TEXT),
        "surprise": surprise(model, tokenizer, TEXT),
        "next": next_token(model, tokenizer, "Return the", (0.5, 1.0, 1.5)),
    }
    for name, found in pictures.items():
        found.figure().savefig(IMAGES / f"walk_{name}.png", dpi=80)
