"""Reads a file of any tool's; its content decides which, not its name."""

from __future__ import annotations

import contextlib
import importlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from checkpoints import crashes, hdf5, keras_weights, safetensors, table, torch_state
from checkpoints.bundle import Bundle
from checkpoints.errors import CheckpointError
from checkpoints.files import parse_json
from checkpoints.hdf5 import Hdf5
from checkpoints.location import SAVED_MODEL
from checkpoints.reader import open_checkpoint
from checkpoints.regular_file import open_regular
from checkpoints.safetensors import SafeTensors
from checkpoints.tensors import Spec
from checkpoints.torch_state import TorchState
from checkpoints.zip_archives import ZIP_DAMAGE, within
from exporters.errors import ArtifactError
from exporters.formats import Container, container_of
from exporters.identifying import openvino_ir, tensorflow_graphs
from exporters.identifying.contents import UNCHANGED, Affine, Contents, StoredArray

EXPECTED = (
    "Expected ONNX, TFLite, a SavedModel, a frozen graph, a TF.js model, OpenVINO's "
    ".xml, a checkpoint, or weights of Keras or PyTorch: .h5, .keras, .safetensors, .pt."
)
_BEGINNING_BYTES = 1 << 16
_MOST_BYTES = 4 << 30
"""Of a graph; protobuf itself ends at 2 GB."""


def read(path: Path) -> Contents:
    """Reads what a file, or the directory of a SavedModel, holds.

    Raises:
      ArtifactError, CheckpointError: it is none that is known, or damaged.
      OSError: it cannot be read.
    """
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. {EXPECTED}")
    with crashes.blamed(path, ArtifactError):
        return _read(path)


def _read(path: Path) -> Contents:
    if (path / SAVED_MODEL).is_file():
        return _saved_model(path)
    if path.name == _TFJS_MODEL and path.is_file():
        path = path.parent
    if (path / _TFJS_MODEL).is_file() and (container := container_of(path)):
        return _by_container(path, container)
    if path.is_dir():
        return _checkpoint(path)
    with open_regular(path) as file:
        beginning = file.read(_BEGINNING_BYTES)
        size = file.seek(0, 2)
    if not size:
        raise ArtifactError(f"{path} is empty. {EXPECTED}")
    container = container_of(path)
    if container and container.suffix in _OF_GRAPHS:
        return _by_container(path, container)
    if beginning.startswith(hdf5.MAGIC):
        return _hdf5(path)
    if keras_weights.is_model(path, beginning):
        return _keras(path)
    if _is_torch(path, beginning):
        with path.open("rb") as file:
            return Contents("PyTorch", list(_arrays(TorchState(file, str(path)))))
    if safetensors.is_one(beginning, size):
        with path.open("rb") as file:
            arrays = _arrays(SafeTensors(file, str(path)))
            return Contents("safetensors", list(arrays))
    if openvino_ir.is_one(beginning):
        return openvino_ir.read(path)
    if tensorflow_graphs.is_graph(beginning) and size <= _MOST_BYTES:
        # A V1 checkpoint begins so as well.
        with contextlib.suppress(ValueError):
            graph = tensorflow_graphs.of_graph(path.read_bytes())
            return Contents("frozen graph", *graph)
    try:
        return _checkpoint(path)
    except CheckpointError as error:
        if _NOT_ONE not in str(error):
            raise
        raise ArtifactError(
            f"{path} is of no kind that is known. {EXPECTED}"
        ) from error


def _by_container(path: Path, container: Container) -> Contents:
    module = importlib.import_module(f"{container.module.rpartition('.')[0]}.foreign")
    found: Contents = module.read(path)
    return found


def is_beyond_formats(path: Path) -> bool:
    """Whether a path is a model of a kind that no format has, by its content.

    These are frozen graphs, state dicts that PyTorch pickled, and OpenVINO's .xml.
    """
    if not path.is_file():
        return False
    with open_regular(path) as file:
        beginning = file.read(_BEGINNING_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(table.MAGIC)))
        is_table = file.read() == table.MAGIC
    return (
        _is_torch(path, beginning)
        or openvino_ir.is_one(beginning)
        # V1 checkpoints, which are tables, begin as graphs do.
        or (tensorflow_graphs.is_graph(beginning) and not is_table)
    )


_MODEL = "model_config"
"""Attribute of an HDF5 file that holds a model of Keras's, and not weights alone."""
_TFJS_MODEL = "model.json"
_NOT_ONE = "is not a checkpoint"
_OF_GRAPHS = (".onnx", ".tflite")
"""Containers that have a module `foreign`, which reads files of other tools' too."""


class _Stored(Protocol):
    """Arrays by name; values are read when they are asked for."""

    @property
    def specs(self) -> Mapping[str, Spec]: ...

    @property
    def read(self) -> Callable[[str], np.ndarray]: ...


def _arrays(stored: _Stored, names: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """The arrays of numbers, in the natural order of their names."""
    for name in sorted(names or stored.specs, key=_natural):
        dtype = stored.specs[name].dtype
        if "float" not in dtype and "int" not in dtype:
            continue
        try:
            values = stored.read(name)
        except CheckpointError:
            if dtype == "bfloat16":
                raise
            continue
        yield StoredArray(name, values.astype(np.float32), dtype)


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders block35_2 before block35_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _hdf5(path: Path) -> Contents:
    with open_regular(path) as file, Hdf5(file, str(path)) as arrays:
        found = list(_arrays(arrays, _once(arrays)))
        configuration = arrays.attributes("/").get(_MODEL)
    before = None
    if isinstance(configuration, str):
        with contextlib.suppress(ValueError):
            before = _rescaling(parse_json(configuration.encode()))
    return Contents("HDF5", found, preprocessing=before)


def _once(arrays: Hdf5) -> dict[str, None]:
    """Of several paths to an array, the first."""
    places = {address: path for path, address in reversed(arrays.addresses.items())}
    return dict.fromkeys(places.values())


def _keras(path: Path) -> Contents:
    with (
        open_regular(path) as file,
        keras_weights.unpacked(file, str(path)) as content,
        Hdf5(content, str(path)) as arrays,
    ):
        found = list(_arrays(arrays, _once(arrays)))
    try:
        with within(), zipfile.ZipFile(path) as archive:
            configuration = parse_json(archive.read(keras_weights.CONFIGURATION))
    except ZIP_DAMAGE as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    return Contents("Keras", found, preprocessing=_rescaling(configuration))


def _rescaling(configuration: Any) -> Affine:
    """What layers before the first convolution do to images."""
    scale, offset = np.ones(1), np.zeros(1)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        for layer in configuration["config"]["layers"]:
            if layer["class_name"] == "Conv2D":
                break
            if layer["class_name"] == "Rescaling":
                by = np.atleast_1d(np.asarray(layer["config"]["scale"], np.float64))
                scale, offset = scale * by, offset * by + layer["config"]["offset"]
            elif layer["class_name"] != "InputLayer":
                break
        return Affine(scale, offset)
    return UNCHANGED


def _is_torch(path: Path, beginning: bytes) -> bool:
    if not beginning.startswith(b"PK\x03\x04"):
        return False
    with (
        contextlib.suppress(*ZIP_DAMAGE),
        within(),
        zipfile.ZipFile(path) as archive,
    ):
        return any(map(torch_state.is_program, archive.namelist()))
    return False


def _saved_model(path: Path) -> Contents:
    with open_regular(path / SAVED_MODEL) as file:
        content = file.read()
    try:
        arrays, nodes = tensorflow_graphs.of_saved_model(content)
    except ValueError as error:
        raise ArtifactError(f"{path / SAVED_MODEL} is damaged: {error}") from error
    if (path / "variables" / "variables.index").is_file():
        prefix = path / "variables" / "variables"
        try:
            variables = _arrays(_Variables(open_checkpoint(path, check_layout=False)))
            arrays = [*variables, *arrays]
        except CheckpointError:
            arrays = [*_arrays(Bundle(prefix, str(prefix))), *arrays]
    return Contents("SavedModel", arrays, nodes)


def _checkpoint(path: Path) -> Contents:
    checkpoint = open_checkpoint(path, check_layout=False)
    arrays = list(_arrays(_Variables(checkpoint)))
    return Contents(f"checkpoint ({checkpoint.container})", arrays)


class _Variables:
    """A checkpoint's variables, whose values are all there."""

    def __init__(self, variables: Mapping[str, np.ndarray]) -> None:
        self.specs = {n: Spec(v.dtype.name, v.shape) for n, v in variables.items()}
        self.read = variables.__getitem__
