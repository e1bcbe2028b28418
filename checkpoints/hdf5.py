"""HDF5 files, in which Keras keeps weights: arrays at paths, read when asked for.

h5py reads them. It would follow links to other files, and make room for whatever size a
file claims; neither is done here, but for single texts, which may claim 4 GB.
"""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from checkpoints.errors import CheckpointError, damage
from checkpoints.tensors import MAX_ENTRIES, Spec

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"

MAX_BYTES = 4 << 30
"""Of all arrays; a network in training has about 700 MB."""
_MAX_DEPTH = 32
_MOST_TEXT = 64 << 20
"""Bytes of an attribute; a model's configuration has 1 MB."""
_HEAP = b"GCOL\x01\0\0\0"
"""Begins a collection of texts; its size and its objects follow."""
_HEADER_BYTES = 16
"""Of a collection, and of each object in it."""
_LENGTHS_BYTES = 8
"""Of numbers that are lengths, as h5py writes them."""
_LENGTHS_AT = {0: 14, 1: 14, 2: 10, 3: 10}
"""Version of the superblock -> the byte of it that says how many these are."""
_AT_ONCE = 1 << 24


class Hdf5(contextlib.AbstractContextManager):
    """An HDF5 file that is open for reading.

    Attributes:
      specs: path -> what the array there is. Values are read when they are asked for.
      addresses: path -> where the array is in the file; the same for two paths to one.
    """

    def __init__(self, file: BinaryIO, name: str):
        """Reads the list of arrays.

        Args:
          file: open for reading; left open.
          name: what to call it in errors, usually its path.

        Raises:
          CheckpointError: it is truncated or damaged, has links, or arrays that are too
            large to be true.
        """
        import h5py

        self._name = name
        self.specs: dict[str, Spec] = {}
        self.addresses: dict[str, int] = {}
        with self._damage_reported():
            _check_heaps(file)
            self._file = h5py.File(file, "r")
        try:
            with self._damage_reported():
                self._look_into(self._file, "", [])
                self._check_sizes()
        except BaseException:
            self._file.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, path: str) -> np.ndarray:
        """Reads the values at a path.

        Raises:
          KeyError: there are none.
          CheckpointError: they cannot be read, or NumPy does not have their dtype.
        """
        spec = self.specs[path]
        if not spec.is_readable:
            raise CheckpointError(
                f"{self._name}: {path} is of dtype {spec.dtype}, whose values cannot be "
                "read."
            )
        with self._damage_reported():
            values: np.ndarray = self._file[path][()]
        return np.asarray(values, spec.dtype)

    def attributes(self, path: str) -> Mapping[str, str | list[str]]:
        """Returns those attributes of a group that are text, or lists of texts.

        There are none where there is no group.
        """
        found: dict[str, str | list[str]] = {}
        with self._damage_reported():
            if path not in self._file:
                return found
            attributes = self._file[path].attrs
            for name in attributes:
                stored = attributes.get_id(name)
                if math.prod(stored.shape or ()) * stored.dtype.itemsize > _MOST_TEXT:
                    raise ValueError(f"{name} is too large to be true")
                value = attributes[name]
                value = value.tolist() if isinstance(value, np.ndarray) else value
                if isinstance(value, list):
                    found[name] = [_text(item) for item in value]
                elif isinstance(value, bytes | str):
                    found[name] = _text(value)
        return found

    def _look_into(self, group: h5py.Group, path: str, above: list[Any]) -> None:
        import h5py

        if group.id in above or len(above) > _MAX_DEPTH:
            raise ValueError(f"{path} is within itself, or too deep")
        for name in group:
            link = group.get(name, getlink=True)
            place = f"{path}{name}"
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{place} is a link to somewhere else")
            item = group[name]
            if isinstance(item, h5py.Group):
                self._look_into(item, f"{place}/", [*above, group.id])
            elif isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    raise ValueError(f"{place} has its values somewhere else")
                self.specs[place] = Spec(item.dtype.name, item.shape or ())
                self.addresses[place] = h5py.h5o.get_info(item.id).addr
            if len(self.specs) > MAX_ENTRIES:
                raise ValueError(f"over {MAX_ENTRIES} arrays, too many to be true")

    def _check_sizes(self) -> None:
        """Checks what arrays claim: values that are not compressed are all there."""
        sizes = {}
        for path, spec in self.specs.items():
            array = self._file[path]
            if not spec.is_readable:
                continue
            size = spec.size * np.dtype(spec.dtype).itemsize
            is_whole = array.chunks is not None or array.id.get_storage_size() >= size
            if not is_whole and size:
                raise ValueError(f"{path} claims {size} bytes, which are not there")
            sizes[self.addresses[path]] = size
        if sum(sizes.values()) > MAX_BYTES:
            raise ValueError(f"it claims {sum(sizes.values())} bytes")

    @contextlib.contextmanager
    def _damage_reported(self) -> Iterator[None]:
        """Turns whatever h5py raises about damaged files into our error."""
        try:
            yield
        except (
            *(OSError, OverflowError, ValueError),
            *(KeyError, RuntimeError, TypeError),
        ) as error:
            # EINVAL is for a place before the file, or too far behind it.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise damage(self._name, what) from error


def _check_heaps(file: BinaryIO) -> None:
    """Refuses a file in which HDF5's library would look for a text for ever.

    It passes over what is free in a collection by the size that it says it has, 0 too.
    Source: "HDF5 File Format Specification", III.E.

    Raises:
      ValueError: there is such a collection, or too much in them.
    """
    file.seek(0)
    superblock = file.read(_HEADER_BYTES)
    place = _LENGTHS_AT.get(superblock[8]) if len(superblock) == _HEADER_BYTES else None
    if place is None or superblock[place] != _LENGTHS_BYTES:
        raise ValueError(
            "its superblock is of an unknown version, or has other lengths"
        )
    objects = 0
    for start in _positions(file, _HEAP):
        file.seek(start)
        end = start + int.from_bytes(file.read(_HEADER_BYTES)[8:], "little")
        at = start + _HEADER_BYTES
        while at + _HEADER_BYTES <= end:
            file.seek(at)
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                break
            size = int.from_bytes(header[8:], "little")
            is_free = header[:2] == b"\0\0"
            if not is_free:  # Its header and its padding do not count.
                size = _HEADER_BYTES + -(-size // 8) * 8
            if not size:
                raise ValueError("a collection of texts has no end")
            at += size
            objects += 1
            if objects > MAX_ENTRIES:
                raise ValueError(f"over {MAX_ENTRIES} texts, too many to be true")


def _positions(file: BinaryIO, wanted: bytes) -> Iterator[int]:
    """Yields where some bytes are in a file."""
    start, kept = 0, b""
    while True:
        file.seek(start + len(kept))
        content = kept + file.read(_AT_ONCE)
        if len(content) == len(kept):
            return
        place = content.find(wanted)
        while place >= 0:
            yield start + place
            place = content.find(wanted, place + 1)
        kept = content[-(len(wanted) - 1) :]
        start += len(content) - len(kept)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
