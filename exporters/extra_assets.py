"""The record of a directory, in the place that SavedModel keeps for it.

Loaders ignore `assets.extra/` (tensorflow/cc/saved_model/README.md, "assets.extra").
"""

from __future__ import annotations

from pathlib import Path

from exporters import record as records
from exporters.record import Record

RECORD = Path("assets.extra") / "irv2.json"


def write_record(directory: Path, record: Record) -> None:
    """Writes the record of a directory that was just exported."""
    path = directory / RECORD
    path.parent.mkdir(exist_ok=True)
    path.write_text(record.to_text() + "\n", encoding="utf-8")


def read_record(directory: Path) -> Record | None:
    """Reads the record of an exported directory.

    Returns:
      The record, or None where there is none: another tool made the directory.

    Raises:
      ArtifactError: there is one, but not as `write_record` writes it.
    """
    path = directory / RECORD
    if not path.is_file():
        return None
    return records.parse(path.read_bytes(), str(path))
