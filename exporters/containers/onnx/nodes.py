"""The network as ONNX nodes.

Layouts change on the way: TensorFlow's activations are [batch, height, width, depth],
ONNX's [batch, depth, height, width]. Only the input, unless it is NCHW already, and
endpoints shown as outputs are transposed; everything between is NCHW throughout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from exporters import float16
from exporters.network.folding import Weights
from exporters.network.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Layer,
    Network,
    Pool,
    Softmax,
    transpose,
)

if TYPE_CHECKING:
    import onnx

INPUT = "images"
TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)

_RANK_2 = frozenset({"Flatten", "Gemm", "Softmax"})
"""Ops whose output is [batch, depth]; that of the others is [batch, depth, h, w]."""


@dataclasses.dataclass(frozen=True)
class OnnxGraph:
    """Nodes from `INPUT` to named outputs, and the weights they use.

    Attributes:
      nodes: in topological order, each with one output and of the same name.
      weights: initializer name -> array, not always contiguous: kernels [out, in,
        height, width], biases, and the classifier's matrix [features, classes].
      outputs: output name -> the value that holds it.
      layer_of: node -> the layer that it is a part of, where it is of one.
    """

    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    outputs: dict[str, str]
    layer_of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def make_node(
    op_type: str, inputs: Sequence[str], output: str, **attributes: Any
) -> onnx.NodeProto:
    """Makes a node with one output, whose name is the node's as well."""
    from onnx import helper

    return helper.make_node(op_type, inputs, [output], name=output, **attributes)


def with_inputs(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """Returns a copy of a node that reads other values for those in `renamed`."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = [renamed.get(name, name) for name in node.input]
    return copy


def convert(
    network: Network, weights: Mapping[str, Weights], *, nchw: bool = False
) -> OnnxGraph:
    """Converts a network.

    Args:
      network: its endpoints become the graph's outputs.
      weights: of its layers, by scope.
      nchw: whether the graph's input is [batch, 3, height, width].

    Raises:
      ValueError: ONNX cannot express the padding of a layer for all image sizes.
    """
    nodes: list[onnx.NodeProto] = []
    if not nchw:
        nodes.append(make_node("Transpose", [INPUT], network.input, perm=TO_NCHW))
    layer_of = {}
    for layer in network.layers:
        for node in _nodes(layer):
            nodes.append(node)
            layer_of[node.name] = layer.name
    if nchw:
        nodes = [with_inputs(node, {network.input: INPUT}) for node in nodes]
    arrays = {}
    for layer in network.weighted:
        kernel = weights[layer.scope].kernel
        if isinstance(layer, Conv):
            kernel = transpose(kernel, "HWIO", "OIHW")
        arrays[f"{layer.scope}/weights"] = kernel
        arrays[f"{layer.scope}/biases"] = weights[layer.scope].bias
    return OnnxGraph(nodes, arrays, dict(network.endpoints), layer_of)


def _nodes(layer: Layer) -> Iterator[onnx.NodeProto]:
    """The nodes of a layer; the last one has its name."""
    match layer:
        case Conv(name, x, scope):
            inputs = [x, f"{scope}/weights", f"{scope}/biases"]
            sum_ = _before_relu(layer)
            yield make_node("Conv", inputs, sum_, **_window(layer))
            if layer.relu:
                yield make_node("Relu", [sum_], name)
        case Pool(name, x, kind):
            if kind == "max":
                yield make_node("MaxPool", [x], name, **_window(layer))
            else:
                window = _window(layer)
                yield make_node("AveragePool", [x], name, count_include_pad=0, **window)
        case Concat(name, inputs):
            yield make_node("Concat", inputs, name, axis=1)
        case Add(name, inputs, relu):
            sum_ = f"{name.removesuffix('/Relu')}/add" if relu else name
            yield make_node("Add", inputs, sum_)
            if relu:
                yield make_node("Relu", [sum_], name)
        case GlobalMean(name, x):
            yield make_node("GlobalAveragePool", [x], name)
        case Flatten(name, x):
            yield make_node("Flatten", [x], name, axis=1)
        case Dense(name, x, scope):
            yield make_node("Gemm", [x, f"{scope}/weights", f"{scope}/biases"], name)
        case Softmax(name, x):
            yield make_node("Softmax", [x], name)
        case _:
            assert_never(layer)


def _before_relu(layer: Conv) -> str:
    """The name of TF-Slim's op whose output is rectified."""
    if not layer.relu:
        return layer.name
    op = "BatchNorm/FusedBatchNormV3" if layer.normalized else "BiasAdd"
    return f"{layer.name.removesuffix('/Relu')}/{op}"


def _window(layer: Conv | Pool) -> dict[str, list[int]]:
    """Attributes that ONNX's Conv, MaxPool and AveragePool have in common.

    TensorFlow's "SAME" pads by an amount that depends on the image size, unless the
    stride is 1; if the window is odd as well, both sides are padded alike.
    """
    height, width = layer.window
    if layer.padding == "VALID":
        pads = [0, 0, 0, 0]
    elif layer.stride == 1 and height % 2 and width % 2:
        pads = [height // 2, width // 2] * 2
    else:
        raise ValueError(
            f"{layer.name} has padding SAME, window {height} x {width} and stride "
            f"{layer.stride}. Of SAME, only stride 1 and odd windows convert."
        )
    strides = [layer.stride, layer.stride]
    return {"kernel_shape": [height, width], "pads": pads, "strides": strides}


def select(graph: OnnxGraph, outputs: Mapping[str, str]) -> OnnxGraph:
    """Returns the part of a converted graph that some of its outputs need.

    Args:
      graph: a converted graph.
      outputs: new output name -> output name in `graph`. Those of rank 4 become NHWC.
    """
    needed = {graph.outputs[name] for name in outputs.values()}
    op_types = {}
    nodes = []
    for node in reversed(graph.nodes):
        if node.output[0] in needed:
            needed.update(node.input)
            op_types[node.output[0]] = node.op_type
            nodes.append(node)
    nodes.reverse()
    for name, original in outputs.items():
        value = graph.outputs[original]
        if op_types[value] in _RANK_2:
            nodes.append(make_node("Identity", [value], name))
        else:
            nodes.append(make_node("Transpose", [value], name, perm=TO_NHWC))
    weights = {name: array for name, array in graph.weights.items() if name in needed}
    return OnnxGraph(nodes, weights, {name: name for name in outputs}, graph.layer_of)


def to_float16(graph: OnnxGraph, in_float: Collection[str] = ()) -> OnnxGraph:
    """Returns a graph that computes in float16; its input and outputs stay float32.

    Args:
      graph: in float32.
      in_float: layers that stay float32.

    Raises:
      ExportError: a weight is too large for float16.
    """
    from onnx import TensorProto

    nodes: dict[str, onnx.NodeProto] = {}
    weights = dict(graph.weights)
    is_single = {INPUT: True}

    def cast(name: str, single: bool) -> str:
        """Returns the name of a value or weight in the precision asked for."""
        if name in graph.weights:
            if not single:
                weights[name] = float16.rounded(name, graph.weights[name])
            return name
        if is_single[name] == single:
            return name
        to = TensorProto.FLOAT if single else TensorProto.FLOAT16
        converted = f"{name}/{'float32' if single else 'float16'}"
        nodes[converted] = make_node("Cast", [name], converted, to=to)
        return converted

    for node in graph.nodes:
        single = (
            node.name in graph.outputs
            or node.op_type == "Transpose"
            or graph.layer_of.get(node.name) in in_float
        )
        nodes[node.name] = with_inputs(node, {i: cast(i, single) for i in node.input})
        is_single[node.name] = single
    return OnnxGraph(list(nodes.values()), weights, graph.outputs, graph.layer_of)
