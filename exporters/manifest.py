"""The manifest beside each artifact: what it is, what it was made of, how exact it is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from checkpoints.reader import Checkpoint
from exporters.artifact import ArtifactError, first_line

_LIBRARIES = (
    "tensorflow",
    "tf-slim",
    "tf-keras",
    "numpy",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
)
SUFFIX = ".manifest.json"


def path_of(artifact: Path) -> Path:
    """Where the manifest of an artifact lies: beside it."""
    return artifact.with_name(artifact.name + SUFFIX)


def describe(artifact: Path, checkpoint: Checkpoint, **facts: Any) -> dict[str, Any]:
    """Returns the manifest of an artifact that was just made.

    Args:
      artifact: the file or directory.
      checkpoint: what it was made of.
      **facts: what else the manifest says, as JSON values.
    """
    return {
        **facts,
        "checkpoint": {
            "file": checkpoint.path.name,
            "container": checkpoint.container,
            "identity": checkpoint.identity,
            "provenance": checkpoint.provenance.value,
        },
        "stand_in": checkpoint.is_stand_in,
        "versions": versions(),
        "files": file_hashes(artifact),
    }


def versions() -> dict[str, str]:
    """Versions of this tool, of Python and of the libraries that make artifacts."""
    return {
        "irv2": importlib.metadata.version("irv2"),
        "python": platform.python_version(),
    } | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def file_hashes(artifact: Path) -> dict[str, str]:
    """SHA-256 of every file of an artifact, by path below the artifact's parent."""
    if artifact.is_dir():
        files = sorted(path for path in artifact.rglob("*") if path.is_file())
    else:
        files = [artifact]
    return {str(file.relative_to(artifact.parent)): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def changed_files(artifact: Path) -> list[str]:
    """Names the files that are not as the manifest beside the artifact says.

    Returns:
      Names below the artifact's parent; none where there is no manifest.

    Raises:
      ArtifactError: the manifest cannot be read.
    """
    path = path_of(artifact)
    if not path.is_file():
        return []
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["files"]
        found = file_hashes(artifact)
        return sorted(
            name
            for name in recorded.keys() | found.keys()
            if recorded.get(name) != found.get(name)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is not a manifest of irv2 ({first_line(error)}). Remove it, or "
            "export the artifact again."
        ) from error
