"""Answers of a trained model: fast decoding, and a conversation within the context."""
