"""Rebuilding: is an artifact, byte for byte, what this checkpoint gives today?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.files import PathLike, as_paths
from checkpoints.reader import Checkpoint, open_checkpoint
from checkpoints.scratch import temporary
from exporters import manifest
from exporters import record as records
from exporters.build import ExportOptions
from exporters.differences import first_difference
from exporters.errors import ArtifactError, ExportError
from exporters.exporting import export
from exporters.formats import FORMATS, Format
from exporters.progress import STAND_IN, Note, Progress, Step, silent
from exporters.record import Record
from exporters.reference import Reference
from exporters.verification import find_artifacts


@dataclasses.dataclass(frozen=True)
class RebuiltArtifact:
    """What came of one artifact.

    Attributes:
      path: the file or directory.
      difference: the first place where the rebuilt one is another, None if nowhere.
      other_versions: library -> (version that made it, version here), where they differ.
      error: why it could not be rebuilt, None if it could.
    """

    path: Path
    difference: str | None = None
    other_versions: Mapping[str, tuple[str, str]] = dataclasses.field(
        default_factory=dict
    )
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it is the same, byte for byte."""
        return self.difference is None and self.error is None

    @property
    def result(self) -> str:
        """Says in a word what came of it."""
        return "FAILED" if self.error else "same" if self.passed else "DIFFERS"


@dataclasses.dataclass(frozen=True)
class Rebuilding:
    """What came of all.

    Attributes:
      checkpoint: path of the checkpoint.
      checkpoint_identity: of its weights.
      is_stand_in: whether these are generated.
      artifacts: in order.
    """

    checkpoint: Path
    checkpoint_identity: str
    is_stand_in: bool
    artifacts: tuple[RebuiltArtifact, ...]

    @property
    def passed(self) -> bool:
        """Whether all artifacts are the same."""
        return all(artifact.passed for artifact in self.artifacts)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "passed": self.passed,
            "checkpoint": str(self.checkpoint),
            "checkpoint_identity": self.checkpoint_identity,
            "stand_in": self.is_stand_in,
            "artifacts": {
                str(artifact.path): {
                    "same": artifact.passed,
                    "difference": artifact.difference,
                    "other_versions": dict(artifact.other_versions),
                    "error": artifact.error,
                }
                for artifact in self.artifacts
            },
        }


def rebuild(
    artifacts: PathLike | Iterable[PathLike],
    checkpoint: PathLike | Checkpoint,
    *,
    calibration_images: PathLike | None = None,
    labels: PathLike | None = None,
    moving_averages: str | None = None,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
    reference: Reference | None = None,
) -> Rebuilding:
    """Makes artifacts again, aside, and compares them byte by byte with what is there.

    Format, task and options are taken from the manifest beside each.

    Args:
      artifacts: artifacts, manifests of artifacts, or directories of these.
      checkpoint: as `checkpoints.reader.open_checkpoint` takes it, or what it returned.
      calibration_images: the directory of images that they were quantized with, if they
        were given any.
      labels: likewise, the file with the names of classes.
      moving_averages: "use" or "ignore" those of a training checkpoint.
      progress: told what is done.
      formats: the table of formats.
      reference: what has TF-Slim's graphs, by default with the checkpoint.

    Returns:
      What came of each artifact.

    Raises:
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      ArtifactError: a path is no artifact, and holds none.
      ExportError, ImageError: labels or images that cannot be used.
      OSError: files cannot be read or written.
    """
    given = [
        manifest.artifact_of(path) if path.name.endswith(manifest.SUFFIX) else path
        for path in as_paths(artifacts)
    ]
    paths, _ = find_artifacts(given, formats)
    if not isinstance(checkpoint, Checkpoint):
        progress(Step(f"read {checkpoint}"))
        checkpoint = open_checkpoint(Path(checkpoint), moving_averages=moving_averages)
    if checkpoint.is_stand_in:
        progress(STAND_IN)
    for note in checkpoint.notes:
        progress(Note(note))

    done = []
    with reference or Reference(checkpoint) as opened:
        for number, path in enumerate(paths, start=1):
            name = f"[{number}/{len(paths)}] {path.name}"
            one = _One(path, checkpoint, calibration_images, labels, formats, opened)
            progress(Step(name, "rebuild"))
            try:
                result = one.rebuilt()
            except (ArtifactError, ExportError) as error:
                result = RebuiltArtifact(path, error=str(error))
            progress(Step(name, result.result, passed=result.passed))
            done.append(result)
    return Rebuilding(
        checkpoint.path, checkpoint.identity, checkpoint.is_stand_in, tuple(done)
    )


@dataclasses.dataclass(frozen=True)
class _One:
    """One artifact to be made again."""

    path: Path
    checkpoint: Checkpoint
    calibration_images: PathLike | None
    labels: PathLike | None
    formats: Mapping[str, Format]
    reference: Reference

    def rebuilt(self) -> RebuiltArtifact:
        """Makes it aside, and compares."""
        described, record = self._read_manifest()
        if record.checkpoint_identity != self.checkpoint.identity:
            raise ArtifactError(
                f"{self.path} was made of the checkpoint "
                f"{record.checkpoint_identity[:12]}..., and this is "
                f"{self.checkpoint.identity[:12]}..."
            )
        row = self.formats[record.format]
        with temporary() as directory:
            made = export(
                self.checkpoint,
                directory,
                formats=[row],
                tasks=[record.task],
                options=_options(record, row),
                calibration_images=self.calibration_images
                if row.is_calibrated
                else None,
                labels=self.labels,
                verify=False,
                reference=self.reference,
            )
            (artifact,) = made.artifacts
            if artifact.error:
                raise ExportError(artifact.error)
            difference = first_difference(artifact.path, self.path)
        found, here = described.get("versions"), manifest.versions()
        other = {
            library: (str(version), here[library])
            for library, version in (found if isinstance(found, dict) else {}).items()
            if library in here and version != here[library]
        }
        return RebuiltArtifact(self.path, difference, other if difference else {})

    def _read_manifest(self) -> tuple[Mapping[str, Any], Record]:
        place = manifest.path_of(self.path)
        if not place.is_file():
            raise ArtifactError(
                f"{self.path} has no manifest beside it, which would say how it was "
                f"made. Expected {place.name}."
            )
        try:
            described = files.read_json(place)
        except ValueError as error:
            raise ArtifactError(
                f"{place} is not a manifest of irv2: {error}"
            ) from error
        if not isinstance(described, dict):
            raise ArtifactError(f"{place} is not a manifest of irv2")
        fields = {field.name for field in dataclasses.fields(Record)}
        known = {name: value for name, value in described.items() if name in fields}
        record = records.of_facts(known, str(place))
        if record.format not in self.formats:
            raise ArtifactError(f"{place} is of {record.format!r}, which is no format")
        return described, record


def _options(record: Record, row: Format) -> ExportOptions:
    """Returns the options that a record says, of an artifact of a format.

    Raises:
      ArtifactError: there are no such options.
    """
    given = row.completed(record.options)
    for name, value in given.items():
        if isinstance(value, list):
            given[name] = tuple(value)
    try:
        return ExportOptions(**given)
    except (TypeError, ExportError) as error:
        raise ArtifactError(
            f"the options {dict(record.options)} of its manifest are none of this "
            f"irv2's: {error}"
        ) from error
