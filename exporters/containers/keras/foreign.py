"""Models that Keras saved, and weights for its own network, whoever saved them."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import files
from checkpoints.keras_weights import CONFIGURATION
from checkpoints.zip_archives import ZIP_DAMAGE, within
from exporters.artifact import first_line, reading
from exporters.containers.keras import application, library
from exporters.errors import ArtifactError
from exporters.identifying.running import (
    CannotRunError,
    ForeignModel,
    Images,
    joined,
)

_MODEL = "model_config"
"""Attribute of an HDF5 file with a whole model."""
_OLDER = "layer_names"
"""Attribute of weights in the layout of Keras 2."""
_PROGRAMS = ("Lambda",)
"""Classes of layers that hold code, which is not run."""


def run(path: Path, classes: int | None) -> ForeignModel:
    """Opens a model with Keras 3, or weights with `keras.applications`.

    Raises:
      CannotRunError: a model has layers that hold code; or, once it is run, weights are
        those of another model's layers.
      MissingLibraryError: there is no Keras 3.
      ArtifactError: the file is damaged, or takes something else than images.
    """
    if zipfile.is_zipfile(path):
        return _model(path, ".keras", _configuration(path))
    stored = application.attributes(path)
    if isinstance(text := stored.get(_MODEL), str):
        return _model(path, ".h5", files.parse_json(text.encode()))
    return _weights(path, classes, ".h5" if _OLDER in stored else ".weights.h5")


def _configuration(path: Path) -> Any:
    try:
        with within(), zipfile.ZipFile(path) as archive:
            return files.parse_json(archive.read(CONFIGURATION))
    except (KeyError, *ZIP_DAMAGE) as error:
        raise ArtifactError(f"{path} is damaged: {first_line(error)}") from error


def _model(path: Path, suffix: str, configuration: Any) -> ForeignModel:
    for name in _PROGRAMS:
        if f'"class_name": "{name}"' in json.dumps(configuration):
            raise CannotRunError(
                f"it has a {name} layer, which holds a program that the file brings"
            )
    keras = library.keras()
    kind = f"Keras {keras.__version__}"
    with reading(path, "a Keras model", kind), library.named(path, suffix) as name:
        model = keras.models.load_model(
            name, custom_objects=_custom_objects(), compile=False, safe_mode=True
        )
    inputs = model.inputs
    if len(inputs) != 1:
        raise ArtifactError(
            f"{path} has {len(inputs)} inputs; expected one, of images."
        )
    images_of = Images.of_shape(path, inputs[0].shape)

    def call(batch: np.ndarray) -> dict[str, np.ndarray]:
        return _named(model(batch, training=False))

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        with reading(path, "a Keras model", kind):
            batches = images_of.batches(images, np.dtype(np.float32))
            return joined(map(call, batches), len(images))

    return ForeignModel(kind, images_of.image_size, images_of.layout, run_on)


def _custom_objects() -> dict[str, Any]:
    """The layer of `keras.applications` that scales residuals, by its class."""
    try:
        from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
    except ImportError:  # Of another version, which may need none.
        return {}
    return {"CustomScaleLayer": CustomScaleLayer}


def _named(found: Any) -> dict[str, np.ndarray]:
    as_array = library.keras().ops.convert_to_numpy
    if isinstance(found, Mapping):
        return {name: as_array(value) for name, value in found.items()}
    values = found if isinstance(found, list | tuple) else [found]
    return {f"{i}": as_array(value) for i, value in enumerate(values)}


def _weights(path: Path, classes: int | None, suffix: str) -> ForeignModel:
    @functools.cache
    def model(size: tuple[int, int] | None) -> Any:
        return application.load(path, classes, size, suffix)

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        _, height, width, _ = images.shape
        try:
            found = model((height, width) if classes is not None else None)
        except ArtifactError as error:
            cause = error.__cause__
            said = first_line(cause if isinstance(cause, Exception) else error)
            raise CannotRunError(
                f"its weights do not go into keras.applications: {said}"
            ) from error
        return _named(found(images, training=False))

    library_name = f"Keras {library.keras().__version__}"
    return ForeignModel(library_name, None, "NHWC", run_on, close=model.cache_clear)
