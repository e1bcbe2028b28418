"""Passes over images: which classes do models name, and which vectors do they give?"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.evaluation import batches, models
from exporters.evaluation import state as states
from exporters.evaluation.batches import Size
from exporters.evaluation.datasets import Example
from exporters.evaluation.locations import size_of
from exporters.evaluation.models import Model
from exporters.evaluation.state import NO_NUMBERS, State
from exporters.evaluation.tfrecords import Place
from exporters.evaluation.vectors import Vectors
from exporters.progress import Note, Progress, Step

_SECONDS_BETWEEN_STATES = 10


@dataclasses.dataclass(frozen=True)
class Run:
    """A pass over images.

    Attributes:
      examples: the images.
      classes: int64 [count], the class of each; -1 of those that are not run.
      models: what they are run through.
      batch_size: number of images that are run together.
      progress: told what is done.
    """

    examples: Sequence[Example]
    classes: np.ndarray
    models: Sequence[Model]
    batch_size: int
    progress: Progress

    def new_state(self) -> State:
        """A state in which nothing is done."""
        return State.new(self.fingerprint(), len(self.models), len(self.examples))

    def resume(self, path: Path | None) -> State:
        """Goes on from where the state in a file is, to the end.

        Raises:
          EvaluationError: the file is no state, or one of another evaluation.
          OSError: it cannot be read or written.
        """
        examples = self.examples
        state = self.new_state()
        if path is not None and path.exists():
            state = states.load(
                path, state.fingerprint, len(self.models), len(examples)
            )
            if state.finished:
                self.progress(
                    Note(
                        f"{state.finished} of {len(examples)} images were done before."
                    )
                )
        if state.finished == len(examples):
            return state
        try:
            self.run(state, path)
        finally:
            if path:
                state.save(path)
        return state

    def fingerprint(self) -> str:
        """A digest of the models, the images and their classes."""
        return states.fingerprint(
            itertools.chain(
                ((m.digest, m.engine, m.image_size) for m in self.models),
                (
                    (x.name, int(number), _size(x))
                    for x, number in zip(self.examples, self.classes)
                ),
            )
        )

    def run(self, state: State, path: Path | None = None) -> None:
        """Goes on to the end, and keeps the state in a file from time to time."""
        count = len(self.examples)
        positions = [
            position
            for position in range(state.finished, count)
            if self.classes[position] >= 0
        ]
        sizes = {model.image_size for model in self.models}
        last_saved = time.monotonic()
        for batch in batches.read(self.examples, positions, sizes, self.batch_size):
            found = [
                self._top(number, model, batch.images, state.errors)
                if batch.positions
                else None
                for number, model in enumerate(self.models)
            ]
            # From here on the state is changed; before, an interruption leaves it.
            for number, top in enumerate(found):
                if top is not None:
                    state.top[number, batch.positions] = top
            state.problems.update(batch.problems)
            state.finished = batch.end
            self.progress(
                Step("evaluate", done=state.finished, total=count, unit="images")
            )
            if path and time.monotonic() > last_saved + _SECONDS_BETWEEN_STATES:
                state.save(path)
                last_saved = time.monotonic()
        state.finished = count

    def _top(
        self,
        number: int,
        model: Model,
        images: Mapping[Size, np.ndarray],
        errors: dict[int, str],
    ) -> np.ndarray | None:
        """Returns the classes that a model names first, int32 [batch, 5]."""
        if number in errors:
            return None
        try:
            logits = model.run(images[model.image_size])
        except models.TROUBLES as error:
            errors[number] = str(error)
            return None
        return top_classes(logits, model.first_class)


def _size(example: Example) -> int:
    if isinstance(example.source, Place):
        return example.source.size
    with contextlib.suppress(OSError):  # Such as a link to nowhere.
        return size_of(example.source)
    return -1


def top_classes(logits: np.ndarray, first_class: int = 0) -> np.ndarray:
    """Returns the five classes with the largest logits, the largest first.

    Of equal logits, the class with the lower number comes first.

    Args:
      logits: [batch, classes].
      first_class: the number of the first of these classes.

    Returns:
      int32 [batch, 5]; NO_NUMBERS where there are fewer classes, and for images whose
      logits are not finite.
    """
    order = np.argsort(-logits, axis=1, kind="stable")[:, : states.MOST] + first_class
    result = np.full((len(logits), states.MOST), NO_NUMBERS, np.int32)
    result[:, : order.shape[1]] = order
    result[~np.isfinite(logits).all(axis=1)] = NO_NUMBERS
    return result


@dataclasses.dataclass(frozen=True)
class VectorRun:
    """A pass over images that makes vectors.

    Attributes:
      examples: the images.
      model: which makes them.
      source: what they are of.
      batch_size: number of images that are run together.
      progress: told what is done.
    """

    examples: Sequence[Example]
    model: Model
    source: Mapping[str, Any]
    batch_size: int
    progress: Progress

    def parts(
        self, positions: Sequence[int], part_size: int, unreadable: dict[str, str]
    ) -> Iterator[Vectors]:
        """Yields parts of at most `part_size` images; notes what cannot be read."""
        names: list[str] = []
        rows: list[np.ndarray] = []
        size = self.model.image_size
        done = 0
        reading = batches.read(self.examples, positions, [size], self.batch_size)
        try:
            for batch in reading:
                if batch.positions:
                    rows += list(self.model.run(batch.images[size]).astype(np.float32))
                    names += [self.examples[number].name for number in batch.positions]
                for position, why in batch.problems.items():
                    unreadable[self.examples[position].name] = why
                done += len(batch.positions) + len(batch.problems)
                self.progress(
                    Step("features", done=done, total=len(positions), unit="images")
                )
                while len(names) >= part_size:
                    values = np.stack(rows[:part_size])
                    part = Vectors(names[:part_size], values, self.source)
                    # At once: an interruption keeps the rest, each by its own name.
                    names, rows = names[part_size:], rows[part_size:]
                    yield part
        except KeyboardInterrupt:
            if names:
                yield Vectors(names, np.stack(rows[: len(names)]), self.source)
            raise
        if names:
            yield Vectors(names, np.stack(rows), self.source)
