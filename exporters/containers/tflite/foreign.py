"""TFLite files of any tool's."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.artifact import first_line
from exporters.errors import ArtifactError
from exporters.identifying.contents import Contents, Node, StoredArray

_MOST_ENTRIES = 100_000
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a damaged flatbuffer can raise, beside `struct.error`."""
_DTYPES = {
    number: name.lower()
    for name, number in vars(schema.TensorType).items()
    if isinstance(number, int)
}
_KINDS = {
    number: name.lower().replace("_", "")
    for name, number in vars(schema.BuiltinOperator).items()
    if isinstance(number, int)
}


def read(path: Path) -> Contents:
    """Reads the constants and operators of a file's first graph.

    Raises:
      ArtifactError: it is damaged.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
        return _read(schema.Model.GetRootAs(data))
    except (*_DAMAGE, struct.error) as error:
        raise ArtifactError(f"{path} is damaged ({first_line(error)}).") from error


def _read(model: schema.Model) -> Contents:
    graph = model.Subgraphs(0)
    count = graph.TensorsLength()
    if max(count, graph.OperatorsLength()) > _MOST_ENTRIES:
        raise ValueError(f"{count} tensors")
    names = [f"{i}:{graph.Tensors(i).Name().decode()}" for i in range(count)]
    found = (
        _array(names[i], graph.Tensors(i), model.Buffers(graph.Tensors(i).Buffer()))
        for i in range(count)
    )
    nodes = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs = (operator.Inputs(n) for n in range(operator.InputsLength()))
        outputs = (operator.Outputs(n) for n in range(operator.OutputsLength()))
        nodes.append(
            Node(
                _KINDS.get(number, str(number)),
                [names[n] if n >= 0 else "" for n in inputs],
                [names[n] for n in outputs],
            )
        )
    return Contents("TFLite", [array for array in found if array], nodes)


def _array(
    name: str, tensor: schema.Tensor, buffer: schema.Buffer
) -> StoredArray | None:
    if not buffer.DataLength():
        return None
    dtype = _DTYPES.get(tensor.Type(), "")
    if dtype not in ("float32", "float16", "int8", "uint8", "int16", "int32"):
        return None
    values = buffer.DataAsNumpy().view(dtype).reshape(tensor.ShapeAsNumpy())
    values = values.astype(np.float32)
    parameters = tensor.Quantization()
    if parameters is None or not parameters.ScaleLength() or dtype.startswith("float"):
        return StoredArray(name, values, dtype)
    shape = [1] * values.ndim
    if parameters.ScaleLength() > 1:
        shape[parameters.QuantizedDimension()] = -1
    steps = np.asarray(parameters.ScaleAsNumpy(), np.float32).reshape(shape)
    if parameters.ZeroPointLength():
        zeros = np.asarray(parameters.ZeroPointAsNumpy(), np.float32)
        values = values - (zeros.reshape(shape) if zeros.size > 1 else zeros)
    return StoredArray(name, values * steps, dtype, steps)
