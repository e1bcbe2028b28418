"""Images read ahead, in batches, while the network is busy with those before."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures

import numpy as np

from exporters import images as image_files
from exporters.engines import cores
from exporters.evaluation.datasets import Example
from exporters.images import ImageError

Size = tuple[int, int]

_MOST_THREADS = 8
_BATCHES_AHEAD = 3


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some images, preprocessed as TF-Slim does.

    Attributes:
      positions: of those that could be read, in the sequence of examples.
      images: (height, width) -> float32 [count, height, width, 3] in [0, 1].
      problems: position of each other -> why it cannot be read.
      end: the position behind the last.
    """

    positions: Sequence[int]
    images: Mapping[Size, np.ndarray]
    problems: Mapping[int, str]
    end: int


def read(
    examples: Sequence[Example],
    positions: Iterable[int],
    sizes: Collection[Size],
    batch_size: int,
) -> Iterator[Batch]:
    """Reads images in order; so many are in memory at a time, and no more.

    Args:
      examples: all images.
      positions: of those to read, ascending.
      sizes: (height, width), in which each is wanted.
      batch_size: number of images in a batch, readable or not; the last has fewer.
    """
    threads = min(cores(), _MOST_THREADS)
    positions = iter(positions)
    with futures.ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[tuple[int, futures.Future]] = collections.deque()
        try:
            while True:
                room = _BATCHES_AHEAD * batch_size - len(pending)
                for position in itertools.islice(positions, room):
                    task = pool.submit(_read, examples[position], sizes)
                    pending.append((position, task))
                if not pending:
                    return
                count = min(batch_size, len(pending))
                yield _batch([pending.popleft() for _ in range(count)], sizes)
        finally:
            for _, task in pending:
                task.cancel()


def _read(example: Example, sizes: Collection[Size]) -> dict[Size, np.ndarray] | str:
    """Returns an image in all sizes; or why it cannot be read."""
    try:
        pixels = image_files.decode(example.content(), example.name)
    except ImageError as error:
        return str(error)
    return {size: image_files.preprocess(pixels, *size) for size in sizes}


def _batch(
    pending: Sequence[tuple[int, futures.Future]], sizes: Collection[Size]
) -> Batch:
    done = [(position, task.result()) for position, task in pending]
    problems = {position: x for position, x in done if isinstance(x, str)}
    found = [(position, x) for position, x in done if not isinstance(x, str)]
    images = {}
    if found:
        images = {size: np.stack([x[size] for _, x in found]) for size in sizes}
    return Batch([position for position, _ in found], images, problems, done[-1][0] + 1)
