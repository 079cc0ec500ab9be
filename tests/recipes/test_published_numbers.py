"""What runs publish besides losses: speed, use of the processor, counts and memory, with a clock that stands still.

Every reading of the clock is one second after the one before, so that a step, which reads it at its beginning and at
its end, takes one second.
"""

import itertools
import json
import time
from pathlib import Path

import pytest

from recipes import finetune_classifier
from tests.runs import make_workplace, metrics, results, run_here

PRODUCT = 2 * 1024**3
"""Operations of the matrix product that peak speed is measured by; it takes a second too."""


@pytest.fixture
def _ticking_clock(monkeypatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))


@pytest.mark.usefixtures("_ticking_clock")
def test_a_language_model(tmp_path: Path) -> None:
    output = run_here(
        make_workplace(tmp_path), "run", max_steps=4, logging_steps=2, gradient_accumulation_steps=2,
        per_device_train_batch_size=3, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=320,
        num_key_value_heads=2,
    )  # fmt: skip
    found, lines = results(output), metrics(output)
    # Two layers of width 32: queries and output, keys and values of two heads of 8, three matrices of the MLP (128),
    # two norms, and norms of queries and keys; then the last norm and the table of the tokens, which is the head too.
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 128 + 2 * 32 + 2 * 8
    assert found["num_parameters"] == 2 * layer + 32 + 320 * 32
    assert found["num_targets"] == 4 * 2 * 3 * 32
    assert [line["num_targets"] for line in lines] == [2 * 192, 4 * 192]
    assert [line["tokens_per_second"] for line in lines] == [2 * 3 * 32] * 2
    flops = 6 * found["num_parameters"] + 6 * 2 * 4 * 8 * 32
    assert [line["mfu"] for line in lines] == [round(2 * 3 * 32 * flops / PRODUCT, 4)] * 2
    assert lines[0]["mfu"] > 0.01
    assert all(100 < line["peak_memory_mb"] < 100_000 for line in lines)


@pytest.mark.usefixtures("_ticking_clock")
def test_a_classifier(tmp_path: Path) -> None:
    """Padding is not counted: texts of 3 and of 9 tokens, in batches of two."""
    workplace = make_workplace(tmp_path)
    base = run_here(workplace, "base", max_steps=1) / "final"
    rows = [
        f"{'long' if i % 2 else 'short'},{chr(97 + i % 26)}{'xyz'[i // 26]}{'!?' * 3 * (i % 2)}" for i in range(40)
    ]
    (tmp_path / "data.csv").write_text("\n".join(["label,text", *rows]))
    finetune_classifier.main([
        f"--data={tmp_path / 'data.csv'}", f"--eval_data={tmp_path / 'data.csv'}", "--baselines=none",
        f"--model_name_or_path={base}", f"--output_dir={tmp_path / 'run'}", "--tuning=frozen", "--max_steps=20",
        "--logging_steps=20", "--per_device_train_batch_size=2", "--mixed_precision=no",
    ])  # fmt: skip
    found, (line,) = results(tmp_path / "run"), metrics(tmp_path / "run")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    num_tokens = sum(len(tokenizer(row.split(",")[1])["input_ids"]) for row in rows)  # one pass over all texts
    assert line["tokens_per_second"] == round(num_tokens / 20, 1)
    assert found["num_targets"] == 40
    assert found["num_trained_parameters"] == 2 * 32  # the head alone: two labels
    assert found["num_parameters"] == json.loads((base.parent / "results.json").read_text())["num_parameters"] + 64
    assert found["validation"]["num_texts"] == 40
