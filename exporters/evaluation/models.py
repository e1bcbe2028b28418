"""Artifacts and the checkpoint itself, opened to be run on batch after batch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from checkpoints import files
from checkpoints.reader import Checkpoint
from exporters import manifest
from exporters.artifact import OpenedArtifact
from exporters.errors import ArtifactError, EvaluationError, MissingLibraryError
from exporters.evaluation.batches import Size
from exporters.evaluation.state import fingerprint
from exporters.formats import Format, open_artifact
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE, MINIMUM_IMAGE_SIZE
from exporters.network.layers import NUM_CLASSES
from exporters.network.tasks import CLASSIFICATION, Task
from exporters.record import Record
from exporters.reference import Reference

CHECKPOINT = "checkpoint"
"""What the checkpoint itself is called among artifacts."""
_DEFAULT_SIZE = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)


@dataclasses.dataclass(frozen=True)
class Model:
    """Something that gives numbers for images.

    Attributes:
      name: path of the artifact, or "checkpoint".
      format: name of the format, or "TF-Slim".
      task: what it is for.
      record: what it says about itself, None if another tool made it.
      image_size: (height, width) of the images that it is given.
      first_class: of the checkpoint's classes that it has.
      digest: the same for the same files, or the checkpoint's identity.
      run: float32 [batch, height, width, 3] in [0, 1] -> [batch, numbers].
      close: frees what it holds.
      engine: what runs it, None for its own or the checkpoint's.
    """

    name: str
    format: str
    task: Task
    record: Record | None
    image_size: Size
    first_class: int
    digest: str
    run: Callable[[np.ndarray], np.ndarray]
    close: Callable[[], None]
    engine: str | None = None

    @property
    def num_classes(self) -> int | None:
        """Of the checkpoint that it was made of; None if that had no classifier."""
        return self.record.num_classes if self.record else NUM_CLASSES


def open_model(
    path: Path,
    table: Mapping[str, Format],
    image_size: Size | None = None,
    endpoint: str | None = None,
    engine: str | None = None,
) -> Model:
    """Opens an artifact with its consumer's library.

    Args:
      path: the artifact.
      table: of formats.
      image_size: (height, width) for artifacts that take any; None for 299 x 299.
      endpoint: TF-Slim's name of an endpoint to give, averaged over all positions; None
        for the task's own output.
      engine: what runs it, of `exporters.engines`; None for its own.

    Raises:
      ArtifactError: it cannot be read or run by the engine, or has no such endpoint.
    """
    artifact, row = open_artifact(path, table, engine)
    if engine and engine == row.container.engines[0].name:
        engine = None
    try:
        run = _pooled(path, artifact, endpoint) if endpoint else artifact.predict
    except ArtifactError:
        artifact.close()
        raise
    return Model(
        name=str(path),
        format=row.name,
        task=artifact.task,
        record=artifact.record,
        image_size=artifact.image_size or image_size or _DEFAULT_SIZE,
        first_class=artifact.first_class,
        digest=digest(files.digests(path)),
        run=run,
        close=artifact.close,
        engine=engine,
    )


def digest(digests: Mapping[str, str]) -> str:
    """Returns what is the same for artifacts of the same files, whatever their names.

    Args:
      digests: of the files, by names that begin with the artifact's own.
    """
    return fingerprint(
        (name.partition("/")[2], found) for name, found in digests.items()
    )


def _pooled(
    path: Path, artifact: OpenedArtifact, endpoint: str
) -> Callable[[np.ndarray], np.ndarray]:
    names = {
        output.value: name
        for name, output in artifact.outputs.items()
        if not output.is_training
    }
    if endpoint not in names:
        raise ArtifactError(
            f"{path} has no endpoint {endpoint}; it has: {', '.join(sorted(names))}. "
            "ONNX files have endpoints if they are exported with --endpoints."
        )
    return lambda images: pooled(artifact.run(images)[names[endpoint]])


def pooled(values: np.ndarray) -> np.ndarray:
    """Averages an endpoint over all positions.

    Args:
      values: [batch, height, width, channels], or [batch, channels].

    Returns:
      [batch, channels].
    """
    return values.mean(axis=tuple(range(1, values.ndim - 1)))


def check_image_size(image_size: Size | None) -> None:
    """Refuses sizes that the network has no output for.

    Raises:
      EvaluationError: it is smaller than 75 x 75.
    """
    if image_size and min(image_size) < MINIMUM_IMAGE_SIZE:
        raise EvaluationError(
            f"image size {image_size[0]} x {image_size[1]}: expected at least "
            f"{MINIMUM_IMAGE_SIZE} x {MINIMUM_IMAGE_SIZE}."
        )


def of_checkpoint(
    checkpoint: Checkpoint,
    reference: Reference,
    task: Task = CLASSIFICATION,
    image_size: Size | None = None,
    endpoint: str | None = None,
) -> Model:
    """The network of TF-Slim with a checkpoint's weights; see `open_model`."""
    value = endpoint or task.output
    return Model(
        name=CHECKPOINT,
        format="TF-Slim",
        task=task,
        record=Record(
            format="TF-Slim",
            task=task.name,
            checkpoint_identity=checkpoint.identity,
            provenance=checkpoint.provenance.value,
            stand_in=checkpoint.is_stand_in,
            num_classes=checkpoint.num_classes,
        ),
        image_size=image_size or _DEFAULT_SIZE,
        first_class=0,
        digest=checkpoint.identity,
        run=lambda images: pooled(reference.run(images, [value])[value]),
        close=lambda: None,
    )


def labels_of(paths: Sequence[Path]) -> tuple[str, ...] | None:
    """Names of classes, of the first manifest beside an artifact that has some."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            described = files.read_json(manifest.path_of(path))
            labels = described.get("labels") if isinstance(described, dict) else None
            if labels and all(isinstance(label, str) for label in labels):
                return tuple(labels)
    return None


TROUBLES = (ArtifactError, MissingLibraryError)
"""What one artifact may have, and others not."""
