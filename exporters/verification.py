"""Verifying: does an artifact still say what the checkpoint says?"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.errors import CheckpointError
from checkpoints.files import PathLike, as_paths
from checkpoints.reader import Checkpoint, Provenance, open_checkpoint
from exporters import (
    comparing,
    engines,
    foreign,
    manifest,
    parity,
    second_process,
    signatures,
)
from exporters.artifact import OpenedArtifact
from exporters.comparing import Comparison, Work
from exporters.errors import ArtifactError, ForeignFileError
from exporters.formats import (
    EXPECTED,
    FORMATS,
    Format,
    container_of,
    open_artifact,
)
from exporters.identification import IdentifiedFile
from exporters.identifying import reading
from exporters.labels import labels_for, read_labels
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.parity import ParityImages, ParityReport
from exporters.progress import STAND_IN, Note, Progress, Step, silent
from exporters.reference import Reference
from exporters.signatures import Trust

Look = Callable[[Path, OpenedArtifact, Callable[[str], None]], None]
"""Takes the path of an artifact, what was opened, and whom to tell what is done."""


@dataclasses.dataclass(frozen=True)
class VerifiedArtifact:
    """What came of one artifact.

    Attributes:
      path: the file or directory.
      report: the comparison with the checkpoint, None if there could be none.
      error: why there was none.
      identified: what it is, if another tool made it; None if it is one of ours.
      seconds: that it took; None if its library crashed.
    """

    path: Path
    report: ParityReport | None = None
    error: str | None = None
    identified: IdentifiedFile | None = None
    seconds: float | None = None

    @property
    def result(self) -> str:
        """Says in a word what came of it."""
        return parity.result(self.report, self.error)

    @property
    def passed(self) -> bool:
        """Whether it agrees with the checkpoint, and with its manifest if it has one."""
        return self.report is not None and self.report.passed

    def as_dict(self) -> dict[str, Any]:
        """The artifact as JSON values."""
        if not self.report:
            return {"passed": False, "error": self.error}
        facts = self.report.as_dict()
        if self.identified:
            facts["identified"] = self.identified.as_dict()
        return facts


@dataclasses.dataclass(frozen=True)
class Verification:
    """What came of a verification.

    Attributes:
      checkpoint: path of the checkpoint.
      checkpoint_identity: of its weights.
      is_stand_in: whether these are generated.
      compared_on: the images that artifacts were compared on.
      artifacts: all that were found, in order.
      skipped: what was passed over in directories -> why.
      engine: what ran the artifacts, None for each its own.
    """

    checkpoint: Path
    checkpoint_identity: str
    is_stand_in: bool
    compared_on: str
    artifacts: tuple[VerifiedArtifact, ...]
    skipped: Mapping[Path, str]
    engine: str | None = None

    @property
    def passed(self) -> bool:
        """Whether all artifacts agree."""
        return all(artifact.passed for artifact in self.artifacts)

    def as_dict(self) -> dict[str, Any]:
        """The verification as JSON values."""
        return {
            "passed": self.passed,
            "checkpoint": str(self.checkpoint),
            "checkpoint_identity": self.checkpoint_identity,
            "stand_in": self.is_stand_in,
            "compared_on": self.compared_on,
            "engine": self.engine,
            "artifacts": {
                str(artifact.path): artifact.as_dict() for artifact in self.artifacts
            },
            "skipped": {str(path): why for path, why in self.skipped.items()},
        }


def verify(
    artifacts: PathLike | Iterable[PathLike],
    checkpoint: PathLike | Checkpoint,
    *,
    images: PathLike | ParityImages | None = None,
    labels: PathLike | None = None,
    moving_averages: str | None = None,
    signed_by: Trust | None = None,
    engine: str | None = None,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
    reference: Reference | None = None,
    look: Look | None = None,
) -> Verification:
    """Compares artifacts with a checkpoint.

    Each is opened with its consumer's library. Its outputs on images, and every number
    that it holds, are compared with TF-Slim's network; its files with its manifest, if
    there is one. Files of other tools' are compared too, as far as they are this network:
    `exporters.foreign` finds out what they hold.

    Args:
      artifacts: artifacts, or directories of them.
      checkpoint: as `checkpoints.reader.open_checkpoint` takes it, or what it returned.
      images: directory of images to compare on; None for generated ones.
      labels: text file with the name of a class in each line, which artifacts should
        have; None for ImageNet's, where the checkpoint is the published one or a
        stand-in, and for any names otherwise.
      moving_averages: "use" or "ignore" those of a training checkpoint; a checkpoint
        that has some needs to be told.
      signed_by: whose signature each must have, see `exporters.signatures`; None if it
        does not matter.
      engine: what runs the artifacts, of `exporters.engines`; None for each its own.
      progress: told what is done.
      formats: the table of formats.
      reference: what to compare with, by default TF-Slim's network with the checkpoint.
      look: called with each artifact after it was compared, while it is open.

    Returns:
      What came of each artifact. One that cannot be read is a result too.

    Raises:
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      ArtifactError: a path is no artifact, and holds none; or there is no such engine.
      MissingLibraryError: the engine's library is not there, or that for signatures.
      ImageError: the images cannot be read.
      ExportError: the labels are no names of the checkpoint's classes.
      SigningError: signatures cannot be checked.
      OSError: a directory cannot be read.
    """
    engines.check(engine)
    paths, skipped = find_artifacts(as_paths(artifacts), formats, of_others=True)
    unsigned = signatures.problems(paths, signed_by) if signed_by else {}
    given_labels = read_labels(Path(labels)) if labels else None
    parity_images = parity.as_parity_images(images, progress)
    if parity_images.note:
        progress(Note(parity_images.note))
    with contextlib.ExitStack() as stack:
        second = None
        if len(paths) > 1 and look is None and formats is FORMATS:
            second = second_process.start(
                checkpoint, moving_averages, parity_images, reference
            )
        if second:
            stack.enter_context(second)
        if not isinstance(checkpoint, Checkpoint):
            progress(Step(f"read {checkpoint}"))
            checkpoint = open_checkpoint(
                Path(checkpoint), moving_averages=moving_averages
            )
        names = None
        if given_labels or checkpoint.provenance is not Provenance.UNVERIFIED:
            names = labels_for(checkpoint.num_classes, given_labels, str(labels))
        for note in checkpoint.notes:
            progress(Note(note))
        if checkpoint.is_stand_in:
            progress(STAND_IN)
        by = f", run by {engine}" if engine else ""
        progress(Note(f"Artifacts are compared on {parity_images.description}{by}."))
        # These share what they compute, so that one process should compare them: the
        # second begins here, and this process at the other end.
        can_train = {path: _can_train(path, formats) for path in paths}
        order = sorted(paths, key=lambda path: not can_train[path])
        if second:
            second.expect(checkpoint.identity)
            if any(can_train.values()):
                second.submit(checkpoint.path, comparing.prepare_batches, None, True)
        shared = second.shared if second else None
        opened = stack.enter_context(reference or Reference(checkpoint, shared=shared))
        if reference is None:
            progress(Step("build the network"))
            opened.graph()
        if second:
            size = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
            image_size = None if any(can_train.values()) else size
            comparing.prepare_batches(
                opened, parity_images, image_size, is_training=False
            )

        def work(number: int, path: Path) -> Work[VerifiedArtifact, VerifiedArtifact]:
            name = f"[{number}/{len(paths)}] {_name(path)}"
            arguments = names, unsigned.get(path), engine

            def here() -> VerifiedArtifact:
                progress(Step(name))
                return _verify_one(
                    opened, parity_images, path, *arguments, formats, seen
                )

            def seen(artifact: OpenedArtifact) -> None:
                if look:
                    look(path, artifact, lambda state: progress(Step(name, state)))

            comparison = Comparison(here)
            if second:
                comparison.start(
                    *(second, path, _verify_one, *arguments),
                    begun=lambda: progress(Step(name, goes_on=True)),
                )
            yield comparison
            try:
                found = comparison.result()
            except ArtifactError as error:  # Its library crashed.
                found = VerifiedArtifact(path, error=str(error))
            seconds = found.seconds if second else None
            progress(Step(name, found.result, passed=found.passed, seconds=seconds))
            return found

        done = comparing.results(
            work(number, path) for number, path in enumerate(order, start=1)
        )
        by_path = dict(zip(order, done, strict=True))
        return Verification(
            checkpoint=checkpoint.path,
            checkpoint_identity=checkpoint.identity,
            is_stand_in=checkpoint.is_stand_in,
            compared_on=parity_images.description,
            artifacts=tuple(by_path[path] for path in paths),
            skipped=skipped,
            engine=engine,
        )


def _can_train(path: Path, formats: Mapping[str, Format]) -> bool:
    container = container_of(path, formats)
    return container is not None and container.can_train


def _name(path: Path) -> str:
    """Returns the task and the format that a manifest says, or else the path."""
    try:
        described = files.read_json(manifest.path_of(path))
        return f"{described['task']} {described['format']}"
    except (OSError, ValueError, KeyError, TypeError):
        return str(path)


def _verify_one(
    reference: Reference, parity_images: ParityImages, path: Path, *arguments: Any
) -> VerifiedArtifact:
    start = time.monotonic()
    found = _verified(reference, parity_images, path, *arguments)
    return dataclasses.replace(found, seconds=time.monotonic() - start)


def _verified(
    reference: Reference,
    parity_images: ParityImages,
    path: Path,
    labels: Sequence[str] | None,
    unsigned: str | None,
    engine: str | None,
    formats: Mapping[str, Format] = FORMATS,
    seen: Callable[[OpenedArtifact], None] = lambda artifact: None,
) -> VerifiedArtifact:
    changed: list[str] = []
    identified = None
    try:
        changed = manifest.changed_files(path)
        try:
            artifact, row = _open(path, formats, engine)
        except ForeignFileError:
            if engine is not None:
                raise ArtifactError(
                    f"{path} cannot be run by {engine}: another tool made it, and its "
                    "form's own library runs it. Leave out --engine."
                ) from None
            report, identified = foreign.compare(path, reference, parity_images)
        else:
            with artifact:
                report = parity.compare(
                    artifact,
                    reference,
                    parity_images,
                    row.tolerance,
                    row.precision,
                    labels,
                )
                seen(artifact)
    except (ArtifactError, CheckpointError) as error:
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        if changed and path.exists():
            told += f" By its manifest, these files changed: {', '.join(changed)}."
        if unsigned:
            told += f" As to who signed it: {unsigned}."
        return VerifiedArtifact(path, error=told)
    except OSError as error:
        if error.errno is None:
            raise
        return VerifiedArtifact(path, error=f"{error.filename}: {error.strerror}")
    problems = [unsigned] if unsigned else []
    if changed:
        problems.append(f"not as its manifest says: {', '.join(changed)}")
    report = dataclasses.replace(report, problems=(*report.problems, *problems))
    return VerifiedArtifact(path, report, identified=identified)


def _open(
    path: Path, formats: Mapping[str, Format], engine: str | None
) -> tuple[OpenedArtifact, Format]:
    if reading.is_beyond_formats(path):
        raise ForeignFileError(f"{path} is of no format of irv2.")
    return open_artifact(path, formats, engine)


def find_artifacts(
    paths: Iterable[Path],
    formats: Mapping[str, Format] = FORMATS,
    *,
    of_others: bool = False,
) -> tuple[list[Path], dict[Path, str]]:
    """Finds the artifacts among paths, and those in paths that are directories.

    Whatever has a manifest counts, even if it is damaged or gone; so do the manifest, the
    card and the test vectors of an artifact.

    Args:
      paths: artifacts, or directories of them.
      formats: the table of formats.
      of_others: whether files of kinds that no format has count as well, such as frozen
        graphs and PyTorch's state dicts.

    Returns:
      The artifacts; and what was passed over in directories -> why.

    Raises:
      ArtifactError: a path is no artifact, and holds none.
    """

    def is_one(path: Path) -> bool:
        is_ours = container_of(path, formats) is not None
        return is_ours or (of_others and reading.is_beyond_formats(path))

    found: list[Path] = []
    skipped: dict[Path, str] = {}
    for path in paths:
        if path.name.endswith(manifest.SUFFIX) and path.is_file():
            found.append(manifest.artifact_of(path))
            continue
        if (owner := _owner(path)) and path.exists():
            found.append(owner)
            continue
        if is_one(path) or manifest.path_of(path).is_file():
            found.append(path)
            continue
        if not path.exists():
            raise ArtifactError(f"{path} does not exist. Expected an artifact.")
        if not path.is_dir():
            raise ArtifactError(f"{path} is {_kind(path)}. Expected {EXPECTED}.")
        inside, passed_over = _look_into(path, is_one)
        if not inside:
            names = [f"{child.name} ({why})" for child, why in passed_over.items()]
            raise ArtifactError(
                f"{path} is no artifact, and holds none. Found: "
                f"{', '.join(names[:5]) or 'nothing'}."
            )
        found += inside
        skipped |= passed_over
    return list(dict.fromkeys(found)), skipped


def _owner(path: Path) -> Path | None:
    """The artifact whose card or test vectors a path is, if it is there."""
    owner = manifest.owner_of(path)
    is_there = owner and (owner.exists() or manifest.path_of(owner).is_file())
    return owner if is_there else None


def _look_into(
    directory: Path, is_one: Callable[[Path], bool]
) -> tuple[list[Path], dict[Path, str]]:
    children = sorted(directory.iterdir())
    owned = {
        manifest.artifact_of(child)
        for child in children
        if child.name.endswith(manifest.SUFFIX)
    }
    inside = set(owned)
    skipped = {}
    for child in children:
        if child.name.endswith(manifest.SUFFIX) or child in owned or _owner(child):
            continue
        if child.name.startswith("."):
            skipped[child] = "hidden"
        elif is_one(child):
            inside.add(child)
        else:
            skipped[child] = _kind(child)
    return sorted(inside), skipped


def _kind(path: Path) -> str:
    """Says what a path is that is no artifact."""
    if path.is_dir():
        return "a directory that is no artifact"
    if path.is_file() and not path.stat().st_size:
        return "empty"
    return "no artifact of a known format"
