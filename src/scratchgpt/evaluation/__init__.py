"""Measuring models: every result comes with the count it was computed on, and rates with a confidence interval."""
