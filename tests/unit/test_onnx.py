"""ONNX: what is refused, and how a graph is quantised. tests/contracts/test_onnx.py exports models."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.interop import onnx as our_onnx
from scratchgpt.interop.onnx import cache_shape, check_onnx, quantize_onnx, to_onnx_family


def build(preset: str, **overrides) -> ScratchGPTForCausalLM:
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return ScratchGPTForCausalLM(ScratchGPTConfig.from_preset(preset, **{**shape, **overrides})).eval()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r'needs the package onnx: pip install "scratchgpt\[onnx\]"'):
        check_onnx()


def test_what_onnx_cannot_express() -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(ValueError, match="because of rope_type=dynamic"):
        to_onnx_family(build("modern", rope_parameters=dynamic))
    with pytest.raises(ValueError, match="norm_type=rmsnorm"):
        to_onnx_family(build("gpt2", norm_type="rmsnorm"))


def test_a_model_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("modern")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(our_onnx, "LARGEST", 2 * size)
    assert to_onnx_family(model.half()).dtype == torch.float32
    monkeypatch.setattr(our_onnx, "LARGEST", size)
    with pytest.raises(ValueError, match="holds 2 GB"):
        to_onnx_family(model)


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [("gpt2", {}, (2, 4, 8)), ("modern", {"num_key_value_heads": 2, "head_dim": 16}, (2, 2, 16))],
)
def test_shape_of_the_cache(preset: str, overrides: dict, expected: tuple[int, int, int]) -> None:
    assert cache_shape(to_onnx_family(build(preset, **overrides)).config) == expected


def test_a_tied_head_is_quantised_too(tmp_path: Path) -> None:
    """Embeddings [V, D], read by id and, transposed, as the head: one scale for those, one a column for this."""
    onnx = pytest.importorskip("onnx", reason="no onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime")
    make = onnx.helper
    weight = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    weight[7] *= 100  # of which one scale for all columns would leave nothing of the others
    nodes = [
        make.make_node("Gather", ["table", "ids"], ["hidden"]),
        make.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
        make.make_node("MatMul", ["hidden", "head"], ["logits"]),
    ]
    ids = make.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["T"])
    logits = make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["T", 50])
    table = onnx.numpy_helper.from_array(weight, "table")
    graph = make.make_graph(nodes, "tied", [ids], [logits], [table])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10), tmp_path / "a.onnx")
    quantize_onnx(tmp_path / "a.onnx", tmp_path / "b.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node]
    assert "MatMulInteger" in kinds
    assert not {"MatMul", "Transpose"} & {*kinds}
    stored = {each.name: each for each in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert stored["head_quantized"].data_type == stored["table_quantized"].data_type == onnx.TensorProto.UINT8
    assert list(stored["head_scale"].dims) == [50]
    run = onnxruntime.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"]).run
    (found,) = run(None, {"ids": np.array([7])})
    expected = weight[7] @ weight.T
    np.testing.assert_allclose(found[0], expected, atol=0.02 * np.abs(np.delete(expected, 7)).max(), rtol=0.02)
