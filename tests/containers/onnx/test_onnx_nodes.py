"""ONNX nodes of networks of one or two layers, compared with TensorFlow's own ops."""

import numpy as np
import onnx
import onnxruntime
import pytest
import small_networks
from small_networks import conv, network

from exporters.containers.onnx import nodes, serialization
from exporters.errors import ExportError
from exporters.network.folding import Weights
from exporters.network.layers import Pool, transpose

NETWORKS = small_networks.ONE_OR_TWO_LAYERS
BLOCK = small_networks.BLOCK


def _convert(network, **options) -> nodes.OnnxGraph:
    return nodes.convert(network, small_networks.weights(network), **options)


def _select(network, **options) -> nodes.OnnxGraph:
    return nodes.select(_convert(network, **options), {"result": "out"})


def _open(graph, path, shape=("batch", "height", "width", 3)):
    serialization.write(graph, path, image_shape=shape)
    onnx.checker.check_model(str(path), full_check=True)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _expected(network) -> np.ndarray:
    weights = small_networks.weights(network)
    values = small_networks.run(network, weights, small_networks.images())
    return values[network.endpoints["out"]]


def _op_types(graph: nodes.OnnxGraph) -> list[str]:
    return [node.op_type for node in graph.nodes]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_computes_the_same(name, tmp_path):
    session = _open(_select(NETWORKS[name]), tmp_path / "network.onnx")
    (found,) = session.run(["result"], {"images": small_networks.images()})
    expected = _expected(NETWORKS[name])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["convolution, SAME", "concatenation", "classifier"])
def test_input_can_be_nchw(name, tmp_path):
    converted = _select(NETWORKS[name], nchw=True)
    shape = ("batch", 3, "height", "width")
    session = _open(converted, tmp_path / "network.onnx", shape)
    images = transpose(small_networks.images(), "NHWC", "NCHW")
    (found,) = session.run(["result"], {"images": images})
    np.testing.assert_allclose(found, _expected(NETWORKS[name]), atol=1e-5)
    assert converted.nodes[0].op_type != "Transpose"


def test_bias_belongs_to_the_convolution_and_the_classifier():
    convolution = _convert(NETWORKS["convolution, rectified"])
    assert _op_types(convolution) == ["Transpose", "Conv", "Relu"]
    classifier = _convert(NETWORKS["classifier"])
    assert _op_types(classifier) == [
        "Transpose",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]


def test_weights_are_named_after_their_scope():
    small = NETWORKS["convolution, SAME, 5 x 3"]
    graph = _convert(small)
    assert list(graph.weights) == ["scope/a/weights", "scope/a/biases"]
    expected = small_networks.weights(small)["scope/a"]
    kernel = transpose(graph.weights["scope/a/weights"], "OIHW", "HWIO")
    np.testing.assert_array_equal(kernel, expected.kernel)
    np.testing.assert_array_equal(graph.weights["scope/a/biases"], expected.bias)


def test_each_node_knows_its_layer():
    graph = _convert(BLOCK)
    of = {node.name: graph.layer_of.get(node.name) for node in graph.nodes}
    assert of["first/BatchNorm/FusedBatchNormV3"] == of["first/Relu"] == "first/Relu"
    assert of["sum/add"] == of["sum/Relu"] == "sum/Relu"
    assert {layer.name for layer in BLOCK.layers} == set(of.values()) - {None}


@pytest.mark.parametrize(
    "layer, found",
    [
        (conv("a", "in", stride=2), "a has padding SAME, window 3 x 3 and stride 2"),
        (conv("a", "in", window=(3, 4)), "window 3 x 4 and stride 1"),
        (Pool("a", "in", "max", (2, 2), 1, "SAME"), "window 2 x 2 and stride 1"),
    ],
)
def test_padding_that_depends_on_the_image_size_is_refused(layer, found):
    with pytest.raises(ValueError, match=found):
        _convert(network(layer))


def test_select_keeps_only_what_the_outputs_need():
    small = network(
        conv("a/Relu", "in", relu=True),
        Pool("b", "a/Relu", "max", (3, 3), 1, "VALID"),
        conv("c", "in"),
        first="a/Relu",
        second="b",
    )
    converted = _convert(small)
    one = nodes.select(converted, {"x": "first"})
    assert _op_types(one) == ["Transpose", "Conv", "Relu", "Transpose"]
    assert list(one.weights) == ["scope/a/Relu/weights", "scope/a/Relu/biases"]
    assert list(one.outputs) == ["x"]
    both = nodes.select(converted, {"x": "first", "y": "second", "z": "second"})
    assert _op_types(both).count("Conv") == 1
    assert list(both.outputs) == ["x", "y", "z"]
    assert not nodes.select(_convert(NETWORKS["global mean"]), {"x": "out"}).weights


# float16


def _half(network, in_float=()) -> nodes.OnnxGraph:
    return nodes.to_float16(_select(network), in_float)


def test_float16_computes_in_half_precision_between_float32(tmp_path):
    half = _half(NETWORKS["classifier"])
    session = _open(half, tmp_path / "network.onnx")
    ends = session.get_inputs() + session.get_outputs()
    assert [end.type for end in ends] == ["tensor(float)"] * 2
    assert {array.dtype for array in half.weights.values()} == {np.dtype(np.float16)}
    assert _op_types(half).count("Cast") == 2
    (found,) = session.run(["result"], {"images": small_networks.images()})
    expected = _expected(NETWORKS["classifier"])
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert not np.array_equal(found, expected)


def test_float16_leaves_some_layers_and_the_ends_alone(tmp_path):
    small = network(
        conv("a/Relu", "in", relu=True, padding="VALID"),
        Pool("b", "a/Relu", "max", (3, 3), 1, "VALID"),
    )
    half = _half(small, ["a/Relu"])
    assert _op_types(half) == [
        "Transpose",
        "Conv",
        "Relu",
        "Cast",
        "MaxPool",
        "Cast",
        "Transpose",
    ]
    assert {array.dtype for array in half.weights.values()} == {np.dtype(np.float32)}
    session = _open(half, tmp_path / "network.onnx")
    (found,) = session.run(["result"], {"images": small_networks.images()})
    np.testing.assert_allclose(found, _expected(small), atol=5e-3)


@pytest.mark.parametrize("place", ["kernel", "bias"])
def test_weights_too_large_for_float16_are_refused_by_name(place):
    small = NETWORKS["convolution, SAME"]
    weights = small_networks.weights(small)["scope/a"]
    getattr(weights, place).flat[3] = -1e5
    with pytest.raises(ExportError, match=r"scope/a/.* 100000: too much for float16"):
        nodes.to_float16(nodes.convert(small, {"scope/a": weights}))


def test_the_largest_number_of_float16_is_not_too_large():
    small = NETWORKS["convolution, SAME"]
    kernel = np.full((3, 3, 3, 5), 65504, np.float32)
    weights = {"scope/a": Weights(kernel, np.zeros(5, np.float32))}
    half = nodes.to_float16(nodes.convert(small, weights)).weights["scope/a/weights"]
    assert np.isfinite(half).all()
