"""Exported artifacts as TF Hub knew them: each with its handle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from exporters import formats, manifest, provenance
from exporters.artifact import ArtifactError, ExportError

_FILES = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)


class InstallError(ExportError):
    """An artifact that must not be installed, packed or removed."""


@dataclasses.dataclass(frozen=True)
class PublishedArtifact:
    """An exported directory of a format that TF Hub had handles for.

    Attributes:
      path: the directory.
      record: what it says about itself.
    """

    path: Path
    record: provenance.Record

    def check(self) -> None:
        """Checks that the directory is what it says, and as it was exported.

        Raises:
          ArtifactError: it is not.
        """
        changed = manifest.changed_files(self.path)
        if changed:
            raise ArtifactError(
                f"{self.path} is not as its manifest says: {', '.join(changed[:3])}. "
                "Export it again."
            )
        row = formats.FORMATS[self.record.format]
        missing = [name for name in _FILES if not (self.path / name).is_file()]
        if missing or formats.container_of(self.path) is not row.container:
            raise ArtifactError(
                f"{self.path} is recorded as {row.name}, but is none, or incomplete"
                f"{': without ' + missing[0] if missing else ''}. Export it again."
            )


def find_published(paths: Iterable[Path]) -> dict[str, PublishedArtifact]:
    """Finds the artifacts that have handles, among paths and in directories of them.

    Returns:
      Handle -> artifact.

    Raises:
      ArtifactError: a path is no artifact with a handle, and holds none.
      InstallError: two artifacts have the same handle.
    """
    found: dict[str, PublishedArtifact] = {}
    for given in paths:
        known = len(found)
        for path in formats.artifacts_in([given]):
            record = provenance.read_record(path)
            row = formats.FORMATS.get(record.format) if record else None
            handle = row.handle(record.task) if record and row else None
            if record is None or handle is None:
                continue
            if handle in found:
                raise InstallError(
                    f"{found[handle].path} and {path} are both {handle}. Give one."
                )
            found[handle] = PublishedArtifact(path, record)
        if len(found) == known:
            raise ArtifactError(
                f"{given} is no artifact that TF Hub had a handle for, and holds none. "
                "Expected a directory exported as v1, v3, v4 or v5."
            )
    return found
