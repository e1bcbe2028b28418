"""Static int8 quantization of an ONNX graph, for runtimes with integer kernels.

The result is in QuantizeLinear/DequantizeLinear form: float nodes between rounded
values, for which ONNX Runtime, among others, puts integer kernels. Activations are
uint8 with one scale each, kernels int8 with one scale per output channel, biases int32.
See Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2017, https://arxiv.org/abs/1712.05877.

The first four convolutions and the classifier stay float32, 3 % of the weights. Images
are smooth and the first kernels look for differences between neighbouring pixels, so
rounding there makes up the larger part of the error of a network quantized throughout.

x86 processors without VNNI (before 2019) add pairs of uint8 x int8 products in
saturating int16 arithmetic, and lose some accuracy where both factors are large.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path

import numpy as np

from exporters.containers.onnx import serialization
from exporters.containers.onnx.nodes import INPUT, OnnxGraph, make_node, with_inputs

FLOAT_LAYERS = tuple(
    f"InceptionResnetV2/InceptionResnetV2/{layer}/"
    for layer in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
)
"""Layers with a float32 output; the convolution after the last is float32 as well."""

_ROUNDED = frozenset({"Add", "AveragePool", "Conv", "Relu"})
_PASSING_INTEGERS = frozenset({"Concat", "MaxPool"})
_IMAGES_AT_ONCE = 2
_LARGEST_ACTIVATION = 255
_LARGEST_WEIGHT = 127
_LARGEST_BIAS = 2.0**30


def measure_ranges(
    graph: OnnxGraph, images: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Runs a graph on images to see within which bounds its values lie.

    Bounds inside the extremes, such as percentiles, were tried: they are somewhat
    better on average, and worse on images with more contrast than those given.

    Args:
      graph: a graph that is not quantized.
      images: as the graph's input takes them, at least one.

    Returns:
      Value name -> (lowest, highest) element, or zero if that is beyond, for the values
      that `quantize` should round.
    """
    import onnxruntime

    before_relu = {node.input[0] for node in graph.nodes if node.op_type == "Relu"}
    values = [
        node.name
        for node in graph.nodes
        if node.op_type in _ROUNDED
        and node.name not in before_relu
        and not node.name.startswith(FLOAT_LAYERS)
    ]
    extremes = [
        make_node(op_type, [name], f"{name}/{op_type}", keepdims=0)
        for op_type in ("ReduceMin", "ReduceMax")
        for name in values
    ]
    measuring = OnnxGraph(
        [*graph.nodes, *extremes],
        graph.weights,
        {node.name: node.name for node in extremes},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Else the last bits depend on how many there are.
    with tempfile.TemporaryDirectory(prefix="irv2-") as directory:
        path = Path(directory) / "measuring.onnx"
        serialization.write(measuring, path, image_shape=["batch", *images.shape[1:]])
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    with futures.ThreadPoolExecutor(_IMAGES_AT_ONCE) as pool:
        feeds = ({INPUT: image[np.newaxis]} for image in images)
        found = np.array(list(pool.map(lambda feed: session.run(None, feed), feeds)))
    lowest, highest = np.split(found, 2, axis=1)
    return {
        name: (min(0.0, float(low)), max(0.0, float(high)))
        for name, low, high in zip(values, lowest.min(axis=0), highest.max(axis=0))
    }


def quantize(graph: OnnxGraph, ranges: Mapping[str, tuple[float, float]]) -> OnnxGraph:
    """Returns a quantized graph; its input and outputs stay float32.

    Args:
      graph: a graph whose convolutions have biases.
      ranges: value name -> (lowest, highest), with zero between, of the values to
        round. What max pooling and concatenation make of rounded values is rounded
        too. Convolutions of rounded values get rounded weights.
    """
    roundings = _activation_roundings(graph, ranges)
    weights = dict(graph.weights)
    nodes = []

    def add_parameters(name: str) -> list[str]:
        parameters = [f"{name}/scale", f"{name}/zero_point"]
        weights[parameters[0]] = roundings[name].scale
        weights[parameters[1]] = roundings[name].zero_point
        return parameters

    def dequantized(name: str) -> str:
        return f"{name}/dequantized"

    for node in graph.nodes:
        if node.op_type == "Conv" and node.input[0] in roundings:
            value, kernel, bias = node.input
            roundings[kernel], roundings[bias] = _weight_roundings(
                weights[kernel], weights[bias], roundings[value].scale
            )
            for name in (kernel, bias):
                weights[name] = roundings[name].integers(weights[name])
                inputs = [name, *add_parameters(name)]
                nodes.append(
                    make_node("DequantizeLinear", inputs, dequantized(name), axis=0)
                )
        renamed = {name: dequantized(name) for name in node.input if name in roundings}
        nodes.append(with_inputs(node, renamed))
        if node.name in roundings:
            parameters = add_parameters(node.name)
            rounded = f"{node.name}/quantized"
            nodes += [
                make_node("QuantizeLinear", [node.name, *parameters], rounded),
                make_node(
                    "DequantizeLinear", [rounded, *parameters], dequantized(node.name)
                ),
            ]
    return OnnxGraph(nodes, weights, graph.outputs)


@dataclasses.dataclass(frozen=True)
class _Rounding:
    """Integers q that stand for scale * (q - zero_point).

    Attributes:
      scale: float32, either one or one per index of the first axis.
      zero_point: of the integers' type, as many.
    """

    scale: np.ndarray
    zero_point: np.ndarray

    def integers(self, values: np.ndarray) -> np.ndarray:
        """Rounds weights, whose zero points are zero."""
        scale = self.scale.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float64)
        return np.rint(values / scale).astype(self.zero_point.dtype)


def _activation_roundings(
    graph: OnnxGraph, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, _Rounding]:
    """Returns how each value is rounded.

    Inputs and output of a max pooling or concatenation are rounded alike, so that it
    passes integers on as they are.
    """
    bounds = dict(ranges)
    passing = [node for node in graph.nodes if node.op_type in _PASSING_INTEGERS]
    for node in passing:
        if all(name in bounds for name in node.input):
            lower, upper = zip(*(bounds[name] for name in node.input))
            bounds[node.name] = min(lower), max(upper)
    for node in reversed(passing):
        if node.name in bounds:
            bounds.update(dict.fromkeys(node.input, bounds[node.name]))
    return {name: _activation_rounding(*bounds[name]) for name in bounds}


def _activation_rounding(lower: float, upper: float) -> _Rounding:
    scale = np.float32((upper - lower) / _LARGEST_ACTIVATION) or np.float32(1)
    zero_point = np.uint8(np.rint(-lower / scale))
    return _Rounding(np.array(scale), np.array(zero_point))


def _weight_roundings(
    kernel: np.ndarray, bias: np.ndarray, value_scale: np.ndarray
) -> tuple[_Rounding, _Rounding]:
    """Returns how a convolution's kernel and bias are rounded.

    The bias has the scale of the products it is added to, as integer kernels ask for,
    which must not get so small that its integers overflow.
    """
    scale = np.abs(kernel).max(axis=(1, 2, 3)) / np.float32(_LARGEST_WEIGHT)
    scale = np.maximum(scale, np.abs(bias) / (value_scale * _LARGEST_BIAS))
    scale[scale == 0] = 1
    scale = scale.astype(np.float32)
    return (
        _Rounding(scale, np.zeros(scale.shape, np.int8)),
        _Rounding(scale * value_scale, np.zeros(scale.shape, np.int32)),
    )
