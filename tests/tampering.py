"""Changes numbers in ONNX and TFLite files, and leaves nothing else that tells of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from exporters.containers.tflite import reader

_TFLITE_TYPES = {0: np.float32, 1: np.float16, 2: np.int32, 9: np.int8}


def change(path: Path, changes: Mapping[str, Callable]) -> None:
    """Changes numbers of an ONNX or TFLite file.

    Args:
      path: the file.
      changes: name of a weight, or of a weight or activation followed by "/scale" or
        "/zero_point" -> function of the numbers. Kernels of convolutions have the
        output channel first.
    """
    left = dict(changes)
    if path.suffix == ".onnx":
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.name in left:
                values = numpy_helper.to_array(tensor)
                values = left.pop(tensor.name)(values).astype(values.dtype)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(model, path)
    else:
        data = np.memmap(path, np.uint8, "r+")
        model = schema.Model.GetRootAs(data)
        subgraph = model.Subgraphs(0)
        for tensor in map(subgraph.Tensors, range(subgraph.TensorsLength())):
            name = tensor.Name().decode()
            if name in left:
                values = model.Buffers(tensor.Buffer()).DataAsNumpy()
                values = values.view(_TFLITE_TYPES[tensor.Type()])
                values = values.reshape(tensor.ShapeAsNumpy())
                values[...] = left.pop(name)(values)
            if f"{name}/scale" in left:
                values = tensor.Quantization().ScaleAsNumpy()
                values[...] = left.pop(f"{name}/scale")(values)
            if f"{name}/zero_point" in left:
                values = tensor.Quantization().ZeroPointAsNumpy()
                values[...] = left.pop(f"{name}/zero_point")(values)
        data.flush()
        reader.seal(path)
    assert not left
