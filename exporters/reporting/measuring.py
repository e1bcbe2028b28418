"""What a page says of one artifact: errors number by number, classes, time, depth."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from exporters import parity
from exporters.artifact import OpenedArtifact
from exporters.errors import ArtifactError
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.parity import ParityImages
from exporters.reference import Reference
from exporters.reporting import depth
from exporters.reporting.depth import Depth

Size = tuple[int, int]

_TOP = 5
_SHARES = (0.5, 0.9, 0.99, 1.0)
_BINS = 41
_SAMPLED = 300
"""Numbers that are drawn; more would hide each other."""
_LEAST_SECONDS, _LEAST_RUNS, _MOST_RUNS = 1.0, 5, 100


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A class that is named, and its probability."""

    number: int
    name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """What an artifact makes of one image.

    Attributes:
      cosine: of its output and TF-Slim's.
      error: largest difference, relative to the largest magnitude over all images.
      top: the five classes named first; none of features.
    """

    cosine: float
    error: float
    top: tuple[Ranked, ...] = ()


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one image takes, in seconds, on this machine.

    Attributes:
      median: of all runs.
      fastest: run.
      slowest: run.
      runs: how many.
    """

    median: float
    fastest: float
    slowest: float
    runs: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of one artifact.

    Attributes:
      size: (height, width) of the images.
      output: name of the output.
      images: a result for each image, in their order.
      magnitude: the largest of TF-Slim's output.
      shares: share of all numbers -> the error that so many do not exceed, relative to
        `magnitude`.
      counts: of errors, relative to `magnitude`, in bins of the same width.
      edges: of these bins.
      sample: (TF-Slim's number, the artifact's), of some numbers, the worst among them.
      latency: where it was asked for.
      depth: error through the depth, where the artifact is rounded and can be cut.
    """

    size: Size
    output: str
    images: tuple[ImageResult, ...]
    magnitude: float
    shares: Mapping[str, float]
    counts: tuple[int, ...]
    edges: tuple[float, ...]
    sample: tuple[tuple[float, float], ...]
    latency: Latency | None = None
    depth: Depth | None = None


def batch_of(images: ParityImages, size: Size | None) -> np.ndarray:
    """Returns the images, in one batch, of the size that an artifact takes.

    Args:
      images: to compare on.
      size: (height, width); 299 x 299 for None.

    Returns:
      float32 [8, height, width, 3] in [0, 1].
    """
    batches = images.batches(size or (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE))
    return batches[0] if len(batches) == 1 else np.concatenate(batches)


def measure(
    artifact: OpenedArtifact,
    reference: Reference,
    batch: np.ndarray,
    names: Sequence[str] | None,
    *,
    with_latency: bool = False,
    with_depth: bool = False,
) -> Measurement:
    """Runs an artifact on images, and compares what it gives number by number.

    Args:
      artifact: opened.
      reference: the checkpoint's network.
      batch: float32 [count, height, width, 3] in [0, 1], of a size that it takes.
      names: of all classes; None if they have none.
      with_latency: whether to measure how long an image takes.
      with_depth: whether to measure errors through the depth.

    Raises:
      ArtifactError: it cannot be run on these images.
      MissingLibraryError: it needs a library that is not there.
    """
    name, output = next(iter(artifact.outputs.items()))
    expected = reference.outputs(batch, [output.value])[output.value]
    has_classes = parity.is_classes(output)
    if has_classes:
        expected = expected[..., artifact.first_class :]
    found = np.asarray(artifact.predict(batch), np.float64)
    if found.shape != expected.shape:
        raise ArtifactError(
            f"{name} has the shape {list(found.shape)}. Expected {list(expected.shape)}."
        )
    if not np.isfinite(found).all() or not np.isfinite(expected).all():
        raise ArtifactError(
            f"{int((~np.isfinite(found)).sum())} numbers of {name} are not finite, and "
            f"{int((~np.isfinite(expected)).sum())} of TF-Slim's."
        )
    differences = found - expected
    magnitude = float(np.abs(expected).max()) or 1.0
    errors = np.abs(differences) / magnitude
    latency = _latency(artifact, batch[:1]) if with_latency else None
    is_probability = output.value == "probabilities"
    return Measurement(
        size=(batch.shape[1], batch.shape[2]),
        output=name,
        images=tuple(
            ImageResult(
                parity.cosine(e, f),
                float(error.max()),
                top(f, names, artifact.first_class, is_probability)
                if has_classes
                else (),
            )
            for e, f, error in zip(expected, found, errors)
        ),
        magnitude=magnitude,
        shares={f"{s:.0%}": float(np.quantile(errors, s)) for s in _SHARES},
        **_histogram(differences / magnitude),
        sample=_sample(expected.ravel(), found.ravel()),
        latency=latency,
        depth=depth.measure(artifact, reference, batch) if with_depth else None,
    )


def top(
    logits: np.ndarray,
    names: Sequence[str] | None,
    first_class: int = 0,
    is_probability: bool = False,
) -> tuple[Ranked, ...]:
    """Returns the five classes named first.

    Args:
      logits: of one image, or its probabilities.
      names: of all classes; None if they have none.
      first_class: number of the first of the logits.
      is_probability: whether they are probabilities.
    """
    values = np.asarray(logits, np.float64)
    if not is_probability:
        exponentials = np.exp(values - values.max())
        values = exponentials / exponentials.sum()
    order = np.argsort(-np.asarray(logits, np.float64), kind="stable")[:_TOP]
    numbers = [int(index) + first_class for index in order]
    return tuple(
        Ranked(number, names[number] if names else str(number), float(values[index]))
        for number, index in zip(numbers, order)
    )


def _histogram(errors: np.ndarray) -> dict[str, tuple]:
    """Returns the counts of errors in bins around 0, and the edges of these."""
    limit = float(np.abs(errors).max()) or 1e-12
    counts, edges = np.histogram(errors, _BINS, (-limit, limit))
    return {"counts": tuple(counts.tolist()), "edges": tuple(edges.tolist())}


def _sample(expected: np.ndarray, found: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Returns some pairs of numbers: the worst, and others at random."""
    worst = np.argsort(-np.abs(found - expected), kind="stable")[: _SAMPLED // 10]
    others = np.random.default_rng(0).permutation(len(expected))[:_SAMPLED]
    chosen = list(dict.fromkeys([*worst.tolist(), *others.tolist()]))[:_SAMPLED]
    return tuple((float(expected[i]), float(found[i])) for i in chosen)


def _latency(artifact: OpenedArtifact, image: np.ndarray) -> Latency:
    artifact.predict(image)  # The first run prepares what later ones use.
    seconds: list[float] = []
    while len(seconds) < _LEAST_RUNS or (
        sum(seconds) < _LEAST_SECONDS and len(seconds) < _MOST_RUNS
    ):
        start = time.perf_counter()
        artifact.predict(image)
        seconds.append(time.perf_counter() - start)
    return Latency(statistics.median(seconds), min(seconds), max(seconds), len(seconds))
