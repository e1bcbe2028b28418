"""Protocol Buffers as bytes, read and written without a schema.

A message is a row of fields, each a number and a value; what they mean is for the caller
to know. Format: https://protobuf.dev/programming-guides/encoding. Groups, which it
deprecates, are not read.

    for field in wire.fields(message):
        match field:
            case 1, int() as count: ...
            case 2, memoryview() as name: ...

A field of another number or kind matches nothing, and so is passed over, as every parser
of Protocol Buffers does with fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator

Buffer = bytes | memoryview

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are no message: truncated, or their lengths do not fit."""


def fields(message: Buffer) -> Iterator[tuple[int, int | memoryview]]:
    """Reads the fields of a message, in the order in which they were written.

    Args:
      message: the bytes of one message.

    Yields:
      Field number and value. Varints and fixed-size numbers are integers, without sign;
      strings, bytes, packed numbers and messages are views of `message`, not copies.

    Raises:
      WireError: when the iteration comes to what cannot be read.
    """
    message = memoryview(message)
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = read_varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise WireError(f"field {number} is of kind {kind}")
        content = message[position : position + size]
        if len(content) < size:
            raise WireError(f"field {number} ends after {len(content)} of {size} bytes")
        position += size
        yield number, content if kind == _BYTES else int.from_bytes(content, "little")


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Reads a number of variable length, 64 bits at most.

    Returns:
      The number, without sign, and the position behind it.

    Raises:
      WireError: the data end within it, or it is too long.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise WireError("the bytes end within a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if byte >= 0x80 or value >> 64:
        raise WireError("a number has more than 64 bits")
    return value, position


def signed(value: int) -> int:
    """Returns the int64 or int32 that a varint stands for."""
    return value - (1 << 64) if value >> 63 else value


def varint(value: int) -> bytes:
    """Returns the bytes of a number from 0 to 2**64 - 1."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number: int, value: int | bytes) -> bytes:
    """Returns the bytes of one field: a varint, or bytes (a string, a message)."""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    return head(number, len(value)) + value


def head(number: int, size: int) -> bytes:
    """Returns what comes before the `size` bytes of a field that holds bytes."""
    return varint(number << 3 | _BYTES) + varint(size)
