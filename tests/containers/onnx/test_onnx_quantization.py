"""A quantized network as ONNX nodes, as ONNX Runtime sees it."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import small_networks

from exporters import calibration
from exporters.containers.onnx import nodes, quantization, sections, serialization
from exporters.containers.onnx.nodes import OnnxGraph
from exporters.network.layers import Add, transpose
from exporters.network.quantization import Precision, QuantizedNetwork, quantize_network

NETWORK = small_networks.BLOCK.up_to(["Logits"])
WEIGHTS = small_networks.weights(NETWORK)
# As in the format: the first layer and the head stay in float.
PRECISION = Precision(
    "int8",
    "int8",
    in_float=("Conv2d_1a_3x3", "global_pool", "PreLogitsFlatten", "Logits"),
)
ROUNDED = ("left/Relu", "right/Relu", "up")


def _graph() -> OnnxGraph:
    return nodes.select(nodes.convert(NETWORK, WEIGHTS), {"result": "Logits"})


def _open(graph, path, **options) -> onnxruntime.InferenceSession:
    image_shape = ("batch", *small_networks.SIZE, 3)
    serialization.write(graph, path, image_shape=image_shape)
    onnx.checker.check_model(str(path), full_check=True)
    session_options = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(session_options, name, value)
    return onnxruntime.InferenceSession(str(path), session_options)


@pytest.fixture(scope="module")
def network() -> QuantizedNetwork:
    statistics = calibration.measure(NETWORK, WEIGHTS, small_networks.images(8))
    return quantize_network(NETWORK, WEIGHTS, statistics, PRECISION)


@pytest.fixture(scope="module")
def quantized(network) -> OnnxGraph:
    return quantization.quantize(_graph(), network.activations, network.weights)


def test_outputs_stay_close_and_float32(quantized, tmp_path):
    session = _open(quantized, tmp_path / "rounded.onnx")
    images = small_networks.images(4, seed=1)
    (found,) = session.run(["result"], {"images": images})
    expected = small_networks.run(NETWORK, WEIGHTS, images)["head/logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    assert not np.array_equal(found, expected)


def test_onnx_runtime_finds_integer_kernels_for_all_but_the_ends(quantized, tmp_path):
    optimized = tmp_path / "optimized.onnx"
    _open(quantized, tmp_path / "a.onnx", optimized_model_filepath=str(optimized))
    ops = [node.op_type for node in onnx.load(optimized).graph.node]
    counts = collections.Counter(ops)
    assert counts["QLinearConv"] == 3
    assert counts["QLinearConcat"] == counts["QLinearAdd"] == 1
    assert counts["QLinearAveragePool"] == 1
    assert counts["Conv"] + counts["FusedConv"] == 1
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 1
    assert not counts["Relu"]


def test_weights_are_those_of_the_quantized_network(quantized, network):
    for name in ROUNDED:
        scope = f"scope/{name}"
        expected = network.weights[scope]
        kernel = transpose(quantized.weights[f"{scope}/weights"], "OIHW", "HWIO")
        np.testing.assert_array_equal(kernel, expected.kernel.values)
        bias = quantized.weights[f"{scope}/biases"]
        np.testing.assert_array_equal(bias, expected.bias.values)
        for part, integers in (("weights", expected.kernel), ("biases", expected.bias)):
            found = quantized.weights[f"{scope}/{part}/scale"]
            np.testing.assert_array_equal(found, integers.quantization.scale)
            assert not quantized.weights[f"{scope}/{part}/zero_point"].any()


def test_layers_in_float_keep_their_weights(quantized):
    for layer in NETWORK.weighted:
        if layer.name not in ROUNDED:
            weights = _graph().weights
            for name in (f"{layer.scope}/weights", f"{layer.scope}/biases"):
                np.testing.assert_array_equal(quantized.weights[name], weights[name])


def test_activations_are_uint8_of_the_same_values(quantized, network):
    assert network.activations.keys() == {
        "first/Relu",
        "max",
        "left/Relu",
        "average",
        "right/Relu",
        "joined",
        "up",
        "sum/Relu",
    }
    for name, rounding in network.activations.items():
        zero_point = quantized.weights[f"{name}/zero_point"]
        assert zero_point.dtype == np.uint8
        assert zero_point.shape == ()
        assert int(zero_point) == rounding.zero_point + 128
        assert quantized.weights[f"{name}/scale"] == rounding.scale[0]


def test_rectified_values_use_all_integers(quantized):
    for name in ("first/Relu", "left/Relu", "sum/Relu"):
        assert quantized.weights[f"{name}/zero_point"] == 0
    assert 0 < quantized.weights["up/zero_point"] < 255


def test_each_value_is_rounded_as_the_quantized_network_says(
    quantized, network, tmp_path
):
    """What comes out of a layer, on the integers' grid, is within a step of float's."""
    shown = [f"{name}/dequantized" for name in network.activations]
    graph = OnnxGraph(quantized.nodes, quantized.weights, dict(zip(shown, shown)))
    session = _open(graph, tmp_path / "shown.onnx")
    images = small_networks.images(2)  # Of those that gave the ranges.
    found = session.run(shown, {"images": images})
    expected = small_networks.run(NETWORK, WEIGHTS, images)
    for (name, rounding), values in zip(network.activations.items(), found):
        steps = values / rounding.scale[0]
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        error = np.abs(transpose(values, "NCHW", "NHWC") - expected[name])
        assert error.max() <= 4 * rounding.scale[0], name


def test_dead_layers_and_channels_compute(tmp_path):
    weights = small_networks.weights(NETWORK)
    weights["scope/left/Relu"].kernel[..., :2] = 0
    weights["scope/left/Relu"].kernel[..., 2] = 1e-30
    weights["scope/left/Relu"].bias[:] = [0, 3, 0, 0, 0, 0, 0, 0]
    weights["scope/right/Relu"].kernel[:] = 0
    weights["scope/right/Relu"].bias[:] = -1
    images = small_networks.images(4)
    statistics = calibration.measure(NETWORK, weights, images)
    assert statistics.ranges["right/Relu"] == (0, 0)
    found = quantize_network(NETWORK, weights, statistics, PRECISION)
    graph = nodes.select(nodes.convert(NETWORK, weights), {"result": "Logits"})
    graph = quantization.quantize(graph, found.activations, found.weights)
    session = _open(graph, tmp_path / "dead.onnx")
    (result,) = session.run(["result"], {"images": images})
    expected = small_networks.run(NETWORK, weights, images)["head/logits"]
    np.testing.assert_allclose(result, expected, atol=0.03 * np.abs(expected).max())


# Sums in float, as in the last blocks of the format

SUMS = small_networks.network(
    small_networks.conv("first/Relu", "in", relu=True),
    small_networks.conv("one", "first/Relu"),
    Add("sum1/Relu", ("first/Relu", "one"), relu=True),
    small_networks.conv("two", "sum1/Relu"),
    Add("sum2", ("sum1/Relu", "two"), relu=False),
    small_networks.conv("last", "sum2"),
)


@pytest.fixture(scope="module")
def sums() -> dict[bool, OnnxGraph]:
    """Whether sums are in float -> the graph."""
    weights = small_networks.weights(SUMS)
    statistics = calibration.measure(SUMS, weights, small_networks.images(8))
    graphs = {}
    for in_float in (False, True):
        precision = Precision("int8", "int8", float_sums=("sum1", "sum2") * in_float)
        found = quantize_network(SUMS, weights, statistics, precision)
        graph = nodes.select(nodes.convert(SUMS, weights), {"result": "out"})
        graphs[in_float] = quantization.quantize(
            graph, found.activations, found.weights, precision.float_layers(SUMS)
        )
    return graphs


def test_sums_read_each_other_as_they_are(sums):
    by_layer = {}
    for node in sums[True].nodes:
        if layer := sums[True].layer_of.get(node.name):
            by_layer.setdefault(layer, list(node.input))
    # What is computed in integers is read as such, and computes with integers alone.
    assert by_layer["sum1/Relu"] == ["first/Relu/dequantized", "one/dequantized"]
    assert by_layer["two"][0] == "sum1/Relu/dequantized"
    assert by_layer["sum2"] == ["sum1/Relu", "two/dequantized"]
    assert by_layer["last"][0] == "sum2/dequantized"


def test_sums_in_float_are_nearer(sums, tmp_path):
    images = small_networks.images(16, seed=1)
    expected = small_networks.run(SUMS, small_networks.weights(SUMS), images)["last"]
    errors = []
    for in_float, graph in sums.items():
        session = _open(graph, tmp_path / f"{in_float}.onnx")
        (found,) = session.run(["result"], {"images": images})
        errors.append(np.square(found - expected).mean())
    assert errors[1] < errors[0]


def test_a_file_is_cut_behind_sums_in_float(sums, tmp_path):
    _open(sums[True], tmp_path / "a.onnx")
    images = small_networks.images(2)
    found = sections.cut(
        tmp_path / "a.onnx", ["one", "sum1/Relu", "two", "sum2"], lambda given: given
    )
    assert found.layers == ("one", "sum1/Relu", "two", "sum2")
    through = found.through(images)
    # Not rounded, as it is read by the next sum.
    steps = through["sum1/Relu"] / sums[True].weights["sum1/Relu/scale"]
    assert np.abs(steps - np.rint(steps)).max() > 0.1
    apart = found.apart(images, through)
    for layer, values in through.items():
        np.testing.assert_allclose(apart[layer], values, rtol=1e-6, atol=1e-6)
    nothing = {**through, "sum1/Relu": np.zeros_like(through["sum1/Relu"])}
    apart = found.apart(images, nothing)
    step = sums[True].weights["sum2/scale"]
    np.testing.assert_allclose(apart["sum2"], nothing["two"], atol=0.51 * step)
