"""Quantizing to a budget: which blocks stay in float, so that the rest may be integers?

The blocks that add most error by themselves stay, as few as the budget allows. Whatever is
said of a choice was measured on the artifact that it gives, in its own runtime.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from exporters import parity
from exporters.artifact import Output
from exporters.build import Build
from exporters.errors import ExportError
from exporters.formats import Format, open_artifact
from exporters.network.layers import Network
from exporters.network.tasks import Task
from exporters.parity import OutputParity, ParityImages, Tolerance, is_main
from exporters.record import Record
from exporters.reference import Reference

_RUNS = 3
"""Of which the fastest counts."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What some choice of blocks gives.

    Attributes:
      keep_float: the blocks that stay in float.
      output: how the task's own output agrees; its tolerance is the budget.
      milliseconds: that its runtime takes for an image, on this machine, now.
    """

    keep_float: tuple[str, ...]
    output: OutputParity
    milliseconds: float

    @property
    def is_enough(self) -> bool:
        """Whether the budget is met."""
        return self.output.passed

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON values, without what differs from run to run."""
        return {
            "keep_float": list(self.keep_float),
            "relative_error": self.output.relative_error,
            "cosine": self.output.cosine,
        }


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
    budget: Tolerance,
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
      budget: what is asked of the task's own output.
      reference: what to compare with.
      parity_images: what to compare on.
      scratch: directory for the artifacts that are tried.
      at: told what is done.

    Returns:
      The trials, by the number of blocks that stay in float. The first that is enough,
      if there is one, is the choice.
    """
    given = build.options.keep_float
    candidates = _candidates(row, given, build.network.up_to([task.endpoint]))

    def trial(blocks: Collection[str]) -> Trial:
        kept = (*given, *(name for name in candidates if name in blocks))
        changed = build.keeping_float(kept)
        path = scratch / f"trial{row.container.suffix}"
        of_trial = row.with_options({"keep_float": kept})
        of_trial.write(changed, task, record(changed), path)
        artifact, _ = open_artifact(path, {row.name: row})
        with artifact:
            found = parity.compare_main(artifact, reference, parity_images, budget)
            image = parity_images.batches(artifact.image_size)[0][:1]
            milliseconds = min(_milliseconds(artifact.predict, image))
        path.unlink()
        return Trial(kept, found, milliseconds)

    at("quantize all blocks")
    trials = {0: trial(())}
    if trials[0].is_enough or not candidates:
        return [trials[0]]
    alone = {}
    for number, name in enumerate(candidates, start=1):
        at(f"quantize {name} alone ({number} of {len(candidates)})")
        alone[name] = trial(set(candidates) - {name}).output.relative_error
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
    return next(enough, min(trials, key=lambda trial: trial.output.relative_error))


def unmet(trials: Sequence[Trial]) -> str:
    """Says in words how near a budget was met, when it was not."""
    best = choice(trials)
    return (
        f"the budget cannot be met: of {len(trials)} choices the best, with "
        f"{len(best.keep_float)} blocks in float, has {best.output.in_words()}"
    )


def _milliseconds(predict: Callable, image: Any) -> Iterator[float]:
    for _ in range(_RUNS):
        start = time.perf_counter()
        predict(image)
        yield (time.perf_counter() - start) * 1000


def _candidates(row: Format, given: tuple[str, ...], network: Network) -> list[str]:
    """The blocks that are in integers, unless something else is chosen."""
    precision = row.with_options({"keep_float": given}).precision
    assert precision is not None
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
