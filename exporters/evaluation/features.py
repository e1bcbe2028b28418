"""Features: the vectors that an artifact gives for images, kept in files."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.files import PathLike
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters.errors import ArtifactError, EvaluationError
from exporters.evaluation import batches, datasets, models, vectors
from exporters.evaluation.batches import Size
from exporters.evaluation.datasets import Example
from exporters.evaluation.models import Model
from exporters.evaluation.vectors import Kind, Vectors
from exporters.formats import FORMATS, Format
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR
from exporters.progress import MADE_OF_STAND_IN, Note, Progress, Step, silent
from exporters.reference import Reference


@dataclasses.dataclass(frozen=True)
class Features:
    """What came of writing features.

    Attributes:
      output: the directory of parts.
      source: what the vectors are of.
      written: number of images whose vectors were written.
      before: number of images whose vectors were there.
      unreadable: name of an image that cannot be read -> why.
      problems: what else was found, and cannot be used -> why.
      seconds: that it took.
    """

    output: Path
    source: Mapping[str, Any]
    written: int
    before: int
    unreadable: Mapping[str, str]
    problems: Mapping[str, str]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**dataclasses.asdict(self), "output": str(self.output)}


def features(
    artifact: PathLike | None,
    images: PathLike,
    output: PathLike,
    *,
    checkpoint: PathLike | Checkpoint | None = None,
    endpoint: str | None = None,
    kind: Kind = "npz",
    image_size: Size | None = None,
    batch_size: int = 8,
    part_size: int = 4096,
    moving_averages: str | None = None,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
    reference: Reference | None = None,
) -> Features:
    """Writes a vector for each image: what the artifact gives, or an endpoint.

    Images whose vectors are in `output` already are passed over, so that an interrupted
    run goes on, and new images are added.

    Args:
      artifact: the artifact; None with a checkpoint.
      images: a directory of images, also in subdirectories, a TFRecord file or a
        directory of these.
      output: directory of the parts; made if needed.
      checkpoint: TF-Slim's network with its weights takes the artifact's place.
      endpoint: TF-Slim's name of an endpoint, which is averaged over all positions;
        None for the features, or the logits of a classifier.
      kind: "npz", or "parquet", which needs pyarrow.
      image_size: (height, width) for what takes any size, by default 299 x 299.
      batch_size: number of images that are run together.
      part_size: number of images in a part. Ctrl-C ends a part early; what a kill ends
        within a part is done again.
      moving_averages: "use" or "ignore" those of a training checkpoint.
      progress: told what is done.
      formats: the table of formats.
      reference: the checkpoint's network, by default TF-Slim's.

    Raises:
      EvaluationError: there are no images, or what is in `output` is another artifact's.
      ArtifactError: the artifact cannot be read, or does not have the endpoint.
      MissingLibraryError: a library is not there.
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      OSError: files cannot be read or written.
    """
    models.check_image_size(image_size)
    vectors.check_library(kind)
    for name, value in (("batch size", batch_size), ("part size", part_size)):
        if value < 1:
            raise EvaluationError(f"{name} {value}: expected 1 or more.")
    if (artifact is None) == (checkpoint is None):
        raise EvaluationError("Name either an artifact or a checkpoint.")
    output = Path(output)
    progress(Step(f"look into {images}"))
    dataset = datasets.open_dataset(Path(images), needs_labels=False)
    with contextlib.ExitStack() as stack:
        if artifact is not None:
            progress(Step(f"open {artifact}"))
            model = models.open_model(Path(artifact), formats, image_size, endpoint)
        else:
            assert checkpoint is not None
            if not isinstance(checkpoint, Checkpoint):
                progress(Step(f"read {checkpoint}"))
                checkpoint = open_checkpoint(
                    Path(checkpoint), moving_averages=moving_averages
                )
            known = CLASSIFICATION if checkpoint.num_classes else FEATURE_VECTOR
            if endpoint and endpoint not in known.endpoints:
                raise ArtifactError(
                    f"{checkpoint.path} has no endpoint {endpoint}; it has: "
                    f"{', '.join(known.endpoints)}."
                )
            network = stack.enter_context(reference or Reference(checkpoint))
            model = models.of_checkpoint(
                checkpoint, network, FEATURE_VECTOR, image_size, endpoint
            )
        stack.callback(model.close)
        if model.record and model.record.stand_in:
            progress(MADE_OF_STAND_IN)
        source = _source(model, endpoint)
        there = _known(output, source)
        run = _Run(dataset.examples, model, source, batch_size, progress)
        positions = [
            position
            for position, example in enumerate(dataset.examples)
            if example.name not in there
        ]
        before = len(dataset.examples) - len(positions)
        if before:
            progress(Note(f"The vectors of {before} images are there already."))
        start = time.monotonic()
        unreadable: dict[str, str] = {}
        written = 0
        for part in run.parts(positions, part_size, unreadable):
            vectors.write_part(output, kind, part)
            written += len(part.names)
    return Features(
        output=output,
        source=source,
        written=written,
        before=before,
        unreadable=unreadable,
        problems=dataset.problems,
        seconds=time.monotonic() - start,
    )


def _source(model: Model, endpoint: str | None) -> dict[str, Any]:
    """What vectors are of: all that has a part in them."""
    record = model.record
    return {
        "format": model.format,
        "task": model.task.name,
        "value": endpoint or model.task.output,
        "image_size": list(model.image_size),
        "digest": model.digest,
        "checkpoint_identity": record.checkpoint_identity if record else None,
        "provenance": record.provenance if record else None,
        "stand_in": record.stand_in if record else None,
    }


def _known(output: Path, source: Mapping[str, Any]) -> set[str]:
    """Names of the images that are there; refuses what is another artifact's."""
    if not output.exists():
        return set()
    if not output.is_dir():
        raise EvaluationError(f"{output} is a file; expected a directory of parts.")
    if not vectors.parts_of(output):
        return set()
    there = vectors.read(output)
    if there.source != source:
        raise EvaluationError(
            f"{output} holds vectors of another artifact: "
            f"{vectors.difference(there.source, source)}. Name another directory."
        )
    return set(there.names)


@dataclasses.dataclass(frozen=True)
class _Run:
    """The pass over the images."""

    examples: Sequence[Example]
    model: Model
    source: Mapping[str, Any]
    batch_size: int
    progress: Progress

    def parts(
        self, positions: Sequence[int], part_size: int, unreadable: dict[str, str]
    ) -> Iterator[Vectors]:
        """Yields parts of at most `part_size` images; notes what cannot be read."""
        names: list[str] = []
        rows: list[np.ndarray] = []
        size = self.model.image_size
        done = 0
        reading = batches.read(self.examples, positions, [size], self.batch_size)
        try:
            for batch in reading:
                if batch.positions:
                    rows += list(self.model.run(batch.images[size]).astype(np.float32))
                    names += [self.examples[number].name for number in batch.positions]
                for position, why in batch.problems.items():
                    unreadable[self.examples[position].name] = why
                done += len(batch.positions) + len(batch.problems)
                self.progress(
                    Step("features", done=done, total=len(positions), unit="images")
                )
                while len(names) >= part_size:
                    part, names = names[:part_size], names[part_size:]
                    values, rows = np.stack(rows[:part_size]), rows[part_size:]
                    yield Vectors(part, values, self.source)
        except KeyboardInterrupt:
            if names:
                yield Vectors(names, np.stack(rows[: len(names)]), self.source)
            raise
        if names:
            yield Vectors(names, np.stack(rows), self.source)
