"""Metrics that compare answers with references: each a thin `evaluate.Metric` over the library that is known for it.

    from scratchgpt.evaluation.metrics.bleu import Bleu
    Bleu(keep_in_memory=True).compute(predictions=["a cat"], references=["the cat"])

or `evaluate.load("…/metrics/bleu.py")`, which is why they import each other by full names. They need the extra [eval].
"""
