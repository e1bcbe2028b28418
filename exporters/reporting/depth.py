"""Error through the depth of the network: where does an artifact lose exactness?

The artifact itself is cut behind each layer that everything passes through (`Sections`),
and run by its own library. What it computes there is compared with TF-Slim's network,
twice: as the whole artifact has it, with all that was lost before; and as each section
has it whose input is taken from TF-Slim's network, with what that section loses alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from exporters import parity
from exporters.artifact import OpenedArtifact
from exporters.reference import Reference


@dataclasses.dataclass(frozen=True)
class Deviation:
    """How far the output of a layer is from TF-Slim's, over some images.

    Attributes:
      error: root mean square of the difference, relative to that of TF-Slim's output;
        infinite where there are numbers that are not finite.
      cosine: of an image's output and TF-Slim's, in the worst image.
    """

    error: float
    cosine: float


@dataclasses.dataclass(frozen=True)
class DepthPoint:
    """A layer that everything passes through.

    Attributes:
      title: the endpoint that it is, or its block.
      accumulated: of what the whole artifact computes up to here.
      own: of what the section before it makes of TF-Slim's output of the point before.
        It takes and gives what the artifact does there, rounded where that is.
    """

    title: str
    accumulated: Deviation
    own: Deviation


@dataclasses.dataclass(frozen=True)
class Depth:
    """Error through the depth of an artifact.

    Attributes:
      points: from first to last.
      images: number of images that it was measured on.
      size: (height, width) of these.
      difference: by how much, at most, the output of the artifact that shows its inside
        differs from that of the artifact as it is.
    """

    points: tuple[DepthPoint, ...]
    images: int
    size: tuple[int, int]
    difference: float


def measure(
    artifact: OpenedArtifact, reference: Reference, images: np.ndarray
) -> Depth | None:
    """Compares all that an artifact computes between blocks with TF-Slim's network.

    Args:
      artifact: opened.
      reference: the checkpoint's network.
      images: float32 [count, height, width, 3] in [0, 1], of a size that it takes.

    Returns:
      The errors; None if the artifact's format cannot be cut.
    """
    if artifact.sections is None:
        return None
    network = reference.network.up_to([artifact.task.endpoint, *_shown(artifact)])
    sections = artifact.sections(network.cuts)
    accumulated = {layer: _Sums() for layer in sections.layers}
    own = {layer: _Sums() for layer in sections.layers}
    difference = 0.0
    for number in range(len(images)):  # One by one: all layers take much memory.
        image = images[number : number + 1]
        expected = reference.layers(image, sections.layers)
        through = sections.through(image)
        apart = sections.apart(image, expected)
        for layer in sections.layers:
            accumulated[layer].add(expected[layer], through[layer])
            own[layer].add(expected[layer], apart[layer])
        last = through[sections.layers[-1]]
        found = artifact.predict(image)
        difference = max(difference, float(np.abs(found - last).max()))
    return Depth(
        points=tuple(
            DepthPoint(
                network.title(layer),
                accumulated[layer].deviation(),
                own[layer].deviation(),
            )
            for layer in sections.layers
        ),
        images=len(images),
        size=(images.shape[1], images.shape[2]),
        difference=difference,
    )


def _shown(artifact: OpenedArtifact) -> Sequence[str]:
    """The probabilities, where the artifact gives them."""
    values = {output.value for output in artifact.outputs.values()}
    return ["Predictions"] if "probabilities" in values else []


class _Sums:
    """What deviations are made of."""

    def __init__(self) -> None:
        self._difference = 0.0
        self._magnitude = 0.0
        self._cosine = 1.0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        e, f = expected.ravel().astype(np.float64), found.ravel().astype(np.float64)
        if not np.isfinite(f).all():
            self._difference, self._cosine = np.inf, -1.0
            return
        self._difference += float(((f - e) ** 2).sum())
        self._magnitude += float((e**2).sum())
        self._cosine = min(self._cosine, parity.cosine(e, f))

    def deviation(self) -> Deviation:
        difference = np.sqrt(self._difference)
        magnitude = np.sqrt(self._magnitude)
        return Deviation(
            float(difference / magnitude if magnitude else difference), self._cosine
        )
