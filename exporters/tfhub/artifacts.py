"""Finds the artifacts that TF Hub had handles for, and checks them.

How much can be known of an artifact without its checkpoint depends on its manifest:

* With the manifest beside it, every file is known to be as it was exported.
* Without, the artifact is opened as its consumers open it: it must be of the format and
  the task that it is recorded as, and every variable must have the checksum that
  TensorFlow stored with it. Generated weights are recognized even if nothing says what
  they are. That the numbers are those of a checkpoint, and the graph the one that was
  exported, only `irv2 verify` can tell; the artifact comes with a warning that says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from checkpoints.reader import Checkpoint
from exporters import extra_assets, formats, manifest, verification
from exporters.artifact import first_line
from exporters.errors import ArtifactError, ExportError

_FILES = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)


class InstallError(ExportError):
    """An artifact that must not be installed, packed or removed."""


@dataclasses.dataclass(frozen=True)
class PublishedArtifact:
    """An artifact of a format that TF Hub had handles for, checked.

    Attributes:
      path: the directory.
      format: name of its row in `exporters.formats`.
      task: "feature_vector" or "classification".
      is_stand_in: whether its weights are generated, by its record or by the weights.
      warning: what could not be checked, None if nothing.
    """

    path: Path
    format: str
    task: str
    is_stand_in: bool
    warning: str | None = None

    @property
    def handle(self) -> str:
        """The URL that TF Hub knew it by."""
        handle = formats.FORMATS[self.format].handle(self.task)
        assert handle is not None
        return handle


def find(
    paths: Iterable[Path], progress: Callable[[str], None] = lambda step: None
) -> dict[str, PublishedArtifact]:
    """Finds and checks artifacts, among paths and in directories of them.

    Args:
      paths: directories exported as v1, v3, v4 or v5, or directories that hold such;
        other formats in the latter are passed over.
      progress: called with what is done, as it begins.

    Returns:
      Handle -> artifact.

    Raises:
      ArtifactError: a path is no artifact with a handle and holds none, or one is
        damaged.
      InstallError: two artifacts have the same handle.
    """
    found: dict[str, PublishedArtifact] = {}
    for given in paths:
        known = len(found)
        for path in verification.find_artifacts([given])[0]:
            progress(f"check {path.name}")
            artifact = _check(path)
            if artifact is None:
                continue
            handle = artifact.handle
            if handle in found:
                raise InstallError(
                    f"{found[handle].path} and {path} are both {handle}. Give one."
                )
            found[handle] = artifact
        if len(found) == known:
            raise ArtifactError(
                f"{given} is no artifact that TF Hub had a handle for, and holds none. "
                "Expected a directory exported as v1, v3, v4 or v5."
            )
    return found


def _check(path: Path) -> PublishedArtifact | None:
    """Checks an artifact as well as can be; None if it is of another format."""
    if not path.is_dir():
        return None
    record = extra_assets.read_record(path)
    container = formats.container_of(path)
    had_handles = [
        row.name
        for row in formats.FORMATS.values()
        if row.container is container and row.published_version is not None
    ]
    if not had_handles:
        return None
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{path} is incomplete: without {missing[0]}. Export it again."
        )
    if not manifest.path_of(path).is_file():
        return _open(path)
    changed = manifest.changed_files(path)
    if changed:
        raise ArtifactError(
            f"{path} is not as its manifest says: {', '.join(changed[:3])}. Export it "
            "again."
        )
    if record is None or record.format not in had_handles:
        return _open(path)
    return PublishedArtifact(path, record.format, record.task, record.stand_in)


def _open(path: Path) -> PublishedArtifact:
    """Checks an artifact of which nothing says how it was exported."""
    _read_variables(path)
    opened, row = formats.open_artifact(path)
    with opened:
        weights = {name: stored.values for name, stored in opened.weights().items()}
    is_generated = Checkpoint(weights, path=path).is_stand_in
    return PublishedArtifact(
        path,
        row.name,
        opened.task.name,
        is_stand_in=is_generated or bool(opened.record and opened.record.stand_in),
        warning=f"{path} has no manifest beside it. It opens, and its variables have "
        "their checksums; whether they are a checkpoint's, `irv2 verify` can tell.",
    )


def _read_variables(path: Path) -> None:
    """Reads every variable, which compares it with its checksum."""
    import tensorflow as tf

    part = "variables.index"
    try:
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        for name in reader.get_variable_to_shape_map():
            part = f"variable {name}"
            reader.get_tensor(name)
    except Exception as error:  # TensorFlow raises a dozen types for damaged files.
        is_checksum = "checksum" in str(error).lower()
        reason = "does not match its checksum" if is_checksum else first_line(error)
        raise ArtifactError(
            f"{path} is damaged: in variables/, {part}: {reason}. Export it again."
        ) from error
