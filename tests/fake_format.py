"""A format like those of `exporters.formats`, of a network that is small and quick.

The network averages an image's pixels and multiplies by a kernel. Its artifacts are
.npz files. The module is what a container's module is: it has `write` and `open`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from checkpoints.reader import Checkpoint
from exporters import record as records
from exporters.artifact import OpenedArtifact, Output, StoredWeight
from exporters.build import Build, ExportOptions
from exporters.errors import ArtifactError
from exporters.formats import Container, Format
from exporters.network.tasks import TASKS, Task
from exporters.parity import ParityImages, Tolerance
from exporters.record import Record

SHAPES = {"layer/biases": (8,), "layer/weights": (3, 8)}
IMAGE_SIZE = (75, 75)
IMAGES = ParityImages()
OPTIONS = ExportOptions(image_size=IMAGE_SIZE)
TOLERANCE = Tolerance(1e-4, 0.9999)

CONTAINER = Container(
    "fake_format",
    ".fake",
    lambda path: path.is_file() and path.read_bytes()[:2] == b"PK",
)
FORMAT = Format(
    "fake",
    CONTAINER,
    "a variant",
    "for tests",
    TOLERANCE,
    published_version=9,
    options=("image_size",),
)
TABLE = {FORMAT.name: FORMAT}


def variables() -> dict[str, np.ndarray]:
    """Weights as somebody might have trained them."""
    random = np.random.default_rng(0)
    return {
        name: random.normal(0.2, 1, shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def checkpoint(**changed: np.ndarray) -> Checkpoint:
    made = Checkpoint(variables() | changed, path=Path("folder/fake.ckpt"))
    made.num_classes = 1001  # As the published network has.
    return made


def record(task: str = "classification", format: str = "fake") -> Record:
    return records.make(format, task, checkpoint(), {"image_size": list(IMAGE_SIZE)})


def outputs(
    weights: Mapping[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    """What the network computes: [batch, 8]."""
    features = images.mean(axis=(1, 2)) @ weights["layer/weights"]
    return {
        "feature_vector": features,
        "logits": features + weights["layer/biases"],
    }


class NoGraphs:
    """What there is of a network that needs no graph."""

    def get(self, **_: object) -> None:
        return None


class FakeReference:
    """What `exporters.reference.Reference` is to the real network."""

    graphs = NoGraphs()

    def __init__(self, checkpoint: Checkpoint, **_: object):
        self.checkpoint = checkpoint
        self.compared: dict = {}

    def __enter__(self) -> FakeReference:
        return self

    def __exit__(self, *exception) -> None:
        pass

    def graph(self, **_) -> None:
        """Builds nothing."""

    def check_has(self, values: Collection[str]) -> None:
        """Has all."""

    def outputs(
        self, batch: np.ndarray, values: Collection[str], *, is_training: bool = False
    ) -> dict[str, np.ndarray]:
        found = outputs(self.checkpoint, batch)
        return {value: found[value] for value in values}

    run = outputs

    def weights(self, task: Task, **_) -> dict[str, np.ndarray]:
        return dict(self.checkpoint)


def write(build: Build, variant: str, task: Task, record: Record, path: Path) -> None:
    assert variant == FORMAT.variant
    with path.open("wb") as file:
        np.savez(file, record=record.to_text(), **build.checkpoint)


def open(path: Path) -> OpenedArtifact:
    try:
        with np.load(path) as file:
            weights = dict(file)
        record = records.parse(str(weights.pop("record")), str(path))
    except Exception as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    task = TASKS[record.task]
    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=IMAGE_SIZE,
        outputs={task.output: Output(task.output)},
        run=lambda images: {task.output: outputs(weights, images)[task.output]},
        weights=lambda: {name: StoredWeight(value) for name, value in weights.items()},
    )
