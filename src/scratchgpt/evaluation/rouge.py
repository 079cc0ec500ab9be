"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) as rouge-score computes them with its stemmer, 0 to 1.

rouge-score knows the letters a to z only, and gives 0 for two equal texts in Cyrillic. So where the reference has more
other letters and digits than those it knows, both texts are split into Unicode words instead (one for each Chinese or
Japanese character), and not stemmed. All other answers score exactly as with rouge-score itself.
"""

from collections.abc import Sequence

import numpy as np
import regex

NAMES = ("rouge1", "rouge2", "rougeL")
TOKENS = (
    "stemmer:yes|tok:rouge_score, Unicode words without stemmer where the reference is mostly of other letters than "
    "a to z"
)
"""How the texts are split, for a signature."""

CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}"
WORD = regex.compile(rf"[{CHARACTERS}]|[\p{{L}}\p{{M}}\p{{N}}--[{CHARACTERS}]]+", regex.V1)
KNOWN = regex.compile(r"[a-z0-9]")
UNKNOWN = regex.compile(r"[\p{L}\p{N}--[a-z0-9]]", regex.V1)


def rouge_f1(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """F1 of each answer by ROUGE-1, -2 and -L, [N, 3]."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class UnicodeWords(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return WORD.findall(text.lower())

    plain, unicode = RougeScorer(NAMES, use_stemmer=True), RougeScorer(NAMES, tokenizer=UnicodeWords())
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        found = (unicode if _is_foreign(reference) else plain).score(reference, prediction)
        rows.append([found[name].fmeasure for name in NAMES])
    return np.array(rows, dtype=float)


def _is_foreign(text: str) -> bool:
    lower = text.lower()
    return len(UNKNOWN.findall(lower)) > len(KNOWN.findall(lower))
