"""Writes ONNX graphs to files, each weight once from its array to the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.containers.onnx.nodes import INPUT, OnnxGraph

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

OPSET = 17
IR_VERSION = 8
"""Both of 2022: ONNX Runtime reads them since 1.12."""

_LENGTH_DELIMITED = 2


def write(
    graph: OnnxGraph,
    path: Path,
    *,
    image_shape: Sequence[int | str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes an ONNX file.

    protobuf would copy the weights into a message, and the message into the string
    that is written: half a gigabyte and more than a second. Instead, the file is the
    message without weights, and each weight in its place as protobuf would encode it.

    Args:
      graph: with at most 2 GB of weights.
      path: the file to write.
      image_shape: shape of the input; a string names a length that is free.
      metadata: the model's metadata_props.
    """
    import onnx
    from onnx import helper

    model = _model_without_weights(graph, image_shape)
    helper.set_model_props(model, dict(metadata or {}))
    graph_bytes = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")

    headers = {}
    length = len(graph_bytes)
    for name, array in graph.weights.items():
        raw_data = onnx.TensorProto.RAW_DATA_FIELD_NUMBER
        tensor = onnx.TensorProto(
            name=name,
            dims=array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        ).SerializeToString() + _field(raw_data, array.nbytes)
        initializer = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
        header = _field(initializer, len(tensor) + array.nbytes) + tensor
        headers[name] = header
        length += len(header) + array.nbytes

    with open(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        file.write(_field(onnx.ModelProto.GRAPH_FIELD_NUMBER, length))
        file.write(graph_bytes)
        for name, array in graph.weights.items():
            file.write(headers[name])
            file.write(np.ascontiguousarray(array).data)


def _model_without_weights(
    graph: OnnxGraph, image_shape: Sequence[int | str]
) -> onnx.ModelProto:
    """Makes the model of a graph, with the shapes of its outputs."""
    import onnx
    from onnx import helper, shape_inference

    def value(
        name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]
    ) -> onnx.ValueInfoProto:
        tensor_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, tensor_type, shape)

    images = value(INPUT, np.float32, image_shape)
    weights = [value(n, array.dtype, array.shape) for n, array in graph.weights.items()]
    untyped = [onnx.ValueInfoProto(name=name) for name in graph.outputs]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "inception_resnet_v2", [images], untyped),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="irv2",
    )
    model.graph.input.extend(weights)  # Inference needs their shapes, not their values.
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.input[1:]
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model


def _field(number: int, length: int) -> bytes:
    """Encodes what precedes a message or bytes field: its key and its length.

    See https://protobuf.dev/programming-guides/encoding.
    """
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
