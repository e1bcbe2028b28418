"""Small files that would take all time, or all memory, if they were taken at their word."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

from checkpoints import hdf5
from checkpoints.errors import CheckpointError
from checkpoints.hdf5 import Hdf5
from checkpoints.torch_state import TorchState

# HDF5


@pytest.fixture
def content() -> bytearray:
    """A file with texts of any length, as Keras's are, in a collection."""
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        made["kernel"] = np.arange(6, dtype=np.float32)
        made.attrs["layer_names"] = ["conv2d", "größe"]
    return bytearray(file.getvalue())


def texts(content: bytes) -> object:
    with Hdf5(io.BytesIO(content), "model.h5") as file:
        assert list(file.specs) == ["kernel"]
        return file.attributes("/")["layer_names"]


def free_object(content: bytes) -> int:
    """Where the free object in the collection is."""
    at = content.index(b"GCOL") + 16
    while content[at : at + 2] != b"\0\0":
        (size,) = struct.unpack_from("<Q", content, at + 8)
        at += 16 + -(-size // 8) * 8
    return at


def test_texts(content):
    assert texts(content) == ["conv2d", "größe"]


def test_a_collection_whose_end_is_never_reached(content):
    struct.pack_into("<Q", content, free_object(content) + 8, 0)
    with pytest.raises(
        CheckpointError, match=r"model\.h5 .*: a collection of texts has"
    ):
        texts(content)


def test_what_only_looks_like_a_collection_is_passed_over(content):
    """In numbers; and one that ends with the file."""
    looks = b"GCOL\x01\0\0\0" + struct.pack("<Q", 1 << 40) + struct.pack("<QQ", 1, 64)
    assert texts(content + looks) == ["conv2d", "größe"]


@pytest.mark.parametrize(("place", "value"), [(8, 9), (14, 4)])
def test_an_unknown_superblock(content, place, value):
    content[place] = value
    with pytest.raises(CheckpointError, match=r"model\.h5 .*superblock"):
        texts(content)


@pytest.mark.parametrize("address", [1 << 62, 1 << 63])
def test_an_address_that_no_file_has(content, tmp_path, address):
    struct.pack_into("<Q", content, 48, address)  # Of what describes a driver.
    with pytest.raises(CheckpointError, match=r"model\.h5 is truncated or damaged"):
        texts(content)
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(CheckpointError, match=r"model\.h5"):
        Hdf5(file, str(path))


def test_an_attribute_that_is_too_large(content, monkeypatch):
    monkeypatch.setattr(
        hdf5, "_MOST_TEXT", 15
    )  # Of two texts, whose places have 8 each.
    with pytest.raises(CheckpointError, match="layer_names is too large to be true"):
        texts(content)


# PyTorch

NAMES = b"N" * 200 + pickle.STACK_GLOBAL * 100
TWICE = pickle.BINPUT + b"\0" + pickle.POP + (pickle.BINGET + b"\0") * 2
LISTS = pickle.EMPTY_LIST + b"".join(
    bytes([*pickle.BINPUT, number, *pickle.POP, *pickle.MARK])
    + (pickle.BINGET + bytes([number])) * 9
    + pickle.LIST
    for number in range(30)
)
KEYS = pickle.EMPTY_TUPLE + (TWICE + pickle.TUPLE2) * 60
MARKS = b"N" * 200_000 + (pickle.MARK + pickle.TUPLE) * 200_000


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (NAMES, "a name that is no text"),
        (LISTS, "over 100000 parts, too many to be true"),
        (MARKS, ""),
        (pickle.EMPTY_DICT + KEYS + b"N" + pickle.SETITEM, ""),
        (pickle.MARK + KEYS + b"N" + pickle.DICT, ""),
    ],
    ids=["names", "lists", "marks", "keys", "keys-of-dict"],
)
def test_programs(program, told):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + program + b".")
    if told:
        with pytest.raises(CheckpointError, match=told):
            TorchState(file, "state.pt")
    else:
        assert TorchState(file, "state.pt").specs == {}
