"""safetensors: a header in JSON, and arrays one after the other.

Format: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, BinaryIO

import numpy as np

from checkpoints import files
from checkpoints.errors import damage
from checkpoints.tensors import MAX_ENTRIES, Spec

_SIZE_BYTES = 8
_MAX_HEADER_BYTES = 100 << 20
"""As the format's own library has it."""
_ALIGNMENT = 8
_METADATA = "__metadata__"
_DTYPES = {
    **{"BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16"},
    **{"U32": "uint32", "I32": "int32", "U64": "uint64", "I64": "int64"},
    **{"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"},
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def is_one(beginning: bytes, size: int) -> bool:
    """Whether a file is one, by its first nine bytes or more, and its size."""
    length = int.from_bytes(beginning[:_SIZE_BYTES], "little")
    return beginning[_SIZE_BYTES:9] == b"{" and length <= size - _SIZE_BYTES


class SafeTensors:
    """A safetensors file that is open for reading.

    Attributes:
      metadata: what the header says of the file as a whole.
      specs: name -> what the array is. Values are read when they are asked for.
    """

    def __init__(self, file: BufferedReader, name: str):
        """Reads the header.

        Args:
          file: open for reading; left open.
          name: what to call it in errors, usually its path.

        Raises:
          CheckpointError: it is none, truncated or damaged.
        """
        self._file = file
        self._name = name
        try:
            self.metadata, entries, self._start = _read_header(file)
            length = file.seek(0, 2) - self._start
            self._places = {key: _place(key, entry) for key, entry in entries.items()}
            position = 0
            for start, end, _ in sorted(self._places.values(), key=lambda p: p[:2]):
                if start != position:
                    raise ValueError(f"no array begins at byte {position} of them")
                position = end
            if position != length:
                raise ValueError(f"{length} bytes of arrays, expected {position}")
        except ValueError as error:
            raise damage(name, str(error)) from error
        self.specs: dict[str, Spec] = {
            key: spec for key, (_, _, spec) in self._places.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Reads the values of an array.

        Raises:
          KeyError: there is no such array.
          CheckpointError: NumPy does not have its dtype.
        """
        start, _, spec = self._places[name]
        if not spec.is_readable:
            raise damage(self._name, f"{name} is of dtype {spec.dtype}")
        values = np.empty(spec.shape, np.dtype(spec.dtype).newbyteorder("<"))
        self._file.seek(self._start + start)
        self._file.readinto(values.reshape(-1).view(np.uint8).data)
        return values.astype(spec.dtype, copy=False)


def write(
    file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file with arrays in the order given."""
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    position = 0
    for name, values in arrays.items():
        end = position + values.nbytes
        header[name] = {
            "dtype": _NAMES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(_SIZE_BYTES, "little") + text)
    for values in arrays.values():
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def _read_header(file: BufferedReader) -> tuple[dict[str, str], dict[str, Any], int]:
    """Reads metadata, the entries of arrays, and where the arrays begin."""
    size = int.from_bytes(file.read(_SIZE_BYTES), "little")
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes")
    text = file.read(size)
    if len(text) < size:
        raise ValueError("it ends within its header")
    entries = files.parse_json(text)
    if not isinstance(entries, dict):
        raise ValueError("its header is no object")
    metadata = entries.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("its metadata are no texts")
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{len(entries)} arrays, too many to be true")
    return metadata, entries, _SIZE_BYTES + size


def _place(name: str, entry: Any) -> tuple[int, int, Spec]:
    """Where an array begins and ends, and what it is."""
    match entry:
        case {
            "dtype": str(dtype),
            "shape": [*shape],
            "data_offsets": [int(start), int(end)],
        } if 0 <= start <= end and all(
            isinstance(size, int) and 0 <= size <= end for size in shape
        ):
            spec = Spec(_DTYPES.get(dtype, dtype), tuple(shape))
            if dtype in _DTYPES and end - start != spec.size * _itemsize(dtype):
                raise ValueError(f"{name} has {end - start} bytes for {shape}")
            return start, end, spec
    raise ValueError(f"{name[:100]!r} is no array")


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "BF16" else np.dtype(_DTYPES[dtype]).itemsize
