"""An ONNX file cut behind layers: the same nodes and weights, with more in- and outputs.

Where integers are computed, integers are shown and fed, so that ONNX Runtime still finds
the pattern for which it has integer kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, shape_inference

from exporters.artifact import Sections
from exporters.containers.onnx.nodes import INPUT, TO_NCHW, TO_NHWC
from exporters.engines import onnx_session
from exporters.network.quantization import Quantization

_GIVEN = "/given"
"""Ends the name of what stands in for a layer's output."""


@dataclasses.dataclass(frozen=True)
class _Cut:
    """What a file has of a layer.

    Attributes:
      value: what is shown: the layer's output, or the integers it is rounded to.
      read: what the layers behind it read.
      shape: of the output; a string names a length that is free.
      dtype: of `value`.
      quantization: what integers stand for, None for floats.
    """

    value: str
    read: str
    shape: tuple[int | str, ...]
    dtype: np.dtype
    quantization: Quantization | None

    def to_value(self, array: np.ndarray) -> np.ndarray:
        """Returns an output, in TensorFlow's layout, as the file holds it."""
        if array.ndim == 4:
            array = array.transpose(TO_NCHW)
        if self.quantization:
            array = self.quantization.quantize(array, self.dtype.type)
        return np.ascontiguousarray(array, self.dtype)

    def to_array(self, value: np.ndarray) -> np.ndarray:
        """Reverses `to_value`."""
        if self.quantization:
            value = self.quantization.dequantize(value)
        if value.ndim == 4:
            value = value.transpose(TO_NHWC)
        return value.astype(np.float32)


def cut(
    path: Path, layers: Sequence[str], as_input: Callable[[np.ndarray], np.ndarray]
) -> Sections:
    """Cuts a file that `write` made.

    Args:
      path: the file.
      layers: behind which to cut, in the network's order; those that the file does not
        have are passed over.
      as_input: images as `OpenedArtifact.run` takes them -> as the file does.
    """
    model = shape_inference.infer_shapes(onnx.load(path))
    cuts = _cuts(model, layers)
    shown = [
        helper.make_tensor_value_info(
            each.value, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape
        )
        for each in cuts.values()
    ]
    del model.graph.output[:]
    model.graph.output.extend(shown)
    whole = onnx_session(model.SerializeToString())
    fed = {layer: cuts[layer] for layer in list(cuts)[:-1]}
    _feed(model.graph, fed)
    parted = onnx_session(model.SerializeToString())

    def run(
        session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        values = session.run([each.value for each in cuts.values()], dict(feed))
        found = zip(cuts.items(), values)
        return {layer: each.to_array(value) for (layer, each), value in found}

    def through(images: np.ndarray) -> dict[str, np.ndarray]:
        return run(whole, {INPUT: as_input(images)})

    def apart(
        images: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        feed = {
            f"{each.value}{_GIVEN}": each.to_value(given[layer])
            for layer, each in fed.items()
        }
        return run(parted, {INPUT: as_input(images), **feed})

    return Sections(tuple(cuts), through, apart)


def _cuts(model: onnx.ModelProto, layers: Sequence[str]) -> dict[str, _Cut]:
    """Finds those of the layers that a file has."""
    values = {value.name: value for value in model.graph.value_info}
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith(("/scale", "/zero_point"))
    }
    # Not integers alone, where floats are read too.
    read = {
        name
        for node in model.graph.node
        if node.op_type != "QuantizeLinear"
        for name in node.input
    }
    cuts = {}
    for layer in layers:
        if layer not in values:
            continue
        kind = values[layer].type.tensor_type
        shape = tuple(
            dimension.dim_param or dimension.dim_value for dimension in kind.shape.dim
        )
        integers = f"{layer}/quantized"
        if integers in values and layer not in read:
            zero_point = arrays[f"{layer}/zero_point"]
            scale = arrays[f"{layer}/scale"].reshape(-1)
            rounding = Quantization(scale, int(zero_point))
            cuts[layer] = _Cut(
                integers, f"{layer}/dequantized", shape, zero_point.dtype, rounding
            )
        else:
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            cuts[layer] = _Cut(layer, layer, shape, dtype, None)
    return cuts


def _feed(graph: onnx.GraphProto, cuts: Mapping[str, _Cut]) -> None:
    """Lets what follows each layer read a new input in the place of its output."""
    renamed = {}
    added = []
    for layer, each in cuts.items():
        given = f"{each.value}{_GIVEN}"
        dtype = helper.np_dtype_to_tensor_dtype(each.dtype)
        graph.input.append(helper.make_tensor_value_info(given, dtype, each.shape))
        renamed[each.read] = given
        if each.quantization:
            renamed[each.read] = f"{given}/dequantized"
            parameters = [f"{layer}/scale", f"{layer}/zero_point"]
            added.append(
                helper.make_node(
                    "DequantizeLinear", [given, *parameters], [renamed[each.read]]
                )
            )
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
