"""Evaluating: how often are artifacts, and the checkpoint itself, right?"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.files import PathLike, as_paths
from checkpoints.reader import Checkpoint, Provenance, open_checkpoint
from exporters import engines
from exporters.errors import ArtifactError, EvaluationError
from exporters.evaluation import classes, datasets, models, recording, sharding
from exporters.evaluation import state as states
from exporters.evaluation.batches import Size
from exporters.evaluation.classes import Labelling
from exporters.evaluation.datasets import Dataset
from exporters.evaluation.locations import Location, local, location
from exporters.evaluation.models import Model
from exporters.evaluation.running import Run
from exporters.evaluation.state import NO_NUMBERS, State
from exporters.formats import FORMATS, Format
from exporters.labels import labels_for, read_labels
from exporters.network.layers import NUM_CLASSES
from exporters.network.tasks import CLASSIFICATION
from exporters.progress import MADE_OF_STAND_IN, Note, Progress, Step, silent
from exporters.reference import Reference
from exporters.verification import find_artifacts

PUBLISHED = 0.804, 0.953
"""Top-1 and top-5 of the published checkpoint on ImageNet's validation images, by
https://github.com/tensorflow/models/tree/master/research/slim#pre-trained-models."""
_PUBLISHED_COUNT, _PUBLISHED_CLASSES = 50_000, 1000

_MOST_CONFUSIONS = 20


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How often the images of one class are recognized.

    Attributes:
      number: of the class, among the network's.
      name: of the class; its number where it has none.
      count: of its images.
      top_1: share of them with the right class first.
      top_5: share of them with the right class among the first five.
    """

    number: int
    name: str
    count: int
    top_1: float
    top_5: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """A class that is taken for another.

    Attributes:
      label: name of the class that images are of.
      predicted: name of the class that comes first.
      count: of these images.
    """

    label: str
    predicted: str
    count: int


@dataclasses.dataclass(frozen=True)
class EvaluatedArtifact:
    """What came of one artifact, or of the checkpoint.

    Attributes:
      name: path of the artifact, or "checkpoint".
      format: name of the format, or "TF-Slim"; None if it could not be opened.
      image_size: (height, width) of the images that it was given.
      count: of images that it was judged on.
      top_1: share of them with the right class first.
      top_5: share of them with the right class among the first five; None of a network
        with five classes or fewer.
      not_finite: number of images for which it gave infinities or no numbers; they count
        as wrong.
      per_class: the same for each class that has images.
      confusions: which classes are taken for which, the most frequent first.
      engine: what ran it, None for its own.
      is_stand_in: whether its weights are generated; None if it does not say so.
      digest: of its files, or the checkpoint's identity; None if it could not be opened.
      error: why there are no figures, None if there are.
    """

    name: str
    format: str | None = None
    image_size: Size | None = None
    count: int = 0
    top_1: float | None = None
    top_5: float | None = None
    not_finite: int = 0
    per_class: tuple[ClassScore, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    engine: str | None = None
    is_stand_in: bool | None = None
    digest: str | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An image to which two artifacts give different classes.

    Attributes:
      image: its name.
      label: name of the class that it is of.
      first: name of the class that the one says.
      second: name of the class that the other says.
    """

    image: str
    label: str
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How often two artifacts have the same class first.

    Attributes:
      first: name of the one.
      second: name of the other.
      share: of the images.
      differing: the other images.
    """

    first: str
    second: str
    share: float
    differing: tuple[Disagreement, ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
      images: where the images are, on this machine or by a URL.
      layout: in which form, in words.
      found: number of images there.
      count: of these, how many artifacts were judged on.
      labelling: in a sentence, how labels became classes.
      label_offset: what was added to numbers; None where labels are no numbers.
      unreadable: name of an image that cannot be read -> why.
      unlabelled: name of an image whose label is no class of the network -> label.
      unknown: label that is no class of the network -> how many images have it.
      empty: labels of which there is no image.
      problems: what else was found, and cannot be used -> why.
      artifacts: in the order in which they were given, the checkpoint first.
      agreements: of the first that has figures with each other.
      passed_over: artifact that classifies nothing, or file that is none -> why.
      cards: names of the artifacts whose model cards say the figures now.
      without_card: name of an artifact whose card does not, though that was asked -> why.
      is_published: whether the figures can be compared with the published ones.
      seconds: that this run took, without what an earlier one did.
    """

    images: Location
    layout: str
    found: int
    count: int
    labelling: str
    label_offset: int | None
    unreadable: Mapping[str, str]
    unlabelled: Mapping[str, str]
    unknown: Mapping[str, int]
    empty: tuple[str, ...]
    problems: Mapping[str, str]
    artifacts: tuple[EvaluatedArtifact, ...]
    agreements: tuple[Agreement, ...]
    passed_over: Mapping[str, str]
    is_published: bool
    seconds: float
    cards: tuple[str, ...] = ()
    without_card: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        facts = dataclasses.asdict(self)
        facts["images"] = str(self.images)
        if self.is_published:
            facts["published"] = {"top_1": PUBLISHED[0], "top_5": PUBLISHED[1]}
        return facts


def evaluate(
    artifacts: PathLike | Iterable[PathLike],
    images: PathLike,
    *,
    checkpoint: PathLike | Checkpoint | None = None,
    ground_truth: PathLike | None = None,
    labels: PathLike | None = None,
    label_offset: int | None = None,
    image_size: Size | None = None,
    batch_size: int = 8,
    state: PathLike | None = None,
    cards: bool = False,
    moving_averages: str | None = None,
    engine: str | None = None,
    beam: Sequence[str] | None = None,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
    reference: Reference | None = None,
) -> Evaluation:
    """Counts how often artifacts are right, in one pass over the images.

    Images are prepared as TF-Slim's evaluation does: the central 87.5 %, resized
    bilinearly (`inception_preprocessing.preprocess_for_eval`).

    Args:
      artifacts: artifacts, or directories of them; none with a checkpoint.
      images: a directory with one subdirectory per class, a directory of images with
        `ground_truth`, a TFRecord file or a directory of these.
      checkpoint: evaluated itself as well, by TF-Slim's network.
      ground_truth: a file with the labels of the images of a directory.
      labels: a file with the names of the classes, one a line; by default those of the
        manifests, or ImageNet's.
      label_offset: what to add to numbers of classes to get the network's; found from
        the labels where they leave one possibility.
      image_size: (height, width) for what takes any size, by default 299 x 299.
      batch_size: number of images that are run together.
      state: a file that keeps how far it is; it goes on from there. On Apache Beam, a
        directory, which has to be named.
      cards: write the figures into the artifacts' manifests and model cards.
      moving_averages: "use" or "ignore" those of a training checkpoint.
      engine: what runs the artifacts, of `exporters.engines`; None for each its own.
      beam: runs on Apache Beam, by a pipeline with these options, such as
        ["--runner=FlinkRunner", "--flink_master=..."]. Then images, ground truth and
        state may be URLs of any file system that Beam reads; workers have to reach them.
      progress: told what is done.
      formats: the table of formats.
      reference: the checkpoint's network, by default TF-Slim's; one that is given is not
        closed.

    Returns:
      The figures. An artifact that cannot be run is a result too.

    Raises:
      EvaluationError: there are no images with labels, or it cannot be told what class
        a label is; or `state` is that of another evaluation.
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      ArtifactError: a path is no artifact, and holds none.
      MissingLibraryError: Apache Beam, or the engine, is not there.
      PipelineError: a pipeline ended early.
      OSError, StorageError: files cannot be read or written.
    """
    models.check_image_size(image_size)
    engines.check(engine)
    if batch_size < 1:
        raise EvaluationError(f"batch size {batch_size}: expected 1 or more.")
    given = as_paths(artifacts)
    if not given and checkpoint is None:
        raise EvaluationError("Nothing to evaluate: name artifacts, or a checkpoint.")
    paths, skipped = find_artifacts(given, formats)
    passed_over = {str(path): why for path, why in skipped.items()}
    names = read_labels(Path(labels)) if labels else models.labels_of(paths)
    place: Location
    truth: Location | None
    launcher = None
    if beam is None:
        place = local(images, "--images")
        truth = local(ground_truth, "--ground-truth") if ground_truth else None
        state = local(state, "--state") if state else None
    else:
        if state is None:
            raise EvaluationError(
                "On Apache Beam, --state has to name a directory that all workers reach."
            )
        launcher = sharding.launcher(location(state), beam, progress)
        place = location(images)
        truth = location(ground_truth) if ground_truth else None
    progress(Step(f"look into {place}"))
    dataset = datasets.open_dataset(
        place, truth, scan=launcher.scan if launcher else datasets.scan
    )
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        progress(Step(f"read {checkpoint}"))
        checkpoint = open_checkpoint(Path(checkpoint), moving_averages=moving_averages)
    with contextlib.ExitStack() as stack:
        opened: list[Model] = []
        failed: dict[str, str] = {}
        if checkpoint is not None:
            for note in checkpoint.notes:
                progress(Note(note))
            if checkpoint.num_classes is None:
                raise EvaluationError(
                    f"{checkpoint.path} has no classifier, and so names no class."
                )
            network = reference or stack.enter_context(Reference(checkpoint))
            opened.append(
                models.of_checkpoint(checkpoint, network, image_size=image_size)
            )
        for path in paths:
            progress(Step(f"open {path}"))
            try:
                model = models.open_model(path, formats, image_size, engine=engine)
            except models.TROUBLES as error:
                failed[str(path)] = str(error)
                continue
            stack.callback(model.close)
            if model.task.needs_classifier:
                opened.append(model)
            else:
                passed_over[str(path)] = "for feature vectors, which name no class"
        opened = _with_one_classifier(opened, failed)
        if not opened:
            why = "; ".join([*failed.values(), *passed_over.values()])
            raise EvaluationError(f"There is no classifier to evaluate: {why}")
        if any(model.record and model.record.stand_in for model in opened):
            progress(MADE_OF_STAND_IN)
        num_classes = opened[0].num_classes or NUM_CLASSES
        class_names = labels_for(num_classes, names, str(labels or "the manifest"))
        labelling = classes.assign(
            [example.label for example in dataset.examples],
            num_classes,
            class_names,
            offset=label_offset,
            empty=dataset.empty,
        )
        progress(Note(labelling.how))
        run = Run(dataset.examples, labelling.classes, opened, batch_size, progress)
        start = time.monotonic()
        if launcher is None:
            found = run.resume(Path(state) if state else None)
        else:
            stack.close()  # Workers open models of their own.
            found = launcher.evaluate(
                run,
                lambda: launcher.ship(
                    opened,
                    checkpoint,
                    formats,
                    CLASSIFICATION,
                    image_size,
                    engine=engine,
                ),
            )
        seconds = time.monotonic() - start
    shown = class_names or [str(number) for number in range(num_classes)]
    done = _result(
        _Figures(dataset, labelling, opened, found, shown), failed, passed_over, seconds
    )
    return _with_cards(done, formats) if cards else done


def _with_cards(done: Evaluation, formats: Mapping[str, Format]) -> Evaluation:
    """Writes figures into model cards."""
    written, failed = [], {}
    place = done.images
    for item in done.artifacts:
        if item.top_1 is None or item.name == models.CHECKPOINT:
            continue
        facts = {
            "images": (place.resolve() if isinstance(place, Path) else place).name,
            "layout": done.layout,
            "count": item.count,
            "top_1": item.top_1,
            "top_5": item.top_5,
        }
        if item.engine:
            facts["engine"] = item.engine
        try:
            recording.record(Path(item.name), item.digest, facts, formats)
        except (ArtifactError, OSError) as error:
            failed[item.name] = str(error)
        else:
            written.append(item.name)
    return dataclasses.replace(done, cards=tuple(written), without_card=failed)


def _with_one_classifier(
    opened: Sequence[Model], failed: dict[str, str]
) -> list[Model]:
    """Leaves out models of other classes than the first, since labels mean others."""
    kept: list[Model] = []
    for model in opened:
        first = kept[0] if kept else model
        if model.num_classes == first.num_classes:
            kept.append(model)
        else:
            failed[model.name] = (
                f"{model.name} has {model.num_classes} classes, and {first.name} has "
                f"{first.num_classes}. Evaluate them apart."
            )
    return kept


@dataclasses.dataclass(frozen=True)
class _Figures:
    """Predictions and what was right."""

    dataset: Dataset
    labelling: Labelling
    models: Sequence[Model]
    state: State
    names: Sequence[str]

    def judged(self) -> np.ndarray:
        """Positions of the images that have a class and could be read."""
        has_class = self.labelling.classes >= 0
        has_class[list(self.state.problems)] = False
        return np.flatnonzero(has_class)

    def name(self, number: int) -> str:
        return "none" if number == NO_NUMBERS else self.names[number]

    def artifact(self, number: int) -> EvaluatedArtifact:
        model = self.models[number]
        result = EvaluatedArtifact(
            model.name,
            model.format,
            model.image_size,
            engine=model.engine,
            is_stand_in=model.record.stand_in if model.record else None,
            digest=model.digest,
            error=self.state.errors.get(number),
        )
        positions = self.judged()
        if result.error is not None or not len(positions):
            return result
        top = self.state.top[number, positions]
        truth = self.labelling.classes[positions]
        first = top[:, 0] == truth
        among = (top == truth[:, np.newaxis]).any(axis=1)
        per_class = tuple(
            ClassScore(
                int(each),
                self.name(each),
                int((truth == each).sum()),
                float(first[truth == each].mean()),
                float(among[truth == each].mean()),
            )
            for each in np.unique(truth)
        )
        confused = collections.Counter(
            zip(truth[~first].tolist(), top[~first, 0].tolist())
        )
        return dataclasses.replace(
            result,
            count=len(positions),
            top_1=float(first.mean()),
            top_5=float(among.mean()) if len(self.names) > states.MOST else None,
            not_finite=int((top[:, 0] == NO_NUMBERS).sum()),
            per_class=per_class,
            confusions=tuple(
                Confusion(self.name(label), self.name(predicted), count)
                for (label, predicted), count in sorted(
                    confused.items(), key=lambda item: (-item[1], item[0])
                )[:_MOST_CONFUSIONS]
            ),
        )

    def agreements(self) -> tuple[Agreement, ...]:
        having = [
            number
            for number in range(len(self.models))
            if number not in self.state.errors
        ]
        positions = self.judged()
        if not len(positions):
            return ()
        return tuple(self._agreement(having[0], x, positions) for x in having[1:])

    def _agreement(self, one: int, other: int, positions: np.ndarray) -> Agreement:
        first, second = self.state.top[[one, other]][:, positions, 0]
        differs = first != second
        return Agreement(
            self.models[one].name,
            self.models[other].name,
            float(1 - differs.mean()),
            tuple(
                Disagreement(
                    self.dataset.examples[positions[i]].name,
                    self.name(self.labelling.classes[positions[i]]),
                    self.name(first[i]),
                    self.name(second[i]),
                )
                for i in np.flatnonzero(differs)
            ),
        )

    def is_published(self) -> bool:
        """Whether these are ImageNet's validation images and the published network."""
        published = Provenance.PUBLISHED.value
        truth = self.labelling.classes[self.judged()]
        counts = np.unique(truth, return_counts=True)[1]
        return (
            len(truth) == _PUBLISHED_COUNT
            and len(counts) == _PUBLISHED_CLASSES
            and len(set(counts.tolist())) == 1
            and any(
                model.record
                and model.record.provenance == published
                and model.task == CLASSIFICATION
                for model in self.models
            )
        )


def _result(
    figures: _Figures,
    failed: Mapping[str, str],
    passed_over: Mapping[str, str],
    seconds: float,
) -> Evaluation:
    dataset, labelling, state = figures.dataset, figures.labelling, figures.state
    evaluated = [figures.artifact(number) for number in range(len(figures.models))]
    evaluated += [EvaluatedArtifact(name, error=why) for name, why in failed.items()]
    return Evaluation(
        images=dataset.path,
        layout=dataset.layout,
        found=len(dataset.examples),
        count=len(figures.judged()),
        labelling=labelling.how,
        label_offset=labelling.offset,
        unreadable={
            dataset.examples[position].name: why
            for position, why in sorted(state.problems.items())
        },
        unlabelled={
            example.name: "no label" if example.label is None else str(example.label)
            for example, number in zip(dataset.examples, labelling.classes)
            if number < 0
        },
        unknown=labelling.unknown,
        empty=dataset.empty,
        problems=dataset.problems,
        artifacts=tuple(evaluated),
        agreements=figures.agreements(),
        passed_over=passed_over,
        is_published=figures.is_published(),
        seconds=seconds,
    )
