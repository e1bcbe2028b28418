"""Finds the artifacts that TF Hub had handles for, and checks them.

How much can be known of an artifact without its checkpoint depends on its manifest:

* With the manifest beside it, every file is known to be as it was exported.
* Without, the artifact is opened as its consumers open it: it must be of the format and
  the task that it is recorded as, and every variable must have the checksum that
  TensorFlow stored with it; TF.js stores none. Generated weights are recognized even if nothing says what
  they are. That the numbers are those of a checkpoint, and the graph the one that was
  exported, only `irv2 verify` can tell; the artifact comes with a warning that says so.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from checkpoints import files
from checkpoints.files import PathLike
from checkpoints.reader import Checkpoint, CheckpointError, open_checkpoint
from exporters import extra_assets, formats, manifest, verification
from exporters.artifact import OpenedArtifact
from exporters.errors import ArtifactError, ExportError
from exporters.formats import Format
from exporters.network.layers import NUM_CLASSES
from exporters.progress import Progress, Step, silent
from exporters.tfhub import handles

_FILES = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)


class InstallError(ExportError):
    """An artifact that must not be installed, packed or removed."""


@dataclasses.dataclass(frozen=True)
class HubArtifact:
    """An artifact of a format that TF Hub had handles for, checked.

    Attributes:
      path: the directory.
      format: name of its row in `exporters.formats`.
      task: "feature_vector" or "classification".
      is_stand_in: whether its weights are generated, by its record or by the weights.
      is_published: whether it is of the published network; not of one with classes of
        its own, for which no published handle stands.
      warning: what could not be checked, None if nothing.
    """

    path: Path
    format: str
    task: str
    is_stand_in: bool
    is_published: bool
    warning: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs that it was published under, the first one first; or none."""
        row = formats.FORMATS[self.format]
        if row.published_version is None or not self.is_published:
            return ()
        if row.container.is_served_as_files:
            return (str(row.handle(self.task)),)
        return handles.urls(self.task, row.published_version)

    @property
    def kaggle_models(self) -> tuple[str, ...]:
        """The names that kagglehub has for it."""
        version = formats.FORMATS[self.format].published_version
        if version is None or not self.is_published or self.is_served_as_files:
            return ()
        return handles.kaggle_models(self.task, version)

    @property
    def had_handle(self) -> bool:
        """Whether TF Hub had a handle for the published network in this format."""
        return formats.FORMATS[self.format].published_version is not None

    @property
    def is_served_as_files(self) -> bool:
        """Whether clients ask for its files, and not for an archive."""
        return formats.FORMATS[self.format].container.is_served_as_files


def find(
    paths: PathLike | Iterable[PathLike],
    handle: str | None = None,
    progress: Progress = silent,
    *,
    served_as_files: bool = False,
) -> dict[str, HubArtifact]:
    """Finds and checks artifacts, among paths and in directories of them.

    Args:
      paths: directories exported in a format that had handles, or directories that hold
        such; other formats in the latter are passed over.
      handle: a URL for one artifact, instead of the one it was published under.
      progress: told what is done.
      served_as_files: whether to find those too that clients load file by file, TF.js.

    Returns:
      Handle -> artifact.

    Raises:
      ArtifactError: a path is no artifact of these formats and holds none, or one is
        damaged.
      InstallError: two artifacts have the same handle, one has none, or `handle` is no
        URL or a published one.
    """
    if handle is not None:
        _check_own_handle(handle)
    found: dict[str, HubArtifact] = {}
    for given in files.as_paths(paths):
        known = len(found)
        for path in verification.find_artifacts([given])[0]:
            container = formats.container_of(path)
            rows = [r for r in _rows(served_as_files) if r.container is container]
            if not rows:
                continue
            progress(Step(f"check {path.name}"))
            artifact = _check(path, rows)
            if not (handle or artifact.had_handle):
                continue
            name = handle or next(iter(artifact.urls), None)
            if name is None:
                raise InstallError(
                    f"{path} is of a network with classes of its own, and no published "
                    "handle stands for it. Give it one of yours with --handle."
                )
            if name in found:
                raise InstallError(
                    f"{found[name].path} and {path} are both {name}. Give one."
                )
            found[name] = artifact
        if len(found) == known:
            raise ArtifactError(
                f"{given} is no artifact that TF Hub had a handle for, and holds none. "
                f"Expected a directory exported as {_names(served_as_files)}."
            )
    return found


def _check_own_handle(handle: str) -> None:
    """Raises unless a handle can be somebody's own."""
    try:
        parts = urllib.parse.urlsplit(handle)
        steps = parts.path.strip("/").split("/")
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url or not all(steps) or {".", ".."} & set(steps):
        raise InstallError(
            f"handle {handle!r}: expected a URL such as "
            "https://example.org/models/flowers/1"
        )
    if handles.is_published(handle):
        raise InstallError(
            f"handle {handle}: this is a name of the published model, and stands for "
            "nothing else. Expected a URL of your own."
        )


def _rows(served_as_files: bool) -> list[Format]:
    """The directories that had handles, but for those that are loaded file by file."""
    return [
        row
        for row in formats.FORMATS.values()
        if row.published_version is not None
        and not row.container.suffix
        and (served_as_files or not row.container.is_served_as_files)
    ]


def _names(served_as_files: bool) -> str:
    *first, last = [row.name for row in _rows(served_as_files)]
    return f"{', '.join(first)} or {last}"


def _check(path: Path, rows: Sequence[Format]) -> HubArtifact:
    """Checks an artifact, which is one of these formats, as well as can be."""
    if not rows[0].container.is_served_as_files:
        return _check_module(path, [row.name for row in rows])
    if manifest.path_of(path).is_file():
        _check_unchanged(path)
        return _open_files(path)
    warning = (
        f"{path} has no manifest beside it. It opens; whether its weights are a "
        "checkpoint's, `irv2 verify` can tell."
    )
    return dataclasses.replace(_open_files(path), warning=warning)


def _check_unchanged(path: Path) -> None:
    """Raises unless an artifact is as its manifest says."""
    if changed := manifest.changed_files(path):
        raise ArtifactError(
            f"{path} is not as its manifest says: {', '.join(changed[:3])}. Export it "
            "again."
        )


def _check_module(path: Path, had_handles: Collection[str]) -> HubArtifact:
    """Checks an artifact that TensorFlow loads."""
    record = extra_assets.read_record(path)
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{path} is incomplete: without {missing[0]}. Export it again."
        )
    if not manifest.path_of(path).is_file():
        warning = (
            f"{path} has no manifest beside it. It opens, and its variables have their "
            "checksums; whether they are a checkpoint's, `irv2 verify` can tell."
        )
        return dataclasses.replace(_open(path), warning=warning)
    _check_unchanged(path)
    if record is None or record.format not in had_handles:
        return _open(path)
    return HubArtifact(
        path,
        record.format,
        record.task,
        is_stand_in=record.stand_in,
        is_published=record.num_classes == NUM_CLASSES and _is_published(path),
    )


def _open(path: Path) -> HubArtifact:
    """Finds out what an artifact is, and checks it, by opening it."""
    try:
        # Reading a variable compares it with its checksum.
        weights = open_checkpoint(path / "variables" / "variables", check_layout=False)
    except CheckpointError as error:
        raise ArtifactError(str(error)) from error
    opened, row = formats.open_artifact(path)
    opened.close()
    return _facts(path, opened, row, weights)


def _open_files(path: Path) -> HubArtifact:
    """The same, for an artifact whose files have no checksums."""
    opened, row = formats.open_artifact(path)
    with opened:
        stored = {name: weight.values for name, weight in opened.weights().items()}
        return _facts(path, opened, row, Checkpoint(stored, path=path))


def _facts(
    path: Path, opened: OpenedArtifact, row: Format, weights: Checkpoint
) -> HubArtifact:
    has_own_classes = weights.num_classes not in (None, NUM_CLASSES) or (
        opened.record is not None and opened.record.num_classes != NUM_CLASSES
    )
    return HubArtifact(
        path,
        row.name,
        opened.task.name,
        is_stand_in=weights.is_stand_in
        or bool(opened.record and opened.record.stand_in),
        is_published=not has_own_classes and _is_published(path),
    )


def _is_published(path: Path) -> bool:
    """Whether a manifest does not say that an artifact has no published handle."""
    file = manifest.path_of(path)
    return not file.is_file() or files.read_json(file).get("handle", "") is not None
