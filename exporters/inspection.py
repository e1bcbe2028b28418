"""What a checkpoint, an artifact or a directory of artifacts holds, in a few facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import files, layout
from checkpoints.files import PathLike
from checkpoints.reader import CheckpointError, open_checkpoint
from exporters import manifest
from exporters.artifact import OpenedArtifact
from exporters.errors import ArtifactError
from exporters.formats import (
    EXPECTED,
    FORMATS,
    Format,
    container_of,
    open_artifact,
)
from exporters.progress import Note, Progress, Step, silent
from exporters.verification import find_artifacts


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a path holds.

    Attributes:
      path: what was looked at.
      kind: "checkpoint", "artifact" or "directory".
      facts: name -> JSON value, in the order in which people want to read them. None
        where something is not known.
    """

    path: Path
    kind: str
    facts: Mapping[str, Any]


def inspect(
    path: PathLike,
    *,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
) -> Inspection:
    """Finds out what a path holds.

    Args:
      path: a checkpoint in any form, an artifact or its manifest, or a directory of
        artifacts.
      progress: told what is done; and at once if an artifact was changed, which can
        take long to open.
      formats: the table of formats.

    Raises:
      CheckpointError: it is none of these.
      ArtifactError: it is an artifact, but damaged, or one of another tool's.
    """
    path = Path(path)
    progress(Step(f"open {path}"))
    if path.is_file() and not path.stat().st_size:
        raise ArtifactError(f"{path} is empty. {_EXPECTED}")
    if path.name.endswith(manifest.SUFFIX) and path.is_file():
        path = manifest.artifact_of(path)
    if container_of(path, formats) or manifest.path_of(path).is_file():
        return Inspection(path, "artifact", _artifact(path, progress, formats))
    try:
        return Inspection(path, "checkpoint", _checkpoint(path))
    except CheckpointError as error:
        try:
            found, _ = find_artifacts([path], formats)
        except ArtifactError:
            raise CheckpointError(
                f"{error} Nor is it an artifact. {_EXPECTED}"
            ) from None
        return Inspection(path, "directory", {"artifacts": list(map(_entry, found))})


_EXPECTED = (
    "What can be inspected: a checkpoint; a directory of artifacts; and an artifact, which "
    f"is {EXPECTED}."
)


def _checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = open_checkpoint(path, check_layout=False)
    facts = {
        "container": checkpoint.container,
        "variables": len(checkpoint),
        "numbers": sum(value.size for value in checkpoint.values()),
        "identity": checkpoint.identity,
        "provenance": checkpoint.provenance.value,
        "stand-in": checkpoint.is_stand_in,
        "layout": "inception_resnet_v2",
        "classes": checkpoint.num_classes,
        "auxiliary head": checkpoint.has_auxiliary_head,
        "training step": checkpoint.step,
        "optimizer variables, not used": checkpoint.slots,
        "other variables, not used": checkpoint.ignored,
        "moving averages": checkpoint.moving_averages is not None,
        "prefix": checkpoint.prefix or None,
        "notes": list(checkpoint.notes) or None,
    }
    try:
        layout.check(checkpoint, str(path))
    except layout.CheckpointLayoutError as error:
        facts["layout"] = str(error)
    return facts


def _artifact(
    path: Path, progress: Progress, formats: Mapping[str, Format]
) -> dict[str, Any]:
    changed = manifest.changed_files(path)
    difference = f"By its manifest, these files changed: {', '.join(changed)}."
    if changed:
        progress(Note(f"{path} is damaged, or was changed. {difference}"))
    try:
        artifact, row = open_artifact(path, formats)
        with artifact:
            return _facts(path, artifact, row, changed)
    except ArtifactError as error:
        if changed:
            raise ArtifactError(f"{error} {difference}") from error
        raise


def _facts(
    path: Path, artifact: OpenedArtifact, row: Format, changed: list[str]
) -> dict[str, Any]:
    record = artifact.record
    options = row.completed(record.options) if record else {}
    is_stand_in = record is not None and record.stand_in
    weights = artifact.weights()
    black, white = artifact.input_range
    return {
        "format": row.name,
        "what it is": row.summary,
        "task": artifact.task.name,
        "published as": None if is_stand_in else row.handle(artifact.task.name),
        "image size": list(artifact.image_size) if artifact.image_size else "any",
        "layout": "NCHW" if options.get("nchw") else "NHWC",
        "images": f"{options.get('integer_type', 'float32')}, RGB in [{black:g}, {white:g}]",
        "outputs": list(artifact.outputs),
        "options": options,
        "weights": len(weights),
        "numbers": sum(stored.values.size for stored in weights.values()),
        "bytes": files.size(path),
        "made of checkpoint": record.checkpoint_identity if record else None,
        "provenance": record.provenance if record else None,
        "stand-in": record.stand_in if record else None,
        "files changed since export": changed or None,
    }


def _entry(path: Path) -> dict[str, Any]:
    """What a manifest says of an artifact, which is not opened."""
    facts: dict[str, Any] = {"name": path.name}
    try:
        described = files.read_json(manifest.path_of(path))
        for name in ("format", "task", "stand_in"):
            facts[name] = described[name]
    except (OSError, ValueError, KeyError, TypeError):
        facts["manifest"] = "missing or damaged"
    if path.exists():
        facts["bytes"] = files.size(path)
    else:
        facts["missing"] = True
    return facts
