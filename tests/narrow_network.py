"""The whole network with a quarter of its channels: all layers, and small files.

Its structure is the real one's, so that other tools' converters can be given it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from checkpoints.reader import Checkpoint
from exporters import record as records
from exporters.build import Build, ExportOptions
from exporters.calibration import CalibrationImages
from exporters.formats import FORMATS
from exporters.identifying import networks
from exporters.network import layers
from exporters.network.layers import Conv, Network
from exporters.network.tasks import TASKS

NARROWER = 4
CLASSES = 11
BACKGROUND = 1
"""Classes before the first that other libraries have."""
_MADE = layers.inception_resnet_v2


def network(num_classes: int | None = CLASSES, *, auxiliary_head: bool = False):
    """The network, narrower; what takes the place of the real one."""
    whole = _MADE(num_classes, auxiliary_head=auxiliary_head)
    made = tuple(
        dataclasses.replace(layer, channels=layer.channels // NARROWER)
        if isinstance(layer, Conv)
        else layer
        for layer in whole.layers
    )
    return Network(whole.input, made, whole.endpoints)


def write(
    directory: Path,
    format: str,
    task: str = "classification",
    *,
    of: Checkpoint | None = None,
    **options,
) -> Path:
    """Writes one of our own files of it, for images of 75 x 75 unless told otherwise."""
    checkpoint = of or CHECKPOINT
    row = FORMATS[format]
    path: Path = directory / f"ours{row.container.suffix}"
    images = CalibrationImages(np.zeros((1, 75, 75, 3), np.float32), "none")
    given = ExportOptions(**{"image_size": (75, 75)} | options)
    build = Build(checkpoint, given, images)
    heeded = {name: getattr(given, name) for name in row.options}
    record = records.make(format, task, checkpoint, heeded)
    row.write(build, TASKS[task], record, path)
    return path


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Puts it in the place of the real one for a while."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        yield


def install(monkeypatch) -> None:
    """Puts it in the place of the real one."""
    monkeypatch.setattr(layers, "inception_resnet_v2", network)
    for function in (networks.known, networks.auxiliary_only):
        monkeypatch.setattr(networks, function.__name__, function.__wrapped__)


class NarrowReference:
    """What `exporters.reference.Reference` is to the real network.

    Outputs are those of our own ONNX file, which tests of the real network compare with
    TF-Slim's graph.
    """

    def __init__(self, checkpoint: Checkpoint, directory: Path) -> None:
        self.checkpoint = checkpoint
        self.compared: dict = {}
        self.network = network(checkpoint.num_classes)
        task = "classification" if checkpoint.num_classes else "feature_vector"
        options = {"image_size": None, "endpoints": True}
        path = write(directory, "onnx-float32", task, of=checkpoint, **options)
        self._session = onnxruntime.InferenceSession(str(path))
        self._kept: dict[int, tuple[np.ndarray, dict[str, np.ndarray]]] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def graph(self, **_) -> None:
        """Builds nothing."""

    def check_has(self, values) -> None:
        """Has all."""

    def outputs(self, batch, values, *, is_training=False):
        assert not is_training
        if id(batch) not in self._kept:
            names = [each.name for each in self._session.get_outputs()]
            found = dict(zip(names, self._session.run(None, {"images": batch})))
            for name in names:
                found.setdefault(name.rpartition("/")[2], found[name])
            if self.checkpoint.num_classes:
                found["probabilities"] = found["Predictions"]
                found["feature_vector"] = found["PreLogitsFlatten"]
            self._kept[id(batch)] = batch, found
        return {value: self._kept[id(batch)][1][value] for value in values}


def checkpoint(seed: int = 0, auxiliary_head: bool = True) -> Checkpoint:
    """Variables as somebody might have trained them: kernels have means."""
    random = np.random.default_rng(seed)
    whole = network(auxiliary_head=auxiliary_head)
    shapes = whole.shapes((299, 299))
    made: dict[str, np.ndarray] = {}
    for layer in whole.weighted:
        inputs, outputs = shapes[layer.input][-1], shapes[layer.name][-1]
        window = layer.window if isinstance(layer, Conv) else ()
        shape = (*window, inputs, outputs)
        deviation = 1 / np.sqrt(np.prod(shape[:-1]))
        made[f"{layer.scope}/weights"] = random.normal(
            0.1 * deviation, deviation, shape
        )
        if isinstance(layer, Conv) and layer.normalized:
            norm = f"{layer.scope}/BatchNorm"
            made[f"{norm}/beta"] = random.normal(0, 0.3, outputs)
            made[f"{norm}/moving_mean"] = random.normal(0, 0.3, outputs)
            made[f"{norm}/moving_variance"] = random.uniform(0.2, 2, outputs)
        else:
            made[f"{layer.scope}/biases"] = random.normal(0, 0.1, outputs)
    return of({name: values.astype(np.float32) for name, values in made.items()})


def of(variables: Mapping[str, np.ndarray], num_classes: int = CLASSES) -> Checkpoint:
    """A checkpoint of the network's variables."""
    found = Checkpoint(variables, path=Path("folder/narrow.ckpt"))
    found.num_classes = num_classes
    found.has_auxiliary_head = any("/AuxLogits/" in name for name in variables)
    return found


CHECKPOINT = checkpoint()
"""The weights that files are of, unless they say otherwise."""
