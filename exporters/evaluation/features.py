"""Features: the vectors that an artifact gives for images, kept in files."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints.files import PathLike
from checkpoints.reader import Checkpoint, open_checkpoint
from checkpoints.scratch import locked, scratch_beside
from exporters import engines
from exporters.errors import ArtifactError, EvaluationError
from exporters.evaluation import datasets, models, sharding, vectors
from exporters.evaluation.batches import Size
from exporters.evaluation.locations import Location, local, location
from exporters.evaluation.models import Model
from exporters.evaluation.running import VectorRun
from exporters.evaluation.vectors import Kind
from exporters.formats import FORMATS, Format
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR
from exporters.progress import (
    MADE_OF_STAND_IN,
    Note,
    Progress,
    Step,
    silent,
    waiting_for,
)
from exporters.reference import Reference


@dataclasses.dataclass(frozen=True)
class Features:
    """What came of writing features.

    Attributes:
      output: the directory of parts, or its URL.
      source: what the vectors are of.
      written: number of images whose vectors were written.
      before: number of images whose vectors were there.
      unreadable: name of an image that cannot be read -> why.
      problems: what else was found, and cannot be used -> why.
      seconds: that it took.
    """

    output: Location
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
    engine: str | None = None,
    beam: Sequence[str] | None = None,
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
      engine: what runs the artifact, of `exporters.engines`; None for its own.
      beam: runs on Apache Beam, by a pipeline with these options, such as
        ["--runner=FlinkRunner", "--flink_master=..."]. Then images and output may be URLs
        of any file system that Beam reads; workers have to reach them.
      progress: told what is done.
      formats: the table of formats.
      reference: the checkpoint's network, by default TF-Slim's.

    Raises:
      EvaluationError: there are no images, or what is in `output` is another artifact's.
      ArtifactError: the artifact cannot be read, or does not have the endpoint.
      MissingLibraryError: a library is not there.
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      PipelineError: a pipeline ended early.
      OSError, StorageError: files cannot be read or written.
    """
    models.check_image_size(image_size)
    vectors.check_library(kind)
    engines.check(engine)
    for name, value in (("batch size", batch_size), ("part size", part_size)):
        if value < 1:
            raise EvaluationError(f"{name} {value}: expected 1 or more.")
    if (artifact is None) == (checkpoint is None):
        raise EvaluationError("Name either an artifact or a checkpoint.")
    place: Location
    directory: Location
    launcher = None
    if beam is None:
        place, directory = local(images, "--images"), local(output, "--output")
    else:
        place, directory = location(images), location(output)
        launcher = sharding.launcher(directory, beam, progress)
        launcher.workplace.clear()
    progress(Step(f"look into {place}"))
    dataset = datasets.open_dataset(
        place, needs_labels=False, scan=launcher.scan if launcher else datasets.scan
    )
    with contextlib.ExitStack() as stack:
        if artifact is not None:
            progress(Step(f"open {artifact}"))
            model = models.open_model(
                Path(artifact), formats, image_size, endpoint, engine
            )
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
        if launcher is None:
            assert isinstance(directory, Path)
            stack.enter_context(_alone_in(directory, progress))
        there = _known(directory, source)
        left = [example for example in dataset.examples if example.name not in there]
        before = len(dataset.examples) - len(left)
        if before:
            progress(Note(f"The vectors of {before} images are there already."))
        start = time.monotonic()
        unreadable: dict[str, str] = {}
        if launcher is None:
            assert isinstance(directory, Path)
            written = 0
            run = VectorRun(left, model, source, batch_size, progress)
            for part in run.parts(range(len(left)), part_size, unreadable):
                vectors.write_part(directory, kind, part)
                written += len(part.names)
        else:
            of = checkpoint if isinstance(checkpoint, Checkpoint) else None
            stack.close()  # Workers open models of their own.
            written = 0
            if left:
                shipment = launcher.ship(
                    [model], of, formats, FEATURE_VECTOR, image_size, endpoint, engine
                )
                written = launcher.features(
                    shipment, left, source, kind, batch_size, part_size, unreadable
                )
            launcher.workplace.clear()
    return Features(
        output=directory,
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
    other = {"engine": model.engine} if model.engine else {}
    return {
        "format": model.format,
        "task": model.task.name,
        "value": endpoint or model.task.output,
        "image_size": list(model.image_size),
        "digest": model.digest,
        "checkpoint_identity": record.checkpoint_identity if record else None,
        "provenance": record.provenance if record else None,
        "stand_in": record.stand_in if record else None,
        **other,
    }


@contextlib.contextmanager
def _alone_in(output: Path, progress: Progress) -> Iterator[None]:
    """Makes a directory, and waits until no other process adds to it.

    Two that did so at once would both write the vectors of the same images.
    """
    if output.is_file():
        raise EvaluationError(f"{output} is a file; expected a directory of parts.")
    with scratch_beside(output / "part"), locked(output, waiting_for(output, progress)):
        yield


def _known(output: Location, source: Mapping[str, Any]) -> set[str]:
    """Names of the images that are there; refuses what is another artifact's."""
    if not output.exists():
        return set()
    if output.is_file():
        raise EvaluationError(f"{output} is a file; expected a directory of parts.")
    if not vectors.parts_of(output):
        return set()
    there = vectors.read_names(output)
    if there.source != source:
        raise EvaluationError(
            f"{output} holds vectors of another artifact: "
            f"{vectors.difference(there.source, source)}. Name another directory."
        )
    return set(there.names)
