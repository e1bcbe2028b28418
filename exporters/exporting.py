"""Exporting: every artifact is written aside, compared, and moved to its place."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.files import PathLike
from checkpoints.reader import Checkpoint, open_checkpoint
from checkpoints.scratch import locked, scratch_beside
from exporters import bom, cards, comparing, manifest, parity, second_process
from exporters import calibration as calibrations
from exporters import record as records
from exporters.budget import (
    Budget,
    Trial,
    check_blocks,
    choice,
    labelled_images,
    meet,
    unmet,
)
from exporters.build import Build, ExportOptions
from exporters.comparing import Compared, Comparison, Work
from exporters.errors import ArtifactError, ExportError
from exporters.formats import FORMATS, Format, select, select_tasks
from exporters.labels import labels_for, read_labels
from exporters.network import layers
from exporters.network.layers import NUM_CLASSES
from exporters.network.tasks import Task
from exporters.parity import ParityImages, ParityReport, Tolerance
from exporters.progress import STAND_IN, Note, Progress, Step, silent
from exporters.record import Record
from exporters.reference import Reference
from exporters.second_process import SecondProcess
from exporters.test_vectors import TestVectors

_ENOUGH_IMAGES = 8
"""To calibrate on. Fewer rarely show what activations there can be."""


@dataclasses.dataclass(frozen=True)
class ExportedArtifact:
    """What came of one artifact.

    Attributes:
      path: the file or directory, or where it would be.
      format: name of its format.
      task: name of its task.
      bytes: size of all its files; 0 if it was not kept.
      seconds: time to "write" it, and to "verify" it.
      report: the comparison with the checkpoint, None if there was none.
      error: why it could not be made, None if it could.
      trials: of blocks to keep in float, where a budget was to be met.
    """

    path: Path
    format: str
    task: str
    bytes: int = 0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    report: ParityReport | None = None
    error: str | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether it is at its place."""
        return self.error is None and (self.report is None or self.report.passed)

    @property
    def result(self) -> str:
        """Says in a word what came of it."""
        return parity.result(self.report, self.error)

    @property
    def failures(self) -> list[str]:
        """Says in words why it was not kept."""
        if self.error is not None:
            return [self.error]
        return self.report.failures() if self.report else []


@dataclasses.dataclass(frozen=True)
class Export:
    """What came of an export.

    Attributes:
      output: the directory.
      checkpoint: path of the checkpoint.
      checkpoint_identity: of its weights.
      is_stand_in: whether these are generated.
      calibrated_on: the images that quantization took ranges from, if it took any.
      compared_on: the images that artifacts were compared on, if they were.
      artifacts: all that were asked for, in their order.
      seconds: to "read" the checkpoint and to build its "graphs".
    """

    output: Path
    checkpoint: Path
    checkpoint_identity: str
    is_stand_in: bool
    calibrated_on: str | None
    compared_on: str | None
    artifacts: tuple[ExportedArtifact, ...]
    seconds: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether all artifacts were kept."""
        return all(artifact.is_kept for artifact in self.artifacts)

    def as_dict(self) -> dict[str, Any]:
        """The export as JSON values."""
        return {
            "passed": self.passed,
            "output": str(self.output),
            "checkpoint": str(self.checkpoint),
            "checkpoint_identity": self.checkpoint_identity,
            "stand_in": self.is_stand_in,
            "calibrated_on": self.calibrated_on,
            "compared_on": self.compared_on,
            "read_seconds": self.seconds["read"],
            "graph_seconds": self.seconds["graphs"],
            "artifacts": [
                {
                    "path": str(artifact.path),
                    "format": artifact.format,
                    "task": artifact.task,
                    "kept": artifact.is_kept,
                    "bytes": artifact.bytes,
                    "seconds": dict(artifact.seconds),
                    "error": artifact.error,
                    "parity": artifact.report.as_dict() if artifact.report else None,
                    "budget": [
                        {**trial.as_dict(), "milliseconds": trial.milliseconds}
                        for trial in artifact.trials
                    ],
                }
                for artifact in self.artifacts
            ],
        }


def export(
    checkpoint: PathLike | Checkpoint,
    output: PathLike,
    *,
    formats: Iterable[str | Format] | None = None,
    tasks: Iterable[str] | None = None,
    options: ExportOptions | None = None,
    images: PathLike | ParityImages | None = None,
    calibration_images: PathLike | None = None,
    labels: PathLike | None = None,
    moving_averages: str | None = None,
    verify: bool = True,
    budget: Tolerance | None = None,
    max_drop: float | None = None,
    ground_truth: PathLike | None = None,
    label_offset: int | None = None,
    force: bool = False,
    progress: Progress = silent,
    reference: Reference | None = None,
) -> Export:
    """Makes artifacts from a checkpoint.

    Each is compared with TF-Slim's network before it comes to its place, with its
    manifest beside it; one that does not agree is not kept, and the others are made all
    the same.

    Args:
      checkpoint: as `checkpoints.reader.open_checkpoint` takes it, or what it returned.
      output: directory to export to; made if needed.
      formats: names of formats, or rows like those of `exporters.formats`; None for all.
      tasks: "feature_vector", "classification"; None for all that the checkpoint has
        the variables for.
      options: choices for the deployable formats.
      images: directory of images to compare on; None for generated ones.
      calibration_images: directory of images to quantize with; None for generated ones.
      labels: text file with the name of a class in each line; None for ImageNet's if
        the network has 1001 classes, and for no names otherwise.
      moving_averages: "use" or "ignore" those of a training checkpoint; a checkpoint
        that has some needs to be told.
      verify: False skips the comparison.
      budget: how far the task's own output of int8 formats may be off. As few blocks stay
        in float as that takes; see `exporters.budget`.
      max_drop: likewise, how many percentage points of top-1 they may lose beside the
        network, on `images`, which are then a directory of one subdirectory per class.
      ground_truth: a file with the labels of `images`, where they are in no such
        subdirectories; see `exporters.evaluation.evaluating.evaluate`.
      label_offset: what to add to numbers of classes to get the network's; found from
        the labels where they leave one possibility.
      force: replace artifacts that are there already.
      progress: told what is done.
      reference: what to compare with, by default TF-Slim's network with the checkpoint.

    Returns:
      What came of each artifact.

    Raises:
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      UnknownFormatError: there is no such format or task.
      ExportError: the options fit no format, or something is in the way in `output`.
      ImageError: the images cannot be read.
      EvaluationError: images have no labels, or it cannot be told what class one is.
      OSError: the files cannot be read or written.
    """
    rows, chosen_tasks = _rows(formats), select_tasks(tasks)
    given_labels = read_labels(Path(labels)) if labels else None
    options = options or ExportOptions()
    output = Path(output)
    if formats is not None:
        _check_tasks(rows, chosen_tasks)
    notes = _check_options(options, rows, chosen_tasks, calibration_images is not None)
    check_blocks(options.keep_float, layers.inception_resnet_v2(NUM_CLASSES))
    has_budget = budget is not None or max_drop is not None
    if has_budget and not verify:
        raise ExportError("a budget has no effect without a comparison")
    if has_budget and not any(row.takes_budget for row in rows):
        names = ", ".join(row.name for row in rows)
        raise ExportError(f"a budget has no effect on {names}")
    _check_labels_of_images(max_drop, images, ground_truth, label_offset)
    if isinstance(images, str | os.PathLike) and not verify:
        raise ExportError("--images has no effect without a comparison")
    _check_directory(output)
    parity_images = None
    if verify:
        parity_images = parity.as_parity_images(images, progress)
    calibration = None
    if calibration_images:
        progress(Step("read calibration images"))
        calibration = calibrations.calibration_images(
            Path(calibration_images), options.image_size
        )
    found = [of.note for of in (parity_images, calibration) if of and of.note]
    for note in dict.fromkeys(found):
        progress(Note(note))

    with contextlib.ExitStack() as stack:
        second = None
        if (
            parity_images
            and not has_budget
            and all(FORMATS.get(row.name) is row for row in rows)
            # A single artifact is run while the second process builds the graph, if
            # this one does not need it.
            and (
                sum(task in row.tasks for row in rows for task in chosen_tasks) > 1
                or not _need_graph(rows)
            )
        ):
            second = second_process.start(
                checkpoint, moving_averages, parity_images, reference
            )
        if second:
            stack.enter_context(second)
        start = time.monotonic()
        if not isinstance(checkpoint, Checkpoint):
            progress(Step(f"read {checkpoint}"))
            checkpoint = open_checkpoint(
                Path(checkpoint), moving_averages=moving_averages
            )
        seconds = {"read": time.monotonic() - start}
        if tasks is not None or checkpoint.num_classes is not None:
            _check_classifier(checkpoint, chosen_tasks)
        else:
            chosen_tasks = [task for task in chosen_tasks if not task.needs_classifier]
        if formats is None and not checkpoint.has_auxiliary_head:
            needing = [row.name for row in rows if row.needs_auxiliary_head]
            rows = [row for row in rows if not row.needs_auxiliary_head]
            if needing:
                notes.append(
                    f"There is no auxiliary head to make {', '.join(needing)} of."
                )
        class_names = labels_for(checkpoint.num_classes, given_labels, str(labels))
        facts = checkpoint.is_stand_in, options, checkpoint.num_classes
        is_bounded = {
            task: budget is not None or (max_drop is not None and task.needs_classifier)
            for task in chosen_tasks
        }
        jobs = [
            (row, task, output / row.artifact_name(task, *facts, has_budget=bounded))
            for row in rows
            for task, bounded in is_bounded.items()
            if task in row.tasks
        ]
        if not jobs:
            _check_classifier(checkpoint, [task for row in rows for task in row.tasks])
        if max_drop is not None:
            notes += _check_max_drop([(row, task) for row, task, _ in jobs])
        if not force:
            _check_free([path for _, _, path in jobs])
        notes = [*checkpoint.notes, *notes]
        if any(row.is_calibrated for row in rows):
            if calibration is None:
                progress(Step("generate calibration images"))
                calibration = calibrations.calibration_images(None, options.image_size)
            notes.append(f"Quantization is calibrated on {calibration.description}.")
            if len(calibration.images) < _ENOUGH_IMAGES:
                notes.append(
                    "So few rarely show what activations there can be: give at least "
                    f"{_ENOUGH_IMAGES}, and hundreds for production, like those that you "
                    "will classify."
                )
        if parity_images:
            notes.append(f"Artifacts are compared on {parity_images.description}.")
        if checkpoint.is_stand_in:
            progress(STAND_IN)
        for note in notes:
            progress(Note(note))

        start = time.monotonic()
        shared = prepared = None
        if second:
            second.expect(checkpoint.identity)
            shared = second.shared
            prepared = second.submit(
                checkpoint.path,
                comparing.prepare,
                list(dict.fromkeys(row.name for row, _, _ in jobs)),
                options.image_size,
            )
        opened = stack.enter_context(
            reference or Reference(checkpoint, shared=shared, prepared=prepared)
        )
        build = Build(checkpoint, options, calibration, class_names, opened.graphs)
        is_compared_here = verify and not second
        needs_graph = is_compared_here or _need_graph(rows)
        if reference is None and needs_graph:
            progress(Step("build the network"))
            build.graph()
        seconds["graphs"] = time.monotonic() - start
        labelled = None
        if max_drop is not None:
            progress(Step("classify images"))
            labelled = labelled_images(
                Path(images),  # type: ignore[arg-type]
                max_drop,
                opened,
                ground_truth=ground_truth,
                labels=labels,
                label_offset=label_offset,
                image_size=options.image_size,
                progress=progress,
            )
            progress(Note(labelled.note))
        budgets = {
            task: Budget(
                budget or Tolerance(math.inf, -1),
                labelled if task.needs_classifier else None,
            )
            for task, bounded in is_bounded.items()
            if bounded
        }
        work = [
            _One(
                build,
                row,
                task,
                path,
                force,
                f"[{number}/{len(jobs)}] {task.name} {row.name}",
                progress,
                budgets.get(task) if row.takes_budget else None,
            )
            for number, (row, task, path) in enumerate(jobs, start=1)
        ]
        compared_with = opened if verify else None
        done = comparing.results(
            one.export(compared_with, parity_images, second) for one in work
        )
        return Export(
            output=output,
            checkpoint=checkpoint.path,
            checkpoint_identity=checkpoint.identity,
            is_stand_in=checkpoint.is_stand_in,
            calibrated_on=calibration.description if calibration else None,
            compared_on=parity_images.description if parity_images else None,
            artifacts=tuple(done),
            seconds=seconds,
        )


def _rows(formats: Iterable[str | Format] | None) -> list[Format]:
    if formats is None:
        return select(None)
    rows = [
        row if isinstance(row, Format) else select([row])[0]
        for row in dict.fromkeys(formats)
    ]
    if not rows:
        raise ExportError("no format was given")
    return rows


def _need_graph(rows: Sequence[Format]) -> bool:
    """Whether some are written from TF-Slim's graph, and not from the list of layers."""
    return any(not row.precision for row in rows)


def _check_tasks(rows: Sequence[Format], tasks: Sequence[Task]) -> None:
    for row in rows:
        if not set(row.tasks) & set(tasks):
            raise ExportError(
                f"{row.name} is for {', '.join(task.name for task in row.tasks)}, not "
                f"for {', '.join(task.name for task in tasks)}. Name another task, or "
                "other formats."
            )


def _check_options(
    options: ExportOptions,
    rows: Sequence[Format],
    tasks: Sequence[Task],
    has_calibration_images: bool,
) -> list[str]:
    """Refuses options that nothing asked for heeds, and sizes that a format cannot do.

    Returns:
      Notes on what heeds an option only in part.
    """
    notes = []
    names = ", ".join(row.name for row in rows)
    for field in dataclasses.fields(options):
        if getattr(options, field.name) == field.default:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        heeding = [
            (row, task)
            for row in rows
            for task in tasks
            if field.name in row.options_of(task)
        ]
        if not heeding:
            of_task = f" of {tasks[0].name}" if len(tasks) == 1 else ""
            raise ExportError(f"{flag} has no effect on {names}{of_task}")
        heeding_rows, heeding_tasks = zip(*heeding)
        without = [row.name for row in rows if row not in heeding_rows]
        without += [task.name for task in tasks if task not in heeding_tasks]
        if without:
            notes.append(f"{flag} has no effect on {', '.join(without)}.")
    if has_calibration_images and not any(row.is_calibrated for row in rows):
        raise ExportError(f"--calibration-images has no effect on {names}")
    fixed = [
        row.name
        for row in rows
        if row.container.needs_image_size and "image_size" in row.options
    ]
    if options.image_size is None and fixed:
        raise ExportError(
            f"image size 'dynamic': {', '.join(fixed)} cannot do without a size. Name "
            "other formats."
        )
    return notes


def _check_labels_of_images(
    max_drop: float | None,
    images: PathLike | ParityImages | None,
    ground_truth: PathLike | None,
    label_offset: int | None,
) -> None:
    """Refuses a limit on top-1 without images, and what is for it alone."""
    if max_drop is not None and not isinstance(images, str | os.PathLike):
        raise ExportError(
            "--max-drop needs images whose classes are known: --images with a directory "
            "of one subdirectory per class, or with --ground-truth"
        )
    for name, given in (
        ("--ground-truth", ground_truth),
        ("--label-offset", label_offset),
    ):
        if max_drop is None and given is not None:
            raise ExportError(f"{name} has no effect without --max-drop")


def _check_max_drop(jobs: Sequence[tuple[Format, Task]]) -> list[str]:
    """Refuses a limit on top-1 that nothing heeds.

    Returns:
      Notes on what does not heed it.
    """
    without = dict.fromkeys(t.name for _, t in jobs if not t.needs_classifier)
    if not any(row.takes_budget and task.needs_classifier for row, task in jobs):
        names = ", ".join(without or dict.fromkeys(row.name for row, _ in jobs))
        raise ExportError(f"--max-drop has no effect on {names}")
    return [f"--max-drop has no effect on {', '.join(without)}."] if without else []


def _check_classifier(checkpoint: Checkpoint, tasks: Sequence[Task]) -> None:
    needing = [task.name for task in tasks if task.needs_classifier]
    if needing and checkpoint.num_classes is None:
        raise ExportError(
            f"{checkpoint.path} has no classifier, so {needing[0]} cannot be exported. "
            "Ask for feature_vector alone."
        )


def _check_directory(output: Path) -> None:
    """Raises if nothing can be written to a directory, before any work is done."""
    for path in (output, *output.absolute().parents):
        if files.is_no_directory(path):
            raise ExportError(f"{path} is a file; expected a directory to export to")
    with scratch_beside(output / "artifacts"):
        pass


def _check_free(paths: Sequence[Path]) -> None:
    existing = [path.name for path in paths if os.path.lexists(path)]
    if existing:
        raise ExportError(
            f"{paths[0].parent} already holds {', '.join(existing)}. Use --force to "
            "replace."
        )


@dataclasses.dataclass(frozen=True)
class _One:
    """One artifact to be."""

    build: Build
    row: Format
    task: Task
    path: Path
    force: bool
    name: str
    progress: Progress
    budget: Budget | None = None

    def at(self, state: str, *, goes_on: bool = False) -> None:
        """Tells what is done."""
        self.progress(Step(self.name, state, goes_on=goes_on))

    def export(
        self,
        reference: Reference | None,
        parity_images: ParityImages | None,
        second: SecondProcess | None,
    ) -> Work[Compared, ExportedArtifact]:
        """Writes, compares and moves it to its place; or says why not."""
        made = ExportedArtifact(self.path, self.row.name, self.task.name)
        try:
            with scratch_beside(self.path) as scratch:
                made = yield from self._export(
                    made, scratch, reference, parity_images, second
                )
        except (ExportError, ArtifactError) as error:
            made = dataclasses.replace(made, error=str(error))
        except OSError as error:
            if error.errno is None:
                raise
            told = f"{self.path} cannot be written: {error.strerror}"
            made = dataclasses.replace(made, error=told)
        if reference or made.error:
            seconds = sum(made.seconds.values()) if second and made.seconds else None
            self.progress(
                Step(self.name, made.result, passed=made.is_kept, seconds=seconds)
            )
        return made

    def _export(
        self,
        result: ExportedArtifact,
        scratch: Path,
        reference: Reference | None,
        parity_images: ParityImages | None,
        second: SecondProcess | None,
    ) -> Work[Compared, ExportedArtifact]:
        build, row, task = self.build, self.row, self.task
        seconds: dict[str, float] = {}
        if self.budget and reference and parity_images:
            with _timed(seconds, "budget"):
                trials = meet(
                    build,
                    row,
                    task,
                    self._record,
                    self.budget,
                    reference,
                    parity_images,
                    scratch,
                    self.at,
                )
            build = build.keeping_float(choice(trials).keep_float)
            result = dataclasses.replace(result, trials=tuple(trials))
        row = row.with_options(build.options.recorded(row.options))
        record = self._record(build)
        unfinished = scratch / self.path.name
        vectors = None
        with _timed(seconds, "write"):
            self.at("write")
            row.write(build, task, record, unfinished)
        if reference and parity_images:
            comparison = self._comparison(
                unfinished, row, reference, parity_images, second
            )
            yield comparison
            compared = comparison.result()
            seconds["verify"] = compared.seconds
            report, vectors = compared.report, compared.vectors
            if result.trials and not choice(result.trials).is_enough:
                problem = unmet(result.trials)
                report = dataclasses.replace(
                    report, problems=(problem, *report.problems)
                )
            result = dataclasses.replace(result, report=report, seconds=seconds)
            if not report.passed:
                return result
        described = manifest.describe(
            unfinished,
            build.checkpoint,
            record,
            handle=(
                row.handle(task.name)
                if build.checkpoint.num_classes == NUM_CLASSES
                else None
            ),
            labels=list(build.labels)
            if build.labels and task.needs_classifier
            else None,
            calibration=(
                build.calibration.description
                if row.is_calibrated and build.calibration
                else None
            ),
            compared_on=parity_images.description if parity_images else None,
            parity=result.report.as_dict() if result.report else None,
        )
        if result.trials:
            described["budget"] = [trial.as_dict() for trial in result.trials]
            if self.budget and self.budget.labelled:
                described["top_1_counted_on"] = self.budget.labelled.description
        size = files.size(unfinished)
        described["companions"] = self._write_companions(unfinished, described, vectors)
        self._place(unfinished, described, scratch)
        return dataclasses.replace(result, bytes=size, seconds=seconds)

    def _record(self, build: Build) -> Record:
        options = build.options.recorded(self.row.options_of(self.task))
        return records.make(self.row.name, self.task.name, build.checkpoint, options)

    def _write_companions(
        self,
        unfinished: Path,
        described: dict[str, Any],
        vectors: TestVectors | None,
    ) -> dict[str, str]:
        """Writes what lies beside an artifact for its users; returns the digests."""
        card = manifest.card_of(unfinished)
        if vectors is not None:
            directory = manifest.vectors_of(unfinished)
            vectors.write(directory, self.row, described)
        text = cards.text(
            self.path.name, self.row, described, has_vectors=vectors is not None
        )
        card.write_text(text, encoding="utf-8")
        materials = bom.document(self.path.name, self.row, described)
        files.write_json(manifest.bom_of(unfinished), materials)
        return {
            name: digest
            for path in manifest.companions_of(unfinished)
            if path.exists()
            for name, digest in files.digests(path).items()
        }

    def _place(self, unfinished: Path, described: dict, scratch: Path) -> None:
        """Moves an artifact and its manifest to their places."""
        place = manifest.path_of(self.path)
        new = manifest.path_of(unfinished)
        files.write_json(new, described)
        files.sync(unfinished)
        with locked(self.path.parent):
            moves: dict[Path, Path] = {}
            if is_there := os.path.lexists(self.path):
                if not self.force:
                    _check_free([self.path])
                between = scratch / "between.json"
                old = self._manifest_of_old(place)
                files.write_json(between, manifest.transition(old, described))
                moves[between] = place
            beside = zip(
                manifest.companions_of(unfinished), manifest.companions_of(self.path)
            )
            moves |= {made: to for made, to in beside if made.exists()}
            # A manifest is never missing: a new artifact's comes first.
            both = [(unfinished, self.path), (new, place)]
            files.replace({**moves, **dict(both if is_there else both[::-1])}, scratch)
            for of in (manifest.vectors_of, manifest.signature_of):
                # Of the artifact that was replaced.
                if of(self.path).exists() and of(self.path) not in moves.values():
                    of(self.path).rename(scratch / f"stale{of(self.path).suffix}")

    def _manifest_of_old(self, place: Path) -> Any:
        """The manifest of the artifact that is there, or what one would have to say."""
        with contextlib.suppress(OSError, ValueError):
            return files.read_json(place)
        return {"files": files.digests(self.path)}

    def _comparison(
        self,
        path: Path,
        row: Format,
        reference: Reference,
        parity_images: ParityImages,
        second: SecondProcess | None,
    ) -> Comparison[Compared]:
        """The comparison of what was written, of which a second process is told."""
        task, labels = self.task, self.build.labels
        budget = self.budget.output if self.budget else None

        def here() -> Compared:
            self.at("verify")
            return comparing.compare(
                reference, parity_images, path, row, task, labels, budget
            )

        comparison = Comparison(here)
        if second:
            self.progress(Step(self.name, waits=True))
            options = self.build.options.recorded(row.options)
            comparison.start(
                second,
                path,
                comparing.compare_by_names,
                row.name,
                options,
                task.name,
                labels,
                begun=lambda: self.at("verify", goes_on=True),
            )
        return comparison


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start
