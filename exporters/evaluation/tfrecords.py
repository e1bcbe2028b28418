"""TFRecord files, and the tf.train.Example messages in them, without TensorFlow.

A record is its length, 8 bytes, and that number's checksum, 4 bytes; its content, and the
content's checksum. Checksums are CRC-32C, masked.
(https://www.tensorflow.org/tutorials/load_data/tfrecord)
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from checkpoints import wire
from checkpoints.table import crc32c
from exporters.evaluation.locations import Location, size_of

_HEAD_BYTES = 12
_TAIL_BYTES = 4


class RecordError(Exception):
    """A record that is damaged; the message says how."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the content of a record lies.

    Attributes:
      file: the TFRecord file.
      start: first byte of the content.
      size: its number of bytes.
    """

    file: Location
    start: int
    size: int

    def read(self) -> bytes:
        """Returns the content of the record.

        Raises:
          RecordError: it is not what its checksum says.
          OSError, StorageError: the file cannot be read.
        """
        with self.file.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.size)
            tail = file.read(_TAIL_BYTES)
        if int.from_bytes(tail, "little") != crc32c(content):
            raise RecordError("its checksum does not fit its content")
        return content


def is_one(path: Location) -> bool:
    """Whether a file is a TFRecord file, judged by its first record."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _read_head(file) is not None


def _read_head(file: IO[bytes]) -> int | None:
    """Reads the length of a record; None if its checksum does not fit it."""
    head = file.read(_HEAD_BYTES)
    length = head[:8]
    if len(head) < _HEAD_BYTES or int.from_bytes(head[8:], "little") != crc32c(length):
        return None
    return int.from_bytes(length, "little")


def scan(path: Location) -> Iterator[tuple[Place, memoryview]]:
    """Finds the records of a file, and their contents, whose checksums are not compared.

    Of a file of this machine, only what is looked at is read.

    Raises:
      RecordError: when the iteration comes to a damaged length, or to the end of a file
        that was cut. Where the next record begins is not known then.
      OSError, StorageError: the file cannot be read.
    """
    with path.open("rb") as file:
        if isinstance(path, Path):
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            for place in _places(path, file):
                yield place, view[place.start : place.start + place.size]
        else:
            for place in _places(path, file):
                yield place, memoryview(file.read(place.size))


def _places(path: Location, file: IO[bytes]) -> Iterator[Place]:
    """Finds records, of which only lengths are read; leaves the file where one begins."""
    total = size_of(path)
    position = 0
    while position < total:
        file.seek(position)
        size = _read_head(file)
        if size is None:
            raise RecordError(f"the length of a record is damaged at byte {position}")
        start = position + _HEAD_BYTES
        position = start + size + _TAIL_BYTES
        if position > total:
            raise RecordError(
                f"the file ends after {total} bytes, within a record that ends "
                f"after {position}"
            )
        yield Place(path, start, size)


def parse_example(content: wire.Buffer) -> Mapping[str, memoryview]:
    """Returns the features of a tf.train.Example: name -> tf.train.Feature's bytes.

    Raises:
      RecordError: it is no such message.
    """
    found: dict[str, memoryview] = {}
    try:
        for field in wire.fields(content):
            match field:
                case 1, memoryview() as features:
                    found.update(map(_entry, _messages(features, 1)))
    except (wire.WireError, UnicodeDecodeError) as error:
        raise RecordError(f"it is no tf.train.Example: {error}") from error
    return found


def _messages(content: memoryview, number: int) -> Iterator[memoryview]:
    for field in wire.fields(content):
        match field:
            case found, memoryview() as message if found == number:
                yield message


def _entry(content: memoryview) -> tuple[str, memoryview]:
    """Reads an entry of the map of features."""
    name, feature = "", memoryview(b"")
    for field in wire.fields(content):
        match field:
            case 1, memoryview() as key:
                name = str(key, "utf-8")
            case 2, memoryview() as value:
                feature = value
    return name, feature


def one_bytes(feature: memoryview | None) -> bytes | None:
    """Returns the first of a feature's strings, None if it has none.

    Raises:
      RecordError: the feature is damaged.
    """
    try:
        for values in _messages(feature or memoryview(b""), 1):
            for value in _messages(values, 1):
                return bytes(value)
    except wire.WireError as error:
        raise RecordError(f"it is no tf.train.Example: {error}") from error
    return None


def one_integer(feature: memoryview | None) -> int | None:
    """Returns the first of a feature's integers, None if it has none.

    Raises:
      RecordError: the feature is damaged.
    """
    try:
        for values in _messages(feature or memoryview(b""), 3):
            for field in wire.fields(values):
                match field:
                    case 1, int() as value:
                        return wire.signed(value)
                    case 1, memoryview() as packed if packed:
                        return wire.signed(wire.read_varint(packed, 0)[0])
    except wire.WireError as error:
        raise RecordError(f"it is no tf.train.Example: {error}") from error
    return None
