"""Quantizing to a budget: which blocks stay in float, so that the rest may be integers?

The blocks that add most error by themselves stay, as few as the budget allows. Whatever is
said of a choice was measured on the artifact that it gives, in its own runtime. A budget
bounds errors of the output, or how many images with labels may be lost, or both.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from checkpoints.files import PathLike
from exporters import parity
from exporters.artifact import Output
from exporters.build import Build
from exporters.errors import ArtifactError, ExportError
from exporters.formats import Format, open_artifact
from exporters.network.layers import Network
from exporters.network.tasks import Task
from exporters.parity import OutputParity, ParityImages, Tolerance, is_main
from exporters.progress import Progress, Step
from exporters.record import Record
from exporters.reference import Reference

_RUNS = 3
"""Of which the fastest counts."""


@dataclasses.dataclass(frozen=True)
class Score:
    """How often an artifact has the right class first, beside the network.

    Attributes:
      right: how many images it has right.
      expected: how many the network has right.
      count: of how many.
      max_drop: how many percentage points it may lose.
    """

    right: int
    expected: int
    count: int
    max_drop: float

    @property
    def drop(self) -> float:
        """Percentage points of top-1 that are lost; negative if some are won."""
        return 100 * (self.expected - self.right) / self.count

    @property
    def passed(self) -> bool:
        """Whether no more is lost than may be."""
        return self.drop <= self.max_drop

    def in_words(self) -> str:
        """Says what was found, and what was asked."""
        drop = parity.figure(self.drop, self.max_drop, fewest=3)
        return (
            f"{drop} points of top-1 lost (at most {self.max_drop:g}; "
            f"{self.right} of {self.count} images are right, and {self.expected} by the "
            "network)"
        )


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images with labels, and how often the network has them right.

    Attributes:
      images: where they are, as `exporters.evaluation.evaluating.evaluate` takes them.
      ground_truth: a file with their labels, None for directories of classes.
      labels: a file with the names of the classes, None for those that are known.
      label_offset: what to add to numbers of classes; None where labels tell it.
      max_drop: percentage points of top-1 that an artifact may lose.
      count: of the images that have a class and can be read.
      right: how many of these the network has right.
      note: what they are, and how labels became classes, in a few sentences.
    """

    images: Path
    ground_truth: PathLike | None
    labels: PathLike | None
    label_offset: int | None
    max_drop: float
    count: int
    right: int
    note: str

    @property
    def description(self) -> str:
        """What they are, in a few words."""
        return f"{self.count} images of {self.images.resolve().name}"

    def score(self, path: Path, row: Format, progress: Progress) -> Score:
        """Counts how often an artifact is right.

        Raises:
          ArtifactError: it cannot be run.
        """
        from exporters.evaluation.evaluating import evaluate

        done = evaluate(
            path,
            self.images,
            ground_truth=self.ground_truth,
            labels=self.labels,
            label_offset=self.label_offset,
            progress=progress,
            formats={row.name: row},
        )
        (found,) = done.artifacts
        if found.top_1 is None:
            raise ArtifactError(found.error or f"{path} was given no image to classify")
        right = round(found.top_1 * found.count)
        return Score(right, self.right, self.count, self.max_drop)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is asked of an artifact in integers.

    Attributes:
      output: of the task's own output.
      labelled: images with labels, of which few may be lost; None if that is not asked.
    """

    output: Tolerance
    labelled: LabelledImages | None = None


def labelled_images(
    images: Path,
    max_drop: float,
    reference: Reference,
    *,
    ground_truth: PathLike | None = None,
    labels: PathLike | None = None,
    label_offset: int | None = None,
    image_size: tuple[int, int] | None = None,
    progress: Progress,
) -> LabelledImages:
    """Counts how often the network has images with labels right.

    Args:
      images: where they are; see `LabelledImages` for the others.
      max_drop: percentage points that an artifact may lose.
      reference: the network.
      ground_truth: a file with labels.
      labels: a file with names of classes.
      label_offset: what to add to numbers.
      image_size: (height, width) of what artifacts take; None for 299 x 299.
      progress: told what is done.

    Raises:
      EvaluationError: there are no labels, or it cannot be told what class one is.
      ExportError: none of the images can be read.
      OSError: the files cannot be read.
    """
    from exporters.evaluation.evaluating import evaluate

    def steps(event: Any) -> None:
        if isinstance(event, Step):
            progress(event)

    done = evaluate(
        [],
        images,
        checkpoint=reference.checkpoint,
        ground_truth=ground_truth,
        labels=labels,
        label_offset=label_offset,
        image_size=image_size,
        progress=steps,
        reference=reference,
    )
    (network,) = done.artifacts
    if network.top_1 is None:
        why = next(iter(done.unreadable.values()), "")
        raise ExportError(f"{images}: none of its images can be read. {why}".strip())
    left_out = done.found - done.count
    note = (
        f"Top-1 is counted on {done.count} images of {images.resolve().name}, of which "
        f"the network has {100 * network.top_1:.2f} % right. {done.labelling}"
    )
    if left_out:
        note += f" Left out are {left_out} that cannot be read, or have no class."
    return LabelledImages(
        images,
        ground_truth,
        labels,
        label_offset,
        max_drop,
        done.count,
        round(network.top_1 * network.count),
        note,
    )


@dataclasses.dataclass(frozen=True)
class Trial:
    """What some choice of blocks gives.

    Attributes:
      keep_float: the blocks that stay in float.
      output: how the task's own output agrees; its tolerance is the budget.
      milliseconds: that its runtime takes for an image, on this machine, now.
      score: on images with labels, None if there are none.
    """

    keep_float: tuple[str, ...]
    output: OutputParity
    milliseconds: float
    score: Score | None = None

    @property
    def is_enough(self) -> bool:
        """Whether the budget is met."""
        return self.output.passed and (self.score is None or self.score.passed)

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON values, without what differs from run to run."""
        error = self.output.relative_error
        found: dict[str, Any] = {
            "keep_float": list(self.keep_float),
            "relative_error": error if math.isfinite(error) else None,
            "cosine": self.output.cosine,
        }
        if self.score:
            found["top_1"] = self.score.right / self.score.count
            found["top_1_drop"] = self.score.drop
        return found


@dataclasses.dataclass(frozen=True)
class WithBudget(Tolerance):
    """A budget for the task's own output, and a format's tolerance for the others.

    Attributes:
      others: the format's tolerance, which binds the task's own output too.
    """

    others: Tolerance

    def of(self, output: Output, image_size: tuple[int, int] | None) -> Tolerance:
        """Returns the tolerance of an output, for images of a size."""
        limits = self.others.of(output, image_size)
        if not is_main(output):
            return limits
        return Tolerance(
            min(self.max_error, limits.max_error),
            max(self.min_cosine, limits.min_cosine),
        )


def check_blocks(names: Collection[str], network: Network) -> None:
    """Refuses blocks that there are not.

    Raises:
      ExportError: a name is of no block that has weights.
    """
    known = _with_weights(network)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ExportError(
            f"unknown block {', '.join(map(repr, unknown))}; there are: "
            f"{', '.join(known)}"
        )


def meet(
    build: Build,
    row: Format,
    task: Task,
    record: Callable[[Build], Record],
    budget: Budget,
    reference: Reference,
    parity_images: ParityImages,
    scratch: Path,
    at: Callable[[str], None],
) -> list[Trial]:
    """Tries choices of blocks until one meets a budget with as few as possible.

    Args:
      build: whose options name blocks that stay in float in any case.
      row: a format in integers.
      task: what for.
      record: what the artifact of a build says about itself.
      budget: what is asked.
      reference: what to compare with.
      parity_images: what to compare on.
      scratch: directory for the artifacts that are tried.
      at: told what is done.

    Returns:
      The trials, by the number of blocks that stay in float. The first that is enough,
      if there is one, is the choice.
    """
    given = build.options.keep_float
    candidates = _candidates(row, build, task)

    def trial(blocks: Collection[str], *, is_scored: bool = True) -> Trial:
        kept = (*given, *(name for name in candidates if name in blocks))
        changed = build.keeping_float(kept)
        path = scratch / f"trial{row.container.suffix}"
        of_trial = row.with_options(changed.options.recorded(row.options))
        of_trial.write(changed, task, record(changed), path)
        artifact, _ = open_artifact(path, {row.name: row})
        with artifact:
            found = parity.compare_main(
                artifact, reference, parity_images, budget.output
            )
            image = parity_images.batches(artifact.image_size)[0][:1]
            milliseconds = min(_milliseconds(artifact.predict, image))
        score = None
        if budget.labelled and is_scored:
            score = budget.labelled.score(path, row, _counted(at))
        path.unlink()
        return Trial(kept, found, milliseconds, score)

    at("quantize all blocks")
    trials = {0: trial(())}
    if trials[0].is_enough or not candidates:
        return [trials[0]]
    alone = {}
    for number, name in enumerate(candidates, start=1):
        at(f"quantize {name} alone ({number} of {len(candidates)})")
        others = set(candidates) - {name}
        alone[name] = trial(others, is_scored=False).output.relative_error
    worst = sorted(candidates, key=lambda name: -alone[name])

    def is_enough(count: int) -> bool:
        at(f"keep {count} of {len(worst)} blocks in float")
        trials[count] = trial(worst[:count])
        return trials[count].is_enough

    too_few, count = 0, 1
    while not is_enough(count) and count < len(worst):
        too_few, count = count, min(2 * count, len(worst))
    while trials[count].is_enough and count - too_few > 1:
        middle = (too_few + count) // 2
        if is_enough(middle):
            count = middle
        else:
            too_few = middle
    return [trials[number] for number in sorted(trials)]


def choice(trials: Sequence[Trial]) -> Trial:
    """The first trial that is enough, or the best if none is."""
    enough = (trial for trial in trials if trial.is_enough)
    return next(enough, min(trials, key=_distance))


def _distance(trial: Trial) -> tuple[float, float]:
    """How far a trial is from its budget: by labels first, then by its error."""
    score = trial.score
    missing = max(0.0, score.drop - score.max_drop) if score else 0.0
    return missing, trial.output.relative_error


def unmet(trials: Sequence[Trial]) -> str:
    """Says in words how near a budget was met, when it was not."""
    best = choice(trials)
    found = [best.output.in_words()]
    if best.score:
        found.append(best.score.in_words())
    return (
        f"the budget cannot be met: of {len(trials)} choices the best, with "
        f"{len(best.keep_float)} blocks in float, has {' and '.join(found)}"
    )


def _counted(at: Callable[[str], None]) -> Progress:
    """Returns what tells how many images were classified."""

    def progress(event: Any) -> None:
        if isinstance(event, Step) and event.unit == "images":
            at(f"classify {event.done} of {event.total} images")

    return progress


def _milliseconds(predict: Callable, image: Any) -> Iterator[float]:
    for _ in range(_RUNS):
        start = time.perf_counter()
        predict(image)
        yield (time.perf_counter() - start) * 1000


def _candidates(row: Format, build: Build, task: Task) -> list[str]:
    """The blocks that are in integers, unless something else is chosen."""
    precision = row.with_options(build.options.recorded(row.options)).precision
    assert precision is not None
    network = build.network.up_to([task.endpoint])
    in_float = precision.float_layers(network)
    return [
        name
        for name, layers in _with_weights(network).items()
        if not in_float.issuperset(layers)
    ]


def _with_weights(network: Network) -> dict[str, tuple[str, ...]]:
    weighted = {layer.name for layer in network.weighted}
    return {
        name: layers
        for name, layers in network.blocks.items()
        if not weighted.isdisjoint(layers)
    }
