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
from exporters.formats import FORMATS, Format, container_of, open_artifact
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


def inspect(path: PathLike, *, formats: Mapping[str, Format] = FORMATS) -> Inspection:
    """Finds out what a path holds.

    Args:
      path: a checkpoint in any form, an artifact, or a directory of artifacts.
      formats: the table of formats.

    Raises:
      CheckpointError: it is none of these.
      ArtifactError: it is an artifact, but damaged, or one of another tool's.
    """
    path = Path(path)
    if container_of(path, formats):
        return Inspection(path, "artifact", _artifact(path, formats))
    try:
        return Inspection(path, "checkpoint", _checkpoint(path))
    except CheckpointError as error:
        try:
            found, _ = find_artifacts([path], formats)
        except ArtifactError:
            raise CheckpointError(
                f"{error} Nor is it an artifact: a directory with saved_model.pb, an "
                ".onnx file or a .tflite file."
            ) from None
        return Inspection(path, "directory", {"artifacts": list(map(_entry, found))})


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


def _artifact(path: Path, formats: Mapping[str, Format]) -> dict[str, Any]:
    changed = manifest.changed_files(path)
    try:
        artifact, row = open_artifact(path, formats)
    except ArtifactError as error:
        if changed:
            raise ArtifactError(
                f"{error} By its manifest, these files changed: {', '.join(changed)}."
            ) from error
        raise
    with artifact:
        return _facts(path, artifact, row, changed)


def _facts(
    path: Path, artifact: OpenedArtifact, row: Format, changed: list[str]
) -> dict[str, Any]:
    record = artifact.record
    options = dict(record.options) if record else {}
    weights = artifact.weights()
    black, white = artifact.input_range
    return {
        "format": row.name,
        "what it is": row.summary,
        "task": artifact.task.name,
        "published as": row.handle(artifact.task.name),
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
