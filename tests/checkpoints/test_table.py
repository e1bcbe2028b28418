"""Tables as they should be, damaged, and made by somebody who means harm."""

import io
import random
import time
import tracemalloc

import google_crc32c
import pytest

from checkpoints import table, wire
from checkpoints.errors import CheckpointError
from checkpoints.table import Table

ENTRIES = {
    f"name {number:04}".encode(): bytes([number % 256]) * 9 for number in range(500)
}


def opened(content):
    return Table(io.BufferedReader(io.BytesIO(content)), "some/file")


def written(entries):
    file = io.BytesIO()
    table.write(((key, [value]) for key, value in entries.items()), file)
    return file.getvalue()


def error_of(content, key=None):
    """The message for a table that cannot be opened, or not be read."""
    with pytest.raises(CheckpointError) as caught:
        found = opened(content)
        list(found) if key is None else found.get(key)
    message = str(caught.value)
    assert message.startswith("some/file is ")
    return message


def entry(shared, key, value):
    head = wire.varint(shared) + wire.varint(len(key)) + wire.varint(len(value))
    return head + key + value


def hand_made(*blocks, index=None, kind=0, starts=1):
    """A table with the blocks given, under the last keys given, and right checksums."""
    file = bytearray()

    def add(content):
        start = len(file)
        content += bytes(4 * starts) + starts.to_bytes(4, "little")
        size = len(content)
        content += bytes([kind])
        checksum = table.crc32c(content).to_bytes(4, "little")
        file.extend(content + checksum)
        return wire.varint(start) + wire.varint(size)

    places = [(key, add(content)) for key, content in blocks]
    if index is None:
        index = b"".join(entry(0, key, place) for key, place in places)
    footer = add(b"") + add(index)
    return bytes(file + footer.ljust(40, b"\0") + table.MAGIC)


def test_the_checksum_is_that_of_the_standard_computed_in_c():
    assert google_crc32c.implementation == "c"
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4


def test_round_trip():
    found = opened(written(ENTRIES))
    assert {key: bytes(value) for key, value in found} == ENTRIES
    keys = list(ENTRIES)
    random.Random(0).shuffle(keys)
    for key in keys:
        assert bytes(found.get(key)) == ENTRIES[key]
    for key in (b"", b"name", b"name 0007x", b"zzz"):
        with pytest.raises(KeyError):
            found.get(key)


def test_keys_that_share_their_beginnings():
    block = entry(0, b"abc", b"1") + entry(2, b"d", b"2") + entry(0, b"b", b"3")
    found = opened(hand_made((b"c", block)))
    assert [(key, bytes(value)) for key, value in found] == [
        (b"abc", b"1"),
        (b"abd", b"2"),
        (b"b", b"3"),
    ]
    for key, value in ((b"b", b"3"), (b"abc", b"1"), (b"abd", b"2"), (b"abd", b"2")):
        assert bytes(found.get(key)) == value


def test_many_places_where_entries_start():
    found = opened(hand_made((b"z", entry(0, b"a", b"1")), starts=1 << 16))
    assert bytes(found.get(b"a")) == b"1"


def test_values_stay_when_others_are_read():
    found = opened(written(ENTRIES))
    first = found.get(b"name 0000")
    found.get(b"name 0499")
    assert bytes(first) == ENTRIES[b"name 0000"]


def test_keys_in_order_read_each_block_once():
    class Counting(io.BytesIO):
        reads = 0

        def readinto(self, buffer):
            self.reads += 1
            return super().readinto(buffer)

    blocks = [
        (
            f"{block}z".encode(),
            b"".join(entry(0, f"{block}{n}".encode(), b"") for n in "abc"),
        )
        for block in range(9)
    ]
    file = Counting(hand_made(*blocks))
    found = Table(file, "some/file")
    before = file.reads
    for block in range(9):
        for n in "abc":
            found.get(f"{block}{n}".encode())
    assert file.reads - before == 9


# Damage


def test_truncated_anywhere():
    content = written(dict(list(ENTRIES.items())[:5]))
    for length in range(len(content)):
        assert "truncated or damaged" in error_of(content[:length])


def test_every_changed_bit_is_found_or_does_not_matter():
    entries = dict(list(ENTRIES.items())[:5])
    content = bytearray(written(entries))
    harmless = 0
    for position in range(8 * len(content)):
        content[position // 8] ^= 1 << position % 8
        try:
            found = {key: bytes(value) for key, value in opened(bytes(content))}
        except CheckpointError:
            pass
        else:
            assert found == entries
            harmless += 1
        content[position // 8] ^= 1 << position % 8
    assert harmless <= 8 * 40  # The footer has room for longer numbers.


def test_a_wrong_checksum_names_the_block():
    content = bytearray(written(ENTRIES))
    content[5] ^= 1
    assert "its block at byte 0: a wrong checksum" in error_of(content)
    assert bytes(opened(content).get(b"name 0001")) == ENTRIES[b"name 0001"]


# Right checksums over what is wrong


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (hand_made((b"z", b"")), "no entries"),
        (hand_made((b"z", entry(1, b"a", b""))), "an entry of the wrong length"),
        (hand_made((b"z", b"\0\1" + wire.varint(2**63) + b"a")), "of the wrong length"),
        (hand_made((b"z", b"\0" + wire.varint(2**63) + b"\0a")), "of the wrong length"),
        (hand_made((b"z", b"\0\1\xff" * 9)), "of the wrong length|end within"),
        (hand_made((b"z", b"\xff" * 30)), "more than 64 bits"),
        (hand_made((b"z", entry(0, b"b", b"") + entry(0, b"a", b""))), "not in order"),
        (hand_made((b"z", entry(0, b"b", b"") * 2)), "not in order"),
        (hand_made((b"a", entry(0, b"b", b""))), "belongs into another block"),
        (
            hand_made((b"b", entry(0, b"a", b"")), (b"d", entry(0, b"b", b""))),
            "belongs into another block",
        ),
        (hand_made((b"z", entry(0, b"a" * 5000, b""))), "keys that are too long"),
        (hand_made(index=entry(0, b"z", b"\xff\xff\xff")), "end within a number"),
        (
            hand_made(index=entry(0, b"z", wire.varint(2**62) + wire.varint(2**62))),
            "a block that ends at byte",
        ),
        (hand_made(index=b""), "no entries"),
    ],
)
def test_lies(content, problem):
    message = error_of(content)
    assert any(part in message for part in problem.split("|")), message


def test_a_compressed_table_is_told_as_such():
    message = error_of(hand_made((b"a", entry(0, b"a", b"")), kind=1))
    assert message.startswith("some/file is compressed, which is not supported")


def test_a_block_in_place_of_itself():
    """An index whose one block is the index."""
    content = hand_made((b"a", entry(0, b"a", b"1")), index=entry(0, b"z", b"\x14\x0f"))
    assert len(error_of(content)) < 200


@pytest.mark.parametrize("step", [1, 0])
def test_short_entries_of_long_keys(step):
    """Each key is the one before it, and a byte more; or of the longest that may be."""
    block = bytearray(entry(0, b"a" * (4000 if step == 0 else 1), b""))
    for number in range(60_000):
        if step:
            block += entry(number + 1, b"a", b"")
        else:
            block += entry(3990, b"a" * 4 + number.to_bytes(6, "big"), b"")
    content = hand_made((b"z", bytes(block)))
    tracemalloc.start()
    start = time.monotonic()
    error_of(content)
    assert time.monotonic() - start < 20
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_changes_under_right_checksums_are_no_crash():
    noise = random.Random(3)
    names = [b"a", b"ab", b"abc", b"b", b"bcd"]
    plain = b"".join(entry(0, name, b"value") for name in names)
    for _ in range(3000):
        block = bytearray(plain)
        for _ in range(noise.randrange(1, 4)):
            block[noise.randrange(len(block))] = noise.randrange(256)
        try:
            list(opened(hand_made((b"c", bytes(block)))))
        except CheckpointError as error:
            assert len(str(error)) < 200
