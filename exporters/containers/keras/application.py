"""Weights for `keras.applications.InceptionResNetV2`, in files called .weights.h5.

Keras 3 and Keras 2 read them, also under other names ending in .h5. Their network is
theirs: it takes images in [-1, 1] (`preprocess_input`), and ends with a softmax unless
asked not to. With `include_top` it has the classes without "background".
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import twins
from checkpoints.hdf5 import Hdf5
from exporters import record as records
from exporters.artifact import OpenedArtifact, Output, StoredWeight, reading
from exporters.build import Build
from exporters.containers.keras import library, weights
from exporters.errors import ForeignFileError
from exporters.labels import first_without_background
from exporters.network.layers import without_classes
from exporters.network.tasks import TASKS, Task
from exporters.record import Record

_RECORD = "irv2"
_LABELS = "labels"
_LAYERS = "layer_names"
_SUFFIX = ".weights.h5"


def write(build: Build, variant: None, task: Task, record: Record, path: Path) -> None:
    """Writes a file of weights.

    Args:
      build: checkpoint and labels.
      variant: there is only one.
      task: what for; `include_top` is for classification.
      record: what the file says about itself.
      path: the file to write.
    """
    first = first_without_background(build.checkpoint.num_classes)
    variables = without_classes(build.checkpoint, first)
    names = build.network.up_to([task.endpoint]).variables
    facts = {_RECORD: record.to_text()}
    if task.needs_classifier and build.labels:
        facts[_LABELS] = "\n".join(build.labels[first:])
    with path.open("w+b") as file:
        weights.write(file, {n: variables[n] for n in names}, facts, for_older=True)


def open(path: Path) -> OpenedArtifact:
    """Opens a file that `write` made, with Keras Applications once it is run.

    Raises:
      ArtifactError: the file is damaged, or not of this toolkit.
    """
    stored = attributes(path)
    text = stored.get(_RECORD)
    if not isinstance(text, str):
        raise ForeignFileError(
            f"{path} holds weights, or a model, in HDF5 by another tool. Expected a "
            "file exported by irv2."
        )
    record = records.parse(text, str(path))
    task = TASKS[record.task]
    first = first_without_background(record.num_classes)

    @functools.cache
    def model(size: tuple[int, int] | None) -> Any:
        classes = (record.num_classes or 0) - first if task.needs_classifier else None
        return load(path, classes, size)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        _, height, width, _ = images.shape
        # With a classifier, Keras's network is bound to the size of its images.
        found = model((height, width) if task.needs_classifier else None)
        outputs = found(2 * images - 1, training=False)
        return {task.output: library.keras().ops.convert_to_numpy(outputs)}

    def read_weights() -> dict[str, StoredWeight]:
        with path.open("rb") as file:
            return weights.read(file, path)

    def labels() -> list[str]:
        found = stored.get(_LABELS)
        return found.split("\n") if isinstance(found, str) and found else []

    def check() -> list[str]:
        wanted = [layer.name for layer in twins.keras_layers()]
        if not task.needs_classifier:
            wanted.pop()
        if stored.get(_LAYERS) == wanted:
            return []
        return ["the layers that older versions of Keras look for are not listed"]

    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=None,
        outputs={task.output: Output(task.output)},
        run=run,
        weights=read_weights,
        input_range=(-1.0, 1.0),
        first_class=first,
        labels=labels,
        check=check,
        close=model.cache_clear,
    )


def load(
    path: Path,
    classes: int | None,
    image_size: tuple[int, int] | None,
    suffix: str = _SUFFIX,
) -> Any:
    """Returns Keras's own network with the weights of a file.

    Args:
      path: the file.
      classes: of its classifier, None if it has none: features come out.
      image_size: (height, width), None for any; a classifier takes one alone.
      suffix: by which Keras knows the layout, whatever the file is called.

    Raises:
      ArtifactError: Keras does not take them.
      MissingLibraryError: there is no Keras 3.
    """
    keras = library.keras()
    top = {} if classes is None else {"classes": classes}
    with (
        reading(path, "weights", f"Keras {keras.__version__}"),
        library.named(path, suffix) as name,
        warnings.catch_warnings(),
    ):
        # A sentence for each layer of which the file has no weights.
        warnings.simplefilter("ignore")
        return keras.applications.InceptionResNetV2(
            weights=name,
            include_top=classes is not None,
            input_shape=(*(image_size or (None, None)), 3),
            pooling="avg",
            classifier_activation=None,
            **top,
        )


def attributes(path: Path) -> Mapping[str, str | list[str]]:
    """Returns what a file says about itself.

    Raises:
      ArtifactError: it is damaged.
    """
    with (
        path.open("rb") as file,
        weights.damage_reported(),
        Hdf5(file, str(path)) as arrays,
    ):
        return arrays.attributes("/")
