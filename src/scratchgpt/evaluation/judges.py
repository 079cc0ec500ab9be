"""Judges by name: a model of one's own or of the Hub, or one behind an address."""

from ..arguments import shortened_path
from ..hub.fingerprints import hash_weights, tokenizer_fingerprint
from ..inference.decoding import load_for_decoding
from .judge import Judge, LocalJudge
from .judge_endpoint import EndpointJudge
from .models import describe_model


def check_judge(judge: str | None, judge_model: str | None) -> None:
    """
    Raises:
        ValueError: unless a judge that is an address, and no other, comes with the name of a model there.
    """
    if (judge is not None and "://" in judge) != (judge_model is not None):
        raise ValueError("--judge_model names the model of a --judge that is an address: give both or neither")


def load_judge(
    judge: str,
    judge_model: str | None = None,
    max_new_tokens: int = 16,
    batch_size: int = 8,
    dtype: str | None = None,
    weight_bits: int | None = None,
    device: str = "cpu",
) -> Judge:
    """
    Args:
        judge: a model directory, Hub name or adapter, or an address.
        judge_model: which of its models, where the judge is an address.
        max_new_tokens: of a reply.
        batch_size: replies at a time.
        dtype, weight_bits, device: as in `load_for_decoding`.

    Raises:
        ValueError: for what is neither; as `EndpointJudge`, `describe_model` and `load_for_decoding`.
    """
    if judge_model is not None:
        return EndpointJudge(judge, judge_model, max_new_tokens, parallel=batch_size)
    describe_model(judge)  # whatever is no language model with a tokenizer
    model, tokenizer = load_for_decoding(judge, dtype=dtype, weight_bits=weight_bits, device=device)
    identity = {
        "name": shortened_path(judge),
        "weights": hash_weights(model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "dtype": str(model.dtype).removeprefix("torch."),
        "weight_bits": weight_bits,
    }
    return LocalJudge(model, tokenizer, identity, max_new_tokens, batch_size)
