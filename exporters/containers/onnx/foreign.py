"""ONNX files of any tool's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from exporters.artifact import first_line, reading
from exporters.engines import onnx_session
from exporters.errors import ArtifactError
from exporters.identifying.contents import Contents, Node, StoredArray
from exporters.identifying.running import ForeignModel, Images, joined

_ROUNDED = {
    # Inputs: values, scale, zero point.
    "DequantizeLinear": ((0, 1, 2),),
    "QLinearConv": ((3, 4, 5),),
    "QLinearMatMul": ((0, 1, 2), (3, 4, 5)),
    # These leave the steps to what comes after.
    "ConvInteger": ((1, None, 3),),
    "MatMulInteger": ((1, None, 3),),
}
"""Op -> where it takes integers, and what these stand for."""
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}
"""What ONNX Runtime calls the dtypes that images come in."""
_CHANNELS_FIRST = ("QLinearConv", "ConvInteger")


def read(path: Path) -> Contents:
    """Reads the constants and nodes of a file's main graph.

    Raises:
      ArtifactError: it is damaged, or values beside it are missing.
    """
    try:
        model = onnx.load(path)
        constants = {tensor.name: _values(tensor) for tensor in model.graph.initializer}
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    constants[node.output[0]] = _values(attribute.t)
    except (DecodeError, ValueError, TypeError, OSError, LookupError) as error:
        raise ArtifactError(
            f"{path} is damaged, or what belongs to it is missing: {first_line(error)}"
        ) from error
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"{path}: {first_line(error)}") from error
    rounding: dict[str, tuple[str, str, int]] = {}
    for node in model.graph.node:
        for places in _ROUNDED.get(node.op_type, ()):
            name, scale, zero = (_at(node.input, place) for place in places)
            if name in constants and "int" in constants[name][1]:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                axis = 0 if node.op_type in _CHANNELS_FIRST else axis
                rounding[name] = scale, zero, axis
    arrays = []
    for name, (values, dtype) in constants.items():
        steps = None
        scale, zero, axis = rounding.get(name, ("", "", 0))
        if zero in constants:
            values = values - _along(constants[zero][0], values, axis)
        if scale in constants:
            steps = _along(constants[scale][0], values, axis)
            values = values * steps
        arrays.append(StoredArray(name, values, dtype, steps))
    nodes = [
        Node(node.op_type.lower(), tuple(node.input), tuple(node.output))
        for node in model.graph.node
    ]
    return Contents("ONNX", arrays, nodes)


def run(path: Path, classes: int | None) -> ForeignModel:
    """Opens a file with ONNX Runtime on the CPU.

    Raises:
      ArtifactError: ONNX Runtime cannot, or it takes something else than images.
    """
    library = f"ONNX Runtime {onnxruntime.__version__}"
    with reading(path, "an ONNX file", library):
        session = onnx_session(path)
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _DTYPES:
        found = ", ".join(f"{each.name}, {each.type}" for each in inputs)
        raise ArtifactError(f"{path} has the inputs {found}; expected one, of images.")
    name, dtype = inputs[0].name, np.dtype(_DTYPES[inputs[0].type])
    images_of = Images.of_shape(path, inputs[0].shape)
    names = [output.name for output in session.get_outputs()]

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        with reading(path, "an ONNX file", library):
            parts = (
                dict(zip(names, session.run(names, {name: batch})))
                for batch in images_of.batches(images, dtype)
            )
            return joined(parts, len(images))

    return ForeignModel(library, images_of.image_size, images_of.layout, run_on)


def _values(tensor: Any) -> tuple[np.ndarray, str]:
    values = numpy_helper.to_array(tensor)
    if values.dtype == object:
        return np.zeros(0, np.float32), "string"
    return values.astype(np.float32), values.dtype.name


def _at(names: Any, place: int | None) -> str:
    return names[place] if place is not None and place < len(names) else ""


def _along(factors: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    if factors.size == 1 or not values.ndim:
        return factors.reshape(-1)[:1]
    shape = [1] * values.ndim
    shape[axis] = -1
    return factors.reshape(shape)
