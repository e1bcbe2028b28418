"""V1 checkpoints: one table, which holds a list of all variables, and their values.

Messages: tensorflow/core/util/saved_tensor_slice.proto, framework/tensor.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import BinaryIO

import numpy as np

from checkpoints import table, tensors, wire
from checkpoints.errors import damage
from checkpoints.table import Bytes, Table
from checkpoints.tensors import Extents, Spec

_PIECE_BYTES = 1 << 20
_FLOAT = 1  # DT_FLOAT
_FIELDS = {
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), 7),
    **{"float32": 5, "float64": 6, "complex64": 9, "complex128": 12, "float16": 13},
    **{"int64": 10, "bool": 11, "uint32": 16, "uint64": 17},
}
"""Of a TensorProto: which one has the values of a dtype."""


class SavedSlices:
    """A V1 checkpoint that is open for reading.

    Attributes:
      specs: what there is, by name. Values are read when they are asked for.
    """

    def __init__(self, file: BufferedReader, name: str):
        """Reads the list of variables.

        Args:
          file: the checkpoint, open for reading, and left open.
          name: what to call it in errors, usually its path.

        Raises:
          CheckpointError: it is none, truncated or damaged.
        """
        self._table = Table(file, name)
        self.specs: dict[str, Spec] = {}
        self._slices: dict[str, list[Extents]] = {}
        try:
            self._take(_only(self._table.get(b""), 1))
        except KeyError:
            raise damage(self._table.name, "it has no list of variables") from None
        except ValueError as error:
            raise damage(self._table.name, f"its list of variables: {error}") from error

    def read(self, name: str) -> np.ndarray:
        """Reads the values of a variable.

        Raises:
          KeyError: there is no such variable.
          CheckpointError: NumPy does not have its dtype, or its values are damaged.
        """
        spec = self.specs[name]
        tensors.check_dtype(spec, name, self._table.name)

        def values(extents: Extents, size: int) -> np.ndarray:
            return self._values(name, extents, np.dtype(spec.dtype), size)

        # In the order of the table, in which it is read fastest.
        slices = sorted(self._slices[name], key=lambda e: tensors.slice_key(name, e))
        try:
            return tensors.assemble(spec, slices, values)
        except ValueError as error:
            raise damage(self._table.name, f"variable {name}: {error}") from error

    def _take(self, meta: memoryview) -> None:
        """Takes over a SavedTensorSliceMeta."""
        count = 0
        for field in wire.fields(meta):
            match field:
                case 1, memoryview() as variable:
                    name, spec, slices = _parse_variable(variable)
                    if name in self.specs:
                        raise ValueError(f"{name} is there twice")
                    self.specs[name], self._slices[name] = spec, slices
                    count += 1 + len(slices)
                case 2, memoryview() as version:
                    tensors.check_version(version)
            if count > tensors.MAX_ENTRIES:
                raise ValueError(f"over {tensors.MAX_ENTRIES} variables and slices")

    def _values(
        self, name: str, extents: Extents, dtype: np.dtype, size: int
    ) -> np.ndarray:
        try:
            entry = self._table.get(tensors.slice_key(name, extents))
        except KeyError:
            raise ValueError("it has no values") from None
        tensor = _only(_only(entry, 2), 3)  # The data of its data.
        content = _only(tensor, _FIELDS[dtype.name])
        if dtype.kind in "fc" and dtype != np.float16:
            values = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)
        else:
            values = np.concatenate([np.empty(0, dtype), *_unpack(content, dtype)])
        if values.size != size:
            raise ValueError(f"it has {values.size} of {size} values")
        return values


def write(variables: Mapping[str, np.ndarray], file: BinaryIO) -> None:
    """Writes a V1 checkpoint.

    Args:
      variables: name -> float32 array.
      file: open for writing, and empty.
    """
    version = wire.field(1, tensors.VERSION)
    meta = wire.field(2, version)
    entries: list[tuple[bytes, list[Bytes]]] = []
    for name, value in sorted(variables.items()):
        assert value.dtype == np.float32, f"{name} is of dtype {value.dtype}"
        sizes = b"".join(wire.field(2, wire.field(1, size)) for size in value.shape)
        whole = wire.field(1, b"") * value.ndim
        variable = wire.field(1, name.encode())
        meta += wire.field(
            1,
            variable
            + wire.field(2, sizes)
            + wire.field(3, _FLOAT)
            + wire.field(4, whole),
        )
        values = np.ascontiguousarray(value, "<f4").ravel().view(np.uint8)
        tensor = wire.head(_FIELDS["float32"], values.size)
        part = variable + wire.field(2, whole)
        part += wire.head(3, len(tensor) + values.size) + tensor
        part = wire.head(2, len(part) + values.size) + part
        key = tensors.slice_key(name, ((0, None),) * value.ndim)
        entries.append((key, [part, values]))
    table.write([(b"", [wire.field(1, meta)]), *entries], file)


def _only(message: memoryview, number: int) -> memoryview:
    """The content of a field that a message has once at most."""
    found: memoryview | None = None
    for field, value in wire.fields(message):
        if field == number and isinstance(value, memoryview):
            if found is not None:
                raise ValueError(f"it has its field {number} twice")
            found = value
    return memoryview(b"") if found is None else found


def _unpack(content: memoryview, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Numbers of variable length, some at a time, as arrays."""
    data = np.frombuffer(content, np.uint8)
    while data.size:
        piece = data[:_PIECE_BYTES]
        ends = np.flatnonzero(piece < 0x80)
        lengths = np.diff(ends, prepend=-1)
        if not ends.size or lengths.max() > 10:
            raise ValueError("a number that does not end")
        values = np.zeros(ends.size, np.uint64)
        for place in range(lengths.max()):
            longer = lengths > place
            digits = piece[(ends - lengths + 1)[longer] + place] & 0x7F
            values[longer] |= digits.astype(np.uint64) << np.uint64(7 * place)
        if dtype == np.float16:
            yield values.astype(np.uint16).view(np.float16)
        else:
            yield values.view(np.int64).astype(dtype)
        data = data[ends[-1] + 1 :]


def _parse_variable(message: memoryview) -> tuple[str, Spec, list[Extents]]:
    """Reads a SavedSliceMeta."""
    name, dtype = "", 0
    shape: tuple[int, ...] = ()
    slices: list[Extents] = []
    for field in wire.fields(message):
        match field:
            case 1, memoryview() as text:
                name = tensors.parse_name(text)
            case 2, memoryview() as found:
                shape = tensors.parse_shape(found)
            case 3, int(number):
                dtype = number
            case 4, memoryview() as found:
                slices.append(tensors.parse_extents(found))
    return name, Spec(tensors.dtype_name(dtype), shape), slices
