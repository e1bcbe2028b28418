"""Reporting: one page about artifacts, to sign off a model by."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import files
from checkpoints.files import PathLike, as_paths
from checkpoints.reader import Checkpoint, open_checkpoint
from checkpoints.scratch import scratch_beside
from exporters import manifest, parity
from exporters.artifact import OpenedArtifact
from exporters.errors import ArtifactError, ExportError
from exporters.evaluation import models
from exporters.formats import FORMATS, Format
from exporters.labels import labels_for
from exporters.parity import ParityImages, without_infinities
from exporters.processor import Processor, this_processor
from exporters.progress import Note, Progress, Step, silent
from exporters.reference import Reference
from exporters.reporting import evaluations, measuring, page
from exporters.reporting.evaluations import ReadEvaluation, Score
from exporters.reporting.measuring import Measurement, Ranked, Size
from exporters.verification import (
    Verification,
    VerifiedArtifact,
    find_artifacts,
    verify,
)

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ReportedArtifact:
    """What a page says of one artifact.

    Attributes:
      verified: the comparison with the checkpoint.
      label: what it is called in tables and plots.
      format: name of its format, None if it does not say.
      task: name of its task, None if it does not say.
      is_stand_in: whether it says that its weights are generated.
      bytes: size of all its files.
      digests: file -> SHA-256.
      changed: files that are not as the manifest says; None if there is none.
      versions: library -> version that made it, by its manifest.
      measurement: what was measured of it, None if it could not be.
      not_measured: why.
      score: how often it is right, if that was evaluated.
    """

    verified: VerifiedArtifact
    label: str
    format: str | None = None
    task: str | None = None
    is_stand_in: bool = False
    bytes: int = 0
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    changed: Sequence[str] | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    measurement: Measurement | None = None
    not_measured: str | None = None
    score: Score | None = None

    def as_dict(self) -> dict[str, Any]:
        """The artifact as JSON values."""
        verified = self.verified
        report = verified.report
        compared = report.as_dict() if report else None
        facts = dataclasses.asdict(self, dict_factory=without_infinities)
        del facts["verified"]
        return {
            "path": str(verified.path),
            "name": manifest.named(verified.path).name,
            "result": verified.result,
            "passed": verified.passed,
            "error": verified.error,
            "failures": report.failures() if report else [],
            "parity": compared,
            "main": compared["outputs"].get(compared["main_output"])
            if compared
            else None,
            **facts,
        }


@dataclasses.dataclass(frozen=True)
class ReportedImage:
    """An image that artifacts were compared on.

    Attributes:
      name: of its file, or that it was generated.
      top: size, such as "299 x 299" -> the classes that TF-Slim's network names first.
    """

    name: str
    top: Mapping[str, tuple[Ranked, ...]]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a page says.

    Attributes:
      output: the page.
      verification: what came of comparing.
      provenance: of the checkpoint.
      num_classes: of the checkpoint, None if it has no classifier.
      artifacts: all that were found, in order.
      images: that they were compared on.
      evaluation: how often they are right, if that was evaluated.
      checkpoint_score: of the network itself, likewise.
      not_here: names of artifacts that were evaluated, and are none of these.
      versions: library -> version that was used.
      processor: that was used.
      command: by which it was made, None from Python.
      made: when.
    """

    output: Path
    verification: Verification
    provenance: str
    num_classes: int | None
    artifacts: tuple[ReportedArtifact, ...]
    images: tuple[ReportedImage, ...]
    evaluation: ReadEvaluation | None
    checkpoint_score: Score | None
    not_here: tuple[str, ...]
    versions: Mapping[str, str]
    processor: Processor
    command: str | None
    made: datetime.datetime

    @property
    def passed(self) -> bool:
        """Whether all artifacts agree."""
        return self.verification.passed

    @property
    def is_stand_in(self) -> bool:
        """Whether the checkpoint, or an artifact, is one."""
        return self.verification.is_stand_in or any(
            artifact.is_stand_in for artifact in self.artifacts
        )

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values; the page holds the same."""
        verification, evaluation = self.verification, None
        if self.evaluation:
            evaluation = dataclasses.asdict(self.evaluation)
            evaluation["file"] = str(self.evaluation.file)
            del evaluation["scores"], evaluation["names"]
            evaluation["checkpoint"] = (
                dataclasses.asdict(self.checkpoint_score)
                if self.checkpoint_score
                else None
            )
            evaluation["not_here"] = list(self.not_here)
        return {
            "irv2_report": SCHEMA_VERSION,
            "made": self.made.isoformat(timespec="seconds"),
            "command": self.command,
            "passed": self.passed,
            "stand_in": self.is_stand_in,
            "checkpoint": {
                "path": str(verification.checkpoint),
                "identity": verification.checkpoint_identity,
                "provenance": self.provenance,
                "stand_in": verification.is_stand_in,
                "num_classes": self.num_classes,
            },
            "compared_on": verification.compared_on,
            "artifacts": [artifact.as_dict() for artifact in self.artifacts],
            "images": [dataclasses.asdict(image) for image in self.images],
            "evaluation": evaluation,
            "skipped": {str(path): why for path, why in verification.skipped.items()},
            "versions": dict(self.versions),
            "machine": {
                "system": platform.platform(),
                **dataclasses.asdict(self.processor),
            },
        }


def report(
    artifacts: PathLike | Iterable[PathLike],
    checkpoint: PathLike | Checkpoint,
    output: PathLike,
    *,
    images: PathLike | ParityImages | None = None,
    evaluation: PathLike | None = None,
    latency: bool = False,
    moving_averages: str | None = None,
    force: bool = False,
    command: str | None = None,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
    reference: Reference | None = None,
) -> Report:
    """Compares artifacts with a checkpoint, and writes a page about them.

    The page is one HTML file that asks for nothing else, and holds its figures as JSON
    too, in `<script type="application/json" id="report">`.

    Args:
      artifacts: artifacts, or directories of them.
      checkpoint: as `checkpoints.reader.open_checkpoint` takes it, or what it returned.
      output: HTML file to write; its directory is made if needed.
      images: directory of images to compare on; None for generated ones.
      evaluation: a file with what `irv2 evaluate --json` printed. Figures of files that
        are not byte by byte those at hand are not shown.
      latency: measure how long an image takes on this machine.
      moving_averages: "use" or "ignore" those of a training checkpoint.
      force: replace an existing file.
      command: what to say that it was made by.
      progress: told what is done.
      formats: the table of formats.
      reference: what to compare with, by default TF-Slim's network with the checkpoint.

    Returns:
      What the page says. An artifact that cannot be read is a part of it.

    Raises:
      MissingLibraryError: the extra `report` is not there.
      EvaluationError: `evaluation` is none.
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      ArtifactError: a path is no artifact, and holds none.
      ExportError: something is in the way of `output`.
      ImageError: the images cannot be read.
      OSError: files cannot be read or written.
    """
    page.check_libraries()
    output = Path(output)
    _check_output(output, force)
    read = evaluations.read(Path(evaluation)) if evaluation else None
    given = [path for path in as_paths(artifacts) if not _is_same(path, output)]
    paths, _ = find_artifacts(given, formats, of_others=True)
    with scratch_beside(output) as scratch:
        parity_images = parity.as_parity_images(images, progress)
        if not isinstance(checkpoint, Checkpoint):
            progress(Step(f"read {checkpoint}"))
            checkpoint = open_checkpoint(
                Path(checkpoint), moving_averages=moving_averages
            )
        names = _class_names(checkpoint, paths)
        opened = reference or Reference(checkpoint)
        with opened:
            if reference is None:
                progress(Step("build the network"))
                opened.graph()
            look = _Look(opened, parity_images, names, formats, latency)
            verification = verify(
                given,
                checkpoint,
                images=parity_images,
                progress=progress,
                formats=formats,
                reference=opened,
                look=look,
            )
            skipped = verification.skipped.items()
            verification = dataclasses.replace(
                verification,  # The page may lie among artifacts.
                skipped={p: why for p, why in skipped if not _is_same(p, output)},
            )
            shown = look.images()
        progress(Step("compute digests"))
        order = list(formats)
        described = sorted(
            map(_described, verification.artifacts),
            key=lambda item: (
                order.index(item.format) if item.format in order else len(order),
                item.task or "",
                item.verified.path,
            ),
        )
        made = Report(
            output=output,
            verification=verification,
            provenance=checkpoint.provenance.value,
            num_classes=checkpoint.num_classes,
            artifacts=tuple(
                _with_score(
                    dataclasses.replace(
                        item,
                        label=label,
                        is_stand_in=item.is_stand_in
                        or item.verified.path in look.stand_ins,
                        measurement=look.measured.get(item.verified.path),
                        not_measured=look.failed.get(item.verified.path),
                    ),
                    read,
                )
                for item, label in zip(described, _labels(described))
            ),
            images=shown,
            evaluation=read,
            checkpoint_score=read.scores.get(checkpoint.identity) if read else None,
            not_here=_not_here(read, described, checkpoint),
            versions=manifest.versions(),
            processor=this_processor(),
            command=command,
            made=datetime.datetime.now(datetime.UTC),
        )
        for name in made.not_here:
            progress(
                Note(
                    f"{evaluation} has figures of {name}, whose files are none of these: "
                    "they are left out."
                )
            )
        progress(Step("draw"))
        text = page.render(made.as_dict(), look.pictures(), _pictures_of(read))
        finished = scratch / output.name
        finished.write_text(text, encoding="utf-8", errors="replace")
        files.sync(finished)
        files.replace({finished: output}, scratch)
    return made


def _is_same(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute()


def _check_output(output: Path, force: bool) -> None:
    if output.is_dir():
        raise ExportError(f"{output} is a directory; expected a file to write")
    if output.exists() and not force:
        raise ExportError(f"{output} exists already. Use --force to replace it.")
    if files.is_no_directory(output.parent):
        raise ExportError(f"{output.parent} is a file; expected a directory")


def _class_names(
    checkpoint: Checkpoint, paths: Sequence[Path]
) -> tuple[str, ...] | None:
    if checkpoint.num_classes is None:
        return None
    given = models.labels_of(paths)
    if given and len(given) == checkpoint.num_classes:
        return given
    return labels_for(checkpoint.num_classes, None)


class _Look:
    """Measures artifacts while they are open.

    Attributes:
      measured: path -> what was measured.
      failed: path -> why nothing was.
      stand_ins: paths of those that say that their weights are generated.
    """

    def __init__(
        self,
        reference: Reference,
        images: ParityImages,
        names: Sequence[str] | None,
        formats: Mapping[str, Format],
        latency: bool,
    ) -> None:
        self.measured: dict[Path, Measurement] = {}
        self.failed: dict[Path, str] = {}
        self.stand_ins: set[Path] = set()
        self._reference = reference
        self._images = images
        self._names = names
        self._formats = formats
        self._latency = latency
        self._batches: dict[Size | None, np.ndarray] = {}
        self._with_depth: set[str] = set()

    def __call__(
        self, path: Path, artifact: OpenedArtifact, at: Callable[[str], None]
    ) -> None:
        at("measure")
        if artifact.record and artifact.record.stand_in:
            self.stand_ins.add(path)
        precision = self._formats[artifact.format].precision
        is_rounded = precision is not None and precision.weights != "float32"
        with_depth = is_rounded and artifact.format not in self._with_depth
        try:
            self.measured[path] = measuring.measure(
                artifact,
                self._reference,
                self._batch(artifact.image_size),
                self._names,
                with_latency=self._latency,
                with_depth=with_depth,
            )
        except models.TROUBLES as error:
            self.failed[path] = str(error)
        else:
            if with_depth:  # Of one task of each format: the network is the same.
                self._with_depth.add(artifact.format)

    def _batch(self, size: Size | None) -> np.ndarray:
        if size not in self._batches:
            self._batches[size] = measuring.batch_of(self._images, size)
        return self._batches[size]

    def images(self) -> tuple[ReportedImage, ...]:
        """What the network makes of the images."""
        tops: dict[int, dict[str, tuple[Ranked, ...]]] = collections.defaultdict(dict)
        has_classes = self._reference.checkpoint.num_classes is not None
        for batch in self._batches.values():
            count, height, width, _ = batch.shape
            size = f"{height} x {width}"
            logits = (
                self._reference.outputs(batch, ["logits"])["logits"]
                if has_classes
                else [None] * count
            )
            for number, row in enumerate(logits):
                tops[number][size] = (
                    () if row is None else measuring.top(row, self._names)
                )
        return tuple(
            ReportedImage(self._images.name(number), top)
            for number, top in tops.items()
        )

    def pictures(self) -> list[np.ndarray]:
        """The images, in the largest size that they were used in."""
        if not self._batches:
            return []
        largest = max(self._batches.values(), key=lambda batch: batch.shape[1])
        return [image for image in largest]


def _described(verified: VerifiedArtifact) -> ReportedArtifact:
    """What the files and the manifest of an artifact say."""
    path = verified.path
    described: Mapping[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found = files.read_json(manifest.path_of(path))
        described = found if isinstance(found, dict) else {}
    is_there = path.exists()
    versions = described.get("versions")
    named = manifest.named(path)
    digests = files.digests(named) if is_there else {}
    changed = None
    with contextlib.suppress(ArtifactError, OSError):
        changed = manifest.changed_files(path, digests) if described else None
    report = verified.report
    return ReportedArtifact(
        verified=verified,
        label=named.name,
        format=report.format if report else _text(described.get("format")),
        task=report.task if report else _text(described.get("task")),
        is_stand_in=described.get("stand_in") is True,
        bytes=files.size(named) if is_there else 0,
        digests=digests,
        changed=changed,
        versions={str(k): str(v) for k, v in versions.items()}
        if isinstance(versions, dict)
        else {},
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _labels(described: Sequence[ReportedArtifact]) -> list[str]:
    """What to call artifacts: by format, and by task if there are several of it."""
    formats = collections.Counter(item.format for item in described)
    both = collections.Counter((item.format, item.task) for item in described)
    names = collections.Counter(item.label for item in described)
    labels = []
    for item in described:
        if item.format is None or both[item.format, item.task] > 1:
            is_told_apart = names[item.label] == 1
            labels.append(item.label if is_told_apart else str(item.verified.path))
        elif formats[item.format] > 1:
            labels.append(f"{item.format}, {str(item.task).replace('_', ' ')}")
        else:
            labels.append(item.format)
    return labels


def _with_score(
    item: ReportedArtifact, evaluation: ReadEvaluation | None
) -> ReportedArtifact:
    if evaluation is None or not item.digests:
        return item
    score = evaluation.scores.get(models.digest(item.digests))
    return dataclasses.replace(item, score=score)


def _not_here(
    evaluation: ReadEvaluation | None,
    described: Sequence[ReportedArtifact],
    checkpoint: Checkpoint,
) -> tuple[str, ...]:
    if evaluation is None:
        return ()
    here = {models.digest(item.digests) for item in described}
    here.add(checkpoint.identity)
    return tuple(
        name for digest, name in evaluation.names.items() if digest not in here
    )


def _pictures_of(evaluation: ReadEvaluation | None) -> dict[str, Path]:
    """Name of an image that artifacts differ about -> its file, where it is one."""
    if evaluation is None:
        return {}
    directory = Path(evaluation.images)
    found = {}
    for score in evaluation.scores.values():
        for difference in score.differences:
            path = directory / difference.image
            with contextlib.suppress(OSError, ValueError):
                if path.resolve().is_relative_to(directory.resolve()):
                    if path.is_file():
                        found[difference.image] = path
    return found
