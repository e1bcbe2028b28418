"""Comparing what was written: here, or in a second process while the next is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from exporters import parity
from exporters.budget import WithBudget
from exporters.formats import FORMATS, Format, open_artifact
from exporters.network.tasks import TASKS, Task
from exporters.parity import ParityImages, ParityReport, Tolerance
from exporters.reference import Reference
from exporters.second_process import SecondProcess
from exporters.test_vectors import TestVectors

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Compared:
    """What came of comparing an artifact.

    Attributes:
      report: the comparison.
      vectors: for runtimes elsewhere, if there are some.
      seconds: that it took.
    """

    report: ParityReport
    vectors: TestVectors | None
    seconds: float


def compare(
    reference: Reference,
    parity_images: ParityImages,
    path: Path,
    row: Format,
    task: Task,
    labels: Sequence[str] | None,
    budget: Tolerance | None,
) -> Compared:
    """Compares an artifact that was just written.

    Args:
      reference: the checkpoint's network.
      parity_images: what to run both on.
      path: the artifact.
      row: its format, and how the options change that.
      task: what it should be for.
      labels: names of its classes, if it has some.
      budget: what is asked of the task's own output, if less than what the format asks.
    """
    start = time.monotonic()
    artifact, found = open_artifact(path, {row.name: row})
    with artifact:
        tolerance = found.tolerance
        if budget:
            tolerance = WithBudget(budget.max_error, budget.min_cosine, tolerance)
        report = parity.compare(
            artifact, reference, parity_images, tolerance, found.precision, labels
        )
    if artifact.task.name != task.name:
        problem = f"it is for {artifact.task.name}"
        report = dataclasses.replace(report, problems=(*report.problems, problem))
    vectors = None
    if row.container.has_test_vectors:
        batch = parity_images.batches(artifact.image_size)[0]
        output = next(iter(artifact.outputs.values()))
        expected = reference.outputs(batch, [output.value])[output.value]
        vectors = TestVectors(batch, expected, output.step)
    return Compared(report, vectors, time.monotonic() - start)


def compare_by_names(
    reference: Reference,
    parity_images: ParityImages,
    path: Path,
    format_name: str,
    options: Mapping[str, Any],
    task_name: str,
    labels: Sequence[str] | None,
) -> Compared:
    """Does so in a process that has only the names of what there is in tables."""
    row = FORMATS[format_name].with_options(options)
    return compare(reference, parity_images, path, row, TASKS[task_name], labels, None)


def prepare(
    reference: Reference,
    parity_images: ParityImages,
    format_names: Sequence[str],
    image_size: tuple[int, int] | None,
) -> None:
    """Computes what artifacts will be compared with, and keeps it.

    Args:
      reference: the checkpoint's network.
      parity_images: what to run it on.
      format_names: of the artifacts.
      image_size: what those take that have a choice.
    """
    for row in map(FORMATS.__getitem__, format_names):
        if row.needs_auxiliary_head:  # Its outputs are not kept.
            continue
        size = image_size if "image_size" in row.options else row.fixed_image_size
        prepare_batches(reference, parity_images, size, is_training=False)
        if row.container.can_train:
            prepare_batches(reference, parity_images, size, is_training=True)
        if row.precision and row.precision.activations == "int8":
            reference.activations(parity_images.batches(size)[0])


def prepare_batches(
    reference: Reference,
    parity_images: ParityImages,
    image_size: tuple[int, int] | None,
    is_training: bool,
) -> None:
    """Computes what outputs at a size, or at any, are compared with; keeps it.

    Args:
      reference: the checkpoint's network.
      parity_images: what to run it on.
      image_size: (height, width), None for any.
      is_training: whether what training gives, or what evaluation does.
    """
    for batch in parity_images.batches(image_size):
        if reference.has_room_for(batch):
            reference.outputs(batch, ["feature_vector"], is_training=is_training)


class Comparison(Generic[T]):
    """A comparison that a second process may do."""

    def __init__(self, here: Callable[[], T]) -> None:
        """Takes what does it here."""
        self._here = here
        self._elsewhere: Future[T] | None = None
        self._begun: Callable[[], None] | None = None

    def start(
        self,
        second: SecondProcess,
        path: Path,
        function: Callable[..., T],
        *arguments: Any,
        begun: Callable[[], None],
    ) -> None:
        """Has the second process do it, when it comes to it.

        Args:
          second: the process.
          path: the artifact.
          function: what does it there.
          arguments: of the function, beside the reference and the images.
          begun: called by `tell` once the process is at it.
        """
        self._elsewhere = second.submit(path, function, path, *arguments)
        self._begun = begun

    def tell(self) -> None:
        """Tells if the second process has come to it."""
        if self._begun and self._elsewhere and self._elsewhere.running():
            self._begun()
            self._begun = None

    @property
    def waits(self) -> bool:
        """Whether the second process has it, and has not done it yet."""
        return self._elsewhere is not None and not self._elsewhere.done()

    def result(self) -> T:
        """Returns what came of it; does it here if the second process has not begun."""
        if self._elsewhere is None or self._elsewhere.cancel():
            return self._here()
        self.tell()
        return self._elsewhere.result()


Work: TypeAlias = Generator[Comparison[T], None, R]
"""Yields a comparison that it needs the result of, then goes on, and returns something."""


def results(works: Iterable[Work[T, R]]) -> list[R]:
    """Does work after work, as far as each goes without what a second process does.

    Args:
      works: in their order; each begins when it is come to.

    Returns:
      What each returned, in their order.
    """
    done: dict[int, R] = {}
    begun: dict[int, tuple[Work[T, R], Comparison[T]]] = {}

    def go_on(number: int, work: Work[T, R]) -> None:
        try:
            begun[number] = work, next(work)
        except StopIteration as end:
            done[number] = end.value

    def go_on_where_none_waits() -> None:
        for number, (work, comparison) in list(begun.items()):
            comparison.tell()
            if not comparison.waits:
                del begun[number]
                go_on(number, work)

    try:
        for number, work in enumerate(works):
            go_on(number, work)
            go_on_where_none_waits()
        go_on_where_none_waits()
        while begun:
            # What was told last comes last in the second process, so it is done here.
            number, (work, _) = begun.popitem()
            go_on(number, work)
            go_on_where_none_waits()
    finally:
        for work, _ in begun.values():
            work.close()
    return [done[number] for number in sorted(done)]
