"""The ONNX file written piece by piece, read back by the onnx library."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.containers.onnx import serialization
from exporters.containers.onnx.nodes import OnnxGraph, make_node


def _graph(channels=3, dtype=np.float32):
    kernel = np.arange(channels * 5 * 2 * 2).reshape(2, 2, 5, channels).astype(dtype)
    weights = {
        "kernel": kernel.transpose(3, 2, 0, 1),
        "bias": np.arange(channels).astype(dtype),
    }
    nodes = [
        make_node("Conv", ["images", "kernel", "bias"], "value", strides=[2, 2]),
        make_node("Relu", ["value"], "out"),
    ]
    return OnnxGraph(nodes, weights, {"out": "out"})


def test_file_is_what_the_library_would_write(tmp_path):
    path = tmp_path / "a.onnx"
    serialization.write(_graph(), path, image_shape=("batch", 5, 8, "width"))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert path.stat().st_size == len(model.SerializeToString())
    onnx.save(model, tmp_path / "b.onnx")
    assert onnx.load(tmp_path / "b.onnx") == model


# Lengths around which protobuf's varints grow by a byte.
@pytest.mark.parametrize("channels", [1, 6, 7, 200, 820, 100_000])
def test_weights_are_read_back(tmp_path, channels):
    graph = _graph(channels)
    serialization.write(graph, tmp_path / "a.onnx", image_shape=("batch", 5, 8, 8))
    initializers = onnx.load(tmp_path / "a.onnx").graph.initializer
    assert [tensor.name for tensor in initializers] == list(graph.weights)
    for tensor in initializers:
        np.testing.assert_array_equal(
            numpy_helper.to_array(tensor), graph.weights[tensor.name]
        )


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.int32])
def test_weights_keep_their_type(tmp_path, dtype):
    weights = {"a": np.array(3, dtype), "b": np.zeros((0, 2), dtype)}
    graph = OnnxGraph([make_node("Relu", ["images"], "out")], weights, {"out": "out"})
    serialization.write(graph, tmp_path / "a.onnx", image_shape=("batch",))
    found = map(numpy_helper.to_array, onnx.load(tmp_path / "a.onnx").graph.initializer)
    for array, expected in zip(found, weights.values()):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


def test_header_says_what_is_asked(tmp_path):
    metadata = {"key": "value", "labels": "a\nb, c\nä"}
    serialization.write(
        _graph(),
        tmp_path / "a.onnx",
        image_shape=("batch", 5, 8, "width"),
        metadata=metadata,
    )
    model = onnx.load(tmp_path / "a.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == metadata
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    (image,) = model.graph.input
    dims = image.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 5, 8, "width"]
    (output,) = model.graph.output
    dims = output.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims[:3]] == ["batch", 3, 4]


def test_same_graph_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        serialization.write(_graph(), tmp_path / name, image_shape=("batch", 5, 8, 8))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
