"""A format like those of `exporters.formats`, of a network that is small and quick.

The network averages an image's pixels and multiplies by a kernel. Its artifacts are
.npz files. The module is what a container's module is: it has `write` and `open`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from checkpoints import layout
from checkpoints.reader import Checkpoint
from exporters import formats, inspection
from exporters.artifact import (
    ArtifactError,
    ExportInputs,
    ExportOptions,
    OpenedArtifact,
)
from exporters.calibration import calibration_images
from exporters.formats import Container, Format, Tolerance
from exporters.parity import ParityImages

SHAPES = {"layer/biases": (8,), "layer/weights": (3, 8)}
IMAGE_SIZE = (75, 75)
IMAGES = ParityImages()

CONTAINER = Container(
    "fake_format",
    ".fake",
    lambda path: path.is_file() and path.read_bytes()[:2] == b"PK",
)
FORMAT = Format(
    "fake",
    CONTAINER,
    "for tests",
    Tolerance(1e-4, 0.9999),
    published_version=9,
    options=("image_size",),
    is_quantized=True,
)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the format to the table, and makes its network's layout the published one."""
    containers = (CONTAINER, *formats.CONTAINERS)
    monkeypatch.setattr(formats, "CONTAINERS", containers)
    monkeypatch.setattr(inspection, "CONTAINERS", containers)
    monkeypatch.setitem(formats.FORMATS, FORMAT.name, FORMAT)
    monkeypatch.setattr(layout, "variable_shapes", lambda: SHAPES)


def variables() -> dict[str, np.ndarray]:
    """Weights as somebody might have trained them."""
    random = np.random.default_rng(0)
    return {
        name: random.normal(0.2, 1, shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def checkpoint(**changed: np.ndarray) -> Checkpoint:
    return Checkpoint(variables() | changed, path=Path("folder/fake.ckpt"))


def export_inputs(checkpoint: Checkpoint) -> ExportInputs:
    options = ExportOptions(image_size=IMAGE_SIZE)
    calibration = calibration_images(None, IMAGE_SIZE)
    return ExportInputs(checkpoint, FakeGraphs(), options, calibration)


def outputs(
    weights: Mapping[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    """What the network computes: [batch, 8]."""
    features = images.mean(axis=(1, 2)) @ weights["layer/weights"]
    return {
        "feature_vector": features,
        "logits": features + weights["layer/biases"],
    }


class FakeGraphs:
    def get(self, **_) -> None:
        """Builds nothing."""


class FakeReference:
    """What `exporters.parity.Reference` is to the real network."""

    def __init__(self, graphs: FakeGraphs, checkpoint: Checkpoint):
        self.checkpoint = checkpoint

    def __enter__(self) -> FakeReference:
        return self

    def __exit__(self, *exception) -> None:
        pass

    def outputs(self, batch, *, is_training=False) -> dict[str, np.ndarray]:
        return outputs(self.checkpoint, batch)

    def weights(self, task: str, is_folded: bool) -> Checkpoint:
        return self.checkpoint


def write(inputs: ExportInputs, format_name: str, task: str, path: Path) -> None:
    facts = [format_name, task, inputs.checkpoint.identity]
    with path.open("wb") as file:
        np.savez(file, facts=facts, **inputs.checkpoint)


def open(path: Path) -> OpenedArtifact:
    try:
        with np.load(path) as file:
            weights = dict(file)
        format_name, task, identity = map(str, weights.pop("facts"))
    except Exception as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    name = "logits" if task == "classification" else "feature_vector"
    return OpenedArtifact(
        format=format_name,
        task=task,
        checkpoint_identity=identity,
        is_stand_in=False,
        image_size=IMAGE_SIZE,
        run=lambda images: {name: outputs(weights, images)[name]},
        weights=lambda: {name: (value, 0.0) for name, value in weights.items()},
    )
