"""The network as ONNX nodes: a converter for the ops of an inference graph.

Layouts change on the way: TensorFlow's activations are [batch, height, width, depth],
ONNX's [batch, depth, height, width]. Only the input, unless it is NCHW already, and
endpoints shown as outputs are transposed; everything between is NCHW throughout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.artifact import ExportError
from exporters.inference_graph import InferenceGraph

if TYPE_CHECKING:
    import onnx
    import tensorflow as tf

INPUT = "images"
FIRST_LAYER = "InceptionResnetV2/InceptionResnetV2/Conv2d_1a_3x3/"
"""What the names of the first convolution's nodes start with."""

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)
TO_OIHW = (3, 2, 0, 1)
TO_HWIO = (2, 3, 1, 0)

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
    """

    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    outputs: dict[str, str]


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


def convert(graph: InferenceGraph, *, nchw: bool = False) -> OnnxGraph:
    """Converts an inference graph; values and weights keep their names in it.

    Args:
      graph: of fixed or variable image size.
      nchw: whether the ONNX graph's input is [batch, 3, height, width].

    Raises:
      ValueError: the graph has an op, or an attribute of one, that does not convert.
    """
    import tensorflow.compat.v1 as tf

    nodes: dict[str, onnx.NodeProto] = {}
    constants: dict[str, np.ndarray] = {}
    for node in graph.graph_def.node:
        name = node.name
        inputs = [INPUT if nchw and i == graph.images else i for i in node.input]
        if node.op == "Const":
            constants[name] = tf.make_ndarray(node.attr["value"].tensor)
        elif node.op == "Placeholder":
            if not nchw:
                nodes[name] = make_node("Transpose", [INPUT], name, perm=TO_NCHW)
        elif node.op == "BiasAdd":  # Becomes the third input of the Conv or Gemm.
            linear = nodes.pop(inputs[0])
            linear.input.append(inputs[1])
            linear.name = linear.output[0] = name
            nodes[name] = linear
        elif node.op in _CONVERTERS:
            nodes[name] = _CONVERTERS[node.op](node, inputs, constants)
        else:
            raise ValueError(f"{name} is a {node.op}, for which no ONNX op is known.")
    used = {name for node in nodes.values() for name in node.input}
    weights = {name: array for name, array in constants.items() if name in used}
    return OnnxGraph(list(nodes.values()), weights, dict(graph.outputs))


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
    return OnnxGraph(nodes, weights, {name: name for name in outputs})


def to_float16(graph: OnnxGraph) -> OnnxGraph:
    """Returns a graph that computes in float16; its input and outputs stay float32.

    So does the first convolution. Its kernels look for small differences between
    pixels, in which the rounding of images and kernel would be most of the error.

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
            weights[name] = graph.weights[name] if single else half(name)
            return name
        if is_single[name] == single:
            return name
        to = TensorProto.FLOAT if single else TensorProto.FLOAT16
        converted = f"{name}/{'float32' if single else 'float16'}"
        nodes[converted] = make_node("Cast", [name], converted, to=to)
        return converted

    def half(name: str) -> np.ndarray:
        largest = np.abs(graph.weights[name]).max()
        if largest > np.finfo(np.float16).max:
            raise ExportError(f"{name} has the value {largest}, too large for float16.")
        return graph.weights[name].astype(np.float16)

    for node in graph.nodes:
        single = (
            node.name in graph.outputs
            or node.op_type == "Transpose"
            or node.name.startswith(FIRST_LAYER)
        )
        nodes[node.name] = with_inputs(node, {i: cast(i, single) for i in node.input})
        is_single[node.name] = single
    return OnnxGraph(list(nodes.values()), weights, graph.outputs)


def _convolution(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    _, kernel = inputs
    height, width, _, _ = constants[kernel].shape
    constants[kernel] = constants[kernel].transpose(TO_OIHW)
    return make_node("Conv", inputs, node.name, **_window(node, height, width))


def _max_pool(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    _, height, width, _ = node.attr["ksize"].list.i
    return make_node("MaxPool", inputs, node.name, **_window(node, height, width))


def _average_pool(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    _, height, width, _ = node.attr["ksize"].list.i
    window = _window(node, height, width)
    return make_node("AveragePool", inputs, node.name, count_include_pad=0, **window)


def _window(node: tf.NodeDef, height: int, width: int) -> dict[str, list[int]]:
    """Attributes that ONNX's Conv, MaxPool and AveragePool have in common.

    TensorFlow's "SAME" pads by an amount that depends on the image size, unless the
    stride is 1; if the window is odd as well, both sides are padded alike.
    """
    strides = list(node.attr["strides"].list.i[1:3])
    padding = node.attr["padding"].s.decode()
    pads_both_sides_alike = strides == [1, 1] and height % 2 and width % 2
    if padding == "VALID":
        pads = [0, 0, 0, 0]
    elif padding == "SAME" and pads_both_sides_alike:
        pads = [height // 2, width // 2] * 2
    else:
        raise ValueError(
            f"{node.name} has padding {padding}, window {height} x {width} and strides "
            f"{strides}. Only VALID, and SAME with stride 1 and odd window, convert."
        )
    layout = node.attr["data_format"].s.decode() or "NHWC"
    dilations = set(node.attr["dilations"].list.i)
    if layout != "NHWC" or not dilations <= {1}:
        raise ValueError(
            f"{node.name} has layout {layout} and dilations {sorted(dilations)}. Only "
            "NHWC without dilation converts."
        )
    return {"kernel_shape": [height, width], "pads": pads, "strides": strides}


def _global_average_pool(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    value, axes_name = inputs
    axes = sorted(constants[axes_name].ravel())
    if axes != [1, 2] or not node.attr["keep_dims"].b:
        raise ValueError(
            f"{node.name} is a mean over axes {axes}. Only one over height and width "
            "that keeps both converts."
        )
    return make_node("GlobalAveragePool", [value], node.name)


def _concat(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    *values, axis_name = inputs
    axis = int(constants[axis_name])
    if axis not in (3, -1):
        raise ValueError(
            f"{node.name} concatenates along axis {axis}. Only depth converts."
        )
    return make_node("Concat", values, node.name, axis=1)


def _flatten(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    axes = sorted(node.attr["squeeze_dims"].list.i)
    if axes != [1, 2]:
        raise ValueError(
            f"{node.name} squeezes axes {axes}. Only height and width convert."
        )
    return make_node("Flatten", inputs, node.name, axis=1)


def _gemm(node: tf.NodeDef, inputs: list[str], constants: dict) -> Any:
    if node.attr["transpose_a"].b or node.attr["transpose_b"].b:
        raise ValueError(f"{node.name} multiplies transposed matrices.")
    return make_node("Gemm", inputs, node.name)


def _renamed(op_type: str) -> Callable[..., onnx.NodeProto]:
    return lambda node, inputs, constants: make_node(op_type, inputs, node.name)


_CONVERTERS: dict[str, Callable[[tf.NodeDef, list[str], dict], onnx.NodeProto]] = {
    "Conv2D": _convolution,
    "Relu": _renamed("Relu"),
    "MaxPool": _max_pool,
    "AvgPool": _average_pool,
    "Mean": _global_average_pool,
    "ConcatV2": _concat,
    "AddV2": _renamed("Add"),
    "Squeeze": _flatten,
    "MatMul": _gemm,
    "Softmax": _renamed("Softmax"),
}
