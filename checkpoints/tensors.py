"""What both forms of TensorFlow's checkpoints have in common: how variables are described.

Messages: tensorflow/core/framework/{types,tensor_shape,tensor_slice,versions}.proto.
Keys: tensorflow/core/util/saved_tensor_slice_util.h, core/lib/strings/ordered_code.h.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from checkpoints import wire
from checkpoints.errors import CheckpointError

_DTYPES = (
    *("invalid", "float32", "float64", "int32", "uint8", "int16", "int8", "string"),
    *("complex64", "int64", "bool", "qint8", "quint8", "qint32", "bfloat16"),
    *("qint16", "quint16", "uint16", "complex128", "float16", "resource", "variant"),
    *("uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4"),
)
"""By their numbers in types.proto."""

_READABLE = {"bool", "complex64", "complex128", "float16", "float32", "float64"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}

MAX_ENTRIES = 100_000
"""Variables and slices in a checkpoint; a network in training has about 4,000."""

_MAX_RANK = 32
VERSION = 1
"""Of both forms; it has been this one for ten years."""

Extents = tuple[tuple[int, int | None], ...]
"""Start and length of a slice in each dimension; a length of None is the whole one."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a stored variable is, without its values.

    Attributes:
      dtype: TensorFlow's name of it, such as "float32".
      shape: its dimensions; none for a single number.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    @property
    def is_readable(self) -> bool:
        """Whether NumPy has the dtype, so that values can be read."""
        return self.dtype in _READABLE


def check_dtype(spec: Spec, name: str, source: str) -> None:
    """Checks that NumPy has the dtype of a variable, so that it can be read.

    Raises:
      CheckpointError: it has not.
    """
    if not spec.is_readable:
        raise CheckpointError(
            f"{source}: variable {name} is of dtype {spec.dtype}, whose values cannot be "
            "read."
        )


def dtype_name(number: int) -> str:
    """Returns the name of a DataType."""
    return _DTYPES[number] if number < len(_DTYPES) else f"number {number}"


def parse_name(content: wire.Buffer) -> str:
    """Reads the name of a variable.

    Raises:
      ValueError: it is no name that could be shown to anybody.
    """
    name = str(content, "utf-8")
    if not name.isprintable():
        raise ValueError(f"a variable of the name {name[:100]!r}")
    return name


def parse_shape(message: wire.Buffer) -> tuple[int, ...]:
    """Reads a TensorShapeProto.

    Raises:
      ValueError: it is none, or not that of a variable.
    """
    sizes = []
    for field in wire.fields(message):
        match field:
            case 2, memoryview() as dimension:
                sizes.append(_integers(dimension).get(1, 0))
            case 3, 1:
                raise ValueError("a shape that is not known")
        if len(sizes) > _MAX_RANK or min(sizes, default=0) < 0:
            raise ValueError(f"a shape of {len(sizes)} dimensions {sizes[-3:]}")
    return tuple(sizes)


def parse_extents(message: wire.Buffer) -> Extents:
    """Reads a TensorSliceProto.

    Raises:
      ValueError: it is none.
    """
    extents = []
    for field in wire.fields(message):
        match field:
            case 1, memoryview() as extent:
                numbers = _integers(extent)
                extents.append((numbers.get(1, 0), numbers.get(2)))
        if len(extents) > _MAX_RANK:
            raise ValueError(f"a slice of {len(extents)} dimensions")
    return tuple(extents)


def check_version(message: wire.Buffer) -> None:
    """Checks the VersionDef of a checkpoint.

    Raises:
      ValueError: a later form of checkpoints, that has to be read in another way.
    """
    if (needed := _integers(message).get(2, 0)) > VERSION:
        raise ValueError(f"it is of version {needed}, expected {VERSION}")


def slice_key(name: str, extents: Extents) -> bytes:
    """Returns the key under which a table has a slice of a variable."""
    escaped = name.encode().replace(b"\x00", b"\x00\xff")
    key = b"\x00" + escaped + b"\x00\x01" + _ordered(len(extents))
    for start, length in extents:
        key += _ordered_signed(start) + _ordered_signed(
            -1 if length is None else length
        )
    return key


def assemble(
    spec: Spec, slices: Sequence[Extents], read: Callable[[Extents, int], np.ndarray]
) -> np.ndarray:
    """Reads a variable in the slices that it was saved in: nearly always, all in one.

    Args:
      spec: of the variable.
      slices: where they belong.
      read: returns the values of a slice, which are as many as it is told, flat.

    Raises:
      ValueError: the slices do not make up the variable.
    """
    if len(set(slices)) < len(slices):
        raise ValueError("a slice of it is there twice")
    places = [_place(spec.shape, extents) for extents in slices]
    sizes = [math.prod(part.stop - part.start for part in place) for place in places]
    if sum(sizes) != spec.size or not slices:
        raise ValueError(f"its slices have {sum(sizes)} of {spec.size} values")
    values = [read(extents, size) for extents, size in zip(slices, sizes)]
    if len(slices) == 1:
        return values[0].reshape(spec.shape)
    whole = np.empty(spec.shape, values[0].dtype)
    is_filled = np.zeros(spec.shape, bool)
    for place, part in zip(places, values):
        whole[place] = part.reshape(whole[place].shape)
        is_filled[place] = True
    if not is_filled.all():
        raise ValueError("its slices overlap")
    return whole


def _place(shape: tuple[int, ...], extents: Extents) -> tuple[slice, ...]:
    if len(shape) != len(extents):
        raise ValueError(f"a slice of {len(extents)} dimensions of {len(shape)}")
    place = []
    for whole, (start, length) in zip(shape, extents):
        end = whole if length is None else start + length
        if not 0 <= start <= end <= whole:
            raise ValueError(f"a slice from {start} to {end} of {whole}")
        place.append(slice(start, end))
    return tuple(place)


def _integers(message: wire.Buffer) -> dict[int, int]:
    """The fields 1 and 2, where they are numbers."""
    return {
        number: wire.signed(value)
        for number, value in wire.fields(message)
        if number in (1, 2) and isinstance(value, int)
    }


def _ordered(value: int) -> bytes:
    """A number, written so that bytes have the order of the numbers."""
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _ordered_signed(value: int) -> bytes:
    """The same for numbers of either sign: as many bits set as there are bytes, a zero,
    and the number; all of it inverted for a negative one."""
    if value < 0:
        return bytes(~byte & 0xFF for byte in _ordered_signed(~value))
    count = value.bit_length() // 7 + 1
    ones = ((1 << count) - 1) << (7 * count)
    return (ones | value).to_bytes(count, "big")
