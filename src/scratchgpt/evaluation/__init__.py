"""Measuring models: what a number means, what it was computed on, and how sure it is."""
