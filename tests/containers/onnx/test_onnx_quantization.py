"""Quantization of small ONNX graphs, as ONNX Runtime sees them."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.containers.onnx import quantization, serialization
from exporters.containers.onnx.nodes import OnnxGraph, make_node

SHAPE = ("batch", 8, 12, 12)
PADDED = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _network() -> OnnxGraph:
    """A residual block with both poolings, between float ends."""
    random = np.random.default_rng(0)
    weights = {}

    def convolve(value, scope, channels_in, channels_out, size):
        kernel = random.normal(size=(channels_out, channels_in, size, size))
        weights[f"{scope}/weights"] = (kernel / size / channels_in**0.5).astype("f")
        weights[f"{scope}/biases"] = random.normal(size=channels_out).astype("f") / 9
        pads = [size // 2] * 4
        inputs = [value, f"{scope}/weights", f"{scope}/biases"]
        return make_node("Conv", inputs, scope, pads=pads)

    nodes = [
        convolve("images", "first", 8, 16, 3),
        make_node("Relu", ["first"], "x"),
        make_node("MaxPool", ["x"], "max", **PADDED),
        convolve("max", "left", 16, 8, 1),
        make_node("Relu", ["left"], "left/Relu"),
        make_node("AveragePool", ["x"], "mean", **PADDED),
        convolve("mean", "right", 16, 4, 3),
        make_node("Relu", ["right"], "right/Relu"),
        make_node("Concat", ["left/Relu", "right/Relu"], "concat", axis=1),
        convolve("concat", "up", 12, 16, 1),
        make_node("Add", ["x", "up"], "add"),
        make_node("Relu", ["add"], "y"),
        make_node("GlobalAveragePool", ["y"], "global"),
        make_node("Flatten", ["global"], "out"),
    ]
    return OnnxGraph(nodes, weights, {"out": "out"})


def _images(count, seed=0):
    images = np.random.default_rng(seed).normal(size=(count, *SHAPE[1:]))
    return images.astype(np.float32)


def _open(graph, path, **options) -> onnxruntime.InferenceSession:
    serialization.write(graph, path, image_shape=SHAPE)
    onnx.checker.check_model(str(path), full_check=True)
    session_options = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(session_options, name, value)
    return onnxruntime.InferenceSession(str(path), session_options)


@pytest.fixture(scope="module")
def quantized() -> OnnxGraph:
    graph = _network()
    ranges = quantization.measure_ranges(graph, _images(4))
    return quantization.quantize(graph, ranges)


def _dequantized(graph: OnnxGraph, name: str) -> np.ndarray:
    array = graph.weights[name]
    scale = graph.weights[f"{name}/scale"].reshape(-1, *[1] * (array.ndim - 1))
    return array * scale


def test_outputs_stay_close_and_float32(quantized, tmp_path):
    exact = _open(_network(), tmp_path / "exact.onnx")
    rounded = _open(quantized, tmp_path / "rounded.onnx")
    images = {"images": _images(16, seed=1)}
    (expected,), (found,) = exact.run(None, images), rounded.run(None, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert not np.array_equal(found, expected)


def test_onnx_runtime_finds_integer_kernels_for_all_but_the_ends(quantized, tmp_path):
    optimized = tmp_path / "optimized.onnx"
    _open(quantized, tmp_path / "a.onnx", optimized_model_filepath=str(optimized))
    nodes = onnx.load(optimized).graph.node
    counts = collections.Counter(node.op_type for node in nodes)
    assert counts["QLinearConv"] == 3
    assert counts["QLinearConcat"] == counts["QLinearAdd"] == 1
    assert counts["QLinearAveragePool"] == 1
    assert counts["Conv"] + counts["FusedConv"] == 1
    assert counts["QuantizeLinear"] == 1
    assert not counts["Relu"]


def test_weights_are_rounded_to_the_nearest_step(quantized):
    original = _network().weights
    for scope in ("left", "right", "up"):
        kernel, bias = f"{scope}/weights", f"{scope}/biases"
        assert quantized.weights[kernel].dtype == np.int8
        assert quantized.weights[bias].dtype == np.int32
        for name in (kernel, bias):
            scale = quantized.weights[f"{name}/scale"]
            error = np.abs(_dequantized(quantized, name) - original[name])
            largest = error.reshape(len(scale), -1).max(axis=1)
            assert (largest <= 0.5001 * scale).all()
        largest = np.abs(quantized.weights[kernel].reshape(len(scale), -1)).max(axis=1)
        assert (largest == 127).all()
    np.testing.assert_array_equal(
        quantized.weights["first/weights"], original["first/weights"]
    )


def test_bias_scale_is_that_of_the_products(quantized):
    product = quantized.weights["max/scale"] * quantized.weights["left/weights/scale"]
    np.testing.assert_array_equal(quantized.weights["left/biases/scale"], product)


def test_pooling_and_concatenation_pass_integers_on(quantized):
    for alike in (("x", "max"), ("left/Relu", "right/Relu", "concat")):
        assert len({float(quantized.weights[f"{name}/scale"]) for name in alike}) == 1
        assert (
            len({int(quantized.weights[f"{name}/zero_point"]) for name in alike}) == 1
        )


def test_rectified_values_use_all_integers(quantized):
    for name in ("x", "left/Relu", "y"):
        assert quantized.weights[f"{name}/zero_point"] == 0
    assert 0 < quantized.weights["up/zero_point"] < 255


def test_ranges_are_extremes_over_all_images_and_hold_zero():
    graph = _network()
    images = _images(3)
    ranges = quantization.measure_ranges(graph, images)
    singles = [quantization.measure_ranges(graph, image[None]) for image in images]
    for name, (lowest, highest) in ranges.items():
        assert lowest == min(single[name][0] for single in singles) <= 0
        assert highest == max(single[name][1] for single in singles) >= 0
    assert set(ranges) == {"x", "left/Relu", "mean", "right/Relu", "up", "y"}


def test_degenerate_channels_and_values(tmp_path):
    """A dead channel, a bias that dwarfs its kernel, and a value that is always 0."""
    graph = _network()
    graph.weights["left/weights"][0] = 0
    graph.weights["left/weights"][1] = 1e-20
    graph.weights["left/biases"][:2] = 0, 3
    graph.weights["right/weights"][:] = 0
    graph.weights["right/biases"][:] = -1
    ranges = quantization.measure_ranges(graph, _images(2))
    ranges["right/Relu"] = ranges["mean"] = (0.0, 0.0)
    quantized = quantization.quantize(graph, ranges)
    for name in ("left/weights", "left/biases", "right/biases"):
        value, rounded = graph.weights[name], _dequantized(quantized, name)
        np.testing.assert_allclose(rounded, value, atol=0.02)
    assert not quantized.weights["left/weights"][0].any()
    session = _open(quantized, tmp_path / "a.onnx")
    assert np.isfinite(session.run(None, {"images": _images(2)})[0]).all()
