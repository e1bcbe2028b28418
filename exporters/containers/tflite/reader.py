"""Reads TFLite files back, those of this toolkit only, and finds damage in them.

TFLite's interpreter trusts what it is given: a file damaged in the wrong place crashes
the process. Each file therefore holds the SHA-256 of all its bytes but the weights, its
seal, and is checked before the interpreter sees it. Damaged weights cannot crash
anything, and show when they are compared with the checkpoint's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from checkpoints import files
from exporters import record as records
from exporters import windows
from exporters.artifact import StoredWeight, first_line
from exporters.containers.tflite.flatbuffer import IDENTIFIER
from exporters.containers.tflite.writer import CONVOLUTION, from_tflite
from exporters.errors import ArtifactError, ForeignFileError
from exporters.network.quantization import Quantization
from exporters.record import Record
from exporters.windows import Window

RECORD = "irv2"
"""Name of the metadata that holds a file's record."""
SEAL = "irv2_seal"
UNSEALED = b"0" * 64
"""What the seal's metadata holds until a file is finished."""

_MOST_ENTRIES = 10_000
"""More tensors, buffers or metadata than any of our files has."""
_WEIGHTS = ("/weights", "/biases")
_POOLS = (schema.BuiltinOperator.MAX_POOL_2D, schema.BuiltinOperator.AVERAGE_POOL_2D)
_NUMPY_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT32: np.int32,
}
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
)
"""What reading a damaged flatbuffer can raise."""


def seal(path: Path) -> None:
    """Writes the seal of a finished file into it."""
    data = np.memmap(path, np.uint8, "r+")
    model = schema.Model.GetRootAs(data)
    start, end = _span(data, model.Buffers(_metadata(model)[SEAL]))
    data[start:end] = np.frombuffer(_seal_of(data, model).encode(), np.uint8)
    data.flush()


@dataclasses.dataclass(frozen=True)
class TFLiteFile:
    """A file that is as it was written, but for its weights.

    Attributes:
      path: of the file.
      record: what it says about itself.
    """

    path: Path
    record: Record
    _data: np.ndarray
    _model: schema.Model

    def weights(self) -> dict[str, StoredWeight]:
        """Returns name -> weight in TensorFlow's layout, in the order of layers."""
        with _damage_named(self.path):
            return {
                name: self._stored(tensor)
                for name, tensor in _tensors(self._model)
                if name.endswith(_WEIGHTS)
            }

    def activations(self) -> dict[str, Quantization]:
        """Returns name -> quantization, of the int8 tensors that are no weights."""
        with _damage_named(self.path):
            found = {
                name: _quantization(tensor)
                for name, tensor in _tensors(self._model)
                if tensor.Type() == schema.TensorType.INT8
                and not name.endswith(_WEIGHTS)
            }
            for name in [name for name in found if name.endswith(CONVOLUTION)]:
                before = found.pop(name)
                after = found.get(name.removesuffix(CONVOLUTION))
                if after is None or before.scale != after.scale:
                    raise ValueError(f"{name} has other steps than what it becomes")
            return found

    def windows(self) -> dict[str, Window]:
        """Returns how convolutions and pools move; see `OpenedArtifact.windows`."""
        with _damage_named(self.path):
            graph = self._model.Subgraphs(0)
            found = {}
            for i in range(_checked(graph.OperatorsLength())):
                operator = graph.Operators(i)
                if window := _window(self._model, operator):
                    name = graph.Tensors(operator.Outputs(0)).Name().decode()
                    found[windows.key(name)] = window
            return found

    def _stored(self, tensor: schema.Tensor) -> StoredWeight:
        start, end = _span(self._data, self._model.Buffers(tensor.Buffer()))
        values = self._data[start:end].view(_NUMPY_TYPES[tensor.Type()])
        values = values.reshape(tensor.ShapeAsNumpy())
        if values.ndim > 1:
            values = from_tflite(values)
        is_float = np.issubdtype(values.dtype, np.floating)
        return StoredWeight(values, None if is_float else _quantization(tensor))


def read(path: Path) -> TFLiteFile:
    """Checks a file and reads its record.

    Raises:
      ArtifactError: the file is no TFLite file, none of this toolkit's, or damaged.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
    except ValueError as error:  # An empty file cannot be mapped.
        raise ArtifactError(
            f"{path} has {path.stat().st_size} bytes ({first_line(error)}). Expected a "
            "TFLite file."
        ) from error
    if bytes(data[4:8]) != IDENTIFIER:
        raise ArtifactError(
            f"{path} is no TFLite file: bytes 4 to 8 are {bytes(data[4:8])!r}, expected "
            f"{IDENTIFIER!r}."
        )
    with _damage_named(path):
        model = schema.Model.GetRootAs(data)
        metadata = _metadata(model)
        if RECORD not in metadata:
            raise ForeignFileError(
                f"{path} is a TFLite file, but none that irv2 made: it has no metadata "
                f'"{RECORD}". Found {", ".join(metadata) or "none"}.'
            )
        text = _content(data, model, metadata[RECORD])
        if SEAL in metadata:
            found = _content(data, model, metadata[SEAL]).decode("ascii")
            is_whole = found == _seal_of(data, model)
        else:
            text, is_whole = _read_version_1(data, model, text)
    if not is_whole:
        raise ArtifactError(
            f"{path} is not as it was written: it was damaged, or changed by another "
            "tool. Export it again."
        )
    return TFLiteFile(path, records.parse(text, str(path)), data, model)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what reading a damaged flatbuffer raises into an ArtifactError."""
    try:
        yield
    except _DAMAGE as error:
        raise ArtifactError(
            f"{path} is damaged ({first_line(error)}). Export it again."
        ) from error


def _read_version_1(
    data: np.ndarray, model: schema.Model, text: bytes
) -> tuple[bytes, bool]:
    """Returns the text of a record, and whether the file is whole.

    There the record held the seal, and whether images are in [-1, 1].
    """
    facts = files.parse_json(text)
    sealed = facts["seal"]
    unsealed = json.dumps({**facts, "seal": UNSEALED.decode()}).encode()
    is_whole = sealed == _seal_of(data, model, RECORD, unsealed)
    del facts["seal"]
    options = {"signed_input": facts.pop("signed_input")}
    return json.dumps(facts | {"options": options}).encode(), is_whole


def _metadata(model: schema.Model) -> dict[str, int]:
    """Returns name -> buffer of a model's metadata."""
    entries = (model.Metadata(i) for i in range(_checked(model.MetadataLength())))
    return {entry.Name().decode(): entry.Buffer() for entry in entries}


def _tensors(model: schema.Model) -> Iterator[tuple[str, schema.Tensor]]:
    """Returns the tensors of a model by their names."""
    subgraph = model.Subgraphs(0)
    for i in range(_checked(subgraph.TensorsLength())):
        tensor = subgraph.Tensors(i)
        yield tensor.Name().decode(), tensor


def _quantization(tensor: schema.Tensor) -> Quantization:
    name, parameters = tensor.Name().decode(), tensor.Quantization()
    if parameters is None:
        raise ValueError(f"{name} does not say what its integers stand for")
    # What is not there is 0, by the schema.
    zero_points = np.unique(np.atleast_1d(parameters.ZeroPointAsNumpy()))
    if len(zero_points) != 1:
        raise ValueError(f"{name} has {len(zero_points)} zero points")
    scale = np.atleast_1d(np.float32(parameters.ScaleAsNumpy()))
    return Quantization(scale, int(zero_points[0]))


def _window(model: schema.Model, operator: schema.Operator) -> Window | None:
    """Returns how an operator moves, None if it does not."""
    code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
    is_convolution = code == schema.BuiltinOperator.CONV_2D
    if not is_convolution and code not in _POOLS:
        return None
    table = operator.BuiltinOptions()
    options = schema.Conv2DOptions() if is_convolution else schema.Pool2DOptions()
    options.Init(table.Bytes, table.Pos)
    strides = options.StrideH(), options.StrideW()
    others = []
    if is_convolution:
        kernel = model.Subgraphs(0).Tensors(operator.Inputs(1))
        size = tuple(kernel.ShapeAsNumpy()[1:3].tolist())
        dilation = options.DilationHFactor(), options.DilationWFactor()
        if dilation != (1, 1):
            others.append(f"dilation {list(dilation)}")
    else:
        size = options.FilterHeight(), options.FilterWidth()
    padding = {
        schema.Padding.SAME: "SAME",
        schema.Padding.VALID: "VALID",
    }[options.Padding()]
    return Window(size, strides, windows.pads(padding, size, strides), tuple(others))


def _checked(count: int) -> int:
    if count > _MOST_ENTRIES:
        raise ValueError(f"{count} entries in a table")
    return count


def _span(data: np.ndarray, buffer: schema.Buffer) -> tuple[int, int]:
    """Returns where in the file a buffer's content starts and ends."""
    content = buffer.DataAsNumpy()
    start = content.ctypes.data - data.ctypes.data
    return start, start + content.nbytes


def _content(data: np.ndarray, model: schema.Model, buffer: int) -> bytes:
    start, end = _span(data, model.Buffers(buffer))
    return bytes(data[start:end])


def _seal_of(
    data: np.ndarray, model: schema.Model, place: str = SEAL, first: bytes = b""
) -> str:
    """The SHA-256 of a file's bytes without the weights and the seal's own place."""
    left_out = [
        tensor.Buffer() for name, tensor in _tensors(model) if name.endswith(_WEIGHTS)
    ]
    left_out.append(_metadata(model)[place])
    digest = hashlib.sha256(first)
    position = 0
    for start, end in sorted(_span(data, model.Buffers(i)) for i in left_out):
        digest.update(data[position:start].data)
        position = end
    digest.update(data[position:].data)
    return digest.hexdigest()
