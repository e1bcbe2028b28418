"""Tables: sorted files of keys and values, as LevelDB defines and TensorFlow uses them.

    file     blocks, the index (a block too), a footer of 48 bytes
    footer   where an unused block is, and where the index is; zeros; 8 bytes of magic
    index    for each block, a key that none of the block's keys exceeds -> its place
    block    entries; where some of them start; its kind (a byte); a checksum of all that
    entry    how much of its key is that of the entry before it; the rest; the value

Format: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from typing import BinaryIO

import google_crc32c
import numpy as np

from checkpoints import wire
from checkpoints.errors import CheckpointError, damage

Bytes = bytes | np.ndarray
"""Bytes, or an array of them."""

MAGIC = bytes.fromhex("57fb808b247547db")
"""The last 8 bytes of a table."""

_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # of a block: its kind, and its checksum
_UNCOMPRESSED = 0
_MAX_BLOCKS = 100_000
_MAX_KEY_BYTES = 4096
_MAX_BYTES_OF_KEYS = 64 << 20  # A key of 4096 bytes may take 4 in the file.


class Table:
    """A table that is open for reading; of all that it returns, the checksum is right.

    Whoever asks for keys in their order has every block read once, and one at a time.
    """

    def __init__(self, file: BufferedReader, name: str):
        """Reads the index of a table.

        Args:
          file: open for reading, and left open.
          name: what to call it in errors, usually its path.

        Raises:
          CheckpointError: the file is no table, truncated or damaged.
        """
        self.name = name
        self._file = file
        self._size = file.seek(0, 2) - _FOOTER_BYTES
        file.seek(max(0, self._size))
        footer = memoryview(file.read(_FOOTER_BYTES))
        if self._size < 0 or footer[-len(MAGIC) :] != MAGIC:
            raise damage(name, "it does not end like a table of TensorFlow's")
        self._last_keys: list[bytes] = []
        self._places: list[tuple[int, int]] = []
        try:
            unused, position = _read_place(footer, 0)
            index, _ = _read_place(footer, position)
            self._read_block(*unused)
            for key, place in _read_entries(self._read_block(*index)):
                self._last_keys.append(key)
                self._places.append(_read_place(place, 0)[0])
                if len(self._places) > _MAX_BLOCKS:
                    raise ValueError(f"over {_MAX_BLOCKS} blocks")
        except ValueError as error:
            raise damage(name, f"its index cannot be read: {error}") from error
        self._block = -1
        self._rest: Iterator[tuple[bytes, memoryview]] = iter(())
        self._key, self._value = b"", memoryview(b"")

    def get(self, key: bytes) -> memoryview:
        """Returns the value of a key, which stays valid when others are read.

        Raises:
          KeyError: the table does not have it.
          CheckpointError: where it should be is damaged.
        """
        block = bisect.bisect_left(self._last_keys, key)
        if block == len(self._last_keys):
            raise KeyError(key)
        if block != self._block or key < self._key:
            self._block = -1
            self._rest = self._entries(block)
            self._key, self._value = next(self._rest)
            self._block = block
        while self._key < key and (entry := next(self._rest, None)):
            self._key, self._value = entry
        if self._key != key:
            raise KeyError(key)
        return self._value

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        """All keys and values, in the order of the keys.

        Raises:
          CheckpointError: the iteration comes to what is damaged.
        """
        for block in range(len(self._places)):
            yield from self._entries(block)

    def _entries(self, block: int) -> Iterator[tuple[bytes, memoryview]]:
        place = self._places[block]
        try:
            for key, value in _read_entries(self._read_block(*place)):
                is_before = block and key <= self._last_keys[block - 1]
                if is_before or key > self._last_keys[block]:
                    raise ValueError("a key of it belongs into another block")
                yield key, value
        except ValueError as error:
            raise damage(self.name, f"its block at byte {place[0]}: {error}") from error

    def _read_block(self, start: int, size: int) -> memoryview:
        end = start + size + _TRAILER_BYTES
        if end > self._size:
            raise ValueError(f"a block that ends at byte {end} of {self._size}")
        block = np.empty(end - start, np.uint8)
        self._file.seek(start)
        self._file.readinto(block.data)
        if crc32c(block[:-4]) != int.from_bytes(block[-4:].tobytes(), "little"):
            raise ValueError("a wrong checksum")
        if block[size] != _UNCOMPRESSED:
            raise CheckpointError(
                f"{self.name} is compressed, which is not supported: no release of "
                "TensorFlow does it. Save it again with the program that made it."
            )
        return block.data[:size]


def write(entries: Iterable[tuple[bytes, Sequence[Bytes]]], file: BinaryIO) -> None:
    """Writes a table, with a block for each entry.

    Args:
      entries: keys in their order, and values, each in one or more pieces.
      file: open for writing, and empty.
    """
    index = []
    for key, value in entries:
        size = sum(len(piece) for piece in value)
        place = _write_block(file, _entry_head(key, size), *value)
        index += [_entry_head(key, len(place)), place]
    footer = _write_block(file) + _write_block(file, *index)
    file.write(footer.ljust(_FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC)


def _write_block(file: BinaryIO, *entries: Bytes) -> bytes:
    """Writes a block, and returns its place as an index holds it."""
    starts = bytes(4) + (1).to_bytes(4, "little")  # One start, of the first entry.
    start = file.tell()
    for piece in (*entries, starts):
        file.write(piece if isinstance(piece, bytes) else piece.data)
    size = file.tell() - start
    kind = bytes([_UNCOMPRESSED])
    file.write(kind + crc32c(*entries, starts, kind).to_bytes(4, "little"))
    return wire.varint(start) + wire.varint(size)


def _entry_head(key: bytes, size: int) -> bytes:
    return wire.varint(0) + wire.varint(len(key)) + wire.varint(size) + key


def crc32c(*pieces: Bytes) -> int:
    """Returns the CRC-32C of bytes, masked as TensorFlow stores it."""
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _read_place(data: memoryview, position: int) -> tuple[tuple[int, int], int]:
    start, position = wire.read_varint(data, position)
    size, position = wire.read_varint(data, position)
    return (start, size), position


def _read_entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The entries of a block, from the first to the last."""
    starts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (1 + starts)
    if end <= 0:
        raise ValueError("no entries")
    key: bytes | None = None
    total = position = 0
    while position < end:
        shared, position = wire.read_varint(block, position)
        rest, position = wire.read_varint(block, position)
        size, position = wire.read_varint(block, position)
        value = position + rest
        total += shared + rest
        if value + size > end or shared > len(key or b""):
            raise ValueError("an entry of the wrong length")
        if shared + rest > _MAX_KEY_BYTES or total > _MAX_BYTES_OF_KEYS:
            raise ValueError("keys that are too long")
        before, key = key, (key or b"")[:shared] + block[position:value].tobytes()
        if before is not None and key <= before:
            raise ValueError("keys that are not in order")
        position = value + size
        yield key, block[value:position]
