"""Archives whose directory says that members begin before the file."""

from __future__ import annotations

import errno
import struct
import zipfile

import numpy as np
import pytest

from checkpoints.errors import CheckpointError
from checkpoints.keras_weights import CONFIGURATION, WEIGHTS, unpacked
from checkpoints.torch_state import TorchState
from checkpoints.zip_archives import within
from exporters.containers.keras import foreign
from exporters.errors import ArtifactError, EvaluationError
from exporters.evaluation import state, vectors

_END = b"PK\x05\x06"


@pytest.fixture
def archive(tmp_path):
    """Makes a file of some members, which then begin 5000 bytes too early."""

    def make(name, **members):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as file:
            for member, content in members.items():
                file.writestr(member, content)
        content = bytearray(path.read_bytes())
        place = content.rindex(_END) + 16
        (start,) = struct.unpack_from("<I", content, place)
        struct.pack_into("<I", content, place, start + 5000)
        path.write_bytes(content)
        return path

    return make


def test_weights_of_keras(archive):
    path = archive("model.keras", **{WEIGHTS: b"some"})
    with path.open("rb") as file, pytest.raises(CheckpointError, match=r"model\.keras"):
        with unpacked(file, str(path)):
            pass


def test_a_model_of_keras(archive):
    path = archive("model.keras", **{CONFIGURATION: b"{}"})
    with pytest.raises(ArtifactError, match=r"model\.keras is damaged"):
        foreign._configuration(path)


def test_a_state_dict(archive):
    path = archive("state.pt", **{"state/data.pkl": b"some"})
    with path.open("rb") as file, pytest.raises(CheckpointError, match=r"state\.pt"):
        TorchState(file, str(path))


def test_features(archive, tmp_path):
    part = tmp_path / "part.npz"
    np.savez(part, facts="{}", name=["a"], vector=np.zeros((1, 4), np.float32))
    with zipfile.ZipFile(part) as file:
        path = archive("bad.npz", **{n: file.read(n) for n in file.namelist()})
    with pytest.raises(EvaluationError, match=r"bad\.npz is no file of"):
        vectors.read_part(path)


@pytest.mark.parametrize("header", ["{'shape': (", " {\n  {\n {"])
def test_headers_that_are_not_python(tmp_path, header):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as file:
        length = len(header).to_bytes(2, "little")
        content = b"\x93NUMPY\x01\0" + length + header.encode()
        for name in ("facts", "name", "vector", "top"):
            file.writestr(f"{name}.npy", content)
    with pytest.raises(EvaluationError, match=r"bad\.npz is no file of"):
        vectors.read_part(path)
    with pytest.raises(EvaluationError, match=r"bad\.npz is no state of"):
        state.load(path, "0", 1, 1)


def test_an_array_that_is_none_and_characters_that_there_are_none_of(tmp_path):
    path = tmp_path / "bad.npz"
    facts = '{"fingerprint": "0", "finished": 1, "problems": [], "errors": []}'
    np.savez(path, facts=facts)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("top.npy", b"no array")
    with pytest.raises(
        EvaluationError, match=r"bad\.npz is the state of an evaluation of"
    ):
        state.load(path, "0", 1, 1)

    name = np.array([0x7FFFFFFF], np.uint32).view("U1")
    np.savez(path, facts="{}", name=name, vector=np.zeros((1, 4), np.float32))
    with pytest.raises(EvaluationError, match=r"bad\.npz is no file of"):
        vectors.read_part(path)


def test_what_the_file_system_says_is_none_of_it():
    with pytest.raises(OSError, match="Input/output error"), within():
        raise OSError(errno.EIO, "Input/output error")
