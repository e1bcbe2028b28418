"""TFLite files of any tool's."""

from __future__ import annotations

import importlib.metadata
import struct
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from exporters.artifact import first_line, reading
from exporters.engines import cores
from exporters.errors import ArtifactError
from exporters.identifying.contents import Contents, Node, StoredArray
from exporters.identifying.running import ForeignModel, Images, joined

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


def run(path: Path, classes: int | None) -> ForeignModel:
    """Opens a file with LiteRT.

    Raises:
      ArtifactError: LiteRT cannot, or it takes something else than images.
    """
    library = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
    with reading(path, "a TFLite file", library):
        interpreter = _interpreter(path)
    inputs = interpreter.get_input_details()
    if len(inputs) != 1:
        found = ", ".join(each["name"] for each in inputs)
        raise ArtifactError(f"{path} has the inputs {found}; expected one, of images.")
    (image,) = inputs
    images_of = Images.of_shape(path, image["shape_signature"].tolist())
    outputs = interpreter.get_output_details()

    def run_one(batch: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(image["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(image["index"], batch)
        interpreter.invoke()
        return {
            each["name"]: _real(interpreter.get_tensor(each["index"]), each)
            for each in outputs
        }

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        scale, zero = image["quantization"]
        if scale:
            limits = np.iinfo(image["dtype"])
            images = np.clip(np.round(images / scale) + zero, limits.min, limits.max)
        with reading(path, "a TFLite file", library):
            batches = images_of.batches(images, np.dtype(image["dtype"]))
            return joined(map(run_one, batches), len(images))

    steps = {each["name"]: float(each["quantization"][0]) for each in outputs}
    return ForeignModel(
        library, images_of.image_size, images_of.layout, run_on, steps=steps
    )


def _interpreter(path: Path) -> Interpreter:
    """One that can run a file: with the delegate that is fast, or else without."""
    interpreter = Interpreter(str(path), num_threads=cores())
    try:
        interpreter.allocate_tensors()
    except RuntimeError:  # XNNPACK does not take every scale of integers.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(
            str(path), num_threads=cores(), experimental_op_resolver_type=plain
        )
        interpreter.allocate_tensors()
    return interpreter


def _real(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """What integers stand for, as float32."""
    scale, zero = details["quantization"]
    if not scale:
        return values.astype(np.float32)
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)


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
