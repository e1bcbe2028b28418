"""V2 checkpoints: a table that lists all variables, and files of nothing but values.

Messages: tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np

from checkpoints import tensors, wire
from checkpoints.errors import CheckpointError, damage
from checkpoints.regular_file import open_regular
from checkpoints.table import Table, crc32c
from checkpoints.tensors import Extents, Spec

_MAX_BYTES_OF_NAMES = 64 << 20


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A BundleEntryProto: a variable, or one slice of a partitioned variable."""

    spec: Spec
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[Extents, ...]


class Bundle:
    """A V2 checkpoint that is open for reading.

    Attributes:
      specs: what there is, by name. Values are read when they are asked for.
    """

    def __init__(self, prefix: Path, name: str):
        """Reads the list of variables.

        Args:
          prefix: path of the index without ".index".
          name: what to call the prefix in errors, usually its path.

        Raises:
          CheckpointError: its index is none, truncated or damaged.
          OSError: its index cannot be read.
        """
        self._prefix = prefix
        self._name = name
        self._shards = 0
        self._is_big_endian = False
        self._entries: dict[bytes, _Entry] = {}
        self.specs: dict[str, Spec] = {}
        with open_regular(prefix.with_name(f"{prefix.name}.index")) as file:
            table = Table(file, f"{name}.index")
            try:
                self._take_header(table.get(b""))
                self._take_entries(table)
            except KeyError:
                raise damage(table.name, "it has no header") from None
            except ValueError as error:
                raise damage(table.name, str(error)) from error
        self._claimed = collections.Counter[int]()
        for entry in self._entries.values():
            self._claimed[entry.shard] += entry.size

    def read(self, name: str) -> np.ndarray:
        """Reads the values of a variable.

        Raises:
          KeyError: there is no such variable.
          CheckpointError: NumPy does not have its dtype, or its values are damaged or
            missing.
          OSError: a file of values cannot be read.
        """
        spec = self.specs[name]
        tensors.check_dtype(spec, name, self._name)
        entry = self._entries[name.encode()]

        def values(extents: Extents, size: int) -> np.ndarray:
            part = self._entries.get(tensors.slice_key(name, extents))
            if part is None or part.spec.dtype != spec.dtype:
                raise ValueError("a slice of it is missing")
            return self._values(part, size)

        try:
            if not entry.slices:
                return self._values(entry, spec.size).reshape(spec.shape)
            return tensors.assemble(spec, entry.slices, values)
        except ValueError as error:
            raise damage(self._name, f"variable {name}: {error}") from error

    def read_string(self, name: str) -> bytes:
        """Reads a variable that is a single string.

        Raises:
          KeyError: there is no such variable.
          CheckpointError: it is none, damaged or missing.
          OSError: a file of values cannot be read.
        """
        if self.specs[name] != Spec("string", ()):
            raise CheckpointError(f"{self._name}: {name} is not a single string.")
        entry = self._entries[name.encode()]
        try:
            content = self._content(entry).tobytes()
            size, start = wire.read_varint(content, 0)
            # The length counts as a number of fixed size, and has a checksum of its own.
            length = size.to_bytes(4 if size < 1 << 32 else 8, "little")
            checksum, text = content[start : start + 4], content[start + 4 :]
            if len(text) != size or crc32c(length, checksum, text) != entry.checksum:
                raise ValueError("its length or its checksum is wrong")
        except ValueError as error:
            raise damage(self._name, f"variable {name}: {error}") from error
        return text

    def _take_header(self, message: memoryview) -> None:
        """Takes over a BundleHeaderProto."""
        for field in wire.fields(message):
            match field:
                case 1, int(shards):
                    self._shards = shards
                case 2, int(endianness):
                    self._is_big_endian = bool(endianness)
                case 3, memoryview() as version:
                    tensors.check_version(version)

    def _take_entries(self, table: Table) -> None:
        count = length = 0
        for key, message in table:
            if not key:
                continue
            entry = _parse_entry(message)
            self._entries[key] = entry
            if not key.startswith(b"\0"):  # As those of slices do.
                self.specs[tensors.parse_name(key)] = entry.spec
            count += 1 + len(entry.slices)
            length += len(key)
            if count > tensors.MAX_ENTRIES or length > _MAX_BYTES_OF_NAMES:
                raise ValueError(f"{count} variables and slices, too many to be true")

    def _values(self, entry: _Entry, size: int) -> np.ndarray:
        """Reads an entry's values, flat, which are as many as it is told."""
        dtype = np.dtype(entry.spec.dtype)
        if entry.size != size * dtype.itemsize:
            raise ValueError(f"it has {entry.size} bytes for {size} values")
        content = self._content(entry)
        if crc32c(content) != entry.checksum:
            name = f"{self._name}{self._suffix(entry)}"
            raise ValueError(f"its checksum in {name} is wrong")
        stored = dtype.newbyteorder(">" if self._is_big_endian else "<")
        return content.view(stored).astype(dtype, copy=False)

    def _content(self, entry: _Entry) -> np.ndarray:
        """Reads an entry's bytes."""
        suffix = self._suffix(entry)
        name = f"{self._name}{suffix}"
        try:
            file = open_regular(self._prefix.with_name(self._prefix.name + suffix))
        except FileNotFoundError:
            raise CheckpointError(
                f"{self._name} is incomplete: its data file {name} is missing."
            ) from None
        with file:
            length = file.seek(0, 2)
            if max(entry.offset + entry.size, self._claimed[entry.shard]) > length:
                raise damage(
                    name,
                    f"it has {length:,} bytes, and by the checkpoint's index values of "
                    f"{self._claimed[entry.shard]:,} bytes",
                )
            content = np.empty(entry.size, np.uint8)
            file.seek(entry.offset)
            file.readinto(content.data)
        return content

    def _suffix(self, entry: _Entry) -> str:
        """What the name of the data file that has an entry's bytes ends with."""
        return f".data-{entry.shard:05}-of-{self._shards:05}"


def _parse_entry(message: memoryview) -> _Entry:
    """Reads a BundleEntryProto."""
    numbers = dict.fromkeys(range(1, 7), 0)
    shape: tuple[int, ...] = ()
    slices = []
    for field in wire.fields(message):
        match field:
            case 2, memoryview() as found:
                shape = tensors.parse_shape(found)
            case 7, memoryview() as found:
                slices.append(tensors.parse_extents(found))
            case number, int(value) if number in numbers:
                numbers[number] = value
    return _Entry(
        spec=Spec(tensors.dtype_name(numbers[1]), shape),
        shard=numbers[3],
        offset=numbers[4],
        size=numbers[5],
        checksum=numbers[6],
        slices=tuple(slices),
    )
