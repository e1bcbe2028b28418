"""What a checkpoint or an artifact holds, in a few facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints import layout
from checkpoints.reader import open_checkpoint
from exporters import manifest
from exporters.formats import CONTAINERS, FORMATS


def inspect(path: Path) -> dict[str, Any]:
    """Returns facts about a checkpoint or an artifact, by name, as JSON values.

    Raises:
      CheckpointError, ArtifactError: `path` is neither, or damaged.
    """
    for container in CONTAINERS:
        if container.holds(path):
            return _artifact(container.open(path), path)
    return _checkpoint(path)


def _checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = open_checkpoint(path, check_layout=False)
    facts = {
        "kind": "checkpoint",
        "container": checkpoint.container,
        "variables": len(checkpoint),
        "numbers": sum(value.size for value in checkpoint.values()),
        "identity": checkpoint.identity,
        "provenance": checkpoint.provenance.value,
        "stand-in": checkpoint.is_stand_in,
        "layout": "inception_resnet_v2",
    }
    try:
        layout.check(checkpoint, str(path))
    except layout.CheckpointLayoutError as error:
        facts["layout"] = str(error)
    return facts


def _artifact(artifact, path: Path) -> dict[str, Any]:
    weights = artifact.weights()
    return {
        "kind": "artifact",
        "format": artifact.format,
        "what it is": FORMATS[artifact.format].summary,
        "task": artifact.task,
        "published as": FORMATS[artifact.format].handle(artifact.task),
        "image size": list(artifact.image_size) if artifact.image_size else "any",
        "weights": len(weights),
        "numbers": sum(value.size for value, _ in weights.values()),
        "made of checkpoint": artifact.checkpoint_identity,
        "stand-in": artifact.is_stand_in,
        "files changed since export": manifest.changed_files(path) or None,
    }
