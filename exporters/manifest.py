"""The manifest beside each artifact: what it is, what it was made of, how exact it is.

Its schema has the version of the record, whose fields it begins with.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.reader import Checkpoint
from exporters.artifact import first_line
from exporters.errors import ArtifactError
from exporters.record import SCHEMA_VERSION, Record

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
CARD_SUFFIX, BOM_SUFFIX, VECTORS_SUFFIX = ".card.md", ".cdx.json", ".test_vectors"
"""Of the model card and the bill of materials, and of a directory of test vectors."""
SIGNATURE_SUFFIX = ".sig"
_REPLACEMENT = "replacement"


def path_of(artifact: Path) -> Path:
    """Where the manifest of an artifact lies: beside it."""
    artifact = named(artifact)
    return artifact.parent / (artifact.name + SUFFIX)


def artifact_of(path: Path) -> Path:
    """Whose manifest a path is."""
    return path.with_name(path.name.removesuffix(SUFFIX))


def card_of(artifact: Path) -> Path:
    """Where the model card of an artifact lies: beside it."""
    artifact = named(artifact)
    return artifact.parent / (artifact.name + CARD_SUFFIX)


def bom_of(artifact: Path) -> Path:
    """Where the bill of materials of an artifact lies: beside it."""
    artifact = named(artifact)
    return artifact.parent / (artifact.name + BOM_SUFFIX)


def vectors_of(artifact: Path) -> Path:
    """Where the test vectors of an artifact lie: beside it."""
    artifact = named(artifact)
    return artifact.parent / (artifact.name + VECTORS_SUFFIX)


def signature_of(artifact: Path) -> Path:
    """Where the signature of an artifact's manifest lies: beside it."""
    artifact = named(artifact)
    return artifact.parent / (artifact.name + SIGNATURE_SUFFIX)


def companions_of(artifact: Path) -> tuple[Path, Path, Path]:
    """Where what the manifest lists lies that is no part of the artifact."""
    return card_of(artifact), bom_of(artifact), vectors_of(artifact)


def owner_of(path: Path) -> Path | None:
    """Whose card, bill of materials, vectors or signature a path is, None if nobody's."""
    for suffix in (CARD_SUFFIX, BOM_SUFFIX, VECTORS_SUFFIX, SIGNATURE_SUFFIX):
        if path.name.endswith(suffix) and path.name != suffix:
            return path.with_name(path.name.removesuffix(suffix))
    return None


def named(path: Path) -> Path:
    """Returns a path that ends with a name, unlike "." and ".."."""
    return Path(os.path.abspath(path)) if path.name in ("", "..") else path


def describe(
    artifact: Path, checkpoint: Checkpoint, record: Record, **facts: Any
) -> dict[str, Any]:
    """Returns the manifest of an artifact that was just made.

    Args:
      artifact: the file or directory.
      checkpoint: what it was made of.
      record: what it says about itself.
      **facts: what else the manifest says, as JSON values.
    """
    return {
        **record.as_dict(),
        **facts,
        "checkpoint": {"file": checkpoint.path.name, "container": checkpoint.container},
        "versions": versions(),
        "files": files.digests(artifact),
    }


def versions() -> dict[str, str]:
    """Versions of this tool, of Python and of the libraries that make artifacts."""
    return {
        "irv2": importlib.metadata.version("irv2"),
        "python": platform.python_version(),
    } | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def transition(old: Any, new: dict[str, Any]) -> dict[str, Any]:
    """Returns a manifest that is right before its artifact is replaced, and after.

    So there is no instant at which an artifact has another's manifest beside it.
    """
    return {**(old if isinstance(old, dict) else {}), _REPLACEMENT: new}


def check_version(described: Any, path: Path) -> None:
    """Refuses a manifest that this version cannot know how to read.

    Args:
      described: what was read.
      path: from where.

    Raises:
      ArtifactError: it is of a newer version.
    """
    version = described.get("schema_version") if isinstance(described, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} is a manifest of version {version}; this irv2 knows those up to "
            f"{SCHEMA_VERSION}. Use a newer irv2."
        )


def changed_files(artifact: Path, found: Mapping[str, str] | None = None) -> list[str]:
    """Names the files that are not as the manifest beside the artifact says.

    Args:
      artifact: the file or directory.
      found: the digests of its files, where they are known.

    Returns:
      Names below the artifact's parent; none where there is no manifest.

    Raises:
      ArtifactError: the manifest cannot be read, or is of a newer version.
    """
    path = path_of(artifact)
    if not path.is_file():
        return []
    try:
        described = files.read_json(path)
        check_version(described, path)
        candidates = [described["files"]] if "files" in described else []
        if _REPLACEMENT in described:
            candidates.append(described[_REPLACEMENT]["files"])
        if not candidates or not all(isinstance(c, dict) for c in candidates):
            raise ValueError("it does not list files")
    except (ValueError, KeyError, TypeError) as error:
        raise _no_manifest(path, error) from error
    if found is None:
        found = files.digests(named(artifact)) if artifact.exists() else {}
    changes = [
        sorted(
            name
            for name in recorded.keys() | found.keys()
            if recorded.get(name) != found.get(name)
        )
        for recorded in candidates
    ]
    return min(changes, key=len)


def changed_companions(artifact: Path) -> list[str]:
    """Names what lies beside an artifact and is not as its manifest says.

    What is not there is not missed: a card may stay behind when an artifact travels.

    Raises:
      ArtifactError: the manifest cannot be read.
    """
    path = path_of(artifact)
    try:
        listed = dict(files.read_json(path).get("companions", {}))
    except (AttributeError, TypeError, ValueError) as error:
        raise _no_manifest(path, error) from error
    found = {
        name: digest
        for path in companions_of(artifact)
        if path.exists()
        for name, digest in files.digests(path).items()
    }
    return sorted(name for name in found if listed.get(name) != found[name])


def _no_manifest(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path} is not a manifest of irv2 ({first_line(error)}). Remove it, or "
        "export the artifact again."
    )
