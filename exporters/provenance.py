"""The record that says which checkpoint a SavedModel or Hub module was made of.

It lies in `assets.extra/`, the place SavedModel keeps for files that loaders ignore
(tensorflow/cc/saved_model/README.md, "assets.extra").
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from checkpoints.reader import Checkpoint
from exporters.artifact import ArtifactError

RECORD = Path("assets.extra") / "irv2.json"


@dataclasses.dataclass(frozen=True)
class Record:
    """What an exported directory says about itself.

    Attributes:
      format: name of its row in `exporters.formats`.
      task: "feature_vector" or "classification".
      checkpoint_identity: `Checkpoint.identity` of its weights.
      stand_in: whether these weights were generated and classify nothing.
      provenance: value of `checkpoints.reader.Provenance`.
    """

    format: str
    task: str
    checkpoint_identity: str
    stand_in: bool
    provenance: str


def write_record(
    directory: Path, *, format: str, task: str, checkpoint: Checkpoint
) -> None:
    """Writes the record of a directory that was just exported."""
    record = Record(
        format=format,
        task=task,
        checkpoint_identity=checkpoint.identity,
        stand_in=checkpoint.is_stand_in,
        provenance=checkpoint.provenance.value,
    )
    path = directory / RECORD
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(dataclasses.asdict(record), indent=2)
    path.write_text(text + "\n", encoding="utf-8")


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
    expected = {field.name: field.type for field in dataclasses.fields(Record)}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        types = {name: type(value).__name__ for name, value in found.items()}
    except (ValueError, AttributeError, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}. The artifact is damaged: export it again."
        ) from error
    if types != expected:
        raise ArtifactError(
            f"{path} holds {types}, expected {expected}. The artifact is damaged or "
            "was made by another version: export it again."
        )
    return Record(**found)
