"""Keras models: .keras files, for `keras.models.load_model` of Keras 3.5 or newer.

The model is functional, of built-in layers, and the same on all backends. It takes
float32 [batch, height, width, 3] in [0, 1] and returns the feature vector [batch, 1536]
or the logits [batch, classes]. In training it updates moving averages with momentum 0.99,
drops features out before the logits, and has the published regularization losses.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import files
from checkpoints.keras_weights import (
    CONFIGURATION,
    METADATA,
    WEIGHTS,
    ZIP_DAMAGE,
    unpacked,
    within,
)
from exporters import record as records
from exporters.artifact import OpenedArtifact, Output, StoredWeight, first_line, reading
from exporters.build import Build
from exporters.containers.keras import configuration, library, weights
from exporters.errors import ArtifactError, ForeignFileError
from exporters.labels import as_labels
from exporters.network import layers
from exporters.network.tasks import FEATURE_VECTOR, TASKS, Task
from exporters.record import Record

_RECORD = "irv2"
_LABELS = "labels"
_OLDEST_KERAS = "3.5.0"
_DATE = "1980-01-01@00:00:00"
_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a .zip file can say."""
_READABLE_BY_ALL = 0o644 << 16
_TRAINED = "train/feature_vector"
"""Output that is normalized by the statistics of the batch."""
_MOST_BYTES = 16 << 20
"""Of what is text; ours has about 500 KB."""


def write(build: Build, variant: None, task: Task, record: Record, path: Path) -> None:
    """Writes a .keras file.

    Args:
      build: checkpoint and labels.
      variant: there is only one.
      task: what for.
      record: what the file says about itself.
      path: the file to write.
    """
    network = build.network.up_to([task.endpoint])
    metadata: dict[str, Any] = {
        "keras_version": _OLDEST_KERAS,
        "date_saved": _DATE,
        _RECORD: record.as_dict(),
    }
    if task.needs_classifier and build.labels:
        metadata[_LABELS] = build.labels
    with (
        zipfile.ZipFile(path, "w") as archive,
        tempfile.TemporaryFile(dir=path.parent) as scratch,
    ):
        archive.writestr(_member(METADATA), json.dumps(metadata))
        archive.writestr(_member(CONFIGURATION), json.dumps(_configuration(network)))
        weights.write(scratch, {n: build.checkpoint[n] for n in network.variables})
        scratch.seek(0)
        with archive.open(_member(WEIGHTS), "w") as file:
            shutil.copyfileobj(scratch, file, 1 << 20)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _TIME)
    member.external_attr = _READABLE_BY_ALL
    return member


def _configuration(network: layers.Network) -> dict[str, Any]:
    return configuration.of_network(network, "inception_resnet_v2")


def open(path: Path) -> OpenedArtifact:
    """Opens a .keras file that `write` made, with Keras 3 once it is run.

    `run` gives the task's output, and under "train/" the feature vector that batch
    statistics give. Momentum 1.0 keeps the moving averages as they are.

    Raises:
      ArtifactError: the file is damaged, or not of this toolkit.
    """
    texts = _read_texts(path)
    record = _record(path, texts[METADATA])
    task = TASKS[record.task]

    def reading_model() -> contextlib.AbstractContextManager[None]:
        return reading(path, "a Keras model", f"Keras {library.keras().__version__}")

    @functools.cache
    def models() -> tuple[Any, Any]:
        """The model, and the part of it up to the features, for training."""
        keras = library.keras()
        with reading_model():
            with library.named(path, ".keras") as name:
                model = keras.models.load_model(name, compile=False)
            features = model.get_layer(configuration.FEATURES).output
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 1.0
        return model, keras.Model(model.input, features)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        model, _ = models()
        with reading_model():
            found = model(images, training=False)
            return {task.output: library.keras().ops.convert_to_numpy(found)}

    def train(images: np.ndarray) -> dict[str, np.ndarray]:
        _, part = models()
        with reading_model():
            found = part(images, training=True)
            return {_TRAINED: library.keras().ops.convert_to_numpy(found)}

    def read_weights() -> dict[str, StoredWeight]:
        with (
            path.open("rb") as file,
            weights.damage_reported(),
            unpacked(file, str(path)) as content,
        ):
            return weights.read(content, path)

    def check() -> list[str]:
        """Compares the configuration with what it should be, layer by layer."""
        network = layers.inception_resnet_v2(record.num_classes)
        expected = _configuration(network.up_to([task.endpoint]))
        return _differences(texts[CONFIGURATION], expected)

    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=None,
        outputs={
            task.output: Output(task.output),
            _TRAINED: Output(FEATURE_VECTOR.output, is_training=True),
        },
        run=run,
        train=train,
        weights=read_weights,
        labels=lambda: as_labels(texts[METADATA].get(_LABELS)),
        check=check,
        close=models.cache_clear,
    )


def _read_texts(path: Path) -> dict[str, Any]:
    """Reads the two JSON documents of a .keras file."""
    found = {}
    try:
        with within(), zipfile.ZipFile(path) as archive:
            for name in (METADATA, CONFIGURATION):
                if archive.getinfo(name).file_size > _MOST_BYTES:
                    raise ValueError(f"{name} is too large to be true")
                found[name] = files.parse_json(archive.read(name))
    except (KeyError, *ZIP_DAMAGE) as error:
        raise ArtifactError(
            f"{path} cannot be read as a .keras file; it is damaged or incomplete: "
            f"{first_line(error)}"
        ) from error
    return found


def _record(path: Path, metadata: Any) -> Record:
    facts = metadata.get(_RECORD) if isinstance(metadata, Mapping) else None
    if not isinstance(facts, Mapping):
        raise ForeignFileError(
            f"{path} is a Keras model of another tool's, or saved again by Keras. "
            "Expected one exported by irv2."
        )
    return records.of_facts(facts, str(path))


def _differences(found: Any, expected: dict[str, Any]) -> list[str]:
    if found == expected:
        return []
    try:
        by_name = {layer["name"]: layer for layer in found["config"]["layers"]}
    except (KeyError, TypeError):
        return ["its configuration is not that of a functional model"]
    wanted = {layer["name"]: layer for layer in expected["config"]["layers"]}
    names = [n for n in wanted | by_name if by_name.get(n) != wanted.get(n)]
    return [f"layer {name}: not as the network has it" for name in names] or [
        "its configuration differs, in what is not of a layer"
    ]
