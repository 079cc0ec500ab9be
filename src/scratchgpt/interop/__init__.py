"""Models of other architectures in and out: GPT-2, Qwen3, Llama."""
