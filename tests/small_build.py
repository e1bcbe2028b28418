"""A small block in place of the real network: its files are written, opened and
compared in no time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import small_networks
from small_networks import BLOCK

from checkpoints.reader import Checkpoint
from exporters import record as records
from exporters.build import Build, ExportOptions
from exporters.calibration import CalibrationImages
from exporters.formats import FORMATS, Format
from exporters.network import folding, layers
from exporters.network.graphs import NetworkGraphs
from exporters.network.layers import Conv
from exporters.network.tasks import TASKS, Task
from exporters.parity import ParityImages
from exporters.reference import Activations

WRITTEN = [
    row
    for row in FORMATS.values()
    if row.precision and not row.needs_auxiliary_head  # The block has none.
]
IMAGE_SIZE = (75, 75)
OPTIONS = ExportOptions(image_size=IMAGE_SIZE)
IMAGES = ParityImages()
LABELS = tuple("rose tulip daisy poppy lily iris".split())


def install(monkeypatch) -> None:
    """Puts the block, and tasks with its endpoints, in place of the real network."""
    monkeypatch.setattr(layers, "inception_resnet_v2", lambda num_classes: BLOCK)
    for name, task in TASKS.items():
        endpoints = tuple(name for name in task.endpoints if name in BLOCK.endpoints)
        monkeypatch.setitem(TASKS, name, dataclasses.replace(task, endpoints=endpoints))


def checkpoint(seed: int = 0, **changed: np.ndarray) -> Checkpoint:
    """The variables of the block as somebody might have trained them."""
    random = np.random.default_rng(seed)
    variables = {}
    folded = small_networks.weights(BLOCK, seed)
    for layer in BLOCK.weighted:
        scope, of = layer.scope, folded[layer.scope]
        variables[f"{scope}/weights"] = of.kernel
        if isinstance(layer, Conv) and layer.normalized:
            variances = random.uniform(0.5, 1.5, of.bias.shape)
            variables[f"{scope}/BatchNorm/beta"] = of.bias
            variables[f"{scope}/BatchNorm/moving_mean"] = of.bias[::-1]
            variables[f"{scope}/BatchNorm/moving_variance"] = variances.astype("f")
        else:
            variables[f"{scope}/biases"] = of.bias
    return Checkpoint(variables | changed, path=Path("folder/small.ckpt"))


def build(checkpoint: Checkpoint, options: ExportOptions = OPTIONS) -> Build:
    """A build of the block, once it is installed."""
    random = np.random.default_rng(9)
    pixels = random.integers(256, size=(8, *IMAGE_SIZE, 3)) / 255
    images = CalibrationImages(pixels.astype(np.float32), "noise")
    return Build(checkpoint, options, images, LABELS)


def write(build: Build, row: Format, task: Task, path: Path) -> Path:
    """Writes a file of a format, as exporting does."""
    options = build.options.recorded(row.options)
    record = records.make(row.name, task.name, build.checkpoint, options)
    row.with_options(options).write(build, task, record, path)
    return path


class BlockReference:
    """What `exporters.reference.Reference` is to the real network."""

    network = BLOCK
    graphs = NetworkGraphs()  # None is ever built.

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self.compared: dict = {}
        self._weights = folding.fold(BLOCK, checkpoint)
        self._kept: dict[int, tuple[np.ndarray, dict[str, np.ndarray]]] = {}
        self._activations: dict[int, Activations] = {}

    def __enter__(self) -> BlockReference:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def check_has(self, values: Collection[str]) -> None:
        """Has all."""

    def outputs(
        self, batch: np.ndarray, values: Collection[str], *, is_training: bool = False
    ) -> dict[str, np.ndarray]:
        layer_of = BLOCK.endpoints | {
            "feature_vector": "head/features",
            "logits": "head/logits",
            "probabilities": "head/probabilities",
        }
        found = self._run(batch)
        return {value: found[layer_of[value]] for value in values}

    run = outputs

    def layers(
        self, batch: np.ndarray, names: Collection[str]
    ) -> dict[str, np.ndarray]:
        found = self._run(batch)
        return {name: found[name] for name in names}

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        if id(batch) not in self._kept:
            found = small_networks.run(BLOCK, self._weights, batch)
            self._kept[id(batch)] = batch, found
        return self._kept[id(batch)][1]

    def activations(self, batch: np.ndarray) -> Activations:
        if id(batch) not in self._activations:
            ranges, largest_means = {}, {}
            for name, values in self._run(batch).items():
                ranges[name] = min(0.0, values.min()), max(0.0, values.max())
                means = values.mean(axis=tuple(range(1, values.ndim - 1)))
                largest_means[name] = np.abs(means).max(axis=0)
            self._activations[id(batch)] = Activations(ranges, largest_means)
        return self._activations[id(batch)]

    def weights(
        self,
        task: Task,
        *,
        is_folded: bool,
        input_range: tuple[float, float] = (0.0, 1.0),
        first_class: int = 0,
    ) -> dict[str, np.ndarray]:
        assert is_folded and first_class == 0
        part = BLOCK.up_to([task.endpoint])
        named = {}
        for scope, of in folding.fold(part, self.checkpoint, input_range).items():
            named[f"{scope}/weights"], named[f"{scope}/biases"] = of.kernel, of.bias
        return named
