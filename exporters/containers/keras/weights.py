"""Weights in HDF5, in the layouts that Keras reads; see `checkpoints.keras_weights`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from checkpoints import twins
from checkpoints.errors import CheckpointError
from checkpoints.hdf5 import Hdf5
from checkpoints.keras_weights import KerasWeights
from exporters.artifact import StoredWeight
from exporters.errors import ArtifactError

_OLDER = {"backend": b"tensorflow", "keras_version": b"2.15.0"}
"""What the older layout says about itself."""


def write(
    file: BinaryIO,
    variables: Mapping[str, np.ndarray],
    attributes: Mapping[str, str] | None = None,
    *,
    for_older: bool = False,
) -> None:
    """Writes variables to a file.

    Args:
      file: open for writing and reading.
      variables: name in TF-Slim's definition -> array.
      attributes: what else the file says.
      for_older: in the older layout as well. Both are of the same arrays.
    """
    with h5py.File(file, "w") as root:
        root.create_group("vars")  # Of the model itself, which has none.
        order = []
        for layer in twins.keras_layers():
            if layer.variables[0] not in variables:
                continue
            for name, path in layer.places.items():
                root[path] = np.ascontiguousarray(variables[name])
            if for_older:
                order.append(layer.name.encode())
                _link(root, layer)
        if for_older:
            root.attrs.update(_OLDER)
            root.attrs["layer_names"] = order
        root.attrs.update(attributes or {})


def _link(root: h5py.File, layer: twins.KerasLayer) -> None:
    """Gives a layer's arrays the paths of the older layout too."""
    group = root.create_group(layer.name)
    names = []
    for name, path in layer.places.items():
        weight = f"{layer.name}/{_OLDER_NAMES[name.rpartition('/')[2]]}:0"
        group[weight] = root[path]
        names.append(weight.encode())
    group.attrs["weight_names"] = names


_OLDER_NAMES = {"weights": "kernel", "biases": "bias", "beta": "beta"} | {
    "moving_mean": "moving_mean",
    "moving_variance": "moving_variance",
}


def read(file: BinaryIO, path: Path) -> dict[str, StoredWeight]:
    """Reads variables, and whatever else there is by its own name.

    Raises:
      ArtifactError: the file is damaged.
    """
    with damage_reported(), Hdf5(file, str(path)) as arrays:
        weights = KerasWeights(arrays)
        return {name: StoredWeight(weights.read(name)) for name in weights.specs}


@contextlib.contextmanager
def damage_reported() -> Iterator[None]:
    """Turns what checkpoints say of damaged files into what artifacts say."""
    try:
        yield
    except CheckpointError as error:
        raise ArtifactError(str(error)) from error
