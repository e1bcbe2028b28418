"""Test vectors: images and what an artifact should make of them, as .npy files.

For runtimes that are not here: a program in C++, Java or JavaScript reads them, and
compares what it computes on its own device.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters import cards
from exporters.artifact import Output
from exporters.formats import Format

COUNT = 2
IMAGES = "images"
MAX_ERROR, MIN_COSINE = "max_error", "min_cosine"
_LEAST = 1e-12
"""Of probabilities, below which their logarithms say nothing."""


def write(
    directory: Path,
    row: Format,
    described: Mapping[str, Any],
    images: np.ndarray,
    expected: np.ndarray,
) -> None:
    """Writes the vectors of an artifact to a new directory.

    - `images.npy`: the input, in the artifact's own layout, range and type; one image
      after the other for artifacts that take one at a time;
    - `<output>.npy`: float32, what TF-Slim's network makes of them. Integers of an
      artifact are to be made numbers before they are compared;
    - `max_error.npy`: float32 [], the largest absolute difference allowed;
    - `min_cosine.npy`: float32 [], the smallest cosine allowed for an image.

    Args:
      directory: where to.
      row: the artifact's format.
      described: its manifest.
      images: float32 [count, height, width, 3] in [0, 1], of which the first are taken.
      expected: float32 [count, numbers], what the network makes of these.
    """
    images = images[:COUNT]
    output = Output(cards.output_name(described))
    tolerance = row.tolerance.of(output, (images.shape[1], images.shape[2]))
    max_error, min_cosine = tolerance.max_error, tolerance.min_cosine
    if output.value == "probabilities":
        # Limits are for logits. Two of them that are off by d change the share of a class
        # by a factor of exp(2 d) at most.
        largest = float(np.abs(np.log(np.maximum(expected, _LEAST))).max())
        factor = np.expm1(min(2 * max_error * largest, 1))
        max_error, min_cosine = min(1.0, factor * float(expected.max())), 0.0
    else:
        max_error *= float(np.abs(expected).max())
    directory.mkdir()
    arrays = {
        IMAGES: as_input(row, described, images),
        output.value: expected[:COUNT].astype(np.float32),
        MAX_ERROR: np.float32(max_error),
        MIN_COSINE: np.float32(min_cosine),
    }
    for name, values in arrays.items():
        np.save(directory / f"{name}.npy", np.ascontiguousarray(values))


def as_input(
    row: Format, described: Mapping[str, Any], images: np.ndarray
) -> np.ndarray:
    """Returns images, float32 in [0, 1] in NHWC, as an artifact takes them."""
    kind = cards.number_type(described)
    if kind != "float32":
        pixels = np.rint(images * 255).astype(np.int16)
        return (pixels - (128 if kind == "int8" else 0)).astype(kind)
    if cards.is_signed(row, described):
        images = images * 2 - 1
    if described["options"].get("nchw"):
        images = images.transpose(0, 3, 1, 2)
    return images.astype(np.float32)
