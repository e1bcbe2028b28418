"""Weights of the network in files of Keras's: .weights.h5, .keras, and the older .h5.

Two layouts of HDF5 are in use. Keras 3, and Keras 2 since 2.12 in files of its newer
format, numbers layers by class in the order of `model.layers`:

    layers/conv2d_17/vars/0

The older one has a group for each layer by its name, and attributes that give the order:

    layer_names = [conv2d, batch_normalization, ...]
    conv2d/conv2d/kernel:0

A .keras file is a .zip file with weights of the first layout, and the model's
configuration.

Names depend on what a process made before, so the order decides in both. It is that of
`keras.applications.InceptionResNetV2`, and of every model of the same structure.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from checkpoints import twins
from checkpoints.errors import CheckpointError, damage
from checkpoints.hdf5 import MAX_BYTES, Hdf5
from checkpoints.tensors import Spec
from checkpoints.zip_archives import ZIP_DAMAGE, within

WEIGHTS = "model.weights.h5"
"""The weights in a .keras file."""
CONFIGURATION = "config.json"
METADATA = "metadata.json"

_LAST_KERNEL = "InceptionResnetV2/Conv2d_7b_1x1/weights"
_KINDS = {(4,): "conv2d", (4, 1): "conv2d", (1, 1, 1): "batch_normalization"} | {
    (2, 1): "dense"
}
"""Ranks of a layer's weights -> its class."""


class KerasWeights:
    """The network in an HDF5 file of Keras's.

    Attributes:
      specs: what there is, by the names of TF-Slim's definition where a place is that of
        a variable, and by its path otherwise.
    """

    def __init__(self, file: Hdf5):
        """Finds the network's variables among the arrays of a file."""
        self._file = file
        variables = {path: name for name, path in _places(file).items()}
        found = {file.addresses[path] for path in variables if path in file.specs}
        self._paths = {
            variables.get(path, path): path
            for path, address in file.addresses.items()
            if path in variables or address not in found
        }
        self.specs: dict[str, Spec] = {
            name: file.specs[path] for name, path in self._paths.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Reads the values of a variable.

        Raises:
          KeyError: there is no such variable.
          CheckpointError: they cannot be read.
        """
        return self._file.read(self._paths[name])


def is_model(path: Path, beginning: bytes) -> bool:
    """Returns whether a file is a .keras file, by its content."""
    if not beginning.startswith(b"PK\x03\x04"):
        return False
    with (
        contextlib.suppress(*ZIP_DAMAGE),
        within(),
        zipfile.ZipFile(path) as archive,
    ):
        return {CONFIGURATION, WEIGHTS} <= set(archive.namelist())
    return False


@contextlib.contextmanager
def unpacked(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Unpacks the weights of a .keras file, to a file without a name.

    Args:
      file: the .keras file, open for reading.
      name: what to call it in errors, usually its path.

    Raises:
      CheckpointError: it is none, truncated or damaged.
    """
    with tempfile.TemporaryFile() as scratch:
        try:
            with within(), zipfile.ZipFile(file) as archive:
                if archive.getinfo(WEIGHTS).file_size > MAX_BYTES:
                    raise ValueError(f"its {WEIGHTS} is too large to be true")
                with archive.open(WEIGHTS) as content:
                    shutil.copyfileobj(content, scratch, 1 << 20)
        except KeyError:
            raise CheckpointError(
                f"{name} is a .zip file without {WEIGHTS}. Expected a model that Keras "
                "saved as .keras."
            ) from None
        except ZIP_DAMAGE as error:
            raise damage(name, str(error)) from error
        yield scratch


def _places(file: Hdf5) -> dict[str, str]:
    """Name of each variable -> path at which it is, or should be."""
    places: dict[str, str] = {}
    for layer in twins.keras_layers():
        places |= layer.places
    # A model that has the network as one of its layers puts a prefix before them all.
    last = places[_LAST_KERNEL]
    prefixes = [path.removesuffix(last) for path in file.specs if path.endswith(last)]
    if len(prefixes) == 1:
        return {name: prefixes[0] + path for name, path in places.items()}
    for root in ("/", "/model_weights/"):
        order = file.attributes(root).get("layer_names")
        if isinstance(order, list):
            return _older_places(file, root[1:], order)
    return places


def _older_places(file: Hdf5, root: str, order: list[str]) -> dict[str, str]:
    found: dict[str, list[list[str]]] = {"conv2d": [], "batch_normalization": []}
    found["dense"] = []
    for layer in order:
        group = f"{root}{layer}"
        paths = [
            f"{group}/{weight}"
            for weight in file.attributes(group).get("weight_names", ())
        ]
        ranks = tuple(
            len(file.specs[path].shape) for path in paths if path in file.specs
        )
        if kind := _KINDS.get(ranks):
            found[kind].append(paths)
    places: dict[str, str] = {}
    for twin in twins.keras_layers():
        if twin.number < len(found[twin.kind]):
            places |= zip(twin.variables, found[twin.kind][twin.number])
    return places
