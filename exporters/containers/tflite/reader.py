"""Reads TFLite files back, those of this toolkit only, and finds damage in them.

TFLite's interpreter trusts what it is given: a file damaged in the wrong place crashes
the process. Each file therefore records the SHA-256 of all its bytes but the weights,
and is checked before the interpreter sees it. Damaged weights cannot crash anything,
and show when they are compared with the checkpoint's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from checkpoints.reader import Checkpoint
from exporters.artifact import ArtifactError, first_line
from exporters.containers.tflite.flatbuffer import IDENTIFIER
from exporters.containers.tflite.quantization import Quantization
from exporters.containers.tflite.writer import BIAS_SHIFTS

RECORD = "irv2"
"""Name of the metadata that holds a file's Record, as JSON."""

_UNSEALED = "0" * 64
_MOST_ENTRIES = 10_000
"""More tensors, buffers or metadata than any of our files has."""
_WEIGHTS = ("/weights", "/biases")
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
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)
"""What reading a damaged flatbuffer can raise."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What a file says about itself.

    Attributes:
      format: name of its row in `exporters.formats`.
      task: "feature_vector" or "classification".
      checkpoint_identity: `Checkpoint.identity` of its weights.
      stand_in: whether these weights were generated and classify nothing.
      provenance: value of `checkpoints.reader.Provenance`.
      signed_input: whether images are in [-1, 1] instead of [0, 1].
      seal: SHA-256 of all bytes of the file but the weights, with zeros for the seal.
    """

    format: str
    task: str
    checkpoint_identity: str
    stand_in: bool
    provenance: str
    signed_input: bool
    seal: str = _UNSEALED

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """A weight as a file holds it.

    Attributes:
      values: float32, float16, int8 or int32.
      quantization: what integers stand for.
    """

    values: np.ndarray
    quantization: Quantization | None

    def to_float(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the values as floats and, of the same rank, half a rounding step."""
        if self.quantization:
            ones = np.ones((len(self.values),) + (1,) * (self.values.ndim - 1))
            step = Quantization(self.quantization.scale).dequantize(ones)
            values = self.quantization.dequantize(self.values)
            if self.values.dtype == np.int8:
                values = values.astype(np.float32)
            return values, step / 2
        if self.values.dtype == np.float16:
            step = np.spacing(np.abs(self.values)).astype(np.float32)
            return self.values.astype(np.float32), step / 2
        return self.values, np.zeros([1] * self.values.ndim)


def make_record(
    checkpoint: Checkpoint, format: str, task: str, *, signed_input: bool
) -> Record:
    """Returns the record of a file to be; `seal` completes it."""
    return Record(
        format=format,
        task=task,
        checkpoint_identity=checkpoint.identity,
        stand_in=checkpoint.is_stand_in,
        provenance=checkpoint.provenance.value,
        signed_input=signed_input,
    )


def seal(path: Path) -> None:
    """Writes the seal of a finished file into its record."""
    data = np.memmap(path, np.uint8, "r+")
    model = schema.Model.GetRootAs(data)
    start, end = _span(data, model.Buffers(_metadata(model)[RECORD]))
    record = Record(**json.loads(bytes(data[start:end])))
    record = dataclasses.replace(record, seal=_seal(data, model, record))
    data[start:end] = np.frombuffer(record.to_json(), np.uint8)
    data.flush()


def read_record(path: Path) -> Record:
    """Checks a file and returns its record.

    Raises:
      ArtifactError: the file is no TFLite file, none of this toolkit's, or damaged.
    """
    return _read(path)[2]


def read_weights(
    path: Path,
) -> tuple[dict[str, StoredWeight], dict[str, np.ndarray]]:
    """Reads the weights of a file.

    Returns:
      Name -> weight, in the order of layers; and name -> what was taken off a bias,
      for all biases or none.

    Raises:
      ArtifactError: the file is no TFLite file, none of this toolkit's, or damaged.
    """
    data, model, _ = _read(path)
    weights = {}
    for name, tensor in _weight_tensors(model).items():
        start, end = _span(data, model.Buffers(tensor.Buffer()))
        values = data[start:end].view(_NUMPY_TYPES[tensor.Type()])
        quantization = tensor.Quantization()
        if quantization is not None:
            quantization = Quantization(quantization.ScaleAsNumpy())
        weights[name] = StoredWeight(
            values.reshape(tensor.ShapeAsNumpy()), quantization
        )
    index = _metadata(model).get(BIAS_SHIFTS)
    if index is None:
        return weights, {}
    start, end = _span(data, model.Buffers(index))
    biases = [name for name in weights if name.endswith("/biases")]
    ends = np.cumsum([weights[name].values.size for name in biases])
    shifts = np.split(data[start:end].view(np.float32), ends[:-1])
    return weights, dict(zip(biases, shifts))


def _read(path: Path) -> tuple[np.ndarray, schema.Model, Record]:
    try:
        data = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({first_line(error)}). Expected a TFLite file."
        ) from error
    if bytes(data[4:8]) != IDENTIFIER:
        raise ArtifactError(
            f"{path} is no TFLite file: bytes 4 to 8 are {bytes(data[4:8])!r}, expected "
            f"{IDENTIFIER!r}."
        )
    try:
        model = schema.Model.GetRootAs(data)
        metadata = _metadata(model)
        if RECORD not in metadata:
            raise ArtifactError(
                f"{path} is a TFLite file, but none that irv2 made: it has no metadata "
                f'"{RECORD}". Found {", ".join(metadata) or "none"}.'
            )
        start, end = _span(data, model.Buffers(metadata[RECORD]))
        content = bytes(data[start:end])
        record = Record(**json.loads(content))
        is_whole = content == record.to_json() and (
            record.seal == _seal(data, model, record)
        )
    except _DAMAGE as error:
        raise ArtifactError(
            f"{path} is damaged ({first_line(error)}). Export it again."
        ) from error
    if not is_whole:
        raise ArtifactError(
            f"{path} is not as it was written: it was damaged, or changed by another "
            "tool. Export it again."
        )
    return data, model, record


def _metadata(model: schema.Model) -> dict[str, int]:
    """Returns name -> buffer of a model's metadata."""
    entries = (model.Metadata(i) for i in range(_checked(model.MetadataLength())))
    return {entry.Name().decode(): entry.Buffer() for entry in entries}


def _weight_tensors(model: schema.Model) -> dict[str, schema.Tensor]:
    """Returns name -> tensor of a model's weights."""
    subgraph = model.Subgraphs(0)
    tensors = (subgraph.Tensors(i) for i in range(_checked(subgraph.TensorsLength())))
    named = {tensor.Name().decode(): tensor for tensor in tensors}
    return {name: value for name, value in named.items() if name.endswith(_WEIGHTS)}


def _checked(count: int) -> int:
    if count > _MOST_ENTRIES:
        raise ValueError(f"{count} entries in a table")
    return count


def _span(data: np.ndarray, buffer: schema.Buffer) -> tuple[int, int]:
    """Returns where in the file a buffer's content starts and ends."""
    content = buffer.DataAsNumpy()
    start = content.ctypes.data - data.ctypes.data
    return start, start + content.nbytes


def _seal(data: np.ndarray, model: schema.Model, record: Record) -> str:
    """The SHA-256 of a file's bytes without the weights, as its record was unsealed."""
    left_out = [tensor.Buffer() for tensor in _weight_tensors(model).values()]
    left_out.append(_metadata(model)[RECORD])
    digest = hashlib.sha256(dataclasses.replace(record, seal=_UNSEALED).to_json())
    position = 0
    for start, end in sorted(_span(data, model.Buffers(i)) for i in left_out):
        digest.update(data[position:start].data)
        position = end
    digest.update(data[position:].data)
    return digest.hexdigest()
