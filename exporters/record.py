"""What an artifact says about itself, the same for every container.

Each container only says where it keeps the text: a file that loaders ignore, metadata of
the model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from checkpoints import files
from checkpoints.reader import Checkpoint, Provenance
from exporters.errors import ArtifactError
from exporters.network.layers import NUM_CLASSES
from exporters.network.tasks import TASKS

SCHEMA_VERSION = 2
"""Version 1, of irv2 0.1, had no `schema_version`, `num_classes` and `options`, and the
auxiliary head was part of a checkpoint's identity."""

_TYPES: Mapping[str, Any] = {
    "schema_version": int,
    "format": str,
    "task": str,
    "checkpoint_identity": str,
    "provenance": str,
    "stand_in": bool,
    "num_classes": int | None,
    "options": dict,
}
_ADDED = {"schema_version": 1, "num_classes": NUM_CLASSES, "options": {}}
"""What a record of version 1 says of the fields that it lacks."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What an artifact says about itself.

    Attributes:
      format: name of its row in `exporters.formats`.
      task: name of its task.
      checkpoint_identity: `Checkpoint.identity` of its weights.
      provenance: value of `checkpoints.reader.Provenance`.
      stand_in: whether the weights were generated and classify nothing.
      num_classes: of the checkpoint's classifier, None if it had none.
      options: fields of `exporters.build.ExportOptions` that its format heeds.
      schema_version: of the record.
    """

    format: str
    task: str
    checkpoint_identity: str
    provenance: str
    stand_in: bool
    num_classes: int | None = NUM_CLASSES
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def is_of(self, checkpoint: Checkpoint) -> bool:
        """Whether it may be the record of an artifact made of a checkpoint's network.

        It is not where the identities differ. They cannot be compared where one is over
        more than the other has: a classifier or, in version 1, the auxiliary head.
        """
        if self.schema_version == 1:
            found = checkpoint.identity_with_auxiliary_head
            is_comparable = checkpoint.has_auxiliary_head
        elif self.num_classes is None:
            found, is_comparable = checkpoint.identity_of_features, True
        else:
            found = checkpoint.identity
            is_comparable = checkpoint.num_classes is not None
        return not is_comparable or found == self.checkpoint_identity

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values, the schema's version first."""
        return {name: getattr(self, name) for name in _TYPES}

    def to_text(self) -> str:
        """The record as JSON, in one line."""
        return json.dumps(self.as_dict())


def make(
    format: str, task: str, checkpoint: Checkpoint, options: Mapping[str, Any]
) -> Record:
    """Returns the record of an artifact to be."""
    return Record(
        format=format,
        task=task,
        checkpoint_identity=checkpoint.identity,
        provenance=checkpoint.provenance.value,
        stand_in=checkpoint.is_stand_in,
        num_classes=checkpoint.num_classes,
        options=options,
    )


def parse(text: bytes | str, source: str) -> Record:
    """Reads a record.

    Args:
      text: as `Record.to_text` gave it, in this version or an older one.
      source: what to call its place in an error.

    Raises:
      ArtifactError: it is no record, or one of a newer version.
    """
    try:
        found = files.parse_json(text)
        if not isinstance(found, dict):
            raise ValueError(f"it is a {type(found).__name__}")
    except ValueError as error:
        raise ArtifactError(
            f"{source} holds no record of irv2: {error}. The artifact is damaged: "
            "export it again."
        ) from error
    return of_facts(found, source)


def of_facts(facts: Mapping[str, Any], source: str) -> Record:
    """Returns the record of facts that were read, in this version or an older one.

    Args:
      facts: the fields of a record, to be checked.
      source: what to call their place in an error.

    Raises:
      ArtifactError: they make up no record, or one of a newer version.
    """
    found = {**_ADDED, **facts}
    version = found["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{source} is a record of version {version}; this irv2 knows those up to "
            f"{SCHEMA_VERSION}. Use a newer irv2."
        )
    problems = [
        f"{name} is {found.get(name)!r}, expected {getattr(kind, '__name__', kind)}"
        for name, kind in _TYPES.items()
        if not isinstance(found.get(name), kind)
        or (isinstance(found.get(name), bool) and kind is not bool)
    ]
    problems += [f"{name} is unknown" for name in sorted(found.keys() - _TYPES.keys())]
    if not problems:
        kept = found["options"].get("keep_float", [])
        if not isinstance(kept, list) or not all(isinstance(b, str) for b in kept):
            problems.append(f"keep_float is {kept!r}, expected names of blocks")
        if found["task"] not in TASKS:
            problems.append(f"there is no task {found['task']!r}")
        if found["provenance"] not in {member.value for member in Provenance}:
            problems.append(f"there is no provenance {found['provenance']!r}")
    if problems:
        raise ArtifactError(
            f"{source} holds no record of irv2: {'; '.join(problems)}. The artifact is "
            "damaged or was changed: export it again."
        )
    return Record(**found)
