"""Training: the loop and its parts. Nothing is imported here, so that `import scratchgpt.training` costs nothing."""
