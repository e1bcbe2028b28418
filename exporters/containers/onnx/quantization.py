"""A quantized network as ONNX nodes, for runtimes with integer kernels.

The result is in QuantizeLinear/DequantizeLinear form: float nodes between rounded
values, for which ONNX Runtime, among others, puts integer kernels. Activations are
uint8, kernels int8, biases int32.

Symmetric activations are int8 with zero point 0, and biases float32: TensorRT takes
nothing else.

x86 processors without VNNI (before 2019) add pairs of uint8 x int8 products in
saturating int16 arithmetic, and lose some accuracy where both factors are large; kernels
in 7 bits are small enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from exporters.containers.onnx.nodes import OnnxGraph, make_node, with_inputs
from exporters.network.layers import transpose
from exporters.network.quantization import (
    UINT8_ZERO,
    Integers,
    Quantization,
    QuantizedWeights,
)


def quantize(
    graph: OnnxGraph,
    activations: Mapping[str, Quantization],
    weights: Mapping[str, QuantizedWeights],
    in_float: Collection[str] = (),
    *,
    is_symmetric: bool = False,
) -> OnnxGraph:
    """Returns a quantized graph; its input and outputs stay float32.

    Args:
      graph: in float32.
      activations: value -> how it is rounded, of all values that are.
      weights: of the layers that compute in integers, by scope.
      in_float: layers that stay float32; of each other they read what is not rounded.
      is_symmetric: whether activations are int8, all with zero point 0.
    """
    arrays = dict(graph.weights)
    nodes = []

    def dequantized(name: str) -> str:
        return f"{name}/dequantized"

    def add_parameters(
        name: str, scale: np.ndarray, zero_point: np.ndarray
    ) -> list[str]:
        arrays[f"{name}/scale"], arrays[f"{name}/zero_point"] = scale, zero_point
        return [f"{name}/scale", f"{name}/zero_point"]

    def add_weight(name: str, integers: Integers, axis: int) -> None:
        is_kernel = integers.values.ndim == 4
        arrays[name] = (
            transpose(integers.values, "HWIO", "OIHW") if is_kernel else integers.values
        )
        scale = integers.quantization.scale
        zeros = np.zeros(scale.shape, integers.values.dtype)
        inputs = [name, *add_parameters(name, scale, zeros)]
        nodes.append(
            make_node("DequantizeLinear", inputs, dequantized(name), axis=axis)
        )

    for node in graph.nodes:
        is_float = graph.layer_of.get(node.name) in in_float
        read_rounded = activations.keys() - (in_float if is_float else ())
        renamed = {
            name: dequantized(name) for name in node.input if name in read_rounded
        }
        scope = node.input[1].removesuffix("/weights") if len(node.input) == 3 else ""
        if scope in weights:
            _, kernel, bias = node.input
            channels = 0 if node.op_type == "Conv" else 1
            add_weight(kernel, weights[scope].kernel, channels)
            renamed[kernel] = dequantized(kernel)
            rounded_bias = weights[scope].bias
            if isinstance(rounded_bias, Integers):
                add_weight(bias, rounded_bias, 0)
                renamed[bias] = dequantized(bias)
            else:
                arrays[bias] = rounded_bias
        nodes.append(with_inputs(node, renamed))
        if node.name in activations:
            rounding = activations[node.name]
            scale = rounding.scale.reshape(())
            zero_point = (
                np.array(rounding.zero_point, np.int8)
                if is_symmetric
                else np.array(rounding.zero_point + UINT8_ZERO, np.uint8)
            )
            parameters = add_parameters(node.name, scale, zero_point)
            rounded = f"{node.name}/quantized"
            nodes += [
                make_node("QuantizeLinear", [node.name, *parameters], rounded),
                make_node(
                    "DequantizeLinear", [rounded, *parameters], dequantized(node.name)
                ),
            ]
    return OnnxGraph(nodes, arrays, graph.outputs, graph.layer_of)
