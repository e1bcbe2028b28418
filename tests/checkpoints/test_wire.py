"""Messages of Protocol Buffers, beside the library of that name."""

import pytest
from google.protobuf import descriptor_pb2

from checkpoints import wire


def read(message):
    return [
        (number, value if isinstance(value, int) else bytes(value))
        for number, value in wire.fields(message)
    ]


def test_what_the_library_writes_is_read():
    message = descriptor_pb2.UninterpretedOption(
        identifier_value="größe",
        positive_int_value=2**64 - 1,
        negative_int_value=-(2**63),
        double_value=1.0,
    )
    message.name.add(name_part="x" * 300, is_extension=True)
    found = dict(read(message.SerializeToString()))
    assert read(found[2]) == [(1, b"x" * 300), (2, 1)]
    assert found[3] == "größe".encode()
    assert found[4] == 2**64 - 1
    assert wire.signed(found[5]) == -(2**63)
    assert found[6] == 0x3FF0000000000000


def test_what_is_written_is_read_by_the_library():
    part = wire.field(1, "größe".encode()) + wire.field(2, 1)
    written = wire.field(2, part) + wire.field(4, 300) + wire.head(7, 3) + b"abc"
    found = descriptor_pb2.UninterpretedOption.FromString(written)
    assert found.name[0].name_part == "größe"
    assert found.name[0].is_extension is True
    assert found.positive_int_value == 300
    assert found.string_value == b"abc"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63, 2**64 - 1])
def test_numbers_of_every_length(value):
    written = wire.varint(value)
    assert wire.read_varint(b"x" + written + b"y", 1) == (value, 1 + len(written))


def test_fields_are_views_and_not_copies():
    message = bytearray(wire.field(1, b"abc"))
    [(_, value)] = wire.fields(memoryview(message))
    message[-1:] = b"d"
    assert bytes(value) == b"abd"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\x08", "end within a number"),
        (b"\x08\x80\x80", "end within a number"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x0a\x05abcd", "field 1 ends after 4 of 5 bytes"),
        (b"\x0a" + wire.varint(2**63) + b"a", "field 1 ends after 1 of"),
        (b"\x0d\x00\x00", "field 1 ends after 2 of 4 bytes"),
        (b"\x09\x00", "field 1 ends after 1 of 8 bytes"),
        (b"\x0b", "field 1 is of kind 3"),
    ],
)
def test_what_is_no_message(message, problem):
    with pytest.raises(wire.WireError, match=problem):
        read(message)
